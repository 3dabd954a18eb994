"""Processes that sample together, on one machine or on many: joined before JAX is first used.

Each runs the same program on the same arguments. The first process learns what has to be known before the chains start,
and the others read it; the chains and the blocks of data are shared out over the devices of all (``chains``). Each
writes the draws and the checkpoints of its own chains into the run's directory, which all of them must see; the first
one writes the rest, and talks. Each reads all rows of the data and of the teachers' outputs: what is learned, and the
climbs to where the chains start, take them all. While the chains run a device holds its own blocks alone. Where the
data do not fit in memory (``windows``), a sample takes the place of all rows, the first process alone looks at every
row, and of the windows each process reads the blocks that its own devices hold.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import ArrayLike
from orbax.checkpoint import multihost

from mtbkd_jax.checks import check_whole
from mtbkd_jax.errors import InputError

_SECONDS_UNTIL_LOST = 30
"""A process that was silent for so long counts as dead, and the others stop; JAX says whose rank it was."""
_SECONDS_UNTIL_STUCK = 24 * 3600
"""A process that is alive may keep the others waiting for so long: by a slow disk, or as the first one does when the
chains have ended, and it alone judges and writes the run."""


@dataclass(frozen=True)
class Processes:
    """How the processes of a run find each other. All left out: this process is alone.

    Attributes:
      cluster: find the others by what SLURM, Kubernetes, Open MPI or a TPU pod says of them.
      coordinator: otherwise, host and port of the first process, such as ``10.0.0.1:1234``.
      num_processes: how many there are.
      process_id: which one this is, from 0.
    """

    cluster: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def join_processes(processes: Processes) -> None:
    """Join the others; to be called before the first array is made, by JAX or by a library that is imported.

    Raises:
      InputError: if some of the numbers are left out, are out of range, or come with ``cluster``, or no cluster is
        found.
    """
    explicit = processes.coordinator, processes.num_processes, processes.process_id
    if not processes.cluster and explicit == (None, None, None):
        return
    found = f"cluster {processes.cluster}, coordinator {explicit[0]}, {explicit[1]} processes, this is {explicit[2]}"
    expected = "a cluster alone, or a coordinator, how many processes there are, and which one this is"
    if processes.cluster == (None not in explicit) or (processes.cluster and explicit != (None, None, None)):
        raise InputError("processes", "coordinator", found, expected, "Give one or the other.")
    if not processes.cluster:
        assert processes.num_processes is not None  # checked above
        assert processes.process_id is not None
        check_whole("processes", 1, num_processes=processes.num_processes)
        if not 0 <= processes.process_id < processes.num_processes:
            raise InputError(
                "processes",
                "process_id",
                f"{processes.process_id}",
                f"0 to {processes.num_processes - 1}",
                "Count from 0.",
            )
    try:
        jax.distributed.initialize(
            *explicit,
            heartbeat_timeout_seconds=_SECONDS_UNTIL_LOST,
            shutdown_timeout_seconds=_SECONDS_UNTIL_STUCK,
        )
    except (RuntimeError, ValueError) as error:
        action = "Start all processes with the same numbers; outside of a cluster, give the three of them."
        raise InputError("processes", "coordinator", str(error).partition("\n")[0], expected, action) from None


def processes_among(arguments: Sequence[str]) -> Processes:
    """What a command's arguments say of processes, ``--processes.NAME``, before the command itself can be parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--processes.cluster", dest="cluster", action="store_true")
    parser.add_argument("--processes.coordinator", dest="coordinator")
    parser.add_argument("--processes.num-processes", "--processes.num_processes", dest="num_processes", type=int)
    parser.add_argument("--processes.process-id", "--processes.process_id", dest="process_id", type=int)
    return Processes(**vars(parser.parse_known_args(arguments)[0]))


def leave(status: int) -> NoReturn:
    """End the program; one of several processes at once, since JAX would have it wait for others that wait for it."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


def is_first() -> bool:
    """Whether this process is the first, or alone."""
    return jax.process_index() == 0


def from_first(tree: Any) -> Any:
    """What the first process has, as NumPy arrays; all of them call it with arrays of the same shapes, and wait."""
    arrays = jax.tree.map(np.asarray, tree)
    if jax.process_count() == 1:
        return arrays
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(arrays))


def from_each(array: ArrayLike) -> np.ndarray:
    """What every process has, stacked over processes; all of them call it with arrays of the same shape, and wait."""
    array = np.asarray(array)
    return array[None] if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(array))


def wait_for_all(what: str) -> None:
    """Wait until every process has come to this; the devices go on meanwhile.

    Args:
      what: is waited for, the same in all processes.
    """
    everybody = set(range(jax.process_count()))
    multihost.sync_global_processes(what, processes=everybody, timeout=_SECONDS_UNTIL_STUCK)
