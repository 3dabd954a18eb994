"""What else could be done with the same teachers and labels: ``python -m experiments.baselines``.

The main job's digits, 100 labels, three teachers that are experts in some of the digits. For each of five seeds the
same student is made by every baseline of the library, each with its strength and weight decay chosen on the labels by
the same cross-validation:

- without teachers; by classical distillation with equal weights, with entropy weights (EBKD), by confidence (CA-MKD),
  in gradient space (AE-KD), and with the trust that we learn;
- approximate posteriors of two of these, equal weights and learned trust: a deep ensemble of ten, MC dropout,
  mean-field variational inference, last-layer Laplace and SWAG;
- the Bayesian student of each teacher alone, of none, and of all (MT-BKD).

Writes ``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# Chains run side by side, one on each device; JAX takes this before its first array.
with contextlib.suppress(RuntimeError):
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import numpy as np

from experiments.study import METRICS, results_files, rows_of, study_parser, write_comparison
from mtbkd_jax.approximations import dropout_draws, ensemble_draws, laplace_draws, mean_field_draws, swag_draws
from mtbkd_jax.baselines import ClassicalStudent, distil_classically, gradient_space_loss, pooled_loss
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.digits import digits_study
from mtbkd_jax.distillation import distil, learn
from mtbkd_jax.examples import full_batch
from mtbkd_jax.posterior_sampling import SampledPosterior, sample_posterior
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.runs import all_metrics
from mtbkd_jax.step_size import largest_curvature
from mtbkd_jax.students import mlp
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.types import Key, Params
from mtbkd_jax.weighting import confidence_aware_weighting, entropy_weighting, uniform_weighting

STUDENT = mlp(num_features=64, hidden=(32,), num_classes=10)
LAST_LAYER = "Dense_1"
NUM_LABELS = 100
NUM_DRAWS = 100
NUM_MEMBERS = 10
CONFIG = DistillationConfig()
LOSSES = {
    "KD": pooled_loss(uniform_weighting()),
    "KD by entropy (EBKD)": pooled_loss(entropy_weighting()),
    "CA-MKD": pooled_loss(confidence_aware_weighting()),
    "AE-KD": gradient_space_loss(),
    "KD by learned trust": pooled_loss(learned_trust(num_folds=CONFIG.num_folds)),
}
APPROXIMATED = ("KD", "KD by learned trust")


def main() -> None:
    """Run every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and students")
    options = parser.parse_args()
    files = results_files(options)
    runs = [run for seed in options.seeds for run in run_seed(seed)]
    rows = rows_of(runs, (*METRICS, "error_detection_auroc", "seconds"))
    write_comparison(files, "baselines", options.seeds, rows, runs)


def run_seed(seed: int) -> list[dict[str, Any]]:
    """Every method on one seed; seconds include the choice of settings and the compilation."""
    study = digits_study(seed=seed, num_labels=NUM_LABELS)
    standardize = Standardizer.fit(study.pool_inputs)
    inputs, test_inputs = standardize(study.pool_inputs), standardize(study.test_inputs)
    learn_key, classical_key, draw_key, plain_key, sample_key = jax.random.split(jax.random.key(seed), 5)
    runs: list[dict[str, Any]] = []

    def add(method: str, make: Callable[[], tuple[Params, np.ndarray | None]], already: float = 0.0) -> None:
        """Make the draws of a method, and score them; ``already`` seconds were spent on what it starts from."""
        start = time.perf_counter()
        draws, weights = make()
        jax.block_until_ready(draws)
        seconds = already + time.perf_counter() - start
        metrics = all_metrics(predictive_log_probs(STUDENT, draws, test_inputs), study.test_labels, weights)
        runs.append({"method": method, "seed": seed, **metrics, "seconds": seconds})
        print(seed, method, {name: runs[-1][name] for name in METRICS}, f"{seconds:.0f} s", flush=True)

    start = time.perf_counter()
    lessons, _, choice = learn(learn_key, inputs, study.pool_labels, study.pool_teacher_logits, STUDENT, config=CONFIG)
    learning = time.perf_counter() - start

    students: dict[str, ClassicalStudent] = {}

    def one_student(method: str, **options: Any) -> tuple[Params, None]:
        students[method] = distil_classically(classical_key, STUDENT, lessons, CONFIG, **options)
        return jax.tree.map(lambda leaf: leaf[None], students[method].params), None

    add("no distillation", lambda: one_student("no distillation", strengths=(0.0,)))
    for method, loss in LOSSES.items():
        add(method, lambda method=method, loss=loss: one_student(method, loss=loss))
    seconds = {run["method"]: run["seconds"] for run in runs}
    for method in APPROXIMATED:
        for name, approximate in APPROXIMATIONS.items():
            add(f"{name} of {method}", lambda: (approximate(draw_key, students[method]), None), seconds[method])  # noqa: B023

    def posterior(sampled: SampledPosterior) -> tuple[Params, np.ndarray]:
        return flatten_chains(sampled.run.positions), sampled.draw_weights

    for index, name in enumerate(study.teacher_names):
        logits = study.pool_teacher_logits[:, [index]]
        add(
            f"BKD of {name}",
            lambda: posterior(
                distil(
                    inputs,
                    study.pool_labels,
                    logits,  # noqa: B023
                    STUDENT,
                    seed=seed,
                    weighting=uniform_weighting(),
                    config=CONFIG,
                ).posterior
            ),
        )
    for method, key, settings in (
        ("no teacher", plain_key, choice.no_teacher),
        ("MT-BKD", sample_key, choice.settings),
    ):
        add(
            method,
            lambda: posterior(sample_posterior(key, STUDENT, lessons, settings, config=CONFIG)),  # noqa: B023
            learning,
        )
    return runs


def ensemble(key: Key, student: ClassicalStudent) -> Params:
    """Ten students from different initialisations."""
    start_key, fit_key = jax.random.split(key)
    starts = jax.vmap(STUDENT.init)(jax.random.split(start_key, NUM_MEMBERS))
    return ensemble_draws(fit_key, student.objective, starts, num_steps=CONFIG.sampling.num_mode_steps)


def swag(key: Key, student: ClassicalStudent) -> Params:
    """SWAG at a tenth of the inverse of the largest curvature."""
    objective = student.objective
    curvature = largest_curvature(objective.log_density, student.params, full_batch(key, objective.examples), key)
    return swag_draws(key, objective, student.params, learning_rate=0.1 / curvature, num_draws=NUM_DRAWS)


APPROXIMATIONS: dict[str, Callable[[Key, ClassicalStudent], Params]] = {
    "deep ensemble": ensemble,
    "MC dropout": lambda key, student: dropout_draws(
        key, student.objective, student.params, num_steps=2000, num_draws=NUM_DRAWS
    ),
    "mean-field VI": lambda key, student: mean_field_draws(
        key, student.objective, student.params, num_steps=3000, num_draws=NUM_DRAWS
    ),
    "last-layer Laplace": lambda key, student: laplace_draws(
        key, student.objective, student.params, layer=LAST_LAYER, num_draws=NUM_DRAWS
    ),
    "SWAG": swag,
}


if __name__ == "__main__":
    main()
