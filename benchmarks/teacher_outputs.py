"""What a directory of teacher outputs costs: ``python -m benchmarks.teacher_outputs --out DIR``.

Five teachers, 100,000 examples, 10 classes, written through adapters in batches, verified and opened, in a process of
its own for each size of batch. The teachers take next to no time themselves. Writes seconds and peak resident memory to
``teacher_outputs.json`` beside this file, or to ``--output``.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mtbkd_jax.storage import write_json

BATCH_SIZES = (64, 4096)

PROGRAM = """
import json, re, sys, time
import numpy as np
from mtbkd_jax.adapters import from_callable, make_questions, teach
from mtbkd_jax.teachers import open_teacher_outputs

def peak_megabytes():
    # Of this program alone; getrusage counts what the process was before, a copy of its parent.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

path, batch_size, num_examples = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
imported = peak_megabytes()
rng = np.random.default_rng(0)
inputs = rng.normal(size=(num_examples, 10)).astype(np.float32)
teachers = {f"teacher {k}": from_callable(lambda rows, k=k: rows * (k + 1), kind="logits") for k in range(5)}
times = [time.perf_counter()]
questions = make_questions(inputs, ids=np.char.add("example ", np.arange(num_examples).astype(str)))
teach(path, teachers, questions, batch_size=batch_size)
times.append(time.perf_counter())
open_teacher_outputs(path).verify()
times.append(time.perf_counter())
outputs = open_teacher_outputs(path)
times.append(time.perf_counter())
written, verified, opened = np.diff(times).tolist()
print(json.dumps({
    "seconds_to_write": written, "seconds_to_verify": verified, "seconds_to_open": opened,
    "cpu_seconds": time.process_time(),
    "megabytes_after_import": imported, "peak_megabytes": peak_megabytes(),
}))
"""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the directories; new")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    results = {f"batches of {size}": measure(options.out / str(size), size) for size in BATCH_SIZES}
    print(json.dumps(results, indent=2))
    write_json(options.output, results)


def measure(path: Path, batch_size: int, *, num_examples: int = 100_000) -> dict[str, Any]:
    """Seconds and megabytes of a process of its own."""
    command = [sys.executable, "-c", PROGRAM, str(path), str(batch_size), str(num_examples)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    main()
