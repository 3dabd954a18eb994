"""DeepLoc by ``mtbkd fit``, five-fold over the homology partition: ``python -m experiments.deeploc --runs DIR``.

The student, 256-128-10, sees the features and both teachers' logits of four partitions, and is tested on the fifth. Its
proteins have

- all their labels (2,000 or so), or
- 50 of them, drawn three times for each fold; what the teachers say of the others is all that is known about them.

Every student's settings are chosen on its labels by the command itself. Beside it stands the same student without
teachers, at the scale that the same cross-validation found best for it. Writes ``results.json`` (every run) and
``table.md`` (mean ± standard deviation over runs) to the folder of this file or to ``--out``, and replaces such files
only where ``--overwrite`` is given. The runs stay in ``--runs``; those that are finished there are not run again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.deeploc.data import DEFAULT_DIRECTORY, DeepLoc, folds, label_subset, read_deeploc
from experiments.study import METRICS, markdown_table, results_files, study_parser, write_results
from mtbkd_jax.cli import main as mtbkd

NUM_LABELS = 50
NUM_SUBSETS = 3
MT_BKD, NO_TEACHER = "MT-BKD", "no teacher"
COLUMNS = METRICS | {"share_r_hat_below_1.05": "R-hat ≤ 1.05"}


def main() -> None:
    """Run every fold and subset, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--data", type=Path, default=DEFAULT_DIRECTORY, help="directory of the DeepLoc data")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run directories")
    options = parser.parse_args()
    files = results_files(options)

    data = read_deeploc(options.data)
    splits = list(folds(data.partition))
    results = []
    for subset in (None, *range(NUM_SUBSETS)):
        for fold, (train, test) in enumerate(splits):
            labels = data.labels[train] if subset is None else label_subset(data.labels[train], NUM_LABELS, seed=subset)
            name = f"fold_{fold}_" + ("all" if subset is None else f"subset_{subset}")
            for result in run_student(options.runs / name, data, train, test, labels, seed=fold):
                results.append({"fold": fold, "subset": subset, **result})
                print(name, result["student"], {label: round(result[key], 3) for key, label in COLUMNS.items()})
    write_results(files, {"runs": results}, table_over_runs(results))


def run_student(
    folder: Path, data: DeepLoc, train: np.ndarray, test: np.ndarray, labels: np.ndarray, *, seed: int
) -> list[dict[str, Any]]:
    """Fit with teachers and without, and score both on the proteins ``test``."""
    _write_inputs(folder, data, train, test, labels)
    run = folder / "run"
    _fit_and_evaluate(folder, run, seed, [])
    selection = json.loads((run / "selection.json").read_text(encoding="utf-8"))
    alone = selection["no_teacher"]
    no_teacher = [
        *("--settings.power", "0", "--settings.concentration", "1", "--settings.center-scale", "inf"),
        *("--settings.wide-scale", str(alone["wide_scale"]), "--settings.temperature", str(alone["temperature"])),
    ]
    _fit_and_evaluate(folder, folder / "no_teacher", seed, no_teacher)
    return [
        {"student": MT_BKD, **_scores(run), "chosen": selection["chosen"]},
        {"student": NO_TEACHER, **_scores(folder / "no_teacher"), "chosen": selection["no_teacher"]},
    ]


def table_over_runs(results: list[dict[str, Any]]) -> str:
    """A row for each student and number of labels."""
    rows = {}
    for student in (MT_BKD, NO_TEACHER):
        for is_all, labels in ((True, "all labels"), (False, f"{NUM_LABELS} labels")):
            chosen = [r for r in results if r["student"] == student and (r["subset"] is None) == is_all]
            rows[f"{student}, {labels}"] = {
                label: np.array([result[key] for result in chosen], float) for key, label in COLUMNS.items()
            }
    return markdown_table(rows)


def _write_inputs(folder: Path, data: DeepLoc, train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> None:
    if (folder / "test.npz").exists():
        return
    folder.mkdir(parents=True)
    common = {"class_names": np.array(data.class_names)}
    np.savez(folder / "train.npz", inputs=data.inputs[train], labels=labels, ids=data.ids[train], **common)
    for column, name in enumerate(data.teacher_names):
        np.savez(folder / f"{name}.npz", logits=data.teacher_logits[train, column], ids=data.ids[train], **common)
    np.savez(folder / "test.npz", inputs=data.inputs[test], labels=data.labels[test], ids=data.ids[test], **common)


def _fit_and_evaluate(folder: Path, run: Path, seed: int, settings: list[str]) -> None:
    if _metrics_of(run).exists():
        return
    teachers = [f"{path.stem}={path}" for path in sorted(folder.glob("*.npz")) if path.stem not in ("train", "test")]
    arguments = ["fit", "--data", str(folder / "train.npz"), "--teachers", *teachers, "--out", str(run)]
    mtbkd([*arguments, "--kind", "logits", "--student.hidden", "128", "--seed", str(seed), *settings])
    mtbkd(["evaluate", str(run), "--data", str(folder / "test.npz")])


def _scores(run: Path) -> dict[str, float]:
    metrics = json.loads(_metrics_of(run).read_text(encoding="utf-8"))
    diagnostics = json.loads((run / "diagnostics.json").read_text(encoding="utf-8"))
    return {key: (metrics | diagnostics)[key] for key in COLUMNS}


def _metrics_of(run: Path) -> Path:
    return run / "evaluations" / "test" / "metrics.json"


if __name__ == "__main__":
    main()
