"""Run directories: everything that a distillation leaves behind, and what is needed to predict from it or to repeat it.

    RUN/config.json        what was asked for, and digests of the input files
    RUN/manifest.json      versions, seed, digests of the input files, teachers, classes, how inputs are standardised
    RUN/selection.json     the settings chosen and how every candidate did
    RUN/draws/             the student's parameters, or what is kept of their predictions
    RUN/prediction.npz     of the probes, where no parameters are kept
    RUN/components.json    how probable each component of the weight-space prior is, and which chains have sampled it
    RUN/teachers.npz       per training example (per one of the sample that is learned from, where not all fit in
                           memory): id, weights and responsibilities with 90 % intervals, and the same by class;
                           component 0 is "nobody"
    RUN/diagnostics.json   whether the chains have mixed
    RUN/metrics.json       figures of merit, and whom the student follows
    RUN/log.jsonl          what the run was at, as it went on
    RUN/figures/           PNG

A finished directory is never written into again. What an unfinished one has besides, ``unfinished`` says.
"""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbkd_jax import storage
from mtbkd_jax.checks import check_example_shape, check_one_of
from mtbkd_jax.data import Standardizer
from mtbkd_jax.diagnostics import Diagnostics, diagnose, to_arviz
from mtbkd_jax.distillation import Distillation
from mtbkd_jax.draw_chunks import kind_of_draws
from mtbkd_jax.draws import DrawStore, open_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.function_prior import responsibilities
from mtbkd_jax.judging import (
    NUM_PROBES,
    judged_every,
    judged_log_density,
    judged_log_probs,
    judged_rows,
    log_probs_by_chain,
    rows_of_probes,
)
from mtbkd_jax.kept_predictions import (
    KeptPredictions,
    MomentStore,
    PredictionStore,
    PredictiveMoments,
    open_kept_predictions,
)
from mtbkd_jax.lessons import with_components
from mtbkd_jax.metrics import classification_metrics, out_of_distribution_auroc
from mtbkd_jax.posterior_sampling import SampledPosterior
from mtbkd_jax.prediction import Prediction, example_blocks, flatten_weights, predict_from
from mtbkd_jax.students import Student, cnn, mlp, ordinal
from mtbkd_jax.types import Key
from mtbkd_jax.uncertainty import COVERAGE_LEVELS, coverage, mean_deviance, predictive_entropy, predictive_mean

if TYPE_CHECKING:
    from arviz import InferenceData

_FORMAT: dict[str, Any] = {"format_name": "mtbkd_jax.run", "version": 3}
_RESPONSIBILITY_VALUES = 1 << 22
"""Log class probabilities whose responsibilities are found at a time; their quantiles take several times the memory."""

_PACKAGES = (
    "mtbkd-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "blackjax",
    "numpyro",
    "numpy",
    "scikit-learn",
    "tensorstore",
)


@dataclass(frozen=True)
class StudentConfig:
    """The student's architecture.

    Attributes:
      kind: a multilayer perceptron, or a small convolutional network on images.
      hidden: widths of the hidden layers, or of the convolutions.
      ordered: whether the classes are ordered, the lowest first, so that the network gives a place among them
        (``students.ordinal``).
    """

    kind: Literal["mlp", "cnn"] = "mlp"
    hidden: tuple[int, ...] = (128,)
    ordered: bool = False

    def build(self, input_shape: Sequence[int], num_classes: int) -> Student:
        """The student for inputs of this shape."""
        if self.ordered:
            return ordinal(dataclasses.replace(self, ordered=False).build(input_shape, 1), num_classes)
        check_one_of(("mlp", "cnn"), "student", "kind", self.kind)
        if self.kind == "mlp":
            return mlp(num_features=int(np.prod(input_shape)), hidden=self.hidden, num_classes=num_classes)
        if len(input_shape) not in (2, 3):
            raise InputError(
                "student",
                "inputs",
                f"examples of shape {tuple(input_shape)}",
                "images (height, width) or (height, width, colours) for a cnn",
                "Choose the mlp, or give images.",
            )
        return cnn(image_shape=input_shape, channels=self.hidden, num_classes=num_classes)


