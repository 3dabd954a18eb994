"""Measure and write the results: ``python -m benchmarks NAME [NAME ...]``, or ``all``.

Replaces the rows of these benchmarks in ``results.json``, or in ``--output``, and makes the table beside it anew. The
others stay as they were measured, if they were measured on the same machine.
"""

import argparse
import importlib
from pathlib import Path

from mtbkd_jax.machine import use_machine

BENCHMARKS = ("step", "full_batch", "weight_mixture", "prediction", "effective_draws", "roofline", "other_libraries")


def main() -> None:
    """Parse the command line, measure, print and write."""
    use_machine()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="+", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--small", action="store_true", help="a few turns, to see that it runs; writes nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    options = parser.parse_args()

    from benchmarks.results import this_machine, write_results

    machine = this_machine()
    for name in BENCHMARKS if "all" in options.names else options.names:
        rows = importlib.import_module(f"benchmarks.{name}").measure(is_small=options.small)
        for row in rows:
            print(row.name, f"{row.ratio:.3g}", "goal", row.goal, dict(row.details), flush=True)
        if not options.small:
            write_results(options.output, machine, name, rows)


if __name__ == "__main__":
    main()
