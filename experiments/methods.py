"""The methods that studies compare, on the same inputs, labels and teachers, and what each of them scores.

``compare`` makes the teachers' rows, a student without teachers, one of classical distillation for each loss, and
MT-BKD; all students have the same architecture, and each chooses its own settings on the labels by the same
cross-validation.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments import study
from experiments.tasks import Task
from mtbkd_jax.baselines import ClassicalStudent, DistillationLoss, distil_classically, pooled_loss
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.distillation import learn
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.metrics import out_of_distribution_auroc
from mtbkd_jax.posterior_sampling import SampledPosterior, sample_posterior
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.runs import all_metrics
from mtbkd_jax.selection import Budget
from mtbkd_jax.settings import PosteriorSettings
from mtbkd_jax.students import Student
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.types import Key, Params
from mtbkd_jax.uncertainty import predictive_entropy, predictive_mean
from mtbkd_jax.weighting import uniform_weighting

NO_TEACHER, KD, KD_BY_TRUST, MTBKD = "no teacher", "KD", "KD by learned trust", "MT-BKD"

METRICS = (*study.METRICS, "error_detection_auroc")
"""The metrics of a row that tables show, beside its seconds."""

SHORT = DistillationConfig(
    num_folds=3,
    budget=Budget(num_burn_in=40, num_steps=160),
    sampling=SamplingConfig(num_mode_steps=500, num_burn_in=2000, num_draws=50, thinning=100),
)
"""Half as much sampling as the library's defaults, for students that take a millisecond a step on a CPU.

Candidates climb as long as by default: in half as many steps a convolutional student hardly leaves its start, and low
powers, which learn faster, win (``experiments/digit_domains``)."""

Row = dict[str, Any]
"""A method on one seed: ``method``, ``seed``, the metrics by name (None where there is none), and ``seconds``."""

Made = TypeVar("Made")


class Draws(NamedTuple):
    """Parameters stacked over draws, what they weigh (None: the same), and the temperature of their predictions."""

    params: Params
    weights: np.ndarray | None = None
    prediction_temperature: float = 1.0

    def log_probs(self, student: Student, inputs: np.ndarray) -> np.ndarray:
        """Log class probabilities of every draw, ``[draws, examples, classes]``."""
        return predictive_log_probs(student, self.params, inputs, temperature=self.prediction_temperature)


class Comparison(NamedTuple):
    """What came out of ``compare``.

    Attributes:
      rows: one for each method.
      lessons: what the students were taught.
      students: those of classical distillation, by the name of their loss.
      draws: of MT-BKD.
    """

    rows: list[Row]
    lessons: Lessons
    students: dict[str, ClassicalStudent]
    draws: Draws


def usual_losses(config: DistillationConfig) -> dict[str, DistillationLoss]:
    """Classical distillation from the teachers' mean: with equal weights, and with the trust that we learn."""
    return {
        KD: pooled_loss(uniform_weighting()),
        KD_BY_TRUST: pooled_loss(learned_trust(num_folds=config.num_folds)),
    }


def compare(
    key: Key,
    task: Task,
    student: Student,
    *,
    seed: int,
    losses: Mapping[str, DistillationLoss],
    config: DistillationConfig = DistillationConfig(),
) -> Comparison:
    """Run the methods on one seed; their seconds include the choice of settings and the compilation.

    Args:
      key: of everything.
      task: what the students are given.
      student: the architecture of all.
      seed: what the rows say of where they come from.
      losses: of classical distillation, by name.
      config: how.
    """
    learn_key, classical_key, plain_key, sample_key = jax.random.split(key, 4)
    (lessons, _, choice), learning = timed(
        learn, learn_key, task.inputs, task.labels, task.teacher_logits, student, groups=task.groups, config=config
    )
    plain, seconds = timed(sample_posterior, plain_key, student, lessons, choice.no_teacher, powers=None, config=config)
    rows = [
        *teacher_rows(task, seed),
        row_of(NO_TEACHER, task, student, draws_of(plain, choice.no_teacher), seed, learning + seconds),
    ]
    students = {}
    for name, loss in losses.items():
        students[name], seconds = timed(distil_classically, classical_key, student, lessons, config, loss=loss)
        rows.append(row_of(name, task, student, single_draw(students[name]), seed, seconds))
    posterior, seconds = timed(
        sample_posterior, sample_key, student, lessons, choice.settings, powers=choice.powers, config=config
    )
    draws = draws_of(posterior, choice.settings)
    chosen = {
        "settings": choice.settings.to_json(),
        "powers": None if choice.powers is None else choice.powers._asdict(),
    }
    rows.append(row_of(MTBKD, task, student, draws, seed, learning + seconds) | chosen)
    return Comparison(rows, lessons, students, draws)


def timed(make: Callable[..., Made], *args: Any, **options: Any) -> tuple[Made, float]:
    """What ``make`` returns, and the seconds until it was there."""
    start = time.perf_counter()
    made = jax.block_until_ready(make(*args, **options))
    return made, time.perf_counter() - start


def draws_of(posterior: SampledPosterior, settings: PosteriorSettings) -> Draws:
    """All chains' draws, weighed as the chains are."""
    return Draws(flatten_chains(posterior.run.positions), posterior.draw_weights, settings.prediction_temperature)


def single_draw(student: ClassicalStudent) -> Draws:
    """Its one parameter vector."""
    params = jax.tree.map(lambda leaf: leaf[None], student.params)
    return Draws(params, prediction_temperature=student.prediction_temperature)


def row_of(method: str, task: Task, student: Student, draws: Draws, seed: int, seconds: float) -> Row:
    """What the draws score on the test set, and on what lies outside of it; printed as it comes."""
    log_probs = draws.log_probs(student, task.test_inputs)
    metrics = _metrics(task, log_probs, draws.weights)
    if task.outside_inputs is not None:
        outside = draws.log_probs(student, task.outside_inputs)
        weights = None if draws.weights is None else jnp.asarray(draws.weights)
        entropies = (np.asarray(predictive_entropy(jnp.asarray(part), weights)) for part in (log_probs, outside))
        metrics["ood_auroc"] = out_of_distribution_auroc(*entropies)
    result = {"method": method, "seed": seed, **metrics, "seconds": seconds}
    print(
        seed,
        method,
        {name: value for name, value in metrics.items() if value is not None},
        f"{seconds:.0f} s",
        flush=True,
    )
    return result


def teacher_rows(task: Task, seed: int) -> list[Row]:
    """The teachers on the test set. They have no draws and so no coverage, and their training is not timed."""
    log_probs = np.asarray(jax.nn.log_softmax(task.test_teacher_logits))
    rows = []
    for teacher, name in enumerate(task.teacher_names):
        metrics = _metrics(task, log_probs[None, :, teacher])
        metrics |= {key: None for key in metrics if key.startswith("coverage")}
        rows.append({"method": f"teacher: {name}", "seed": seed, "ood_auroc": None, **metrics, "seconds": None})
    return rows


def _metrics(task: Task, log_probs: np.ndarray, weights: np.ndarray | None = None) -> Row:
    metrics: Row = dict(all_metrics(log_probs, task.test_labels, weights))
    if task.further_metrics is not None:
        mean = predictive_mean(jnp.asarray(log_probs), None if weights is None else jnp.asarray(weights))
        metrics |= task.further_metrics(np.asarray(mean))
    return metrics