@dataclass(frozen=True)
class Run:
    """A finished run, opened to predict from.

    Attributes:
      path: the directory.
      student: the network.
      input_shape: of one example.
      standardizer: of the inputs, or None where they are taken as they are.
      class_names: in the order of the logits.
      draws: the student's parameters, or what is kept of their predictions.
      chain_weights: what the draws of each chain count together, ``[chains]``.
      prediction_temperature: what predictions divide the student's logits by.
    """

    path: Path
    student: Student
    input_shape: tuple[int, ...]
    standardizer: Standardizer | None
    class_names: tuple[str, ...]
    draws: DrawStore | PredictionStore | MomentStore
    chain_weights: np.ndarray
    prediction_temperature: float

    def standardize(self, inputs: np.ndarray) -> np.ndarray:
        """Raw inputs as the student knows them."""
        check_example_shape(inputs, self.input_shape, str(self.path))
        return inputs if self.standardizer is None else self.standardizer(inputs)

    def predict(self, inputs: np.ndarray, *, level: float = 0.95) -> Prediction:
        """Predict raw inputs ``[examples, ...]``.

        Raises:
          InputError: if the inputs are not as those of the training, or the run keeps no parameters.
        """
        blocks = example_blocks(len(inputs), self.draw_weights.size, len(self.class_names))
        return predict_from(
            (self.log_probs(inputs[block]) for block in blocks), jnp.asarray(self.draw_weights), level=level
        )

    @property
    def draw_weights(self) -> np.ndarray:
        """What each draw counts, ``[draws]``: by the probability of the component that its chain has sampled."""
        return flatten_weights(self.chain_weights, self.draws.num_draws)

    def log_probs(self, inputs: np.ndarray) -> np.ndarray:
        """Log class probabilities of every draw, ``[draws, examples, classes]``; raises as ``predict`` does."""
        if not isinstance(self.draws, DrawStore):
            found, expected = f"{self.draws.kind} of a probe set alone", "the parameters of the draws"
            action = "Read prediction.npz or `Run.kept_prediction`, or begin another run with --draws float32."
            raise InputError(str(self.path), "draws", found, expected, action)
        inputs, temperature = self.standardize(inputs), self.prediction_temperature
        by_chain = log_probs_by_chain(self.student, self.draws, inputs, temperature=temperature)
        return by_chain.reshape(-1, *by_chain.shape[2:])

    def kept_prediction(self, *, level: float = 0.95) -> Prediction | PredictiveMoments:
        """What the posterior says of the probes that were named before the run, in their order.

        Args:
          level: of the credible interval, which moments have none of.

        Raises:
          InputError: if the run keeps parameters, from which everything can be predicted.
        """
        if isinstance(self.draws, MomentStore):
            return self.draws.moments(self.chain_weights)
        if isinstance(self.draws, PredictionStore):
            return self.draws.prediction(self.chain_weights, level=level)
        action = "Predict the inputs by `Run.predict`."
        raise InputError(str(self.path), "draws", "parameters", "predictions of a probe set", action)

    def to_arviz(
        self, inputs: np.ndarray, labels: np.ndarray, *, ids: Sequence[str] | np.ndarray, key: Key
    ) -> "InferenceData":
        """The run as ArviZ knows it, on these raw inputs: ``diagnostics.to_arviz`` says what is in it.

        Args:
          inputs: ``[examples, ...]``.
          labels: ``[examples]``, -1 where there is none.
          ids: name of each example.
          key: draws labels from the posterior predictive.
        """
        log_density = np.asarray(self.draws.log_density())
        log_probs = self.log_probs(inputs)
        return to_arviz(
            log_probs.reshape(*log_density.shape, *log_probs.shape[1:]),
            log_density,
            labels=labels,
            ids=ids,
            class_names=self.class_names,
            key=key,
        )


