"""Processes that sample together: ``python -m benchmarks.processes --runs DIR``.

One ``mtbkd fit`` is run by 1, 2 and 4 processes over loopback, with one CPU device and one thread each, in three
layouts: the chains alone are shared out; the chains by two, and then the blocks of data as well; the blocks alone.
Measured are the largest difference of a parameter from the draws of the single process, where only sums were rounded in
another order, and the steps of chains that a device takes in a second: where several share a chain, a step is a part of
one for each. More processes than cores take turns, which is no loss of theirs: the number of cores is written as well.
Writes ``processes.json`` beside this file, or to ``--output``; the runs stay in ``--runs``.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.options import runs_parser
from mtbkd_jax.draws import open_draws
from mtbkd_jax.run_log import read_log
from mtbkd_jax.storage import write_json

NUMBERS_OF_PROCESSES = (1, 2, 4)
LAYOUTS = {"chains": (4, 1), "chains and data": (2, 2), "data": (1, 4)}
"""Chains, and blocks of data."""
NUM_EARLY = 100
"""Draws before a difference has had time to grow."""


def main() -> None:
    """Run, compare, print and write."""
    parser = runs_parser(str(__doc__), __file__)
    parser.add_argument("--examples", type=int, default=2_000)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--thinning", type=int, default=10)
    options = parser.parse_args()
    options.runs.mkdir(parents=True)
    write_data(options.runs, options.examples, options.features)
    arguments = [
        *("--student.hidden", str(options.hidden), "--sampling.num-draws", str(options.draws)),
        *("--sampling.thinning", str(options.thinning)),
    ]
    results: dict[str, Any] = {"cores": os.cpu_count()}
    for layout, (num_chains, num_blocks) in LAYOUTS.items():
        shared = ["--sampling.num-chains", str(num_chains), "--sampling.num-data-blocks", str(num_blocks)]
        runs = {number: options.runs / f"{layout.replace(' ', '_')}_{number}" for number in NUMBERS_OF_PROCESSES}
        results[layout] = {}
        for number, run in runs.items():
            fit(options.runs, run, number, [*arguments, *shared])
            rate = num_chains * steps_per_second(run) / number
            of_one = results[layout].get("1", {}).get("steps_per_second_and_device", rate)
            results[layout][str(number)] = {
                "steps_per_second_and_device": rate,
                "share_of_one_alone": rate / of_one,
                "largest_difference": largest_difference(run, runs[1], None),
                f"largest_difference_of_{NUM_EARLY}_draws": largest_difference(run, runs[1], NUM_EARLY),
            }
            print(layout, number, results[layout][str(number)], flush=True)
    write_json(options.output, results)


def write_data(folder: Path, num_examples: int, num_features: int) -> None:
    """Two classes on either side of a line, a third of them labelled, and a teacher of it."""
    inputs = np.random.default_rng(0).normal(size=(num_examples, num_features)).astype(np.float32)
    labels = np.where(np.arange(num_examples) % 3, -1, inputs[:, 0] > 0).astype(np.int32)
    np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    np.savez(folder / "teacher.npz", logits=np.stack([-inputs[:, 0], inputs[:, 0]], axis=1))


def fit(folder: Path, run: Path, num_processes: int, arguments: list[str]) -> None:
    """One run, by so many processes."""
    command = [
        *(sys.executable, "-c", "from mtbkd_jax.cli import main; main()", "fit", "--data", str(folder / "data.npz")),
        *("--teachers", f"line={folder / 'teacher.npz'}", "--out", str(run), "--weighting", "uniform"),
        *("--settings.power", "0.3", "--settings.concentration", "5", "--settings.center-scale", "0.1"),
        *("--settings.wide-scale", "0.3", "--settings.temperature", "1", "--settings.prediction-temperature", "1"),
        *("--sampling.num-mode-steps", "200", "--sampling.num-burn-in", "200", *arguments),
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "NPROC": "1"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    joining = [f"--processes.coordinator=127.0.0.1:{port}", f"--processes.num-processes={num_processes}"]
    started = [
        subprocess.Popen(
            [*command, *joining, f"--processes.process-id={number}"], env=environment, stdout=subprocess.DEVNULL
        )
        for number in range(num_processes)
    ]
    for number, process in enumerate(started):
        if process.wait() != 0:
            raise SystemExit(f"process {number} of {num_processes} ended with {process.returncode}")


def steps_per_second(run: Path) -> float:
    """Of every chain, over the last chunks of draws."""
    return [line["steps_per_second"] for line in read_log(run) if line.get("steps_per_second")][-1]


def largest_difference(run: Path, other: Path, num_draws: int | None) -> float:
    """Of a parameter, between the first so many draws of two runs."""
    pairs = zip(
        *(jax.tree.leaves(open_draws(path / "draws").positions(0, num_draws)) for path in (run, other)), strict=True
    )
    return max(float(np.abs(one - another).max()) for one, another in pairs)


if __name__ == "__main__":
    main()
