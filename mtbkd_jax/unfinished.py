"""Unfinished runs: what a run leaves on the disk on its way, so that one that was killed can be taken up again.

    RUN/.lock            held by the process that writes the run; the system frees it when that process ends, however
    RUN/config.json      what was asked for, and the digests of the input files
    RUN/learned/         the weights of the teachers, the centers and the settings, once they are learned
    RUN/draws/           the draws so far, or what is kept of them
    RUN/checkpoints/     where the chains stand; removed as the last act
    RUN/log.jsonl        what the run is at (``run_log``), and RUN/tensorboard/ with the same numbers if asked for

What comes after the draws takes little time, and is done again.
"""

import dataclasses
import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mtbkd_jax import storage
from mtbkd_jax.centers import Centers
from mtbkd_jax.checkpoints import ChainCheckpoints
from mtbkd_jax.checks import check_same
from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.distillation import Learned
from mtbkd_jax.draw_chunks import count_draws
from mtbkd_jax.draws import DrawStore, create_draws, open_draws
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.kept_predictions import (
    MomentStore,
    PredictionStore,
    Probing,
    create_kept_predictions,
    open_kept_predictions,
)
from mtbkd_jax.run_log import LOG, TENSORBOARD
from mtbkd_jax.selection import Choice
from mtbkd_jax.students import Student
from mtbkd_jax.tree import named_leaves

CONFIG, CHECKPOINTS = "config.json", "checkpoints"
_OF_NO_CONSEQUENCE = ("processes", "out", "resume", "checkpoint_seconds", "tensorboard")
_OF_RULE = "rule."
_LEARNED_FORMAT: dict[str, Any] = {"format_name": "mtbkd_jax.learned", "version": 4}


@contextmanager
def unfinished_run(path: str | Path, config: Any, digests: Mapping[str, str], *, resume: bool) -> Iterator[Path]:
    """Make the run's directory, or take up an unfinished one, and keep other processes out of it meanwhile.

    Args:
      path: the directory.
      config: a dataclass: what was asked for. What the result does not depend on is left out.
      digests: SHA-256 of each input file.
      resume: whether to go on with what is there; where nothing is, the run is begun.

    Yields:
      The directory.

    A run that is refused by an ``InputError`` before anything was learned leaves the directory empty.

    Raises:
      InputError: if another process is writing there, there is something and not to be resumed, or what is there was
        begun with another configuration or other input files.
    """
    path = Path(path)
    asked_for = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    asked_for = {name: value for name, value in asked_for.items() if name not in _OF_NO_CONSEQUENCE}
    asked_for |= {"input_sha256": dict(digests)}
    left_by_a_kill = {path / storage.LOCK, path / (CONFIG + ".part")}
    if not ((path / CONFIG).exists() or (path.is_dir() and set(path.iterdir()) <= left_by_a_kill)):
        storage.new_directory(path)
    with storage.locked(path):
        is_new = not (path / CONFIG).exists()
        if is_new:
            storage.write_json(path / CONFIG, asked_for)
        elif resume:
            check_same(str(path / CONFIG), storage.read_json(path / CONFIG), asked_for)
        else:
            action = "Choose another path, or give --resume to go on with it if it was not finished."
            raise InputError(str(path), "output directory", "a run", "a new or an empty directory", action)
        (path / "figures").mkdir(exist_ok=True)
        try:
            yield path
        except InputError:
            if is_new and not (path / "learned").exists():
                # Refused before anything was computed: the same path will do when the mistake is corrected.
                (path / "figures").rmdir()
                (path / LOG).unlink(missing_ok=True)
                shutil.rmtree(path / TENSORBOARD, ignore_errors=True)
                (path / CONFIG).unlink()
            raise


class Standing(NamedTuple):
    """How far a run has come.

    Attributes:
      is_being_written: whether a process holds its lock.
      is_learned: whether weights, centers and settings are known.
      num_draws: of each chain, on the disk.
      num_planned: draws of each chain when it is finished; None before the first step.
      is_finished: whether nothing is left to do.
    """

    is_being_written: bool
    is_learned: bool
    num_draws: int
    num_planned: int | None
    is_finished: bool


def standing_of(path: str | Path) -> Standing:
    """How far a run has come; it may be written meanwhile.

    Raises:
      InputError: if there is no run.
    """
    path = Path(path)
    if not (path / CONFIG).is_file():
        raise InputError(str(path), CONFIG, "no such file", "the directory of a run", "Check the path.")
    num_draws, num_planned = count_draws(path / "draws") if _has_draws(path) else (0, None)
    return Standing(
        _is_locked(path),
        (path / "learned" / "manifest.json").exists(),
        num_draws,
        num_planned,
        is_finished(path),
    )


def is_finished(path: Path) -> bool:
    """Whether nothing is left to do: the manifest is there, and the checkpoints are gone."""
    return (path / "manifest.json").exists() and not (path / CHECKPOINTS).exists()