def finish_run(
    path: Path,
    distillation: Distillation,
    *,
    student: StudentConfig,
    seed: int,
    ids: np.ndarray,
    teacher_names: Sequence[str],
    class_names: Sequence[str],
    standardizer: Standardizer | None,
    digests: Mapping[str, str],
    probes: np.ndarray | None = None,
) -> tuple[Diagnostics, "PosteriorResponsibilities"]:
    """Write everything but the metrics, and the manifest at the end.

    Args:
      path: the directory that ``start_run`` made.
      distillation: what to write.
      student: its architecture.
      seed: the run's.
      ids: of the training examples, in the user's order.
      teacher_names: in the order of the logits.
      class_names: in the order of the logits.
      standardizer: of the inputs, or None.
      digests: SHA-256 of each input file.
      probes: standardised inputs on whose predictions convergence is judged, of which the first hundred are used; None
        takes the training examples, and so does a run that keeps no parameters.

    Returns:
      Whether the chains have mixed, and whom the student follows.
    """
    from mtbkd_jax import figures

    examples = distillation.lessons.examples
    posterior = distillation.posterior
    run = posterior.run
    components = component_names(posterior, teacher_names)
    storage.write_json(path / "selection.json", distillation.choice.to_json())

    prediction_temperature = float(distillation.choice.settings.prediction_temperature)
    probe_log_probs = _of_probes(distillation, probes)
    log_density = judged_log_density(run)
    # Chains of different components are meant to differ.
    diagnostics_of = {}
    for number in np.unique(posterior.component_of_chain):
        chains = posterior.component_of_chain == number
        diagnostics_of[number] = diagnose(probe_log_probs[chains], log_density[chains])
    diagnostics = diagnostics_of[posterior.main_component]
    failed = {f"chain {chain}": int(step) for chain, step in enumerate(run.failed_at) if step >= 0}
    storage.write_json(
        path / "diagnostics.json",
        diagnostics.to_json()
        | {
            "components": {components[number]: of.to_json() for number, of in diagnostics_of.items()},
            "chains_stopped_at_step": failed,
        },
    )
    storage.write_json(path / "components.json", components_to_json(posterior, teacher_names))

    record = posterior_responsibilities(distillation, len(class_names))
    in_users_order = np.argsort(distillation.order)
    with storage.translated_errors(path / "teachers.npz"):
        np.savez_compressed(
            path / "teachers.npz",
            ids=ids[np.sort(distillation.order)],
            components=np.array(["nobody", *teacher_names]),
            weights=np.exp(np.asarray(distillation.lessons.log_weights))[in_users_order],
            responsibilities=record.mean[in_users_order],
            responsibilities_interval=record.interval[:, in_users_order],
            responsibilities_by_class=record.mean_by_class,
            responsibilities_by_class_interval=record.interval_by_class,
        )
    drawn = {
        "responsibilities": figures.responsibilities_by_class(
            record.mean_by_class, record.interval_by_class, tuple(teacher_names), tuple(class_names)
        ),
        "traces": figures.traces(
            log_density,
            probe_log_probs[:, :, :3],
            probe_names=[f"probe {i}" for i in range(min(3, probe_log_probs.shape[2]))],
            class_names=tuple(class_names),
        ),
    }
    if distillation.choice.curve:
        drawn["cross_validation"] = figures.cross_validation(distillation.choice)
    figures.save_figures(drawn, path / "figures")
    if isinstance(run.positions, PredictionStore):
        write_prediction(path / "prediction.npz", run.positions.prediction(posterior.chain_weights))
    if isinstance(run.positions, MomentStore):
        write_prediction(path / "prediction.npz", run.positions.moments(posterior.chain_weights))

    storage.write_manifest(
        path / "manifest.json",
        {
            "student": dataclasses.asdict(student),
            "input_shape": list(examples.inputs.shape[1:]),
            "seed": seed,
            "class_names": list(class_names),
            "teacher_names": list(teacher_names),
            "chain_weights": posterior.chain_weights.tolist(),
            "prediction_temperature": prediction_temperature,
            "standardizer": None if standardizer is None else standardizer.to_json(),
            "input_sha256": dict(digests),
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "python": platform.python_version(),
            "backend": jax.default_backend(),
        },
        **_FORMAT,
    )
    return diagnostics, record


def open_run(path: str | Path) -> Run:
    """Open a finished run.

    Raises:
      InputError: if there is none. CorruptDataError: if its files were altered.
    """
    path = Path(path)
    manifest = storage.read_manifest(path / "manifest.json", **_FORMAT)
    of_student = manifest["student"]  # runs from before there were ordered classes do not speak of them
    config = StudentConfig(of_student["kind"], tuple(of_student["hidden"]), of_student.get("ordered", False))
    input_shape = tuple(manifest["input_shape"])
    student = config.build(input_shape, len(manifest["class_names"]))
    standardizer = None if manifest["standardizer"] is None else Standardizer.from_json(manifest["standardizer"])
    store: DrawStore | PredictionStore | MomentStore
    if kind_of_draws(path / "draws") == "parameters":
        store = open_draws(path / "draws", jax.eval_shape(student.init, jax.random.key(0)))
    else:
        store = open_kept_predictions(path / "draws")
    chain_weights = np.asarray(manifest["chain_weights"])
    return Run(
        path,
        student,
        input_shape,
        standardizer,
        tuple(manifest["class_names"]),
        store,
        chain_weights,
        manifest["prediction_temperature"],
    )


