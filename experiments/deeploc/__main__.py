"""DeepLoc by ``mtbkd fit``, five-fold over the homology partition: ``python -m experiments.deeploc --runs DIR``.

The student, with 128 hidden units, sees features of the proteins and both teachers' logits of four partitions, and is
tested on the fifth. Its proteins have

- all their labels (2,000 or so), or
- so many of them as ``--labels`` says, drawn anew for each fold and ``--subsets`` times; what the teachers say of the
  others is all that is known about them.

Every student's settings are chosen on its labels by the command itself. Beside it stands the same student without
teachers, at the settings that the same cross-validation found best for it. ``multi AUROC`` says how well the mean
deviance tells the proteins of the fold that have one compartment from those that have several.

Writes ``results.json`` (every run) and ``table.md`` (mean ± standard deviation over runs) to the folder of this file or
to ``--out``, and replaces such files only where ``--overwrite`` is given; and, of the first features and number of
labels that are asked for, ``deviance_by_class.png`` (the mean deviance of test proteins, the paper's figure 6) and
``weights_by_class.png`` (which teacher is trusted for which compartment). The runs stay in ``--runs``; those that are
finished there are not run again, and one that was interrupted goes on.
"""

import itertools
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.deeploc.data import DEFAULT_DIRECTORY, DeepLoc, folds, read_deeploc, read_multilabel
from experiments.deeploc.features import DEFAULT_FEATURES, FEATURES
from experiments.labels import label_subset
from experiments.study import (
    METRICS,
    markdown_table,
    results_files,
    rows_of,
    study_parser,
    summary,
    titled,
    write_results,
)
from mtbkd_jax.cli import main as mtbkd
from mtbkd_jax.data import read_inputs, read_npz
from mtbkd_jax.errors import InputError
from mtbkd_jax.figures import deviance_by_class, save_figures, weights_by_class
from mtbkd_jax.metrics import expected_calibration_error, mean_by_class, out_of_distribution_auroc
from mtbkd_jax.runs import open_run
from mtbkd_jax.storage import read_json, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL_COUNTS = (None, 50, 250, 1000)
"""Numbers of labels; None keeps all of them."""

NUM_FOLDS = 5
MT_BKD, NO_TEACHER = "MT-BKD", "no teacher"
WITH_TEACHERS, WITHOUT_TEACHERS = "run", "no_teacher"
"""Folders of the two runs."""

COLUMNS = (*METRICS, "auroc_multi", "share_r_hat_below_1.05", "seconds")
POOLED_ECE, EXCESS = "ECE", "confidence less accuracy"
FIT_OPTIONS = ("--kind", "logits", "--student.hidden", "128")


class Condition(NamedTuple):
    """What a student is given.

    Attributes:
      features: a name in ``FEATURES``.
      num_labels: how many proteins keep their label; None for all.
      subset: seed of the draw of labels; None where all are kept.
    """

    features: str
    num_labels: int | None
    subset: int | None

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """The labels that the student sees; -1 for the others."""
        if self.num_labels is None or self.subset is None:
            return labels
        return label_subset(labels, self.num_labels, seed=self.subset)

    def folder(self, fold: int) -> str:
        """Name of the folder of its runs."""
        of_features = "" if self.features == DEFAULT_FEATURES else f"{self.features}_"
        # These two are the names of the first study, so that its runs are found.
        of_labels = {None: "all", 50: f"subset_{self.subset}"}.get(
            self.num_labels, f"{self.num_labels}_labels_subset_{self.subset}"
        )
        return f"{of_features}fold_{fold}_{of_labels}"

    def method(self, student: str) -> str:
        """Title of a student's row."""
        return f"{FEATURES[self.features].title}: {student}, {self.num_labels or 'all'} labels"


