"""The DeepLoc 2.0 subset of the paper: 2,500 proteins, ten compartments, and the logits of its two teachers.

The data are not part of this project. They are a directory that holds ``train.npz`` and, under ``as_published``, the
CSV file of the authors with the accession numbers. Cross-validation runs over ``partition``, the homology partition of
DeepLoc: proteins of different partitions are not alike, so a fold says something about new proteins.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.deeploc.features import DEFAULT_FEATURES, FEATURES, student_inputs
from mtbkd_jax.csv_files import csv_columns
from mtbkd_jax.errors import InputError

DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "deeploc"
TEACHER_NAMES = ("esm2_650m", "prott5_xl")

_PUBLISHED = Path("as_published") / "data_our_train_sample.csv"
_SEQUENCE_FIELDS = ("sequence_bytes", "sequence_offsets")


@dataclasses.dataclass(frozen=True, eq=False)
class DeepLoc:
    """The proteins with one compartment each, in the order in which the authors publish them.

    Attributes:
      ids: UniProt accession numbers, ``[2500]``.
      inputs: of the student, ``[2500, features]``, not standardised.
      labels: 0 to 9, ``[2500]``.
      partition: DeepLoc's homology partition, 0 to 4, ``[2500]``.
      teacher_logits: ``[2500, 2, 10]``, at temperature 1. The teachers were trained on part of these proteins.
      teacher_names: ``[2]``.
      class_names: ``[10]``.
    """

    ids: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray
    partition: np.ndarray
    teacher_logits: np.ndarray
    teacher_names: tuple[str, ...]
    class_names: tuple[str, ...]


def read_deeploc(directory: str | Path = DEFAULT_DIRECTORY, features: str = DEFAULT_FEATURES) -> DeepLoc:
    """Read the training part, without unpickling anything.

    The accession numbers in ``train.npz`` are an object array, so they are taken from the published CSV file, after
    labels, partitions and sequences of the two files are found to agree protein by protein.

    Args:
      directory: of the data.
      features: a name in ``FEATURES``.

    Raises:
      InputError: if a file or a field is missing, or the two files do not describe the same proteins in the same order.
    """
    directory, published_path = Path(directory), Path(directory) / _PUBLISHED
    teachers = tuple(f"teacher_{name}" for name in TEACHER_NAMES)
    needed = ("labels", "partition", FEATURES[features].model, "class_names", *_SEQUENCE_FIELDS, *teachers)
    fields = _read_fields(directory, "train.npz", needed)
    _check_is_file(directory, _PUBLISHED)
    rows = csv_columns(published_path, ("ACC", "Label", "Partition", "Sequence"), "Use the file of train.npz.")

    sequences = _sequences(fields)
    for column, ours in (("Label", fields["labels"]), ("Partition", fields["partition"]), ("Sequence", sequences)):
        _check_same_proteins(published_path, column, [row[column] for row in rows], [str(value) for value in ours])

    return DeepLoc(
        ids=np.array([row["ACC"] for row in rows]),
        inputs=student_inputs(FEATURES[features], fields[FEATURES[features].model], sequences),
        labels=fields["labels"].astype(np.int32),
        partition=fields["partition"].astype(np.int32),
        teacher_logits=np.stack([fields[teacher] for teacher in teachers], axis=1).astype(np.float32),
        teacher_names=TEACHER_NAMES,
        class_names=tuple(str(name) for name in fields["class_names"]),
    )


def read_multilabel(
    directory: str | Path = DEFAULT_DIRECTORY, features: str = DEFAULT_FEATURES
) -> tuple[np.ndarray, np.ndarray]:
    """Proteins with more than one compartment: their inputs ``[M, features]`` and homology partitions ``[M]``.

    Raises:
      InputError: if the file or a field is missing.
    """
    model = FEATURES[features].model
    fields = _read_fields(Path(directory), "multilabel_dev.npz", (model, "partition", *_SEQUENCE_FIELDS))
    inputs = student_inputs(FEATURES[features], fields[model], _sequences(fields))
    return inputs, fields["partition"].astype(np.int32)


def folds(partition: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers to train on and to test on, one pair for each homology partition in turn."""
    for held_out in np.unique(partition):
        yield np.flatnonzero(partition != held_out), np.flatnonzero(partition == held_out)


def _read_fields(directory: Path, name: str, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    _check_is_file(directory, Path(name))
    with np.load(directory / name, allow_pickle=False) as archive:
        for field in needed:
            if field not in archive.files:
                action = "Give the DeepLoc development data."
                raise InputError(str(directory / name), field, "no such array", "an array of that name", action)
        return {field: archive[field] for field in needed}


def _check_is_file(directory: Path, name: Path) -> None:
    if not (directory / name).is_file():
        action = "Give the directory that holds train.npz, multilabel_dev.npz and as_published/."
        raise InputError(str(directory), str(name), "no such file", "the DeepLoc development data", action)


def _sequences(fields: dict[str, np.ndarray]) -> list[str]:
    residues = fields["sequence_bytes"].tobytes().decode("ascii")
    return [residues[start:stop] for start, stop in itertools.pairwise(fields["sequence_offsets"])]


def _check_same_proteins(path: Path, column: str, published: list[str], ours: list[str]) -> None:
    if len(published) != len(ours):
        raise InputError(
            str(path),
            column,
            f"{len(published)} rows",
            f"{len(ours)} rows, as in train.npz",
            "Use the file of train.npz.",
        )
    for row, (theirs, own) in enumerate(zip(published, ours, strict=True)):
        if theirs != own:
            raise InputError(
                str(path), f"{column} of row {row}", theirs, f"{own}, as in train.npz", "Use the file of train.npz."
            )
