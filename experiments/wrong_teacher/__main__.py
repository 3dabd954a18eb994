"""What a teacher costs that is always sure and nearly always wrong: ``python -m experiments.wrong_teacher``.

The main job's digits, 100 labels, three teachers, and a fourth: the first one with its classes shifted by one and its
logits multiplied by five, so that its entropy is the lowest of all. For each of five seeds the student is distilled

- from the three teachers, with the library's defaults;
- from all four, with the library's defaults;
- from all four, weighed by entropy alone, at the paper's power of one and its authors' concentration of five.

Writes ``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import jax

# Chains run side by side, one on each device; JAX takes this before its first array.
with contextlib.suppress(RuntimeError):
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import numpy as np

from experiments.study import METRICS, results_files, rows_of, study_parser, write_comparison
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.digits import DigitsStudy, digits_study
from mtbkd_jax.distillation import Distillation, distil
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.runs import all_metrics, components_to_json
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.students import mlp
from mtbkd_jax.weighting import entropy_weighting

STUDENT = mlp(num_features=64, hidden=(32,), num_classes=10)
NUM_LABELS = 100
SHARPENING = 5.0
WITHOUT, WITH, ENTROPY = "three teachers", "and a wrong one", "and a wrong one, entropy weights"


def main() -> None:
    """Run every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and chains")
    options = parser.parse_args()
    files = results_files(options)
    runs = []
    for seed in options.seeds:
        for run in run_seed(seed):
            runs.append({"seed": seed, **run})
            print(runs[-1], flush=True)
    rows = rows_of(runs, tuple(METRICS))
    write_comparison(files, "wrong_teacher", options.seeds, rows, runs)


def run_seed(seed: int) -> list[dict[str, Any]]:
    """The three students on one seed."""
    study = digits_study(seed=seed, num_labels=NUM_LABELS)
    three = study.pool_teacher_logits
    four = np.concatenate([three, wrong_teacher(three[:, :1])], axis=1)
    without = distilled(study, three, seed, DistillationConfig())
    wide_scale = without.choice.no_teacher.wide_scale
    paper = DistillationConfig(settings=GivenSettings(1.0, 5.0, float("inf"), wide_scale, temperature=1.0))
    return [
        result(WITHOUT, study, without),
        result(WITH, study, distilled(study, four, seed, DistillationConfig())),
        result(ENTROPY, study, distilled(study, four, seed, paper, weighting=entropy_weighting())),
    ]


def wrong_teacher(logits: np.ndarray) -> np.ndarray:
    """The teacher that says of every class what the first one says of the class before, and is surer of it."""
    return SHARPENING * np.roll(logits, 1, axis=-1)


def distilled(
    study: DigitsStudy, teacher_logits: np.ndarray, seed: int, config: DistillationConfig, **options: Any
) -> Distillation:
    """The student, on standardised inputs."""
    inputs = Standardizer.fit(study.pool_inputs)(study.pool_inputs)
    return distil(inputs, study.pool_labels, teacher_logits, STUDENT, seed=seed, config=config, **options)


def result(name: str, study: DigitsStudy, distillation: Distillation) -> dict[str, Any]:
    """Its metrics on the test set, and whom it trusted."""
    posterior = distillation.posterior
    test_inputs = Standardizer.fit(study.pool_inputs)(study.test_inputs)
    log_probs = predictive_log_probs(STUDENT, flatten_chains(posterior.run.positions), test_inputs)
    metrics = all_metrics(log_probs, study.test_labels, posterior.draw_weights)
    weights = np.exp(np.asarray(distillation.lessons.log_weights)).mean(0)
    names = (*study.teacher_names, "wrong")[: weights.size - 1]
    return {
        "method": name,
        **{key: metrics[key] for key in METRICS},
        "settings": {key: float(value) for key, value in distillation.choice.settings._asdict().items()},
        "mean_weights": dict(zip(("nobody", *names), weights.tolist(), strict=True)),
        "weight_space_components": components_to_json(posterior, names),
    }


if __name__ == "__main__":
    main()
