"""How far a run has come, by what it leaves on the disk: while it is written, after it was interrupted, at its end."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from mtbkd_jax.run_log import Line, read_log
from mtbkd_jax.unfinished import standing_of


class Status(NamedTuple):
    """How far a run has come.

    Attributes:
      state: whether a process writes it, and if none does whether something is left to do.
      is_learned: whether weights, centers and settings are known.
      num_draws: of each chain, on the disk.
      num_planned: draws of each chain when it is finished; None before the first step.
      phase: what it is or was at; None where there is no log.
      written: time of the last line of the log.
      seconds_left: of sampling, at the rate of the last chunks of draws; None where nothing is sampled or the rate is
        not known yet.
      chunk: what the log says of the last chunk of draws, as ``run_log`` has it.
    """

    state: Literal["running", "interrupted", "finished"]
    is_learned: bool
    num_draws: int
    num_planned: int | None
    phase: str | None
    written: str | None
    seconds_left: float | None
    chunk: Line | None


def status_of(path: Path) -> Status:
    """How far a run has come; it may be written meanwhile.

    Raises:
      InputError: if there is no run.
      CorruptDataError: if a line in the middle of its log is not JSON.
    """
    standing = standing_of(path)
    state: Literal["running", "interrupted", "finished"] = "interrupted"
    if standing.is_finished:
        state = "finished"
    elif standing.is_being_written:
        state = "running"
    lines = read_log(path)
    last = lines[-1] if lines else {}
    return Status(
        state=state,
        is_learned=standing.is_learned,
        num_draws=standing.num_draws,
        num_planned=standing.num_planned,
        phase=last.get("phase"),
        written=last.get("time"),
        seconds_left=_seconds_left(last) if state == "running" else None,
        chunk=next((line for line in reversed(lines) if "step" in line), None),
    )


def print_status(path: Path, *, as_json: bool) -> None:
    """Say how far a run has come, and what to do about one that was interrupted.

    Args:
      path: the run's directory.
      as_json: whether it is said as one JSON object, for programs.
    """
    status = status_of(path)
    if as_json:
        print(json.dumps(status._asdict()))
        return
    console, table = Console(), Table.grid(padding=(0, 2))
    for row in _rows(status):
        table.add_row(*row)
    console.print(table)
    if status.state == "interrupted":
        console.print("Interrupted: give the command that began it again, with --resume.")


def _seconds_left(line: Line) -> float | None:
    if not line.get("steps_per_second"):
        return None
    return (line["num_steps"] - line["step"]) / line["steps_per_second"]


def _rows(status: Status) -> Iterator[tuple[str, str]]:
    yield "state", status.state
    if status.phase is not None:
        yield "phase", status.phase
    yield "weights, centers, settings", "learned" if status.is_learned else "not learned yet"
    if status.num_planned is not None:
        yield "draws of each chain", f"{status.num_draws:,} of {status.num_planned:,} are on the disk"
    if status.chunk is not None:
        yield from _rows_of_chunk(status.chunk)
    if status.seconds_left is not None:
        yield "time left", f"{_duration(status.seconds_left)} at this rate"
    if status.written is not None:
        age = datetime.now(UTC) - datetime.fromisoformat(status.written)
        yield "last line of the log", f"{status.written}, {_duration(age.total_seconds())} ago"


def _rows_of_chunk(chunk: Line) -> Iterator[tuple[str, str]]:
    yield f"steps of {chunk['phase']}", f"{chunk['step']:,} of {chunk['num_steps']:,}"
    yield "steps a second", _number(chunk["steps_per_second"], ",.1f")
    yield "log density", _number(chunk["log_density"], ",.1f")
    yield "acceptance", _number(chunk["acceptance_rate"], ".3f")
    yield "divergent draws", f"{chunk['num_divergent']:,}"
    yield "failed chains", f"{chunk['num_failed']:,}"
    yield "R-hat of the log density", _number(chunk["r_hat"], ".3f")
    for name in ("host", "device"):
        if (count := chunk[f"{name}_bytes"]) is not None:
            yield f"peak memory, {name}", f"{count / 2**30:.2f} GiB"


def _number(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
