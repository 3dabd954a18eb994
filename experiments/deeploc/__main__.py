"""DeepLoc by ``mtbkd fit``, five-fold over the homology partition: ``python -m experiments.deeploc --runs DIR``.

The student, 256-128-10, sees the features and both teachers' logits of four partitions, and is tested on the fifth. Its
proteins have

- all their labels (2,000 or so), or
- 50 of them, drawn three times for each fold; what the teachers say of the others is all that is known about them.

Every student's settings are chosen on its labels by the command itself. Beside it stands the same student without
teachers, at the settings that the same cross-validation found best for it. ``multi AUROC`` says how well the mean
deviance tells the proteins of the fold that have one compartment from those that have several.

Writes ``results.json`` (every run) and ``table.md`` (mean ± standard deviation over runs) to the folder of this file or
to ``--out``, and replaces such files only where ``--overwrite`` is given. The runs stay in ``--runs``; those that are
finished there are not run again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.deeploc.data import DEFAULT_DIRECTORY, DeepLoc, folds, label_subset, read_deeploc, read_multilabel
from experiments.study import METRICS, results_files, rows_of, study_parser, write_comparison
from mtbkd_jax.cli import main as mtbkd
from mtbkd_jax.data import read_inputs
from mtbkd_jax.metrics import out_of_distribution_auroc
from mtbkd_jax.runs import open_run

NUM_LABELS = 50
NUM_SUBSETS = 3
MT_BKD, NO_TEACHER = "MT-BKD", "no teacher"
COLUMNS = (*METRICS, "auroc_multi", "share_r_hat_below_1.05")


def main() -> None:
    """Run every fold and subset, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--data", type=Path, default=DEFAULT_DIRECTORY, help="directory of the DeepLoc data")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run directories")
    options = parser.parse_args()
    files = results_files(options)

    data = read_deeploc(options.data)
    multilabel, multilabel_partition = read_multilabel(options.data)
    splits = list(folds(data.partition))
    results = []
    for subset in (None, *range(NUM_SUBSETS)):
        for fold, (train, test) in enumerate(splits):
            labels = data.labels[train] if subset is None else label_subset(data.labels[train], NUM_LABELS, seed=subset)
            count = "all" if subset is None else str(NUM_LABELS)
            name = f"fold_{fold}_" + ("all" if subset is None else f"subset_{subset}")
            several = multilabel[multilabel_partition == fold]
            for result in run_student(options.runs / name, data, train, test, labels, several, seed=fold):
                method = f"{result['student']}, {count} labels"
                results.append({"method": method, "fold": fold, "subset": subset, **result})
                print(name, method, {key: round(result[key], 3) for key in COLUMNS}, flush=True)
    write_comparison(files, "deeploc", range(len(splits)), rows_of(results, COLUMNS), results)


def run_student(
    folder: Path,
    data: DeepLoc,
    train: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    several: np.ndarray,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Fit with teachers and without, and score both on the proteins ``test``, and on those with ``several`` labels."""
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
        {"student": MT_BKD, **_scores(run, folder, several), "chosen": selection["chosen"]},
        {
            "student": NO_TEACHER,
            **_scores(folder / "no_teacher", folder, several),
            "chosen": selection["no_teacher"],
        },
    ]


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


def _scores(run: Path, folder: Path, several: np.ndarray) -> dict[str, float]:
    metrics = json.loads(_metrics_of(run).read_text(encoding="utf-8"))
    diagnostics = json.loads((run / "diagnostics.json").read_text(encoding="utf-8"))
    opened = open_run(run)
    one, more = (opened.predict(inputs).mean_deviance for inputs in (read_inputs(folder / "test.npz"), several))
    metrics["auroc_multi"] = out_of_distribution_auroc(np.asarray(one), np.asarray(more))
    return {key: (metrics | diagnostics)[key] for key in COLUMNS}


def _metrics_of(run: Path) -> Path:
    return run / "evaluations" / "test" / "metrics.json"


if __name__ == "__main__":
    main()
