"""Few targets and specialist teachers: ``python -m experiments.regression``.

Scikit-learn's diabetes with 50 targets, and made-up houses with 100 (``problems``). Three teachers, each a specialist
in a third of the inputs and wrong elsewhere, are scored alone, and distilled into a network of one hidden layer

- not at all: the posterior of the labels;
- classically: their mean, by squared error, its strength chosen on the labels;
- by learned trust, power and weight scale chosen on the labels;
- by equal weights at power one, the weight scale chosen on the labels.

A teacher alone predicts with the standard deviation of its errors on the labels. Writes ``results.json`` and
``table.md`` to the folder of this file or to ``--out``, and replaces such files only where ``--overwrite`` is given.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.regression.classical import distil_classically
from experiments.regression.problems import PROBLEMS, TEACHER_NAMES, Problem
from experiments.study import results_files, rows_of, study_parser, write_comparison
from mtbkd_jax.prediction import flatten_chains
from mtbkd_jax.regression import (
    GaussianPrediction,
    RegressionConfig,
    RegressionDistillation,
    distil_regression,
    equal_gaussian_trust,
    gaussian_teachers,
    predict_gaussian,
    regression_metrics,
)
from mtbkd_jax.regression.teachers import broad_component, scales_alone
from mtbkd_jax.students import Student, mlp
from mtbkd_jax.uncertainty import COVERAGE_LEVELS

METRICS = (
    "rmse",
    "negative_log_likelihood",
    *(f"coverage_{round(100 * level)}" for level in COVERAGE_LEVELS),
    "seconds",
)
NO_TEACHER, CLASSICAL, LEARNED, EQUAL = (
    "no teacher",
    "classical distillation",
    "MT-BKD, learned trust",
    "MT-BKD, equal weights, power 1",
)
HIDDEN = (16,)
CONFIG = RegressionConfig()

Row = dict[str, Any]


def main() -> None:
    """Run both problems on every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and chains")
    options = parser.parse_args()
    files = results_files(options)
    runs = []
    for name, make_problem in PROBLEMS.items():
        problems = [make_problem(seed) for seed in options.seeds]
        network = mlp(num_features=problems[0].inputs.shape[1], hidden=HIDDEN, num_classes=1)
        for seed, problem in zip(options.seeds, problems, strict=True):
            for row in run_problem(seed, problem, network):
                runs.append(row | {"method": f"{name}: {row['method']}", "problem": name})
                print(seed, runs[-1]["method"], *(row[metric] for metric in METRICS), flush=True)
    write_comparison(files, "regression", options.seeds, rows_of(runs, METRICS), runs)


def run_problem(seed: int, problem: Problem, network: Student, config: RegressionConfig = CONFIG) -> list[Row]:
    """Every method on one problem."""
    test_targets = jnp.asarray(problem.test_targets, jnp.float32)
    rows = [
        {"method": name, "seed": seed, **regression_metrics(prediction, test_targets), "seconds": None}
        for name, prediction in zip(TEACHER_NAMES, teachers_alone(problem), strict=True)
    ]
    start = time.perf_counter()
    prediction = distil_classically(seed, problem, network, config)
    metrics = regression_metrics(prediction, test_targets)
    rows.append({"method": CLASSICAL, "seed": seed, **metrics, "seconds": time.perf_counter() - start})
    configs = {
        NO_TEACHER: replace(config, rule=equal_gaussian_trust(), powers=(0.0,)),
        LEARNED: config,
        EQUAL: replace(config, rule=equal_gaussian_trust(), powers=(1.0,)),
    }
    for method, own_config in configs.items():
        start = time.perf_counter()
        arrays = problem.inputs, problem.targets, problem.teacher_means
        result = distil_regression(*arrays, network, seed=seed, config=own_config)
        metrics = regression_metrics(result.predict(problem.test_inputs), test_targets)
        seconds = time.perf_counter() - start
        rows.append({"method": method, "seed": seed, **metrics, "seconds": seconds, **described(result, problem)})
    return rows


def teachers_alone(problem: Problem) -> list[GaussianPrediction]:
    """What each teacher says of the test inputs, with the standard deviation of its errors on the labels."""
    targets = jnp.asarray(problem.targets, jnp.float32)
    scales = scales_alone(gaussian_teachers(problem.teacher_means), targets, broad_component(targets))
    means = jnp.asarray(problem.test_teacher_means.T, jnp.float32)
    return [
        GaussianPrediction(of_teacher[None], jnp.full_like(of_teacher, scale)[None])
        for of_teacher, scale in zip(means, scales, strict=True)
    ]


def described(result: RegressionDistillation, problem: Problem) -> Row:
    """The settings, the mean noise and trust, and by how much the chains disagree about the test targets."""
    positions = result.run.positions
    num_chains = positions.log_noise.shape[0]
    standard = predict_gaussian(result.student, flatten_chains(positions), jnp.asarray(problem.test_inputs)).means
    by_chain = np.asarray(standard).reshape(num_chains, -1, standard.shape[1]).mean(1)
    return {
        "power": float(result.settings.power),
        "weight_scale": float(result.settings.weight_scale),
        "noise": float(result.broad.sd * jnp.exp(positions.log_noise).mean()),
        "mean_trust": np.exp(np.asarray(result.examples.components.log_weights)).mean(0).tolist(),
        "sd_between_chains": float(result.broad.sd * by_chain.std(0, ddof=1).mean()),
        "acceptance_rate": float(result.run.info.acceptance_rate.mean()),
        "candidates": [
            {"power": scored.power, "weight_scale": scored.weight_scale, "nll": scored.nll}
            for scored in result.candidates
        ],
    }


if __name__ == "__main__":
    main()
