"""What a checkpoint costs: ``python -m benchmarks.checkpoints --runs DIR``.

``mtbkd fit`` samples four chains of a student of a hundred thousand parameters (that of ``benchmarks.memory``), in turn
without checkpoints and with one after every chunk of draws. What the chunks with checkpoints take longer, divided by
the default interval between two, is the share of a run that they cost. Writes medians over turns, and every turn, to
``checkpoints.json`` beside this file, or to ``--output``; the runs are removed again.
"""

import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np

from benchmarks.memory import HIDDEN, fit_arguments, write_data
from benchmarks.options import runs_parser
from mtbkd_jax.cli import Fit
from mtbkd_jax.run_log import read_log
from mtbkd_jax.storage import write_json

NUM_DRAWS, THINNING = 400, 20
NEVER = 1e9


def main() -> None:
    """Measure in turns, print and write."""
    parser = runs_parser(str(__doc__), __file__)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    options.runs.mkdir(parents=True)
    write_data(options.runs)
    turns = [(seconds_of_chunk(options.runs, NEVER), seconds_of_chunk(options.runs, 0)) for _ in range(options.turns)]
    without, with_checkpoint = np.median(turns, axis=0)
    costs = np.diff(turns, axis=1)[:, 0]
    results = {
        "seconds_of_a_chunk": float(without),
        "seconds_of_a_chunk_and_a_checkpoint": float(with_checkpoint),
        "seconds_of_a_checkpoint_by_turn": costs.tolist(),
        "share_of_a_run_at_the_default_interval": float(np.median(costs)) / Fit.checkpoint_seconds,
    }
    write_json(options.output, results)
    print(results)


def seconds_of_chunk(folder: Path, checkpoint_seconds: float) -> float:
    """Median time from one chunk of draws to the next, of a run of its own."""
    run = folder / "run"
    arguments = fit_arguments(folder, run, NUM_DRAWS, HIDDEN)
    arguments[arguments.index("--sampling.thinning") + 1] = str(THINNING)
    command = [sys.executable, "-c", "from mtbkd_jax.cli import main; main()", *arguments]
    subprocess.run([*command, "--checkpoint-seconds", str(checkpoint_seconds)], check=True, stdout=subprocess.DEVNULL)
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in read_log(run) if line.get("num_draws")]
    shutil.rmtree(run)
    return float(np.median(np.diff(times)))


if __name__ == "__main__":
    main()
