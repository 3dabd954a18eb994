"""Simulation 1 with few labels: do teachers that are sure outside their domain hurt?

Run as ``python -m experiments.simulation1``.

12,000 inputs have teacher outputs and 300 of them a label; 8,000 labelled points are the test. For each of five
draws of data and teachers, the posterior of the same student of 27 parameters is sampled

- without teachers;
- with trust learned on the labels and the priors' settings chosen on them;
- with the paper's entropy weights, at its power of one and its authors' concentration of five.

Writes ``results.json`` (every draw and what was chosen) and ``table.md`` to the folder of this file or to ``--out``,
and replaces such files only where ``--overwrite`` is given.
"""

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

# Chains run side by side, one on each device; JAX takes this before its first array.
with contextlib.suppress(RuntimeError):
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import jax.numpy as jnp
import numpy as np

from experiments.simulation1.design import Simulation1, simulation1_draws
from experiments.study import markdown_table, results_files, study_parser, write_results
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.distillation import learn
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.metrics import accuracy, negative_log_likelihood
from mtbkd_jax.posterior_sampling import sample_posterior
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.selection import Budget, Choice, GivenSettings
from mtbkd_jax.settings import PriorSettings, no_teacher
from mtbkd_jax.storage import finite_or_none
from mtbkd_jax.students import mlp
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.types import Key
from mtbkd_jax.uncertainty import COVERAGE_LEVELS, coverage, predictive_mean
from mtbkd_jax.weighting import WeightingRule, entropy_weighting

NUM_LABELS = 300
PAPER_CONCENTRATION = 5.0
METRICS = ("accuracy", "nll", "mse", *(f"coverage_{level:.2f}" for level in COVERAGE_LEVELS))
NO_TEACHER, LEARNED, ENTROPY = "no teacher", "learned trust, settings chosen", "entropy weights, power 1"
STUDENT = mlp(num_features=2, hidden=(5,), num_classes=2)
# So small a student has many modes: more chains than the default, each with time to reach one.
CONFIG = DistillationConfig(
    budget=Budget(num_mode_steps=1500, num_burn_in=500, num_steps=1500),
    sampling=SamplingConfig(
        num_chains=8, num_mode_steps=2000, num_burn_in=2000, num_draws=100, thinning=20, batch_size=1000
    ),
)

Row = dict[str, Any]


def main() -> None:
    """Run the study, print the table and write the files."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of the draws")
    options = parser.parse_args()
    files = results_files(options)

    rows = []
    for seed, draw in zip(options.seeds, simulation1_draws(options.seeds, NUM_LABELS), strict=True):
        for row in run_draw(seed, draw):
            rows.append(row)
            print(
                f"draw {seed}, {row['method']}: " + ", ".join(f"{name} {row[name]:.4f}" for name in METRICS), flush=True
            )
    write_results(files, {"draws": rows}, table_over_draws(rows))


def run_draw(seed: int, draw: Simulation1) -> list[Row]:
    """Every method on one draw: its metrics, the settings it ran with, and the log density of each of its chains."""
    standardize = Standardizer.fit(draw.inputs)
    inputs, test_inputs = standardize(draw.inputs), jnp.asarray(standardize(draw.test_inputs))
    learn_key, sample_key = jax.random.split(jax.random.key(seed))

    def lesson(weighting: WeightingRule, config: DistillationConfig) -> tuple[Lessons, Choice]:
        lessons, _, choice = learn(
            learn_key, inputs, draw.labels, draw.teacher_logits, STUDENT, weighting=weighting, config=config
        )
        return lessons, choice

    def row(method: str, lessons: Lessons, settings: PriorSettings) -> Row:
        return {
            "method": method,
            "seed": seed,
            **posterior_metrics(sample_key, lessons, settings, test_inputs, draw),
            "settings": {name: finite_or_none(value) for name, value in settings._asdict().items()},
        }

    lessons, choice = lesson(learned_trust(num_folds=CONFIG.num_folds), CONFIG)
    wide_scale = choice.no_teacher.wide_scale
    paper = PriorSettings(1.0, PAPER_CONCENTRATION, float("inf"), wide_scale)
    entropy_lessons, _ = lesson(entropy_weighting(), replace(CONFIG, settings=GivenSettings(*paper)))
    return [
        row(NO_TEACHER, lessons, no_teacher(wide_scale)),
        row(LEARNED, lessons, choice.settings),
        row(ENTROPY, entropy_lessons, paper),
    ]


def posterior_metrics(
    key: Key, lessons: Lessons, settings: PriorSettings, test_inputs: jax.Array, draw: Simulation1
) -> dict[str, Any]:
    """Sample the posterior and score its predictions on the test points; NLL in nats."""
    posterior = sample_posterior(key, STUDENT, lessons, settings, config=CONFIG)
    log_probs = jnp.asarray(predictive_log_probs(STUDENT, flatten_chains(posterior.run.positions), test_inputs))
    weights = jnp.asarray(posterior.draw_weights)
    probs = predictive_mean(log_probs, weights)
    labels = jnp.asarray(draw.test_labels)
    metrics = {
        "accuracy": accuracy(probs, draw.test_labels),
        "nll": negative_log_likelihood(probs, draw.test_labels),
        "mse": float(jnp.mean(jnp.square(probs[:, 1] - draw.test_probs[:, 1]))),
    }
    covered = {
        f"coverage_{level:.2f}": float(coverage(log_probs, labels, weights, level=level)) for level in COVERAGE_LEVELS
    }
    by_chain = np.asarray(posterior.run.info.log_density).mean(axis=1)
    return {**metrics, **covered, "log_density_of_chains": [round(float(value), 1) for value in by_chain]}


def table_over_draws(rows: list[Row]) -> str:
    """Mean ± standard deviation over draws of each metric, for each method, and then every draw."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    metrics = {
        method: {name: np.array([row[name] for row in rows if row["method"] == method]) for name in METRICS}
        for method in methods
    }
    each = {
        f"{row['method']}, draw {row['seed']}": {name: np.array([row[name]]) for name in METRICS}
        for method in methods
        for row in rows
        if row["method"] == method
    }
    return markdown_table(metrics, digits=4) + "\n" + markdown_table(each, digits=4)


if __name__ == "__main__":
    main()
