"""DeepLoc as the authors of MT-BKD publish it: read from a clone of their repository, written for ``mtbkd fit``.

The clone (``AnonymousSub1/MTBKD`` on GitHub) has proteins in ``data/`` and the outputs of two teachers, frozen protein
language models with a trained head, in ``teacher_pred_prob/``. The files may as well lie in the directory itself.

    data_our_train_sample.csv       ``ACC``, ``Partition``, a column for each compartment, ``Sequence``, ``Label``
    ESM_650M_probs_sample.csv       outputs of ESM-2 (650 M parameters) for these proteins, row by row
    T5_probs_sample.csv             outputs of ProtT5-XL
    data_our_test.csv               ``Sequence`` and ``Label``; taken where it is there
    data_MuLabel_sub.csv            ``Sequence`` of proteins of several compartments; taken where it is there

The teachers' files are called ``probs`` and hold logits. There are no embeddings in the clone, so the student's inputs
are the features of ``composition``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mtbkd_jax import storage
from mtbkd_jax.checks import check_ids, check_labels, check_num_examples, check_same_number
from mtbkd_jax.composition import composition_features, composition_names
from mtbkd_jax.csv_files import csv_columns
from mtbkd_jax.errors import InputError
from mtbkd_jax.teacher_files import read_teacher_file
from mtbkd_jax.teacher_writer import write_teacher_outputs

CLASS_NAMES = (
    "Cytoplasm",
    "Nucleus",
    "Extracellular",
    "Cell membrane",
    "Mitochondrion",
    "Plastid",
    "Endoplasmic reticulum",
    "Lysosome/Vacuole",
    "Golgi apparatus",
    "Peroxisome",
)
"""The compartments, in the order of the labels and of the logits."""

TRAIN_FILE, TEST_FILE, SEVERAL_FILE = "data_our_train_sample.csv", "data_our_test.csv", "data_MuLabel_sub.csv"
TEACHER_FILES = {"esm2_650m": "ESM_650M_probs_sample.csv", "prott5_xl": "T5_probs_sample.csv"}
_FOLDERS = (".", "data", "teacher_pred_prob")
_REPOSITORY = "the authors' repository AnonymousSub1/MTBKD"
_CLONE_AGAIN = f"Clone {_REPOSITORY} again, or correct the file."


@dataclass(frozen=True, eq=False)
class DeepLocClone:
    """What a clone holds; the proteins are in the order in which they are published.

    Attributes:
      ids: UniProt accession numbers of the training proteins.
      sequences: their residues.
      labels: the compartment of each, 0 to 9.
      partition: DeepLoc's homology partition of each, to cross-validate over.
      teacher_logits: by name of the teacher, in the order of the proteins and of ``CLASS_NAMES``.
      test_sequences: of the test proteins; empty where the clone has none.
      test_labels: the compartment of each.
      several_sequences: of proteins of more than one compartment; empty where the clone has none.
    """

    ids: np.ndarray
    sequences: tuple[str, ...]
    labels: Int[np.ndarray, " proteins"]
    partition: Int[np.ndarray, " proteins"]
    teacher_logits: dict[str, Float[np.ndarray, "proteins 10"]]
    test_sequences: tuple[str, ...]
    test_labels: Int[np.ndarray, " tests"]
    several_sequences: tuple[str, ...]


def read_clone(directory: str | Path) -> DeepLocClone:
    """Read a clone of the authors' repository; nothing is written.

    Raises:
      InputError: if a file or a column of the training part is missing, a cell is not what it must be, a label
        contradicts the compartments' columns, or a teacher has outputs for other proteins.
    """
    directory = Path(directory)
    path = _found(directory, TRAIN_FILE)
    rows = csv_columns(path, ("ACC", "Partition", *CLASS_NAMES, "Sequence", "Label"), _CLONE_AGAIN)
    check_num_examples(len(rows), str(path))
    ids = check_ids([row["ACC"] for row in rows], str(path), "ACC")
    labels = _labels(rows, path)
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        named = [name for name in CLASS_NAMES if row[name] != "0"]
        if named != [CLASS_NAMES[label]]:
            expected = f"{CLASS_NAMES[label]} alone, since the label is {label}"
            raise InputError(str(path), f"compartments of row {number}", str(named), expected, _CLONE_AGAIN)
    test_rows, several_rows = (
        csv_columns(file, columns, _CLONE_AGAIN) if (file := _place(directory, name)) else []
        for name, columns in ((TEST_FILE, ("Sequence", "Label")), (SEVERAL_FILE, ("Sequence",)))
    )
    return DeepLocClone(
        ids=ids,
        sequences=tuple(row["Sequence"] for row in rows),
        labels=labels,
        partition=_whole_numbers(rows, "Partition", path),
        teacher_logits={
            name: _teacher_logits(name, _found(directory, file), ids) for name, file in TEACHER_FILES.items()
        },
        test_sequences=tuple(row["Sequence"] for row in test_rows),
        test_labels=_labels(test_rows, directory / TEST_FILE),
        several_sequences=tuple(row["Sequence"] for row in several_rows),
    )


def import_deeploc(directory: str | Path, out: str | Path) -> tuple[Path, ...]:
    """Write what a clone holds as ``mtbkd fit``, ``evaluate`` and ``predict`` take it.

        OUT/train.npz          ``inputs``, ``labels``, ``ids``, and the homology partition as ``groups``
        OUT/teachers/NAME/     the outputs of each teacher
        OUT/test.npz           ``inputs``, ``labels``, where the clone has test proteins
        OUT/multilabel.npz     ``inputs``, where the clone has proteins of several compartments

    Each NPZ file has ``class_names`` and ``feature_names`` as well.

    Args:
      directory: the clone.
      out: a new or an empty directory.

    Returns:
      What was written.

    Raises:
      InputError: if the clone is not what it must be, or there is something in ``out`` already.
      StorageError: if the disk is full.
    """
    clone = read_clone(directory)
    features = {
        "train": composition_features(clone.sequences, where=TRAIN_FILE),
        "test": composition_features(clone.test_sequences, where=TEST_FILE),
        "multilabel": composition_features(clone.several_sequences, where=SEVERAL_FILE),
    }
    of_all = {"class_names": np.array(CLASS_NAMES), "feature_names": np.array(composition_names())}
    besides = {
        "train": of_all | {"labels": clone.labels, "ids": clone.ids, "groups": clone.partition},
        "test": of_all | {"labels": clone.test_labels},
        "multilabel": of_all,
    }
    out = storage.new_directory(out)
    written = []
    for name, logits in clone.teacher_logits.items():
        written.append(out / "teachers" / name)
        write_teacher_outputs(
            written[-1],
            {name: logits},
            ids=clone.ids,
            class_names=CLASS_NAMES,
            sources={name: f"{TEACHER_FILES[name]} of {_REPOSITORY}"},
            kinds={name: "logits"},
        )
    for name, inputs in features.items():
        if len(inputs):
            written.append(out / f"{name}.npz")
            with storage.new_file(written[-1]) as file:
                np.savez_compressed(file, allow_pickle=False, inputs=inputs, **besides[name])
    return tuple(written)


def _teacher_logits(name: str, path: Path, ids: np.ndarray) -> Float[np.ndarray, "proteins 10"]:
    """Outputs of a teacher for the proteins, matched by id where the file has ids; the published ones have none."""
    teacher = read_teacher_file(f"{name}={path}")
    check_same_number("classes", teacher.num_classes, len(CLASS_NAMES), "as DeepLoc has", str(path), "header")
    if teacher.class_names not in (None, CLASS_NAMES):
        raise InputError(str(path), "header", str(teacher.class_names), "the numbers 0 to 9", _CLONE_AGAIN)
    if teacher.ids is not None:
        return teacher.logits(ids)[:, 0]
    values = np.asarray(teacher.values)
    check_same_number("rows", len(values), len(ids), f"as {TRAIN_FILE} has", str(path), "outputs")
    return values


def _place(directory: Path, name: str) -> Path | None:
    """Where a file lies in the clone; None if it is not there."""
    return next((path for folder in _FOLDERS if (path := directory / folder / name).is_file()), None)


def _found(directory: Path, name: str) -> Path:
    path = _place(directory, name)
    if path is None:
        expected = "it there, or in data/ or teacher_pred_prob/"
        action = f"Give the directory of a clone of {_REPOSITORY}."
        raise InputError(str(directory), name, "no such file", expected, action)
    return path


def _labels(rows: Sequence[dict[str, str]], path: Path) -> Int[np.ndarray, " proteins"]:
    return check_labels(_whole_numbers(rows, "Label", path), len(CLASS_NAMES), str(path), "Label")


def _whole_numbers(rows: Sequence[dict[str, str]], column: str, path: Path) -> Int[np.ndarray, " rows"]:
    for number, row in enumerate(rows):
        cell = row[column]
        if not (cell.isascii() and cell.isdecimal() and len(cell) < 10):
            raise InputError(str(path), f"{column} of row {number}", repr(cell), "a whole number", _CLONE_AGAIN)
    return np.array([int(row[column]) for row in rows], np.int32)
