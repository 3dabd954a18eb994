"""Peak memory of a run, by how many draws it keeps: ``python -m benchmarks.memory --runs DIR``.

``mtbkd fit`` samples four chains of a student of a hundred thousand parameters at a thinning of one, with 100 and with
10,000 draws of each, each in a process of its own. Draws in float32 take 16 GB on the disk and are removed again.
Writes the peak resident memory of each process to ``memory.json`` beside this file, or to ``--output``.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import runs_parser
from mtbkd_jax.storage import write_json

NUM_DRAWS = (100, 10_000)
NUM_FEATURES, HIDDEN = 139, 705
"""100,112 parameters with two classes."""

# Not `ru_maxrss`, which begins at the peak of the process that started this one.
PROGRAM = """
import re
from mtbkd_jax.cli import main
main()
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def main() -> None:
    """Measure, print and write."""
    parser = runs_parser(str(__doc__), __file__)
    parser.add_argument("--draws", nargs="+", default=["float32", "moments"], help="what is kept of a draw")
    options = parser.parse_args()
    options.runs.mkdir(parents=True)
    results: dict[str, dict[str, Any]] = {}
    for kept in options.draws:
        probes = ["--probes", str(options.runs / "data.npz")] if kept in ("predictions", "moments") else []
        of_kept = {n: measure(options.runs, n, "--draws", kept, *probes) for n in NUM_DRAWS}
        few, many = (of_kept[n]["peak_megabytes"] for n in NUM_DRAWS)
        results[kept] = {f"{n} draws": of_kept[n] for n in NUM_DRAWS} | {"difference_megabytes": many - few}
        print(kept, results[kept], flush=True)
    write_json(options.output, results)


def measure(folder: Path, num_draws: int, *arguments: str, hidden: int = HIDDEN) -> dict[str, Any]:
    """Peak memory in MB, and seconds, of a run of its own."""
    write_data(folder)
    run = folder / f"run_{num_draws}"
    command = [sys.executable, "-c", PROGRAM, *fit_arguments(folder, run, num_draws, hidden), *arguments]
    start = time.perf_counter()
    # Compiling takes memory too: in both or in neither.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds = time.perf_counter() - start
    shutil.rmtree(run)
    return {"peak_megabytes": int(process.stdout.split()[-1]) / 1024, "seconds": seconds}


def write_data(folder: Path) -> None:
    """Two classes on either side of a plane, and a teacher of it."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, NUM_FEATURES)).astype(np.float32)
    labels = np.where(np.arange(60) % 2, -1, inputs[:, 0] > 0).astype(np.int32)
    np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    np.savez(folder / "teacher.npz", logits=np.stack([-inputs[:, 0], inputs[:, 0]], axis=1))


def fit_arguments(folder: Path, run: Path, num_draws: int, hidden: int) -> list[str]:
    """Of ``mtbkd``; every setting is given, so that nothing is searched."""
    arguments = [
        *("fit", "--data", folder / "data.npz", "--teachers", f"plane={folder / 'teacher.npz'}", "--out", run),
        *("--student.hidden", hidden, "--settings.power", "0.5", "--settings.concentration", "5"),
        *("--settings.center-scale", "inf", "--settings.wide-scale", "0.1"),
        *("--settings.temperature", "1", "--settings.prediction-temperature", "1"),
        *("--sampling.num-mode-steps", "20", "--sampling.num-burn-in", "20", "--sampling.batch-size", "20"),
        *("--sampling.thinning", "1", "--sampling.num-draws", num_draws),
    ]
    return list(map(str, arguments))


if __name__ == "__main__":
    main()
