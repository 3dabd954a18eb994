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

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

from experiments.methods import (
    KD,
    KD_BY_TRUST,
    METRICS,
    Draws,
    Row,
    compare,
    draws_of,
    row_of,
    single_draw,
    timed,
    usual_losses,
)
from experiments.study import kept, results_files, rows_of, study_parser, write_comparison
from experiments.tasks import digits_task
from mtbkd_jax.approximations import dropout_draws, ensemble_draws, laplace_draws, mean_field_draws, swag_draws
from mtbkd_jax.baselines import ClassicalStudent, distil_classically, gradient_space_loss, pooled_loss
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.distillation import distil
from mtbkd_jax.examples import full_batch
from mtbkd_jax.step_size import largest_curvature
from mtbkd_jax.students import mlp
from mtbkd_jax.types import Key, Params
from mtbkd_jax.weighting import confidence_aware_weighting, entropy_weighting, uniform_weighting

STUDENT = mlp(num_features=64, hidden=(32,), num_classes=10)
LAST_LAYER = "Dense_1"
NUM_DRAWS = 100
NUM_MEMBERS = 10
CONFIG = DistillationConfig()
LOSSES = usual_losses(CONFIG) | {
    "KD by entropy (EBKD)": pooled_loss(entropy_weighting()),
    "CA-MKD": pooled_loss(confidence_aware_weighting()),
    "AE-KD": gradient_space_loss(),
}
APPROXIMATED = (KD, KD_BY_TRUST)


def main() -> None:
    """Run every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and students")
    options = parser.parse_args()
    files = results_files(options)
    runs = [run for seed in options.seeds for run in kept(options.runs, f"seed_{seed}", partial(run_seed, seed))]
    rows = rows_of(runs, (*METRICS, "seconds"))
    write_comparison(files, "baselines", options.seeds, rows, runs)


def run_seed(seed: int) -> list[Row]:
    """Every method on one seed; seconds include the choice of settings and the compilation."""
    task = digits_task(seed)
    compare_key, plain_key, draw_key = jax.random.split(jax.random.key(seed), 3)
    comparison = compare(compare_key, task, STUDENT, seed=seed, losses=LOSSES, config=CONFIG)
    rows = list(comparison.rows)
    seconds_of = {row["method"]: row["seconds"] for row in rows}

    def add(method: str, draws: Draws, seconds: float) -> None:
        rows.append(row_of(method, task, STUDENT, draws, seed, seconds))

    plain, seconds = timed(distil_classically, plain_key, STUDENT, comparison.lessons, CONFIG, strengths=(0.0,))
    add("no distillation", single_draw(plain), seconds)
    for method in APPROXIMATED:
        for name, approximate in APPROXIMATIONS.items():
            params, seconds = timed(approximate, draw_key, comparison.students[method])
            add(f"{name} of {method}", Draws(params), seconds_of[method] + seconds)
    for index, name in enumerate(task.teacher_names):
        logits = task.teacher_logits[:, [index]]
        options = {"seed": seed, "weighting": uniform_weighting(), "config": CONFIG}
        distilled, seconds = timed(distil, task.inputs, task.labels, logits, STUDENT, **options)
        add(f"BKD of {name}", draws_of(distilled.posterior, distilled.choice.settings), seconds)
    return rows


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
        key, student.objective, student.params, layer=LAST_LAYER, prior_precision=student.scale**-2, num_draws=NUM_DRAWS
    ),
    "SWAG": swag,
}


if __name__ == "__main__":
    main()
