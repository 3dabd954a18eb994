"""What each part of the method is worth, one change at a time: ``python -m experiments.ablations``.

The main job's digits: 600 images, three expert teachers, a student of 2,410 parameters, 100 labels unless a row says
otherwise. The reference has both priors at the paper's power of one and its authors' concentration of five, a scale
around the centers of half the root mean square of the pool's parameters, the wide scale that suits the labels alone,
learned trust, no softening, and a temperature of one. Every other row changes one of these. Beside them stands the
library, which chooses all of them but the softening on the labels.

Writes ``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.methods import draws_of
from experiments.study import METRICS, kept, results_files, rows_of, study_parser, write_comparison
from experiments.tasks import Task, digits_task
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.distillation import learn
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.posterior_sampling import sample_posterior
from mtbkd_jax.runs import all_metrics
from mtbkd_jax.selection import Choice, GivenSettings
from mtbkd_jax.settings import PosteriorSettings, Powers
from mtbkd_jax.students import mlp
from mtbkd_jax.tree import tree_rows
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.weighting import (
    WeightingRule,
    accuracy_by_class_weighting,
    confidence_aware_weighting,
    entropy_weighting,
    uniform_weighting,
)

STUDENT = mlp(num_features=64, hidden=(32,), num_classes=10)
CENTER_SCALE_RATIO = 0.5
LABEL_COUNTS = (50, 100, 200, 400)
INFINITE = float("inf")
CHANGES: dict[str, dict[str, float]] = {
    "reference": {},
    "function space alone": {"center_scale": INFINITE},
    "weight space alone": {"power": 0.0},
    "power .5": {"power": 0.5},
    "power .1": {"power": 0.1},
    "power .02": {"power": 0.02},
    "concentration 1": {"concentration": 1.0},
    "concentration 20": {"concentration": 20.0},
    "concentration 50": {"concentration": 50.0},
    "temperature .5": {"temperature": 0.5},
    "temperature .25": {"temperature": 0.25},
    "temperature .1": {"temperature": 0.1},
}
"""Rows that change a setting of the reference and need nothing to be learned again."""

OTHER_RULES: dict[str, WeightingRule] = {
    "uniform weights": uniform_weighting(),
    "weights by accuracy of the class": accuracy_by_class_weighting(),
    "confidence-aware weights": confidence_aware_weighting(),
}
"""Rules that are tried with 100 labels alone."""

Row = dict[str, Any]


def main() -> None:
    """Run every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and chains")
    options = parser.parse_args()
    files = results_files(options)
    runs = []
    for seed in options.seeds:
        for row in kept(options.runs, f"seed_{seed}", lambda seed=seed: list(run_seed(seed))):
            runs.append(row)
            print(seed, row["method"], {name: round(row[name], 3) for name in METRICS}, flush=True)
    rows = rows_of(runs, (*METRICS, "seconds"))
    write_comparison(files, "ablations", options.seeds, rows, runs)


def run_seed(seed: int, config: DistillationConfig = DistillationConfig()) -> Iterator[Row]:
    """All rows of one seed."""
    task = digits_task(seed)
    start = time.perf_counter()
    lessons, choice = taught(task, seed, config)
    yield row("chosen on the labels", task, seed, lessons, choice.settings, config, start, choice.powers)
    settings = reference(lessons, choice.no_teacher.wide_scale)
    for name, change in CHANGES.items():
        yield row(name, task, seed, lessons, settings._replace(**change), config, time.perf_counter())

    def taught_row(name: str, task: Task, config: DistillationConfig, rule: WeightingRule) -> Row:
        start = time.perf_counter()
        given = replace(config, settings=GivenSettings(*settings))
        lessons, _ = taught(task, seed, given, rule)
        return row(name, task, seed, lessons, settings, config, start)

    trust = learned_trust(num_folds=config.num_folds)
    yield taught_row("softening 2", task, replace(config, softening=2.0), trust)
    for name, rule in OTHER_RULES.items():
        yield taught_row(name, task, config, rule)
    for num_labels in LABEL_COUNTS:
        relabelled = digits_task(seed, num_labels)
        for name, rule in {"learned trust": trust, "entropy weights": entropy_weighting()}.items():
            yield taught_row(f"{name}, {num_labels} labels", relabelled, config, rule)


def taught(
    task: Task, seed: int, config: DistillationConfig, rule: WeightingRule | None = None
) -> tuple[Lessons, Choice]:
    """What the teachers teach; None weighs them by the library's default."""
    lessons, _, choice = learn(
        jax.random.key(seed),
        task.inputs,
        task.labels,
        task.teacher_logits,
        STUDENT,
        weighting=rule,
        config=config,
    )
    return lessons, choice


def row(
    name: str,
    task: Task,
    seed: int,
    lessons: Lessons,
    settings: PosteriorSettings,
    config: DistillationConfig,
    start: float,
    powers: Powers | None = None,
) -> Row:
    """Sample the posterior and score it on the test images; ``seconds`` count from ``start``."""
    posterior = sample_posterior(jax.random.key(100 + seed), STUDENT, lessons, settings, powers=powers, config=config)
    log_probs = draws_of(posterior, settings).log_probs(STUDENT, task.test_inputs)
    metrics = all_metrics(log_probs, task.test_labels, posterior.draw_weights)
    return {
        "method": name,
        "seed": seed,
        **{key: metrics[key] for key in METRICS},
        "seconds": time.perf_counter() - start,
        "settings": settings.to_json(),
    }


def reference(lessons: Lessons, wide_scale: float) -> PosteriorSettings:
    """The settings that every row but the first starts from."""
    pool = ravel_pytree(tree_rows(lessons.centers.params, 0))[0]
    center_scale = CENTER_SCALE_RATIO * float(np.sqrt(np.mean(np.square(pool))))
    return PosteriorSettings(1.0, 5.0, center_scale, wide_scale, 1.0)


if __name__ == "__main__":
    main()