def write_prediction(path: Path, prediction: Prediction | PredictiveMoments) -> None:
    """Write it as an NPZ file, a field for each attribute."""
    with storage.translated_errors(path), path.open("wb") as file:
        np.savez_compressed(file, **prediction._asdict())


def _of_probes(
    distillation: Distillation, probes: np.ndarray | None
) -> Float[np.ndarray, "chains judged probes classes"]:
    """Log class probabilities of the examples on which convergence is judged, as they are predicted."""
    run, temperature = distillation.posterior.run, float(distillation.choice.settings.prediction_temperature)
    if probes is not None and not isinstance(run.positions, KeptPredictions):
        inputs, every = probes[:NUM_PROBES], judged_every(run.info.log_density.shape[1])
        return log_probs_by_chain(distillation.student, run.positions, inputs, every=every, temperature=temperature)
    log_probs = judged_log_probs(distillation.student, run, distillation.lessons, rows_of_probes(distillation.order))
    return np.asarray(jax.nn.log_softmax(log_probs / temperature))


class PosteriorResponsibilities(NamedTuple):
    """How far the student's predictions follow each teacher, over the posterior; component 0 is "nobody".

    Where a run keeps no parameters they are known of the training examples that it is judged by, and NaN elsewhere.

    Attributes:
      mean: of each example, ``[examples, components]``.
      interval: its ends at 5 % and 95 % of the posterior, ``[2, examples, components]``.
      mean_by_class: mean over the labelled examples of each class, NaN where there is none, ``[classes, components]``.
      interval_by_class: of that mean, ``[2, classes, components]``.
      mean_of_all: mean over all examples, ``[components]``.
      interval_of_all: of that mean, ``[2, components]``.
    """

    mean: np.ndarray
    interval: np.ndarray
    mean_by_class: np.ndarray
    interval_by_class: np.ndarray
    mean_of_all: np.ndarray
    interval_of_all: np.ndarray

    def to_json(self, teacher_names: Sequence[str], class_names: Sequence[str]) -> dict[str, Any]:
        """Means and intervals of the whole and of each class, as JSON values; None for a class without a label."""

        def known(values: np.ndarray) -> list[float | None]:
            return [storage.finite_or_none(value) for value in values]

        def of(mean: np.ndarray, interval: np.ndarray) -> dict[str, Any]:
            return {"mean": known(mean), "interval": [known(ends) for ends in interval.T]}

        classes = zip(class_names, self.mean_by_class, np.swapaxes(self.interval_by_class, 0, 1), strict=True)
        return {
            "components": ["nobody", *teacher_names],
            "all": of(self.mean_of_all, self.interval_of_all),
            "by_class": {name: of(mean, interval) for name, mean, interval in classes},
        }


def posterior_responsibilities(distillation: Distillation, num_classes: int) -> PosteriorResponsibilities:
    """Responsibilities over the draws that a run is judged by, with the weights of their chains; in lessons' order."""
    posterior, lessons = distillation.posterior, distillation.lessons
    examples = with_components(lessons, distillation.choice.settings)
    rows = judged_rows(posterior.run, lessons)
    labels = np.asarray(examples.labels)[rows]
    stands_for = None if examples.stands_for is None else np.asarray(examples.stands_for)
    num_judged = judged_log_density(posterior.run).shape[1]
    draw_weights = flatten_weights(posterior.chain_weights, num_judged)

    @jax.jit
    def of_block(log_probs, components):
        return jax.lax.map(lambda of_draw: responsibilities(of_draw, components), log_probs)

    def summary(values):
        """Mean over draws, and the ends of the interval."""
        ends = np.quantile(values, (0.05, 0.95), axis=0, weights=draw_weights, method="inverted_cdf")
        return np.tensordot(draw_weights, values, axes=1), ends

    shape = examples.components.log_offsets.shape
    mean, interval = np.full(shape, np.nan), np.full((2, *shape), np.nan)
    sums = np.zeros((draw_weights.size, num_classes, shape[1]))
    total = np.zeros((draw_weights.size, shape[1]))
    length = max(1, _RESPONSIBILITY_VALUES // (draw_weights.size * max(num_classes, shape[1])))
    for start in range(0, rows.size, length):
        block = rows[start : start + length]
        log_probs = judged_log_probs(distillation.student, posterior.run, lessons, block)
        components = jax.tree.map(lambda leaf, block=block: leaf[block], examples.components)
        values = np.asarray(of_block(log_probs.reshape(-1, *log_probs.shape[2:]), components))
        mean[block], interval[:, block] = summary(values)
        total += (values if stands_for is None else values * stands_for[block][None, :, None]).sum(1)
        block_labels = labels[start : start + length]
        for label in np.unique(block_labels[block_labels >= 0]):
            sums[:, label] += values[:, block_labels == label].sum(1)
    num_examples = rows.size if stands_for is None else stands_for[rows].sum()
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    by_class = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)
    return PosteriorResponsibilities(mean, interval, *summary(by_class), *summary(total / num_examples))


