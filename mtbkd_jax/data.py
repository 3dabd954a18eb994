"""The student's data: read from NPZ files, checked, and standardized."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from mtbkd_jax.checks import (
    Names,
    check_class_names,
    check_finite,
    check_groups,
    check_ids,
    check_labels,
    check_num_examples,
    check_same_number,
    some,
)
from mtbkd_jax.errors import InputError
from mtbkd_jax.npz_files import read_npz
from mtbkd_jax.rows import Rows, blocks, open_rows
from mtbkd_jax.storage import translated_errors
from mtbkd_jax.unsaid import MissingTeachers


@dataclass(frozen=True)
class Dataset:
    """Examples of the student; make one by ``make_dataset`` or ``read_dataset``, which check it.

    Attributes:
      ids: text, each once.
      inputs: float32, finite.
      labels: int32, a class counted from 0, or −1 where there is no label.
      class_names: in the order of the labels; None where they have no names.
      groups: text, the group of each example; None where each stands for itself.
    """

    ids: np.ndarray
    inputs: Float[np.ndarray, "examples ..."]
    labels: Int[np.ndarray, " examples"]
    class_names: tuple[str, ...] | None
    groups: np.ndarray | None = None


class DatasetOnDisk(NamedTuple):
    """A ``Dataset`` whose inputs stay in their file, and were not looked at; ``open_dataset`` makes it."""

    ids: np.ndarray
    inputs: Rows
    labels: Int[np.ndarray, " examples"]
    class_names: tuple[str, ...] | None
    groups: np.ndarray | None


def make_dataset(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    ids: Names | None = None,
    class_names: Names | None = None,
    groups: Names | None = None,
    where: str = "data",
) -> Dataset:
    """Check arrays and make a data set of them.

    Args:
      inputs: real numbers, ``[examples, ...]``.
      labels: integers, ``[examples]``; −1 where there is no label.
      ids: text or integers, ``[examples]``; where there are none, the numbers of the rows from 0 stand in.
      class_names: in the order of the labels.
      groups: text or integers, ``[examples]``: which examples resemble each other (the same patient, homologous
        proteins), so that a label says something of the others in its group.
      where: what error messages call the data.

    Raises:
      InputError: if the arrays disagree in length, or one of them is not what it must be.
    """
    checked_inputs = _check_inputs(inputs, where, "inputs")
    checked = _check_besides(len(checked_inputs), labels, ids, class_names, groups, where)
    checked_ids, checked_labels, names, checked_groups = checked
    return Dataset(checked_ids, checked_inputs, checked_labels, names, checked_groups)


def _check_besides(
    num_examples: int,
    labels: ArrayLike,
    ids: Names | None,
    class_names: Names | None,
    groups: Names | None,
    where: str,
) -> tuple[np.ndarray, Int[np.ndarray, " examples"], tuple[str, ...] | None, np.ndarray | None]:
    """Check all but the inputs: ids, labels, names of the classes, and groups."""
    check_num_examples(num_examples, where)
    names = None if class_names is None else check_class_names(class_names, where)
    checked_labels = check_labels(labels, None if names is None else len(names), where)
    checked_ids = row_ids(num_examples) if ids is None else check_ids(ids, where)
    checked_groups = None if groups is None else check_groups(groups, where)
    for field, array in {"labels": checked_labels, "ids": checked_ids, "groups": checked_groups}.items():
        if array is not None:
            check_same_number("rows", len(array), num_examples, "as the inputs have", where, field)
    return checked_ids, checked_labels, names, checked_groups


def read_dataset(
    path: str | Path, *, inputs_field: str = "inputs", labels_field: str = "labels", ids_field: str = "ids"
) -> Dataset:
    """Read a data set from an NPZ file.

    Args:
      path: of a file with inputs ``[examples, ...]``, labels ``[examples]`` and, optionally, ids and ``groups``
        ``[examples]`` and ``class_names``; other fields are left alone.
      inputs_field: name of the field with the inputs.
      labels_field: name of the field with the labels.
      ids_field: name of the field with the ids.

    Raises:
      InputError: if the file or a field of it is not what it must be.
    """
    fields = read_npz(path, required=(inputs_field, labels_field), optional=(ids_field, "class_names", "groups"))
    return make_dataset(
        fields[inputs_field],
        fields[labels_field],
        ids=fields.get(ids_field),
        class_names=fields.get("class_names"),
        groups=fields.get("groups"),
        where=str(path),
    )


def open_dataset(path: str | Path) -> DatasetOnDisk:
    """``read_dataset`` of an NPZ file whose inputs do not fit in memory: they stay there, and are read by rows.

    Raises:
      InputError: if the file or a field of it is not what it must be, or the inputs are compressed.
    """
    where = str(path)
    fields = read_npz(path, required=("labels",), optional=("ids", "class_names", "groups"))
    inputs = open_rows(path, "inputs")
    _check_shape(inputs.shape, where, "inputs")
    ids, class_names, groups = (fields.get(name) for name in ("ids", "class_names", "groups"))
    checked = _check_besides(inputs.shape[0], fields["labels"], ids, class_names, groups, where)
    checked_ids, checked_labels, names, checked_groups = checked
    return DatasetOnDisk(checked_ids, inputs, checked_labels, names, checked_groups)


def read_inputs(path: str | Path, *, inputs_field: str = "inputs") -> Float[np.ndarray, "examples ..."]:
    """Read only the inputs from an NPZ file, one example or more, with the checks of ``read_dataset``."""
    return _check_inputs(read_npz(path, required=(inputs_field,))[inputs_field], str(path), inputs_field)


def row_ids(num_examples: int) -> np.ndarray:
    """Ids for examples that have none: the numbers of the rows, from 0.

    >>> row_ids(3).tolist()
    ['0', '1', '2']
    """
    return np.arange(num_examples).astype(str)


class IdIndex:
    """Finds the rows of ids by binary search; an id may be asked for more than once."""

    def __init__(self, ids: np.ndarray):
        self._order = np.argsort(ids)
        self._sorted = ids[self._order]

    def rows(self, ids: np.ndarray, where: str, missing: MissingTeachers = "refuse") -> Int[np.ndarray, " ids"]:
        """Return the rows of ids that all have to be there, or with ``mask`` one of them or more; -1 for the others."""
        places = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        is_there = self._sorted[places] == ids
        if not is_there.all() and (missing == "refuse" or not is_there.any()):
            absent = ids[~is_there].tolist()
            found = f"no outputs for {len(absent)} of {len(ids)} examples: {some(absent)}"
            if missing == "mask":
                action = "Leave this teacher out, or spell the ids alike on both sides."
                raise InputError(where, "ids", found, "outputs for one example of the data or more", action)
            action = (
                "Add them, or leave these examples out, or mask the teacher there (`--missing-teachers mask`); "
                "ids must be spelled alike on both sides."
            )
            raise InputError(where, "ids", found, "outputs for every example of the data", action)
        return np.where(is_there, self._order[places], -1)


def sha256_of_file(path: str | Path) -> str:
    """Return the SHA-256 digest of a file's content, in hexadecimal."""
    with translated_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Standardizer:
    """Takes from every feature its mean, and divides by its standard deviation, over the training examples.

    >>> standardize = Standardizer.fit(np.array([[0.0, 7.0], [2.0, 7.0]]))
    >>> standardize(np.array([[4.0, 7.0]])).tolist()
    [[3.0, 0.0]]

    Attributes:
      mean: of each feature.
      scale: standard deviation of each feature; 1 where it is constant, since there is nothing to divide by.
    """

    mean: Float[np.ndarray, "*features"]
    scale: Float[np.ndarray, "*features"]

    @classmethod
    def fit(cls, inputs: Float[np.ndarray, "examples *features"]) -> "Standardizer":
        """Compute mean and scale, in double precision."""
        mean, scale = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
        constant = inputs.min(axis=0) == inputs.max(axis=0)
        return cls(mean.astype(np.float32), np.where(constant, 1, scale).astype(np.float32))

    @classmethod
    def fit_rows(cls, rows: Rows, where: str, field: str) -> "Standardizer":
        """``fit`` in bounded memory, in two passes, the first of which looks for numbers that are not finite.

        Raises:
          InputError: if there are some.
        """
        num_rows, total = rows.shape[0], np.zeros(rows.shape[1:])
        lowest, highest = np.full(rows.shape[1:], np.inf), np.full(rows.shape[1:], -np.inf)
        for start, block in blocks(rows):
            values = check_finite(block, where, f"{field} from row {start}")
            total += values.sum(axis=0, dtype=np.float64)
            lowest, highest = np.minimum(lowest, values.min(axis=0)), np.maximum(highest, values.max(axis=0))
        mean = total / num_rows
        squares = sum(np.square(np.asarray(block, np.float32) - mean).sum(axis=0) for _, block in blocks(rows))
        scale = np.where(lowest == highest, 1, np.sqrt(squares / num_rows))
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def __call__(self, inputs: Float[np.ndarray, "examples ..."]) -> Float[np.ndarray, "examples ..."]:
        """Return standardized inputs, as float32.

        Raises:
          InputError: if the features have another shape than those of the training examples.
        """
        if inputs.shape[1:] != self.mean.shape:
            expected = f"{self.mean.shape}, as in training"
            action = "Give the same features as in training, without the standardization."
            raise InputError("inputs", "shape of an example", f"{inputs.shape[1:]}", expected, action)
        return ((inputs - self.mean) / self.scale).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes, made of lists."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Standardizer":
        """Make it again from what ``to_json`` returned."""
        return cls(np.asarray(content["mean"], np.float32), np.asarray(content["scale"], np.float32))


def _check_inputs(inputs: ArrayLike, where: str, field: str) -> Float[np.ndarray, "examples ..."]:
    array = check_finite(inputs, where, field)
    _check_shape(array.shape, where, field)
    return array


def _check_shape(shape: tuple[int, ...], where: str, field: str) -> None:
    if len(shape) < 2 or 0 in shape:
        action = "Give a row for each example; a single feature is a column, `inputs[:, None]`."
        raise InputError(where, field, f"an array of shape {shape}", "[examples, features ...]", action)