def mark_finished(path: Path) -> None:
    """Remove the checkpoints, as the last act of a run."""
    shutil.rmtree(path / CHECKPOINTS)


def _is_locked(path: Path) -> bool:
    if not (path / storage.LOCK).exists():
        return False
    try:
        with filelock.FileLock(path / storage.LOCK, timeout=0):
            return False
    except filelock.Timeout:
        return True


class LearnedFiles:
    """Keeps what was learned in a directory, so that it is learned once.

    Args:
      path: the directory.
    """

    def __init__(self, path: str | Path):
        self._arrays, self._manifest = Path(path) / "arrays.npz", Path(path) / "manifest.json"

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been written yet."""
        return not self._manifest.exists()

    def write(self, learned: Learned) -> None:
        """Write it, the manifest last."""
        arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _arrays_of(learned).items()}
        with storage.translated_errors(self._arrays):
            self._arrays.parent.mkdir(exist_ok=True)
            np.savez(self._arrays, **arrays)
        content = {"sha256_of_arrays": sha256_of_file(self._arrays), "choice": learned.choice.to_json()}
        storage.write_manifest(self._manifest, content, **_LEARNED_FORMAT)

    def read(self, template: PyTree) -> Learned | None:
        """Read it; None where nothing has been written yet.

        Args:
          template: the student's parameters, or their shapes.

        Raises:
          CorruptDataError: if a file was truncated or altered.
        """
        if self.is_empty:
            return None
        manifest = storage.read_manifest(self._manifest, **_LEARNED_FORMAT)
        digest = sha256_of_file(self._arrays)
        if digest != manifest["sha256_of_arrays"]:
            action = f"Remove {self._arrays.parent}, so that it is learned again."
            raise CorruptDataError(str(self._arrays), "sha256", digest, manifest["sha256_of_arrays"], action)
        with np.load(self._arrays, allow_pickle=False) as arrays:
            leaves = [jnp.asarray(arrays[f"center.{name}"]) for name in named_leaves(template)]
            centers = Centers(
                jax.tree.unflatten(jax.tree.structure(template), leaves), jnp.asarray(arrays["mean_weights"])
            )
            of_rule = [name.removeprefix(_OF_RULE) for name in arrays.files if name.startswith(_OF_RULE)]
            fitted_rule = {name: jnp.asarray(arrays[_OF_RULE + name]) for name in of_rule}
            choice = Choice.from_json(manifest["choice"])
            return Learned(jnp.asarray(arrays["log_weights"]), centers, choice, fitted_rule or None)


def _arrays_of(learned: Learned) -> dict[str, Any]:
    centers = {f"center.{name}": leaf for name, leaf in named_leaves(learned.centers.params).items()}
    centers |= {_OF_RULE + name: leaf for name, leaf in (learned.fitted_rule or {}).items()}
    return centers | {"log_weights": learned.log_weights, "mean_weights": learned.centers.mean_weights}


def draws_of_run(
    path: Path, student: Student, *, num_chains: int, num_draws: int, storage_type: str = "float32"
) -> DrawStore:
    """The store that a run's draws are streamed to: the one that is there, or an empty one."""
    if (store := existing_draws_of_run(path, student)) is not None:
        return store
    _remove_what_a_kill_left(path)
    sizes = {"num_chains": num_chains, "num_draws": num_draws}
    return create_draws(path / "draws", _template_of(student), **sizes, storage_type=storage_type)


def existing_draws_of_run(path: Path, student: Student) -> DrawStore | None:
    """The store that is there, or None."""
    return open_draws(path / "draws", _template_of(student)) if _has_draws(path) else None


def kept_predictions_of_run(
    path: Path, kind: str, probing: Probing, *, num_chains: int, num_draws: int
) -> PredictionStore | MomentStore:
    """The store of what a run keeps of its draws' predictions: the one that is there, or an empty one."""
    if _has_draws(path):
        return open_kept_predictions(path / "draws", probing)
    _remove_what_a_kill_left(path)
    return create_kept_predictions(kind, path / "draws", probing, num_chains=num_chains, num_draws=num_draws)


def _has_draws(path: Path) -> bool:
    return (path / "draws" / "manifest.json").exists()


def _remove_what_a_kill_left(path: Path) -> None:
    """Remove a store without a manifest, and so without a draw."""
    shutil.rmtree(path / "draws", ignore_errors=True)


def _template_of(student: Student) -> Any:
    return jax.eval_shape(student.init, jax.random.key(0))


@contextmanager
def checkpoints_of_run(path: Path, *, seconds_between: float) -> Iterator[ChainCheckpoints]:
    """The checkpoints of a run; a SIGTERM, as batch systems send it before they kill, asks for one more and the end."""
    with ChainCheckpoints(path / CHECKPOINTS, seconds_between=seconds_between) as checkpoints:
        previous = signal.signal(signal.SIGTERM, lambda *_: checkpoints.stop())
        try:
            yield checkpoints
        finally:
            signal.signal(signal.SIGTERM, previous)