def main() -> None:
    """Run every condition on every fold, draw the figures, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--data", type=Path, default=DEFAULT_DIRECTORY, help="directory of the DeepLoc data")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--features", nargs="+", choices=list(FEATURES), default=list(FEATURES))
    parser.add_argument(
        "--labels", nargs="+", type=_label_count, default=LABEL_COUNTS, help="numbers of labels, or all"
    )
    parser.add_argument("--subsets", type=int, default=1, help="draws of the labels for each fold")
    parser.add_argument("--folds", nargs="+", type=int, choices=range(NUM_FOLDS), default=range(NUM_FOLDS))
    options = parser.parse_args()
    files = results_files(options)

    wanted = conditions(options.features, options.labels, options.subsets)
    results = [
        row for condition in wanted for row in run_condition(options.data, options.runs, condition, options.folds)
    ]
    save_figures(draw_figures(options.data, options.runs, wanted[0], options.folds), options.out)
    rows = rows_of(results, COLUMNS)
    of_conditions = [pooled_metrics(options.data, options.runs, condition, options.folds) for condition in wanted]
    pooled = rows_of(list(itertools.chain(*of_conditions)), (POOLED_ECE, EXCESS))
    table = markdown_table(titled(rows)) + "\nAll folds together:\n\n" + markdown_table(pooled)
    in_full = summary("deeploc", options.folds, rows) | {"pooled": summary("", (), pooled)["rows"], "runs": results}
    write_results(files, in_full, table)


def conditions(features: Sequence[str], label_counts: Sequence[int | None], num_subsets: int) -> list[Condition]:
    """Every number of labels on every set of features, and as many draws of the labels where some are left out."""
    return [
        Condition(name, count, subset)
        for name in features
        for count in label_counts
        for subset in ((None,) if count is None else range(num_subsets))
    ]


def run_condition(
    directory: Path, runs: Path, condition: Condition, fold_numbers: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The rows of a condition, two for each fold."""
    data, several = _read(directory, condition)
    splits = list(folds(data.partition))
    for fold in fold_numbers:
        train, test = splits[fold]
        folder, labels = runs / condition.folder(fold), condition.labels(data.labels[train])
        for scores in run_student(folder, data, train, test, labels, several[fold], seed=fold):
            row = {"method": condition.method(scores["student"]), "fold": fold, **condition._asdict(), **scores}
            shown = {key: round(row[key], 3) for key in COLUMNS if row[key] is not None}
            print(folder.name, row["method"], shown, flush=True)
            yield row
        # Folds differ in their numbers of proteins, so that none runs what was compiled for another; after seventeen of
        # them the system has no memory maps left.
        jax.clear_caches()


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
    run, alone = folder / WITH_TEACHERS, folder / WITHOUT_TEACHERS
    _fit_and_evaluate(folder, run, seed, [])
    selection = read_json(run / "selection.json")
    settings = selection["no_teacher"]
    no_teacher = [
        *("--settings.power", "0", "--settings.concentration", "1", "--settings.center-scale", "inf"),
        *("--settings.wide-scale", str(settings["wide_scale"]), "--settings.temperature", str(settings["temperature"])),
        *("--settings.prediction-temperature", str(settings["prediction_temperature"])),
    ]
    _fit_and_evaluate(folder, alone, seed, no_teacher)
    return [
        {"student": MT_BKD, **_scores(run, folder, several), "chosen": selection["chosen"]},
        {"student": NO_TEACHER, **_scores(alone, folder, several), "chosen": settings},
    ]


def pooled_metrics(
    directory: Path, runs: Path, condition: Condition, fold_numbers: Sequence[int]
) -> list[dict[str, Any]]:
    """Calibration of both students over the test proteins of all folds together: there are too few in one to see it."""
    data, _ = _read(directory, condition)
    splits = list(folds(data.partition))
    labels = np.concatenate([data.labels[splits[fold][1]] for fold in fold_numbers])
    rows = []
    for student, name in ((MT_BKD, WITH_TEACHERS), (NO_TEACHER, WITHOUT_TEACHERS)):
        probs = np.concatenate(
            [
                open_run(runs / condition.folder(fold) / name).predict(data.inputs[splits[fold][1]]).probs
                for fold in fold_numbers
            ]
        )
        excess = float(probs.max(1).mean() - (probs.argmax(1) == labels).mean())
        ece = expected_calibration_error(probs, labels)
        rows.append({"method": condition.method(student), POOLED_ECE: ece, EXCESS: excess})
    return rows


