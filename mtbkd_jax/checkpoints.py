"""Checkpoints: where chains stand, so that a run that was killed goes on to the bit.

They are written by Orbax, in the background; one that was not finished counts as not there. The last two are kept, each
with digests of its content: one that was damaged afterwards is moved aside, and the one before it is used.

Of several processes each writes and reads its own chains, in a directory that all of them must see. What is in it does
not depend on how many they are, so that a run may go on with another number of them.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import orbax.checkpoint as ocp

from mtbkd_jax.chains import own_chains, rows_of_own_chains
from mtbkd_jax.errors import InputError, MTBKDError
from mtbkd_jax.processes import from_each, from_first, is_first, wait_for_all
from mtbkd_jax.storage import translated_errors


@runtime_checkable
class Checkpoints(Protocol):
    """What ``sample_chains`` asks of checkpoints; ``ChainCheckpoints`` says what each is for."""

    def is_due(self) -> bool:
        """Whether it is time for the next one."""

    def save(self, number: int, plan: Mapping[str, int], content: Any) -> None:
        """Write a checkpoint."""

    def latest(self, plan: Mapping[str, int], template: Any) -> tuple[int, Any] | None:
        """The number and the content of the last checkpoint that is whole; None where there is none."""


_LOG = logging.getLogger(__name__)
_NUM_KEPT = 2


class PreemptedError(MTBKDError):
    """The run was told to stop, and has left a checkpoint to go on from."""


class ChainCheckpoints:
    """The checkpoints of one run of ``sample_chains``, in a directory of their own.

    Use it as a context manager: leaving waits for what is being written. Of several processes that sample together each
    makes one, and all of them call its methods at the same places; when to save and to stop is up to the first.

    Args:
      path: the directory; it is made where there is none.
      seconds_between: least time from one checkpoint to the next; they are taken between chunks of draws.

    Raises:
      StorageError: by this and by every method that writes or waits, if the disk refuses, such as when it is full.
    """

    def __init__(self, path: str | Path, *, seconds_between: float = 30.0):
        self._path = Path(path).absolute()
        self._seconds_between = seconds_between
        self._last_save = time.monotonic()
        self._is_stopping = self._is_last = False
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_NUM_KEPT,
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=_in_step(range(jax.process_count()), "all"),
        )
        with translated_errors(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self._path, options=options)

    def __enter__(self) -> "ChainCheckpoints":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being written."""
        with translated_errors(self._path):
            self._manager.close()

    def stop(self) -> None:
        """Ask for one checkpoint more, and for ``PreemptedError`` once it is on the disk; may be called by a signal."""
        self._is_stopping = True

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        is_time = time.monotonic() - self._last_save >= self._seconds_between
        is_time, self._is_last = map(bool, from_first(np.array([is_time, self._is_stopping])))
        return is_time or self._is_last

    def save(self, number: int, plan: Mapping[str, int], content: Any) -> None:
        """Write a checkpoint.

        Args:
          number: how many chunks of draws have been taken.
          plan: what the chunks depend on; a run that goes on must have the same.
          content: a pytree; JAX's arrays in it are stacked over chains, and NumPy's are the same in all processes.

        Raises:
          PreemptedError: if ``stop`` was called; the checkpoint is on the disk.
        """
        description = {"plan": dict(plan), "sha256": _digests(content)}
        args = ocp.args.Composite(content=ocp.args.StandardSave(content), description=ocp.args.JsonSave(description))
        with translated_errors(self._path):  # also what the background has met since the last call
            self._manager.save(number, args=args, force=True)
            if self._is_last:
                self._manager.wait_until_finished()
        self._last_save = time.monotonic()
        if self._is_last:
            raise PreemptedError(f"stopped as asked, with a checkpoint after {number} chunks of draws in {self._path}")

    def latest(self, plan: Mapping[str, int], template: Any) -> tuple[int, Any] | None:
        """The number and the content of the last checkpoint that is whole; None where there is none.

        Args:
          plan: what the chunks depend on.
          template: a pytree like the content, with shapes that know their sharding for JAX's arrays.

        Raises:
          InputError: if a checkpoint is of another plan.
        """
        while (number := int(from_first(max(self._manager.all_steps(), default=-1)))) >= 0:
            content, damage = self._read(number, plan, template)
            if not from_each(bool(damage)).any():
                return number, content
            if is_first():
                aside = self._path / f"damaged_{number}"
                (self._path / str(number)).rename(aside)
                text = "%s: checkpoint %d is damaged (%s); it was moved to %s."
                _LOG.warning(text, self._path, number, damage or "as another process found", aside)
            wait_for_all("moved aside")
            self._manager.reload()
        return None

    def _read(self, number: int, plan: Mapping[str, int], template: Any) -> tuple[Any, str]:
        """This process's part of a checkpoint, and what is wrong with it, if anything."""
        # Each reads on its own: one that fails would leave the others waiting inside of Orbax.
        alone = _in_step([jax.process_index()], f"process_{jax.process_index()}")
        options = ocp.CheckpointManagerOptions(read_only=True, multiprocessing_options=alone)
        with ocp.CheckpointManager(self._path, options=options) as reader:
            try:
                wanted = ocp.args.Composite(description=ocp.args.JsonRestore())
                written = reader.restore(number, args=wanted).description
                self._check_plan(written["plan"], plan)
                wanted = ocp.args.Composite(content=ocp.args.StandardRestore(template))
                content = reader.restore(number, args=wanted).content
                return content, "" if _are_of(written["sha256"], content) else "its content is not what was written"
            except InputError:
                raise
            except Exception as error:  # Orbax raises bare exceptions for what it cannot read.
                return None, re.split(r"\n| \[tensorstore_spec", str(error))[0] or type(error).__name__

    def _check_plan(self, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
        for name, value in expected.items():
            if found.get(name) != value:
                action = "Go on with the options that the run was begun with, or begin another run."
                raise InputError(str(self._path), name, f"{found.get(name)}", f"{value}", action)


def _in_step(processes: Iterable[int], name: str) -> ocp.options.MultiprocessingOptions:
    """Orbax for some of the processes, the first of which leads."""
    processes = set(processes)
    return ocp.options.MultiprocessingOptions(
        primary_host=min(processes), active_processes=processes, barrier_sync_key_prefix=name
    )


def _digests(content: Any) -> dict[str, Any]:
    """SHA-256 of every chain and of the rest; every process gets all of them."""
    stacked, rest = _parts(content)
    num_chains = next(iter(stacked.values())).shape[0]
    of_chains = np.zeros((num_chains, hashlib.sha256().digest_size), np.uint8)
    for chain, digest in _digests_of_own_chains(stacked).items():
        of_chains[chain] = np.frombuffer(digest, np.uint8)
    of_chains = from_each(of_chains).max(axis=0)  # zeros but where it is one's own
    return {"chains": [digest.tobytes().hex() for digest in of_chains], "rest": _digest(rest).hex()}


def _are_of(digests: Mapping[str, Any], content: Any) -> bool:
    """Whether this process's part of the content, and what all have, is what was written."""
    stacked, rest = _parts(content)
    own = _digests_of_own_chains(stacked)
    are_chains_whole = all(digest.hex() == digests["chains"][chain] for chain, digest in own.items())
    return are_chains_whole and _digest(rest).hex() == digests["rest"]


def _parts(content: Any) -> tuple[dict[str, jax.Array], dict[str, np.ndarray]]:
    """What is stacked over chains, and what is the same in all processes."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(content)}
    stacked = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, jax.Array)}
    return stacked, {name: np.asarray(leaf) for name, leaf in leaves.items() if name not in stacked}


def _digests_of_own_chains(stacked: dict[str, jax.Array]) -> dict[int, bytes]:
    numbers = own_chains(next(iter(stacked.values())))
    rows = rows_of_own_chains(stacked)
    return {int(chain): _digest({name: leaf[row] for name, leaf in rows.items()}) for row, chain in enumerate(numbers)}


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for name, leaf in arrays.items():
        array = np.ascontiguousarray(leaf)
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(array.tobytes())
    return digest.digest()