def component_names(posterior: SampledPosterior, teacher_names: Sequence[str]) -> tuple[str, ...]:
    """Names of the components of the weight-space prior, as many as it has."""
    return ("wide", "pool", *teacher_names)[: posterior.weights.weights.size]


def components_to_json(posterior: SampledPosterior, teacher_names: Sequence[str]) -> dict[str, Any]:
    """Each component's posterior probability, its standard error, the chains that have sampled it, and damping."""
    weights = posterior.weights
    return {
        "method": weights.method,
        "chain_weights": posterior.chain_weights.tolist(),
        "is_stacked": posterior.is_stacked,
        "components": [
            {
                "name": name,
                "probability": float(weights.weights[number]),
                "standard_error": float(weights.standard_errors[number]),
                "chains": np.flatnonzero(posterior.component_of_chain == number).tolist(),
                "is_damped": bool(posterior.is_damped[number]),
            }
            for number, name in enumerate(component_names(posterior, teacher_names))
        ],
    }


def all_metrics(
    log_probs: np.ndarray, labels: np.ndarray, draw_weights: np.ndarray | None = None
) -> dict[str, float | None]:
    """Every metric from the draws' predictions ``[draws, examples, classes]``; None where one is not defined."""
    draws = jnp.asarray(log_probs)
    weights = None if draw_weights is None else jnp.asarray(draw_weights)
    probs = np.asarray(predictive_mean(draws, weights))
    metrics = classification_metrics(probs, labels, np.asarray(predictive_entropy(draws, weights)))
    covered = _coverage_at_all_levels(draws, jnp.asarray(labels), weights)
    metrics |= {
        f"coverage_{round(100 * level)}": float(share) for level, share in zip(COVERAGE_LEVELS, covered, strict=True)
    }
    return {name: storage.finite_or_none(value) for name, value in metrics.items()}


@jax.jit
def _coverage_at_all_levels(draws: Array, labels: Array, weights: Array | None) -> list[Array]:
    return [coverage(draws, labels, weights, level=level) for level in COVERAGE_LEVELS]


def write_evaluation(
    path: Path,
    run: Run,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    outside: np.ndarray | None = None,
    besides: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, float | None]:
    """Write ``metrics.json`` and the figures of labelled data into ``path``; return the metrics.

    Args:
      path: a directory.
      run: predicts.
      inputs: as the run takes them, not standardised.
      labels: of the inputs; -1 is left out.
      outside: inputs from another distribution, which the entropy of the prediction is to tell from these.
      besides: what else ``metrics.json`` is to say.
    """
    from mtbkd_jax import figures

    log_probs, weights = run.log_probs(inputs), jnp.asarray(run.draw_weights)
    metrics = all_metrics(log_probs, labels, run.draw_weights)
    draws = jnp.asarray(log_probs)
    entropy = np.asarray(predictive_entropy(draws, weights))
    if outside is not None:
        metrics["out_of_distribution_auroc"] = out_of_distribution_auroc(
            entropy, predictive_entropy(jnp.asarray(run.log_probs(outside)), weights)
        )
    storage.write_json(path / "metrics.json", metrics | dict(besides))
    probs, deviance = np.asarray(predictive_mean(draws, weights)), np.asarray(mean_deviance(draws, weights))
    (path / "figures").mkdir(exist_ok=True)
    drawn = {
        "reliability": figures.reliability_diagram(probs, labels),
        "deviance": figures.deviance_by_class(deviance, labels, run.class_names),
    }
    if (probs.argmax(1) != labels)[labels >= 0].any():
        uncertainties = {"entropy": entropy, "mean deviance": deviance}
        drawn["risk_coverage"] = figures.risk_coverage(probs, labels, uncertainties)
    figures.save_figures(drawn, path / "figures")
    return metrics
