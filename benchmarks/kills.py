"""Runs that are killed again and again: ``python -m benchmarks.kills --runs DIR``.

One run of ``mtbkd fit`` for each sampler is killed by SIGKILL at random moments (while it starts, while it learns,
while it samples and writes checkpoints, which it does after every chunk of draws), and is taken up again with
``--resume`` on 1, 2 and 4 CPU devices in turn. After so many kills it may finish, and its draws are compared with those
of a run that nobody stopped. Writes ``kills.json`` beside this file, or to ``--output``; the runs stay in ``--runs``.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.options import runs_parser
from mtbkd_jax.draws import open_draws
from mtbkd_jax.storage import write_json
from mtbkd_jax.unfinished import standing_of

SAMPLERS = {"sghmc": "100", "hmc": "5"}
"""And the thinning at which a run takes about half a minute."""
NUM_DEVICES = (1, 2, 4)
NUM_DRAWS = 6_000
EARLY_SHARE = 0.25
"""Of the kills: those at a random moment of the first ten seconds. The others come once there are new draws."""


def main() -> None:
    """Kill and resume every sampler's run, print and write what came of it."""
    parser = runs_parser(str(__doc__), __file__)
    parser.add_argument("--kills", type=int, default=30)
    options = parser.parse_args()
    options.runs.mkdir(parents=True)
    data = write_data(options.runs)
    results = {sampler: kill_and_compare(data, sampler, options.kills) for sampler in SAMPLERS}
    write_json(options.output, results)
    print(results)


def write_data(folder: Path) -> Path:
    """Two classes on either side of a line, and a teacher of it."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 3)).astype(np.float32)
    labels = np.where(np.arange(60) % 2, -1, inputs[:, 0] > 0).astype(np.int32)
    np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    np.savez(folder / "teacher.npz", logits=np.stack([-inputs[:, 0], inputs[:, 0]], axis=1))
    return folder


def command_of(folder: Path, run: Path, sampler: str) -> list[str]:
    """The command that begins the run, or takes it up."""
    arguments = [
        *("fit", "--data", folder / "data.npz", "--teachers", f"line={folder / 'teacher.npz'}", "--out", run),
        *("--resume", "--checkpoint-seconds", "0", "--student.hidden", "4", "--sampling.sampler", sampler),
        *("--settings.power", "0.5", "--settings.concentration", "5", "--settings.center-scale", "inf"),
        *("--settings.wide-scale", "1", "--settings.temperature", "1", "--settings.prediction-temperature", "1"),
        *("--sampling.num-burn-in", "500", "--sampling.num-draws", NUM_DRAWS, "--sampling.thinning", SAMPLERS[sampler]),
    ]
    return [sys.executable, "-c", "from mtbkd_jax.cli import main; main()", *map(str, arguments)]


def kill_and_compare(folder: Path, sampler: str, num_kills: int) -> dict[str, Any]:
    """What became of one sampler's run."""
    whole, killed = folder / f"{sampler}_whole", folder / f"{sampler}_killed"
    start = time.perf_counter()
    subprocess.run(command_of(folder, whole, sampler), check=True, env=environment(2))
    seconds = time.perf_counter() - start
    rng = np.random.default_rng(0)
    moments: dict[str, int] = {}
    attempt = 0
    while sum(moments.values()) < num_kills:
        moment = start_and_kill(command_of(folder, killed, sampler), killed, NUM_DEVICES[attempt % 3], rng)
        if moment is None:
            break  # it was faster
        moments[moment] = moments.get(moment, 0) + 1
        print(sampler, attempt, moment, flush=True)
        attempt += 1
    subprocess.run(command_of(folder, killed, sampler), check=True, env=environment(NUM_DEVICES[attempt % 3]))
    is_equal = [np.array_equal(a, b) for a, b in zip(draws_of(killed), draws_of(whole), strict=True)]
    return {
        "kills": sum(moments.values()),
        "at": moments,
        "equal_to_the_bit": all(is_equal),
        "seconds_without_kills": seconds,
    }


def start_and_kill(command: list[str], run: Path, num_devices: int, rng: np.random.Generator) -> str | None:
    """What the run was at when it was killed; None if it came to its end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment(num_devices)) as process:
        if rng.random() < EARLY_SHARE:
            time.sleep(rng.uniform(0.0, 10.0))
        else:
            before = num_draws_of(run)
            while num_draws_of(run) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 1.0))
        if process.poll() is not None:
            return None
        process.kill()
    if not (run / "config.json").exists():
        return "start"
    standing = standing_of(run)
    if not standing.is_learned:
        return "learning"
    return "finishing" if standing.num_draws == standing.num_planned else "sampling"


def num_draws_of(run: Path) -> int:
    """Draws of each chain that are on the disk."""
    return standing_of(run).num_draws if (run / "config.json").exists() else 0


def environment(num_devices: int) -> dict[str, str]:
    """Of a process with so many CPU devices."""
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices)}


def draws_of(run: Path) -> list[np.ndarray]:
    """Every parameter's draws."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(open_draws(run / "draws").positions())]


if __name__ == "__main__":
    main()
