"""What the studies of the two simulations share: students with and without teachers, over the number of labels.

For each draw of data and teachers and each number of labels, the posterior of the same small student is sampled

- without teachers;
- with trust learned on the labels and the priors' settings chosen on them;
- the same with one teacher more, which is confident noise: always sure of a class drawn at random;
- with the paper's entropy weights, at its power of one and its authors' concentration of five.

A study may show what its students think of places of its own (``Views``): simulation 1 draws a map of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.methods import draws_of
from experiments.simulations import Design, Simulation, simulation_draws
from experiments.study import kept, markdown_table, results_files, rows_of, study_parser, summary, write_results
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.distillation import learn
from mtbkd_jax.figures import save_figures
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.posterior_sampling import SampledPosterior, sample_posterior
from mtbkd_jax.runs import all_metrics
from mtbkd_jax.selection import Budget, Choice, GivenSettings
from mtbkd_jax.settings import PosteriorSettings, Powers
from mtbkd_jax.students import Student
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.uncertainty import COVERAGE_LEVELS, predictive_mean
from mtbkd_jax.weighting import WeightingRule, entropy_weighting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER_CONCENTRATION = 5.0
NOISE_LOGIT = 5.0
METRICS = ("accuracy", "nll", "mse", *(f"coverage_{round(100 * level)}" for level in COVERAGE_LEVELS), "seconds")
NO_TEACHER, LEARNED, NOISE, ENTROPY = (
    "no teacher",
    "learned trust",
    "learned trust, noise too",
    "entropy weights, power 1",
)
# So small a student has many modes: more chains than the default, each with time to reach one, and a choice of four.
CONFIG = DistillationConfig(
    budget=Budget(num_mode_steps=300, num_burn_in=200, num_steps=480, temperature_thinning=160),
    sampling=SamplingConfig(
        num_chains=8, num_starts=4, num_mode_steps=2000, num_burn_in=2000, num_draws=100, thinning=20, batch_size=1000
    ),
)

Row = dict[str, Any]


class Views(NamedTuple):
    """What a study shows of its students beside their metrics; of its first draw and number of labels.

    Attributes:
      inputs: where they are asked.
      draw: ``{method: class probabilities [inputs, classes]} -> figure``, saved as ``map.png``.
    """

    inputs: np.ndarray
    draw: Callable[[Mapping[str, np.ndarray]], "Figure"]


def run_study(
    study: str,
    description: str,
    design: Design,
    student: Student,
    label_counts: Sequence[int],
    *,
    views: Views | None = None,
    **teachers: Any,
) -> None:
    """Parse the options, run every draw and number of labels, print the table and write the files.

    Args:
      study: its folder.
      description: for ``--help``.
      design: of data and teachers.
      student: the network.
      label_counts: numbers of labels, unless told otherwise.
      views: what is shown of the students.
      **teachers: options of ``simulation_draws``.
    """
    parser = study_parser(description, Path(__file__).parent / study, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of the draws")
    parser.add_argument("--labels", type=int, nargs="+", default=list(label_counts), help="numbers of labels")
    options = parser.parse_args()
    files = results_files(options)
    runs: list[Row] = []
    draws = simulation_draws(design, options.seeds, **teachers)
    places = None if views is None else views.inputs
    for num_labels in options.labels:
        for seed, draw in zip(options.seeds, draws, strict=True):
            run = partial(run_draw, seed, draw.with_labels(num_labels), student, places=places)
            rows, seen = kept(options.runs, f"{num_labels}_labels_draw_{seed}", run)
            if views is not None and not runs:
                seen = {method: np.array(probs) for method, probs in seen.items()}
                save_figures({"map": views.draw(seen)}, options.out)
            for row in rows:
                by_domain = dict(zip(design.domain_names, row.pop("accuracy_by_domain"), strict=True))
                where = {"method": f"{row['method']}, {num_labels} labels", "labels": num_labels}
                runs.append(row | by_domain | where)
                print(seed, runs[-1]["method"], {name: round(row[name], 4) for name in METRICS}, flush=True)
    rows = rows_of(runs, METRICS)
    differences = {
        f"{method}, {num_labels} labels": nll_beyond_no_teacher(runs, method, num_labels)
        for num_labels in options.labels
        for method in (LEARNED, NOISE)
    }
    by_domain = {
        name: {f"accuracy, {title}": values for title, values in of.items()}
        for name, of in rows_of(runs, design.domain_names).items()
    }
    table = "\n".join(markdown_table(part, digits=4) for part in (rows, differences, by_domain))
    write_results(files, summary(study, options.seeds, rows) | {"runs": runs}, table)


def run_draw(
    seed: int,
    draw: Simulation,
    student: Student,
    config: DistillationConfig = CONFIG,
    *,
    places: np.ndarray | None = None,
) -> tuple[list[Row], dict[str, list[list[float]]]]:
    """Every method on one draw.

    Args:
      seed: of the draw and the chains.
      draw: data and teachers.
      student: the network.
      config: how.
      places: inputs, not standardised, at which the students' class probabilities are asked for.

    Returns:
      For each method its metrics, also domain by domain, the settings it ran with, and the log density of each of its
      chains; and class probabilities at the places by method, if there are any.
    """
    standardize = Standardizer.fit(draw.inputs)
    inputs, test_inputs = standardize(draw.inputs), jnp.asarray(standardize(draw.test_inputs))
    learn_key, sample_key = jax.random.split(jax.random.key(seed))

    def lesson(
        weighting: WeightingRule, teacher_logits: np.ndarray, config: DistillationConfig = config
    ) -> tuple[Lessons, Choice]:
        lessons, _, choice = learn(
            learn_key, inputs, draw.labels, teacher_logits, student, weighting=weighting, config=config
        )
        return lessons, choice

    seen = {}

    def row(
        method: str, lessons: Lessons, settings: PosteriorSettings, start: float, powers: Powers | None = None
    ) -> Row:
        posterior = sample_posterior(sample_key, student, lessons, settings, powers=powers, config=config)
        metrics = posterior_metrics(posterior, settings, student, test_inputs, draw)
        if places is not None:
            log_probs = draws_of(posterior, settings).log_probs(student, standardize(places))
            seen[method] = predictive_mean(jnp.asarray(log_probs), jnp.asarray(posterior.draw_weights)).tolist()
        return {
            "method": method,
            "seed": seed,
            **metrics,
            "seconds": time.perf_counter() - start,
            "settings": settings.to_json(),
            "powers": None if powers is None else powers._asdict(),
        }

    trust = learned_trust(num_folds=config.num_folds)
    start = time.perf_counter()
    lessons, choice = lesson(trust, draw.teacher_logits)
    learned = row(LEARNED, lessons, choice.settings, start, choice.powers)
    wide_scale = choice.no_teacher.wide_scale
    plain = row(NO_TEACHER, lessons, choice.no_teacher, time.perf_counter())
    start = time.perf_counter()
    noisy_lessons, noisy_choice = lesson(trust, with_noise(draw.teacher_logits, seed))
    noisy = row(NOISE, noisy_lessons, noisy_choice.settings, start, noisy_choice.powers)
    start = time.perf_counter()
    paper = PosteriorSettings(1.0, PAPER_CONCENTRATION, float("inf"), wide_scale)
    given = replace(config, settings=GivenSettings(*paper))
    entropy = row(ENTROPY, lesson(entropy_weighting(), draw.teacher_logits, given)[0], paper, start)
    return [plain, learned, noisy, entropy], seen


def with_noise(teacher_logits: np.ndarray, seed: int) -> np.ndarray:
    """One teacher more, which is sure of a class drawn at random for every example."""
    num_examples, _, num_classes = teacher_logits.shape
    answers = np.random.default_rng(seed).integers(0, num_classes, num_examples)
    noise = NOISE_LOGIT * np.eye(num_classes, dtype=teacher_logits.dtype)[answers]
    return np.concatenate([teacher_logits, noise[:, None]], axis=1)


def posterior_metrics(
    posterior: SampledPosterior,
    settings: PosteriorSettings,
    student: Student,
    test_inputs: jax.Array,
    draw: Simulation,
) -> Row:
    """Score the posterior's predictions on the test points; NLL in nats, mse per class."""
    log_probs = draws_of(posterior, settings).log_probs(student, test_inputs)
    metrics = all_metrics(log_probs, draw.test_labels, posterior.draw_weights)
    probs = predictive_mean(jnp.asarray(log_probs), jnp.asarray(posterior.draw_weights))
    is_right = np.asarray(probs.argmax(1)) == draw.test_labels
    by_chain = np.asarray(posterior.run.info.log_density).mean(axis=1)
    return {
        "accuracy": metrics["accuracy"],
        "nll": metrics["negative_log_likelihood"],
        "mse": float(jnp.mean(jnp.square(probs - draw.test_probs))),
        **{name: metrics[name] for name in METRICS if name.startswith("coverage")},
        "accuracy_by_domain": [
            float(is_right[draw.test_domains == domain].mean()) for domain in np.unique(draw.test_domains)
        ],
        "log_density_of_chains": [round(float(value), 1) for value in by_chain],
    }


def nll_beyond_no_teacher(runs: Sequence[Row], method: str, num_labels: int) -> dict[str, np.ndarray]:
    """NLL of a method less that without teachers: mean ± standard deviation over draws, and the worst draw."""
    nll = {
        name: np.array([run["nll"] for run in runs if run["method"] == f"{name}, {num_labels} labels"])
        for name in (method, NO_TEACHER)
    }
    difference = nll[method] - nll[NO_TEACHER]
    return {"NLL beyond no teacher": difference, "worst": np.array([difference.max()])}
