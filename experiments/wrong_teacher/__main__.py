"""What a teacher costs that is always sure and nearly always wrong: ``python -m experiments.wrong_teacher``.

The problems are the main job's digits with 100 labels and three teachers (a seed is a draw of data and teachers), and
DeepLoc with 100 labels and with all and two teachers (a seed is the fold that is tested on). The wrong teacher is the
first one with its classes shifted by one and its logits multiplied by five, so that its entropy is the lowest of all.
The student is distilled

- from the teachers, with the library's defaults;
- from them and the wrong one, with the library's defaults;
- from them and the wrong one, weighed by entropy alone, at the paper's power of one and its authors' concentration of
  five.

Writes ``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.methods import draws_of
from experiments.study import (
    METRICS,
    kept,
    markdown_table,
    results_files,
    rows_of,
    study_parser,
    summary,
    titled,
    write_results,
)
from experiments.tasks import NUM_LABELS, Task, deeploc_task, digits_task
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.distillation import Distillation, distil
from mtbkd_jax.runs import all_metrics, components_to_json
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.students import Student, mlp
from mtbkd_jax.weighting import entropy_weighting

_OF_DIGITS = mlp(num_features=64, hidden=(32,), num_classes=10)
_OF_DEEPLOC = mlp(num_features=256, hidden=(128,), num_classes=10)
TASKS: dict[str, tuple[Callable[[int], Task], Student]] = {
    "digits": (digits_task, _OF_DIGITS),
    "DeepLoc, 100 labels": (partial(deeploc_task, num_labels=NUM_LABELS), _OF_DEEPLOC),
    "DeepLoc, all labels": (deeploc_task, _OF_DEEPLOC),
}
SHARPENING = 5.0
WITHOUT, WITH, ENTROPY = "its teachers", "and a wrong one", "and a wrong one, entropy weights"


def main() -> None:
    """Run every task and seed, and write and print the tables."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="draws, or folds of DeepLoc")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    options = parser.parse_args()
    files = results_files(options)
    runs = []
    for name in options.tasks:
        make_task, student = TASKS[name]
        for seed in options.seeds:
            for run in kept(options.runs, f"{name}_{seed}", partial(run_seed, make_task, student, seed)):
                runs.append({"seed": seed, **run, "method": f"{name}: {run['method']}"})
                print(runs[-1], flush=True)
    rows = rows_of(runs, tuple(METRICS))
    differences = {name: accuracy_difference(rows, name) for name in options.tasks}
    table = markdown_table(titled(rows)) + "\n" + markdown_table(differences)
    write_results(files, summary("wrong_teacher", options.seeds, rows) | {"runs": runs}, table)


def run_seed(make_task: Callable[[int], Task], student: Student, seed: int) -> list[dict[str, Any]]:
    """The three students on one seed's task, which is not made where its run is kept."""
    return compare(make_task(seed), student, seed)


def compare(
    task: Task, student: Student, seed: int, config: DistillationConfig = DistillationConfig()
) -> list[dict[str, Any]]:
    """The three students."""
    with_wrong = np.concatenate([task.teacher_logits, wrong_teacher(task.teacher_logits[:, :1])], axis=1)

    def distilled(teacher_logits: np.ndarray, config: DistillationConfig = config, **options: Any) -> Distillation:
        return distil(task.inputs, task.labels, teacher_logits, student, seed=seed, config=config, **options)

    without = distilled(task.teacher_logits)
    wide_scale = without.choice.no_teacher.wide_scale
    given = GivenSettings(1.0, 5.0, float("inf"), wide_scale, temperature=1.0, prediction_temperature=1.0)
    paper = DistillationConfig(settings=given, sampling=config.sampling)
    return [
        result(WITHOUT, task, student, without),
        result(WITH, task, student, distilled(with_wrong)),
        result(ENTROPY, task, student, distilled(with_wrong, paper, weighting=entropy_weighting())),
    ]


def wrong_teacher(logits: np.ndarray) -> np.ndarray:
    """The teacher that says of every class what the first one says of the class before, and is surer of it."""
    return SHARPENING * np.roll(logits, 1, axis=-1)


def result(name: str, task: Task, student: Student, distillation: Distillation) -> dict[str, Any]:
    """Its metrics on the test set, and whom it trusted."""
    posterior, settings = distillation.posterior, distillation.choice.settings
    log_probs = draws_of(posterior, settings).log_probs(student, task.test_inputs)
    metrics = all_metrics(log_probs, task.test_labels, posterior.draw_weights)
    weights = np.exp(np.asarray(distillation.lessons.log_weights)).mean(0)
    names = (*task.teacher_names, "wrong")[: weights.size - 1]
    return {
        "method": name,
        **{key: metrics[key] for key in METRICS},
        "settings": {key: float(value) for key, value in settings._asdict().items()},
        "mean_weights": dict(zip(("nobody", *names), weights.tolist(), strict=True)),
        "weight_space_components": components_to_json(posterior, names),
    }


def accuracy_difference(rows: dict[str, Any], task: str) -> dict[str, np.ndarray]:
    """Accuracy with the wrong teacher less that without it, over seeds, by learned trust and by entropy."""
    without = rows[f"{task}: {WITHOUT}"]["accuracy"]
    return {
        "accuracy by learned trust": rows[f"{task}: {WITH}"]["accuracy"] - without,
        "accuracy by entropy weights": rows[f"{task}: {ENTROPY}"]["accuracy"] - without,
    }


if __name__ == "__main__":
    main()
