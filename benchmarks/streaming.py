"""Memory and speed of a run on rows of which a tenth fits in memory: ``python -m benchmarks.streaming --files DIR``.

``mtbkd fit`` samples two chains of a small student on 200,000 rows of 128 features, with a directory of teacher
outputs, once with all rows in memory and once with ``--rows-in-memory 20000``; each is a process of its own. What
learning from that many rows takes anyway is measured by a run on 20,000 rows and no more. Writes the peak resident
memory and the steps a second to ``streaming.json`` beside this file, or to ``--output``.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import PROGRAM
from mtbkd_jax.run_log import read_log
from mtbkd_jax.storage import write_json
from mtbkd_jax.teacher_writer import write_teacher_outputs

NUM_ROWS, NUM_LABELLED, NUM_FEATURES, NUM_CLASSES = 200_000, 500, 128, 10


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--files", type=Path, required=True, help="folder for the data and the runs; new")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    options.files.mkdir(parents=True)
    write_files(options.files, "all", NUM_ROWS)
    write_files(options.files, "tenth", NUM_ROWS // 10)
    results = {
        "no more rows than a tenth": measure(options.files, "tenth"),
        "all in memory": measure(options.files, "all"),
        "a tenth in memory": measure(options.files, "all", "--rows-in-memory", str(NUM_ROWS // 10)),
    }
    results |= {"bytes of the rows": NUM_ROWS * 4 * (NUM_FEATURES + NUM_CLASSES)}
    write_json(options.output, results)


def write_files(folder: Path, name: str, num_rows: int) -> None:
    """Classes by the largest of some features, and a teacher of it."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(num_rows, NUM_FEATURES)).astype(np.float32)
    logits = 2 * inputs[:, :NUM_CLASSES]
    is_labelled = np.arange(num_rows) % (num_rows // NUM_LABELLED) == 0
    labels = np.where(is_labelled, logits.argmax(1), -1).astype(np.int32)
    np.savez(folder / f"{name}.npz", inputs=inputs, labels=labels)
    ids = np.arange(num_rows)
    write_teacher_outputs(folder / f"{name}_teacher", {"teacher": logits}, ids=ids)


def measure(folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    """Peak memory in MB, seconds, and steps a second of the chains' second half, of a run of its own."""
    run = folder / f"run_{name}{''.join(arguments)}"
    options = [
        *("fit", "--data", folder / f"{name}.npz", "--teachers", folder / f"{name}_teacher", "--out", run),
        *("--student.hidden", "32", "--weighting", "entropy", "--no-standardize", "--settings.power", "0.3"),
        *("--settings.concentration", "5", "--settings.center-scale", "inf", "--settings.wide-scale", "0.3"),
        *("--settings.temperature", "1", "--settings.prediction-temperature", "1"),
        *("--sampling.num-chains", "2", "--sampling.num-mode-steps", "100", "--sampling.num-burn-in", "1000"),
        *("--sampling.num-draws", "400", "--sampling.thinning", "20"),
    ]
    command = [sys.executable, "-c", PROGRAM, *map(str, options), *arguments]
    # Compiling takes memory too: in all of them or in none.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    start = time.perf_counter()
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds = time.perf_counter() - start
    rates = [line["steps_per_second"] for line in read_log(run) if line.get("num_draws")]
    result = {
        "peak_megabytes": int(process.stdout.split()[-1]) / 1024,
        "seconds": seconds,
        "steps_per_second": float(np.median(rates[len(rates) // 2 :])),
    }
    print(name, *arguments, result, flush=True)
    return result


if __name__ == "__main__":
    main()