def draw_figures(directory: Path, runs: Path, condition: Condition, fold_numbers: Sequence[int]) -> dict[str, "Figure"]:
    """How uncertain the student is, and whom it was told to trust, by compartment, over the folds of a condition."""
    data, several = _read(directory, condition)
    splits = list(folds(data.partition))
    deviances, labels, weights = [], [], []
    label_of = dict(zip(data.ids.tolist(), data.labels.tolist(), strict=True))
    for fold in fold_numbers:
        _, test = splits[fold]
        run = runs / condition.folder(fold) / WITH_TEACHERS
        inputs = np.concatenate([data.inputs[test], several[fold]])
        deviances.append(open_run(run).predict(inputs).mean_deviance)
        labels.append(np.append(data.labels[test], np.full(len(several[fold]), len(data.class_names))))
        teachers = read_npz(run / "teachers.npz", required=("ids", "weights"))
        true_labels = np.array([label_of[name] for name in teachers["ids"].tolist()])
        weights.append(mean_by_class(teachers["weights"], true_labels, len(data.class_names)))
    over_folds = np.stack(weights)
    return {
        "deviance_by_class": deviance_by_class(
            np.concatenate(deviances), np.concatenate(labels), (*data.class_names, "several of these")
        ),
        "weights_by_class": weights_by_class(
            over_folds.mean(0),
            np.stack([over_folds.min(0), over_folds.max(0)]),
            data.teacher_names,
            data.class_names,
            label="mean weight; below, lowest and highest of the folds",
        ),
    }


def _read(directory: Path, condition: Condition) -> tuple[DeepLoc, list[np.ndarray]]:
    """The data, and for each fold the inputs of proteins with several compartments."""
    data = read_deeploc(directory, condition.features)
    several, partition = read_multilabel(directory, condition.features)
    return data, [several[partition == held_out] for held_out in np.unique(data.partition)]


def _write_inputs(folder: Path, data: DeepLoc, train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> None:
    """Write what the commands take; where it is there from an earlier study, make sure that it is the same.

    Raises:
      InputError: if it is not.
    """
    common = {"class_names": np.array(data.class_names)}
    files = {"train": {"inputs": data.inputs[train], "labels": labels, "ids": data.ids[train]}}
    files["train"]["groups"] = data.partition[train]
    for column, name in enumerate(data.teacher_names):
        files[name] = {"logits": data.teacher_logits[train, column], "ids": data.ids[train]}
    files["test"] = {"inputs": data.inputs[test], "labels": data.labels[test], "ids": data.ids[test]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in files.items():
        path = folder / f"{name}.npz"
        if not path.exists():
            np.savez(path, allow_pickle=False, **fields, **common)
            continue
        there = read_npz(path, required=tuple(fields))
        if differing := [field for field in fields if not np.array_equal(there[field], fields[field])]:
            action = "Give another folder as --runs: what is in this one belongs to other data."
            raise InputError(str(path), differing[0], "other values", "those of this study", action)


def _fit_and_evaluate(folder: Path, run: Path, seed: int, settings: Sequence[str]) -> None:
    if _metrics_of(run).exists():
        return
    start, is_new = time.perf_counter(), not run.exists()
    teachers = [f"{path.stem}={path}" for path in sorted(folder.glob("*.npz")) if path.stem not in ("train", "test")]
    arguments = ["fit", "--data", str(folder / "train.npz"), "--teachers", *teachers, "--out", str(run)]
    mtbkd([*arguments, *FIT_OPTIONS, "--seed", str(seed), "--resume", *settings])
    mtbkd(["evaluate", str(run), "--data", str(folder / "test.npz")])
    if is_new:  # of a run that was interrupted nobody knows how long it took
        write_json(_seconds_of(run), time.perf_counter() - start)


def _scores(run: Path, folder: Path, several: np.ndarray) -> dict[str, float | None]:
    """Its metrics; the seconds are None where the run was interrupted, or nobody took the time."""
    scores = read_json(_metrics_of(run)) | read_json(run / "diagnostics.json")
    opened = open_run(run)
    one, more = (opened.predict(inputs).mean_deviance for inputs in (read_inputs(folder / "test.npz"), several))
    scores["auroc_multi"] = out_of_distribution_auroc(np.asarray(one), np.asarray(more))
    scores["seconds"] = read_json(_seconds_of(run)) if _seconds_of(run).exists() else None
    return {key: scores[key] for key in COLUMNS}


def _metrics_of(run: Path) -> Path:
    return run / "evaluations" / "test" / "metrics.json"


def _seconds_of(run: Path) -> Path:
    return run.with_name(f"{run.name}_seconds.json")


def _label_count(text: str) -> int | None:
    if text == "all":
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is neither a number of labels nor 'all'")
    return int(text)


if __name__ == "__main__":
    main()
