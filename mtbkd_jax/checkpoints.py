"""Checkpoints: where chains stand, so that a run that was killed goes on to the bit.

They are written by Orbax, in the background; one that was not finished counts as not there. The last two are kept, each
with a digest of its content: one that was damaged afterwards is moved aside, and the one before it is used.
"""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import orbax.checkpoint as ocp

from mtbkd_jax.errors import InputError, MTBKDError
from mtbkd_jax.processes import from_first


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

    Use it as a context manager: leaving waits for what is being written.

    Args:
      path: the directory; it is made where there is none.
      seconds_between: least time from one checkpoint to the next; they are taken between chunks of draws.
    """

    def __init__(self, path: str | Path, *, seconds_between: float = 30.0):
        self._path = Path(path).absolute()
        self._seconds_between = seconds_between
        self._last_save = time.monotonic()
        self._is_stopping = False
        self._path.mkdir(parents=True, exist_ok=True)
        # This process alone, also where it is one of several.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"process_{jax.process_index()}",
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_NUM_KEPT, cleanup_tmp_directories=True, create=False, multiprocessing_options=alone
        )
        self._manager = ocp.CheckpointManager(self._path, options=options)

    def __enter__(self) -> "ChainCheckpoints":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being written."""
        self._manager.close()

    def stop(self) -> None:
        """Ask for one checkpoint more, and for ``PreemptedError`` once it is on the disk; may be called by a signal."""
        self._is_stopping = True

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._is_stopping

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return self._is_stopping or time.monotonic() - self._last_save >= self._seconds_between

    def save(self, number: int, plan: Mapping[str, int], content: Any) -> None:
        """Write a checkpoint.

        Args:
          number: how many chunks of draws have been taken.
          plan: what the chunks depend on; a run that goes on must have the same.
          content: a pytree of arrays.

        Raises:
          PreemptedError: if ``stop`` was called; the checkpoint is on the disk.
        """
        content = jax.tree.map(np.asarray, content)
        description = {"plan": dict(plan), "sha256": _digest(content)}
        self._manager.save(
            number,
            args=ocp.args.Composite(content=ocp.args.StandardSave(content), description=ocp.args.JsonSave(description)),
            force=True,
        )
        self._last_save = time.monotonic()
        if self._is_stopping:
            self._manager.wait_until_finished()
            raise PreemptedError(f"stopped as asked, with a checkpoint after {number} chunks of draws in {self._path}")

    def latest(self, plan: Mapping[str, int], template: Any) -> tuple[int, Any] | None:
        """The number and the content of the last checkpoint that is whole; None where there is none.

        Args:
          plan: what the chunks depend on.
          template: a pytree of arrays like the content.

        Raises:
          InputError: if a checkpoint is of another plan.
        """
        blank = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                description = self._manager.restore(
                    number, args=ocp.args.Composite(description=ocp.args.JsonRestore())
                ).description
                self._check_plan(description["plan"], plan)
                content = self._manager.restore(
                    number, args=ocp.args.Composite(content=ocp.args.StandardRestore(blank))
                ).content
                if _digest(content) == description["sha256"]:
                    return number, content
                reason = "its content is not what was written"
            except InputError:
                raise
            except Exception as error:  # Orbax raises bare exceptions for what it cannot read.
                reason = str(error).partition("\n")[0]
            aside = self._path / f"damaged_{number}"
            (self._path / str(number)).rename(aside)
            self._manager.reload()
            _LOG.warning("%s: checkpoint %d is damaged (%s); it was moved to %s.", self._path, number, reason, aside)
        return None

    def _check_plan(self, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
        for name, value in expected.items():
            if found.get(name) != value:
                action = "Go on with the options that the run was begun with, or begin another run."
                raise InputError(str(self._path), name, f"{found.get(name)}", f"{value}", action)


class SharedCheckpoints:
    """The checkpoints of a run of several processes: the first one keeps them, and the others do as it does.

    Args:
      kept: those of the first process; None in the others.
    """

    def __init__(self, kept: ChainCheckpoints | None):
        self._kept = kept

    def is_due(self) -> bool:
        """Whether the first process finds that it is time for the next one."""
        return bool(from_first(self._kept is not None and self._kept.is_due()))

    def save(self, number: int, plan: Mapping[str, int], content: Any) -> None:
        """Write a checkpoint, in the first process.

        Raises:
          PreemptedError: in all processes, if the first one was told to stop.
        """
        is_stopping = bool(from_first(self._kept is not None and self._kept.is_stopping))
        if self._kept is not None:
            # Told to stop only now, it stops with the others at the next one.
            with contextlib.suppress(PreemptedError):
                self._kept.save(number, plan, content)
        if is_stopping:
            raise PreemptedError(f"stopped as the first process was asked to, after {number} chunks of draws")

    def latest(self, plan: Mapping[str, int], template: Any) -> tuple[int, Any] | None:
        """What the first process finds."""
        found = None if self._kept is None else self._kept.latest(plan, template)
        number, content = (-1, template) if found is None else found
        number = int(from_first(number))
        return None if number < 0 else (number, from_first(content))


def _digest(content: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(content):
        array = np.ascontiguousarray(leaf)
        digest.update(json.dumps([jax.tree_util.keystr(path), str(array.dtype), array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
