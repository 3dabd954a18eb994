"""Predictions instead of draws: what a run keeps of the posterior where its parameters would not fit on the disk.

A *probe set* of inputs is named before the run. Of every draw is kept what it predicts of the probes, or only the
running moments of that, and the parameters are let go. Nothing else can be predicted afterwards. The directory has the
manifest, the checksums and the guarantees of ``draw_chunks``:

    log_probs/          [chains, draws, probes, classes]: log class probabilities, nats; of ``PredictionStore``
    probs/              [chains, 1, probes, classes]: sums over the draws of the class probabilities, of their squares
    squared_probs/      and of the entropies of a draw, nats; of ``MomentStore``, and there when all draws are in them
    entropy/
    judged/             [chains, judged draws, judged examples, classes]: log class probabilities of training examples,
                        by some of the draws; whether the chains have mixed and what they weigh is judged by these
    log_density/        [chains, draws], nats
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Int

from mtbkd_jax import storage
from mtbkd_jax.checks import check_one_of, check_positive
from mtbkd_jax.draw_chunks import LOG_DENSITY, ChunkedStore, Kept, empty_manifest, fitting_chunk, read_manifest
from mtbkd_jax.errors import InputError
from mtbkd_jax.prediction import (
    Prediction,
    example_blocks,
    flatten_chains,
    flatten_weights,
    predict_from,
    predictive_log_probs,
)
from mtbkd_jax.students import Student, num_parameters

_FILE_VALUES = 1 << 18
"""Log class probabilities in one file, about: 1 MiB."""


class Judged(NamedTuple):
    """The training examples and the draws that a run is judged by.

    Attributes:
      inputs: of the examples.
      rows: of the examples, in the lessons; ascending.
      every: how many draws there are for each that is kept, the first of them.
    """

    inputs: Float[Array | np.ndarray, "judged ..."]
    rows: Int[np.ndarray, " judged"]
    every: int


class Probing(NamedTuple):
    """What is predicted by the draws as they come.

    Attributes:
      student: the network.
      probes: the named inputs, standardised as the training inputs were.
      temperature: what the logits of the probes are divided by.
      judged: what the run is judged by; the logits of these are left as they are.
    """

    student: Student
    probes: Float[Array | np.ndarray, "probes ..."]
    temperature: float
    judged: Judged


class PredictiveMoments(NamedTuple):
    """What running moments say of each probe.

    Attributes:
      probs: predictive mean, ``[probes, classes]``.
      standard_deviation: of a class probability between draws, ``[probes, classes]``.
      mean_deviance: ``[probes]``, nats.
      epistemic: mutual information between label and parameters, ``[probes]``, nats.
    """

    probs: Float[np.ndarray, "probes classes"]
    standard_deviation: Float[np.ndarray, "probes classes"]
    mean_deviance: Float[np.ndarray, " probes"]
    epistemic: Float[np.ndarray, " probes"]


class KeptPredictions(ChunkedStore, ABC):
    """What the two sinks have in common; made by ``create_...``, or ``open_kept_predictions``.

    Chains that failed are stored as they came and never read.

    Args:
      path: the directory.
      manifest: its content.
      probing: what to predict of draws that are appended; None only reads.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, manifest: dict[str, Any], probing: Probing | None):
        judged = Kept((len(manifest["judged_rows"]), manifest["num_classes"]), "float32", manifest["judged_every"])
        super().__init__(path, manifest, self._arrays_of_probes(manifest) | {"judged": judged} | LOG_DENSITY)
        self._probing = probing

    @staticmethod
    @abstractmethod
    def _arrays_of_probes(manifest: dict[str, Any]) -> dict[str, Kept]:
        """The arrays that the probes fill."""

    @abstractmethod
    def _keep(
        self, log_probs: Float[np.ndarray, "chains draws probes classes"], rest: dict[str, np.ndarray], failed_at: Any
    ) -> None:
        """Write what is kept of the probes, and the rest of the chunk."""

    def append(
        self,
        positions: Any,
        log_density: np.ndarray,
        failed_at: np.ndarray,
        chains: Int[np.ndarray, " own"] | None = None,
    ) -> None:
        """Add what the next draws of all chains predict; on the disk when this returns.

        Args:
          positions: the student's parameters with leading axes ``[chains, draws]``.
          log_density: ``[chains, draws]``, nats.
          failed_at: ``[chains]``, -1 for a chain that has not failed.
          chains: numbers of the chains that this process has, which must be all.

        Raises:
          InputError: if this is not the chunk that comes next, the store was opened to read, or some chains are with
            another process.
          StorageError: if the disk is full.
        """
        num_own = self._numbers(chains).size
        if num_own < self.failed_at.size:
            found, expected = f"{num_own} in this process", f"all {self.failed_at.size}"
            action = "Keep the parameters, or sample by one process."
            raise InputError(str(self.path), "chains", found, expected, action)
        if self._probing is None:
            action = "Open it with what is to be predicted."
            raise InputError(str(self.path), "appended draws", "a store to read", "one to append to", action)
        self._check_is_next_chunk(log_density.shape[1])
        _, probes, temperature, judged = self._probing
        rest = {"log_density": np.asarray(log_density, np.float32)}
        first, every = -self.num_draws % judged.every, judged.every
        if first < log_density.shape[1]:
            some = jax.tree.map(lambda leaf: leaf[:, first::every], positions)
            rest["judged"] = _log_probs(self._probing.student, some, judged.inputs, 1.0)
        self._keep(_log_probs(self._probing.student, positions, probes, temperature), rest, failed_at)

    @property
    def judged_rows(self) -> Int[np.ndarray, " judged"]:
        """Rows of the lessons whose predictions are kept for judging."""
        return np.asarray(self._manifest["judged_rows"], int)

    def judged_log_probs(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "chains judged_draws rows classes"]:
        """Read log class probabilities of some of ``judged_rows`` by the draws that a run is judged by, in nats.

        Raises:
          InputError: if a row is not among them.
          CorruptDataError: if a chunk was truncated, altered or removed.
        """
        if not np.isin(rows, self.judged_rows).all():
            found = f"{len(np.setdiff1d(rows, self.judged_rows))} of which nothing is kept"
            action = "Make the store with what `judging.judged_of` says of these lessons."
            raise InputError(str(self.path), "rows", found, "rows that the run is judged by", action)
        return self._read("judged")[:, :, np.searchsorted(self.judged_rows, rows)]


