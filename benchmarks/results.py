"""The results file and the table that is made from it."""

import ast
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.measure import Row
from mtbkd_jax.storage import read_json, write_json


def this_machine() -> str:
    """What the figures depend on.

    >>> this_machine().startswith("cpu")
    True
    """
    device = jax.devices()[0]
    processor = f"{device.platform} {device.device_kind}" if device.platform != "cpu" else f"cpu {platform.machine()}"
    cores = len(os.sched_getaffinity(0))
    return f"{processor}, {cores} cores, {jax.device_count()} JAX devices, JAX {jax.__version__}"


def write_results(path: Path, machine: str, benchmark: str, rows: Sequence[Row]) -> None:
    """Put the rows of a benchmark in place of those of its last run, and make the table anew.

    Rows of other benchmarks stay, if they were measured on the same machine: figures of two machines are no table.
    """
    before: list[dict[str, Any]] = []
    if path.exists() and (held := read_json(path))["machine"] == machine:
        before = [row for row in held["rows"] if row["benchmark"] != benchmark]
    held = before + [{"benchmark": benchmark, **row._asdict(), "is_met": row.is_met} for row in rows]
    write_json(path, {"machine": machine, "rows": held})
    path.with_name(f"{path.stem.upper()}.md").write_text(table(machine, held), encoding="utf-8")


def table(machine: str, rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: for each benchmark what it does, its figures against what was asked for, and the command."""
    parts = [
        f"# Speed, as measured\n\nOn: {machine}. A figure is the median over turns; *spread* is between quartiles.\n"
    ]
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        # Read and not imported, since one of them needs PyTorch.
        source = Path(__file__).with_name(f"{benchmark}.py").read_text(encoding="utf-8")
        what = ast.get_docstring(ast.parse(source))
        lines = ["| | figure | goal | spread | |", "|---|---|---|---|---|"]
        for row in (row for row in rows if row["benchmark"] == benchmark):
            sign = "≥" if row["better"] == "higher" else "≤"
            goal = "" if row["goal"] is None else f"{sign} {row['goal']:g}{'' if row['is_met'] else ' **missed**'}"
            details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row["details"].items())
            lines.append(f"| {row['name']} | {row['ratio']:.3g} | {goal} | {row['spread']:.2g} | {details} |")
        command = f"`python -m benchmarks {benchmark}`"
        parts.append("\n".join([f"## {benchmark.replace('_', ' ').capitalize()}\n", what, "", *lines, "", command, ""]))
    return "\n".join(parts)
