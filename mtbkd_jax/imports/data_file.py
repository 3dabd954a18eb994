"""Import of examples: from columns of a table to the NPZ file that ``mtbkd fit``, ``teach`` and ``predict`` read."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtbkd_jax import storage
from mtbkd_jax.adapters.teaching import make_questions
from mtbkd_jax.checks import check_class_names, check_num_examples, check_same_number, check_text, some
from mtbkd_jax.data import make_dataset, row_ids
from mtbkd_jax.errors import InputError
from mtbkd_jax.imports.cells import GrowingBytes, labels, names, numbers
from mtbkd_jax.imports.formats import open_table
from mtbkd_jax.imports.tables import Column, Table, id_column, select_columns


class ImportedData(NamedTuple):
    """What was written.

    Attributes:
      path: of the NPZ file.
      num_examples: how many examples it has.
      num_labelled: how many of them have a label.
      shape: of the inputs of an example; () for a text.
      class_names: in the order of the labels; None where they have no names.
    """

    path: Path
    num_examples: int
    num_labelled: int
    shape: tuple[int, ...]
    class_names: tuple[str, ...] | None


def import_data(
    file: str | Path,
    out: str | Path,
    *,
    inputs: Sequence[str],
    label: str | None = None,
    ids: str | None = None,
    groups: str | None = None,
    class_names: Sequence[str] | None = None,
) -> ImportedData:
    """Write columns of a table as the project's data file; all of it is checked before.

    The file has ``inputs``, ``labels`` (-1 where there is none) and ``ids``, and perhaps ``groups``, ``class_names``
    and ``feature_names``, the names of the columns of numbers.

    Args:
      file: a CSV, NPZ, Parquet or safetensors file, or a directory of Hugging Face ``datasets``.
      out: a new NPZ file.
      inputs: names of columns, or patterns like ``pixel_*``, put side by side; or one column of text.
      label: the column with the labels: whole numbers or names; None for examples without labels.
      ids: the column with the ids; None takes that called ``id`` or ``ids``, or else the numbers of the rows.
      groups: the column that says which examples resemble each other.
      class_names: in the order of the labels; None takes what the file says, or else the names among the labels in
        alphabetical order.

    Raises:
      InputError: if the file, a column or a cell is not what it must be, or ``out`` exists.
      CorruptDataError: if the file was truncated or altered.
      StorageError: if the disk is full.
    """
    out = Path(out)
    storage.check_new_file(out)
    table = open_table(file)
    where = table.where
    of_inputs = select_columns(table, inputs)
    if not of_inputs:
        raise InputError(where, "inputs", "no column", "one column or more", "Name the columns of the inputs.")
    singles = {
        "labels": None if label is None else select_columns(table, [label])[0],
        "ids": id_column(table, ids),
        "groups": None if groups is None else select_columns(table, [groups])[0],
    }
    if twice := [column for column in singles.values() if column in of_inputs and column is not None]:
        action = "Name other columns; a label among the inputs would give the answer away."
        raise InputError(where, "inputs", f"{some(twice)} for something else as well", "columns of their own", action)
    found = _read(table, of_inputs, {field: column for field, column in singles.items() if column is not None})

    given = class_names
    if given is None and label is not None:
        given = table.class_names.get(str(singles["labels"]))
    if label is None:
        coded = np.full(found.num_examples, -1, np.int32)
        known = None if given is None else check_class_names(given, where)
    else:
        coded, known = labels(found.labels, given, where, label)
    checked_ids = row_ids(found.num_examples) if singles["ids"] is None else found.ids
    fields = _checked(found.inputs, coded, checked_ids, known, found.groups if groups is not None else None, where)
    if fields["inputs"].ndim == 2 and fields["inputs"].shape[1] == len(of_inputs):
        fields["feature_names"] = check_text(list(of_inputs), where, "names of columns")
    with storage.new_file(out) as content:
        np.savez(content, allow_pickle=False, **fields)
    num_labelled = int((fields["labels"] >= 0).sum())
    return ImportedData(out, found.num_examples, num_labelled, fields["inputs"].shape[1:], known)


class _Read(NamedTuple):
    """The columns of a table in memory, not yet compared with each other."""

    num_examples: int
    inputs: np.ndarray
    labels: list[Column]
    ids: list[str]
    groups: list[str]


def _read(table: Table, of_inputs: Sequence[str], singles: dict[str, str]) -> _Read:
    """Read columns, batch by batch."""
    where, num_examples, growing = table.where, 0, GrowingBytes(table.where, table.stored_bytes)
    inputs: list[np.ndarray] = []
    texts: list[str] = []
    found_labels: list[Column] = []
    found_names: dict[str, list[str]] = {"ids": [], "groups": []}
    # A column may stand for two things, as a group that is the id.
    columns = tuple(dict.fromkeys((*of_inputs, *singles.values())))
    for batch in table.batches(columns):
        by_name = dict(zip(columns, batch, strict=True))
        start, num_examples = num_examples, num_examples + len(batch[0].is_missing)
        if (text := _text_of(by_name, of_inputs)) is not None:
            texts += names(text, where, of_inputs[0])
            growing.add(sum(map(len, texts[start:])), of_inputs[0])
        else:
            inputs.append(_side_by_side(by_name, of_inputs, where, start))
            growing.add(inputs[-1].nbytes, "inputs")
            if inputs[-1].shape[1:] != inputs[0].shape[1:]:
                found, expected = f"{inputs[-1].shape[1:]} from row {start}", f"{inputs[0].shape[1:]}, as before"
                raise InputError(where, "shape of an example", found, expected, "Pad or cut them.")
        if "labels" in singles:
            found_labels.append(by_name[singles["labels"]])
        for field in singles.keys() & found_names.keys():
            column = singles[field]
            found_names[field] += names(by_name[column], where, _from_row(column, start))
    check_num_examples(num_examples, where)
    if texts and inputs:
        raise InputError(where, of_inputs[0], "numbers and text", "one of them", "Save it as one type.")
    values = check_text(texts, where, of_inputs[0]) if texts else np.concatenate(inputs)
    return _Read(num_examples, values, found_labels, found_names["ids"], found_names["groups"])


def _checked(
    inputs: np.ndarray,
    coded: np.ndarray,
    ids: Sequence[str] | np.ndarray,
    class_names: tuple[str, ...] | None,
    groups: Sequence[str] | None,
    where: str,
) -> dict[str, Any]:
    """The fields of the data file, each compared with the others."""
    if inputs.dtype.kind == "U":
        questions = make_questions(inputs, ids=ids, class_names=class_names, where=where)
        check_same_number("rows", len(coded), len(inputs), "as the inputs have", where, "labels")
        fields: dict[str, Any] = {"inputs": inputs, "labels": coded, "ids": questions.ids}
        if groups is not None:
            fields["groups"] = check_text(groups, where, "groups")
    else:
        dataset = make_dataset(inputs, coded, ids=ids, class_names=class_names, groups=groups, where=where)
        fields = {"inputs": dataset.inputs, "labels": dataset.labels, "ids": dataset.ids}
        if dataset.groups is not None:
            fields["groups"] = dataset.groups
    if class_names is not None:
        fields["class_names"] = check_text(class_names, where, "class_names")
    return fields


def _text_of(by_name: dict[str, Column], of_inputs: Sequence[str]) -> Column | None:
    """The only column of the inputs, if it is text that no number can be read from."""
    column = by_name[of_inputs[0]]
    if len(of_inputs) > 1 or not isinstance(column.values, list):
        return None
    return column if any(map(_is_no_number, column.values)) else None


def _is_no_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return bool(text)
    return False


def _side_by_side(by_name: dict[str, Column], of_inputs: Sequence[str], where: str, start: int) -> np.ndarray:
    """Columns of numbers as features; a column that is alone keeps its shape."""
    parts = [numbers(by_name[name], where, _from_row(name, start)) for name in of_inputs]
    if len(parts) == 1 and parts[0].ndim > 1:
        return parts[0]
    return np.concatenate([part.reshape(len(part), math.prod(part.shape[1:])) for part in parts], axis=1)


def _from_row(column: str, start: int) -> str:
    return f"{column} from row {start}" if start else column