class PredictionStore(KeptPredictions):
    """The log class probabilities of the probes by every draw, at the temperature of the probing."""

    kind = "predictions"

    @staticmethod
    def _arrays_of_probes(manifest: dict[str, Any]) -> dict[str, Kept]:
        num_probes, num_classes = manifest["num_probes"], manifest["num_classes"]
        block = max(1, min(num_probes, _FILE_VALUES // (manifest["draws_per_chunk"] * num_classes)))
        return {"log_probs": Kept((num_probes, num_classes), "float32", block=block)}

    def _keep(
        self, log_probs: Float[np.ndarray, "chains draws probes classes"], rest: dict[str, np.ndarray], failed_at: Any
    ) -> None:
        self._append({"log_probs": log_probs} | rest, failed_at)

    def log_probs(self, probes: slice = slice(None)) -> Float[np.ndarray, "chains draws probes classes"]:
        """Read log class probabilities in nats, of all probes or some.

        Raises:
          CorruptDataError: if a chunk was truncated, altered or removed.
        """
        return self._read("log_probs", inner=(slice(*probes.indices(self._manifest["num_probes"])),))

    def prediction(self, chain_weights: Float[np.ndarray, " chains"], *, level: float = 0.95) -> Prediction:
        """What the posterior says of each probe, by all draws and what those of each chain count together.

        Args:
          chain_weights: non-negative and summing to one.
          level: of the credible interval.
        """
        num_probes, num_classes = self._manifest["num_probes"], self._manifest["num_classes"]
        blocks = example_blocks(num_probes, self.num_chains * self.num_draws, num_classes)
        draw_weights = jnp.asarray(flatten_weights(chain_weights, self.num_draws))
        by_chain = (self.log_probs(block) for block in blocks)
        by_draw = (log_probs.reshape(-1, *log_probs.shape[2:]) for log_probs in by_chain)
        return predict_from(by_draw, draw_weights, level=level)


class MomentStore(KeptPredictions):
    """Running moments of the class probabilities of the probes, at the temperature of the probing.

    Sums in float64 of the probabilities, of their squares and of each draw's entropy. They give the predictive mean,
    how far draws differ, the mean deviance and the mutual information, and say nothing of what takes all draws at
    once: quantiles, such as the end of the credible interval of the deviance, its coverage, and effective sample sizes.

    Until the last draw has come the sums are in memory, and are saved with the chains by the checkpoints of
    ``sample_chains``, so that a run that was killed goes on to the bit.
    """

    kind = "moments"
    _SUMS = ("probs", "squared_probs", "entropy")

    def __init__(self, path: Path, manifest: dict[str, Any], probing: Probing | None):
        super().__init__(path, manifest, probing)
        self._sums = None if manifest["num_complete"] else self._no_sums()

    @staticmethod
    def _arrays_of_probes(manifest: dict[str, Any]) -> dict[str, Kept]:
        probes = manifest["num_probes"]
        every = {"dtype": "float64", "every": manifest["num_planned"]}
        of_classes = Kept((probes, manifest["num_classes"]), **every)
        return {"probs": of_classes, "squared_probs": of_classes, "entropy": Kept((probes,), **every)}

    def state(self) -> Mapping[str, np.ndarray]:
        """The sums so far, ``[all chains, 1, probes, ...]``, to be saved with the chains."""
        return self._no_sums() if self._sums is None else self._sums

    def truncate(self, num_draws: int, state: Mapping[str, np.ndarray]) -> None:
        """Go back to the first ``num_draws`` draws of every chain, of which ``state`` are the sums."""
        self._sums = dict(state)
        self._manifest |= {"num_complete": num_draws}
        self._write_manifest()

    def _keep(
        self, log_probs: Float[np.ndarray, "chains draws probes classes"], rest: dict[str, np.ndarray], failed_at: Any
    ) -> None:
        if self._sums is None:
            action = "Go on from the checkpoints of the run, or begin another run."
            raise InputError(str(self.path), "moments", "those of a run that ended", "a place to go on from", action)
        probs = np.exp(log_probs, dtype=np.float64)
        new = {"probs": probs, "squared_probs": np.square(probs), "entropy": scipy.special.entr(probs).sum(-1)}
        # Other arrays than before: what a checkpoint was given may still be on its way to the disk.
        sums = {name: self._sums[name] + values.sum(1, keepdims=True) for name, values in new.items()}
        is_last = self.num_draws + log_probs.shape[1] == self._manifest["num_planned"]
        if is_last:
            for name, values in sums.items():
                storage.write(self._arrays[name], np.s_[:, :], values)
        self._append(rest, failed_at)
        self._sums = sums

    def moments(self, chain_weights: Float[np.ndarray, " chains"]) -> PredictiveMoments:
        """What the posterior says of each probe, by all draws and what those of each chain count together.

        Args:
          chain_weights: non-negative and summing to one.

        Raises:
          InputError: if draws are still to come.
          CorruptDataError: if a file was truncated, altered or removed.
        """
        if self.num_draws < self._manifest["num_planned"]:
            found, expected = f"{self.num_draws} of each chain", f"all {self._manifest['num_planned']}"
            raise InputError(str(self.path), "draws", found, expected, "Wait for the run to end, or resume it.")
        means = {name: self._read(name)[:, 0] / self.num_draws for name in self._SUMS}
        probs, squares, entropy = (np.tensordot(chain_weights, means[name], axes=1) for name in self._SUMS)
        return PredictiveMoments(
            probs,
            np.sqrt(np.maximum(squares - np.square(probs), 0)),
            2 * entropy,
            np.maximum(scipy.special.entr(probs).sum(-1) - entropy, 0),
        )

    def _no_sums(self) -> dict[str, np.ndarray]:
        shapes = {name: self._arrays[name].shape for name in self._SUMS}
        return {name: np.zeros(shape) for name, shape in shapes.items()}


def create_kept_predictions(
    kind: str, path: str | Path, probing: Probing, *, num_chains: int, num_draws: int
) -> PredictionStore | MomentStore:
    """Make an empty store.

    Args:
      kind: what is kept of the probes: ``predictions`` of every draw, or their running ``moments``.
      path: a directory that does not exist or is empty.
      probing: what is predicted.
      num_chains: chains of the run, failing ones included.
      num_draws: draws of each chain that are planned.

    Raises:
      InputError: if the directory has something in it, a number is not positive, or there is no such kind.
      StorageError: if the disk is full.
    """
    check_one_of(tuple(_STORES), "draws", "kind", kind)
    check_positive(num_chains=num_chains, num_draws=num_draws)
    description = _describe(probing)
    size = max(num_parameters(probing.student), description["num_probes"] * description["num_classes"])
    sizes = {"num_chains": num_chains, "num_draws": num_draws, "draws_per_chunk": fitting_chunk(num_chains, size)}
    manifest = empty_manifest(kind, **sizes) | description
    return _STORES[kind](storage.new_directory(path), manifest, probing)


def open_kept_predictions(path: str | Path, probing: Probing | None = None) -> PredictionStore | MomentStore:
    """Open a store, to read it or to append what is still planned.

    Args:
      path: the directory.
      probing: what is predicted of draws that are appended; None only reads.

    Raises:
      InputError: if there is no store, it holds parameters, or what it holds was predicted from something else.
      CorruptDataError: if the manifest was altered, or does not agree with the arrays.
    """
    path = Path(path)
    manifest = read_manifest(path, *_STORES)
    if probing is not None:
        for name, expected in _describe(probing).items():
            if manifest[name] != expected:
                action = "Go on with the student, the probes and the examples that the run was begun with."
                raise InputError(str(path), name, f"{manifest[name]}", f"{expected}", action)
    return _STORES[manifest["kind"]](path, manifest, probing)


_STORES: dict[str, type[PredictionStore] | type[MomentStore]] = {
    store.kind: store for store in (PredictionStore, MomentStore)
}


def _describe(probing: Probing) -> dict[str, Any]:
    params = jax.eval_shape(probing.student.init, jax.random.key(0))
    logits = jax.eval_shape(probing.student.apply, params, jnp.asarray(probing.probes[:1]))
    return {
        "num_probes": len(probing.probes),
        "num_classes": logits.shape[1],
        "temperature": probing.temperature,
        "judged_rows": probing.judged.rows.tolist(),
        "judged_every": probing.judged.every,
        "sha256_of_probes": _digest(probing.probes),
        "sha256_of_judged": _digest(probing.judged.inputs),
    }


def _digest(inputs: Array | np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest()


def _log_probs(
    student: Student, positions: Any, inputs: Array | np.ndarray, temperature: float
) -> Float[np.ndarray, "chains draws examples classes"]:
    draws = flatten_chains(jax.tree.map(jnp.asarray, positions))
    log_probs = predictive_log_probs(student, draws, inputs, temperature=temperature)
    return log_probs.reshape(*jax.tree.leaves(positions)[0].shape[:2], *log_probs.shape[1:])
