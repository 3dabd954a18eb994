"""What a run says of itself on its way: ``RUN/log.jsonl``, and if asked for the same numbers as TensorBoard scalars.

A line of the log is a JSON object, written when a phase of the run begins and after each chunk of draws:

    time                    UTC, as ISO 8601 has it
    phase                   "learning", "sampling", "finished", ...
    host_bytes              the most memory that the process has held so far
    device_bytes            the same of its first device; null where the device does not say, as CPUs do not

and after a chunk of draws, of which a stretch of burn-in is one, also

    step, num_steps         done by each chain, and in all
    steps_per_second        over the last ten chunks; null for the first, whose time went into compiling as well
    num_draws, num_planned  draws kept of each chain, and in all
    log_density             mean over chains at the last draw, in nats
    acceptance_rate         mean over the chunk
    num_divergent           draws so far with a divergent step
    num_failed              chains that were stopped
    r_hat                   of the log density of all draws so far (``r_hat_so_far``); null where there are too few

A number that is not finite is null. A run that goes on after an interruption appends to the log, and what came after
its last checkpoint comes again, so that a step may be there twice.
"""

import importlib.util
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtbkd_jax import storage
from mtbkd_jax.diagnostics import LEAST_DRAWS, Convergence
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.sampling import ChunkReport
from mtbkd_jax.storage import finite_or_none

LOG, TENSORBOARD = "log.jsonl", "tensorboard"
Line = dict[str, Any]

_CHUNKS_OF_RATE, _MOST_DRAWS_COMPARED = 10, 1000
_SCALARS = (
    "steps_per_second",
    "log_density",
    "acceptance_rate",
    "num_divergent",
    "num_failed",
    "r_hat",
    "host_bytes",
    "device_bytes",
)


class RunLog:
    """Says what a run is at.

    Args:
      writers: each is given every line.
    """

    def __init__(self, *writers: Callable[[Line], None]):
        self._writers = writers
        self._phase: str | None = None
        self._recent: deque[tuple[int, float]] = deque(maxlen=_CHUNKS_OF_RATE + 1)

    def begin(self, phase: str) -> None:
        """Begin a phase."""
        self._phase = phase
        self._recent.clear()
        self._write({})

    def report(self, report: ChunkReport) -> None:
        """Say how far the chains have come: a ``progress`` for ``sample_chains``."""
        self._recent.append((report.steps_done, time.monotonic()))
        self._write(
            {
                "step": report.steps_done,
                "num_steps": report.num_steps,
                "steps_per_second": self._rate(),
                "num_draws": report.num_draws,
                "num_planned": report.num_planned,
                "log_density": finite_or_none(report.mean_log_density),
                "acceptance_rate": finite_or_none(report.acceptance_rate),
                "num_divergent": report.num_divergent,
                "num_failed": report.num_failed,
                "r_hat": finite_or_none(r_hat_so_far(report)),
            }
        )

    def _rate(self) -> float | None:
        # Of one chunk alone it jumps: the host looks late at one that came while it compiled or wrote a checkpoint.
        (first_step, first_time), (step, now) = self._recent[0], self._recent[-1]
        return (step - first_step) / (now - first_time) if now > first_time else None

    def _write(self, content: Line) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "phase": self._phase,
            "host_bytes": _host_bytes(),
            "device_bytes": _device_bytes(),
            **content,
        }
        for write in self._writers:
            write(line)


@contextmanager
def log_of_run(path: Path, *, tensorboard: bool) -> Iterator[RunLog]:
    """The log of a run in this directory, which may have one already.

    Args:
      path: the run's directory.
      tensorboard: whether the numbers go to ``RUN/tensorboard`` as well.

    Raises:
      StorageError: if the disk is full.
    """
    _remove_torn_line(path / LOG)
    append = partial(_append_line, path / LOG)
    if not tensorboard:
        yield RunLog(append)
        return
    with _scalars_in(path / TENSORBOARD) as write_scalars:
        yield RunLog(append, write_scalars)


def read_log(path: Path) -> list[Line]:
    """All lines of a run's log, the oldest first; it may be written meanwhile, and there may be none.

    A last line that is not whole yet, or that a kill has torn, is left out.

    Raises:
      CorruptDataError: if a line before it is not JSON.
    """
    if not (path / LOG).exists():
        return []
    with storage.translated_errors(path / LOG):
        whole_lines = (path / LOG).read_bytes().split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in whole_lines]
    except ValueError as error:
        action = "Remove it, since the run itself is without need of it."
        raise CorruptDataError(str(path / LOG), "lines", f"no JSON ({error})", "JSON objects", action) from error


def r_hat_so_far(report: ChunkReport) -> float:
    """R-hat of the log density of the draws so far, the largest among components; NaN where there are too few draws.

    Of very many draws some that are equally far apart are compared: their time must not grow with the run.
    """
    if report.num_draws < LEAST_DRAWS:
        return float("nan")
    stride = -(-report.num_draws // _MOST_DRAWS_COMPARED)
    alive = report.failed_at < 0
    log_density = np.asarray(report.kept.log_density[alive, ::stride], np.float64)
    components = np.zeros(alive.size) if report.component_of_chain is None else report.component_of_chain
    of_component = [Convergence(log_density[components[alive] == one]).r_hat for one in np.unique(components[alive])]
    return float(np.fmax.reduce(of_component))


def check_tensorboard() -> None:
    """Refuse to write scalars for TensorBoard where the library for it is missing.

    Raises:
      InputError: if it is.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        action = "Install it: pip install tensorboardX."
        raise InputError("--tensorboard", "library", "no tensorboardX", "that it is installed", action)


@contextmanager
def _scalars_in(path: Path) -> Iterator[Callable[[Line], None]]:
    """What writes the numbers of a line as TensorBoard scalars, ``phase/name`` over the steps."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(path)) as writer:

        def write(line: Line) -> None:
            for name in _SCALARS:
                if "step" in line and line[name] is not None:
                    writer.add_scalar(f"{line['phase']}/{name}", line[name], line["step"])
            writer.flush()

        yield write


def _append_line(path: Path, line: Line) -> None:
    # Opened anew, so that a line is with the operating system before the next step is taken.
    with storage.translated_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _remove_torn_line(path: Path) -> None:
    """Cut off what a kill has left of a last line, so that the next does not continue it."""
    if path.exists():
        with storage.translated_errors(path), open(path, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _host_bytes() -> int:
    # In kilobytes, except on a Mac.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_bytes() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
