"""Options of the benchmarks that run whole commands."""

import argparse
from pathlib import Path


def runs_parser(description: str, program: str) -> argparse.ArgumentParser:
    """A parser of ``--runs`` and ``--output``, which is a JSON file beside the program unless told otherwise.

    Args:
      description: of the program; its first line is shown.
      program: its file.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run directories; new")
    parser.add_argument("--output", type=Path, default=Path(program).with_suffix(".json"))
    return parser
