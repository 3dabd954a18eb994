"""The outputs of one teacher in an NPZ or a CSV file, as logits by example id."""

from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mtbkd_jax.checks import (
    Kind,
    as_logits,
    check_class_names,
    check_ids,
    check_num_classes,
    check_num_examples,
    check_same_number,
    check_softening,
    some,
)
from mtbkd_jax.csv_files import CsvLine, csv_lines
from mtbkd_jax.data import IdIndex, row_ids
from mtbkd_jax.errors import InputError
from mtbkd_jax.npz_files import open_npz, read_npz
from mtbkd_jax.rows import MappedRows, Rows, open_rows
from mtbkd_jax.unsaid import MissingTeachers, said_at


@dataclass(frozen=True)
class TeacherFile:
    """The outputs of one teacher in memory, as ``read_teacher_file`` reads them.

    Attributes:
      names: its name, as the only one.
      where: the file that they came from.
      ids: of the examples; None if the file has none.
      values: the logits; they may lie in the file.
      class_names: in the order of the logits; None if the file has none.
      softening: the temperature that its logits were divided by already, as the only one.
    """

    names: tuple[str]
    where: str
    ids: np.ndarray | None
    values: Float[np.ndarray, "rows classes"] | Rows
    class_names: tuple[str, ...] | None
    softening: tuple[float]

    @property
    def num_classes(self) -> int:
        """How many classes the logits are about."""
        return self.values.shape[1]

    def logits(self, ids: np.ndarray) -> Float[np.ndarray, "examples 1 classes"]:
        """Return the logits of some examples, in the order of their ids; raises as ``places`` does."""
        return self.logits_at(self.places(ids))

    def logits_at(self, places: Int[np.ndarray, " examples"]) -> Float[np.ndarray, "examples 1 classes"]:
        """Return the logits of the examples at some ``places``; NaN where there are none."""
        return said_at(places, lambda rows: self.values[rows], self.num_classes)[:, None]

    def places(self, ids: np.ndarray, missing: MissingTeachers = "refuse") -> Int[np.ndarray, " examples"]:
        """Return where the logits of some examples are, in the order of their ids.

        Args:
          ids: of the examples.
          missing: whether an id may be absent; its place is -1 then.

        Raises:
          InputError: if an id is not in the file, or with ``mask`` none of them is; or the file has no ids and these
            are not the numbers of its rows.
        """
        if self._index is not None:
            return self._index.rows(ids, self.where, missing)
        num_rows = self.values.shape[0]
        if not np.array_equal(ids, row_ids(num_rows)):
            found = f"no ids, and {num_rows} rows for {len(ids)} examples that have ids: {some(ids.tolist())}"
            expected = "an id for each row, since rows are never matched by position"
            action = "Add a field `ids` (NPZ) or a column `id` (CSV), or leave the ids out of the data as well."
            raise InputError(self.where, "ids", found, expected, action)
        return np.arange(num_rows)

    @cached_property
    def _index(self) -> IdIndex | None:
        return None if self.ids is None else IdIndex(self.ids)


def read_teacher_file(spec: str, *, kind: Kind | None = None, by_rows: bool = False) -> TeacherFile:
    """Read the outputs of one teacher from an NPZ or a CSV file into memory.

    An NPZ file has a field ``logits`` or ``probs``, ``[examples, classes]``, and optionally ``ids``, ``class_names``
    and ``softening``. A CSV file has a header with the names of the classes, or their indices from 0, and optionally
    ``id``; then a line for each example.

    Args:
      spec: ``NAME=FILE.npz`` or ``NAME=FILE.csv``.
      kind: what the file holds; None means what the name of the field says, or logits, unless they look otherwise.
      by_rows: whether the outputs stay in an NPZ file that is not compressed, and are checked when they are read.

    Raises:
      InputError: if the file is not what it must be.
      CorruptDataError: if an NPZ file was truncated or altered.
    """
    name, _, path = spec.partition("=")
    if not name or not path:
        raise InputError(spec, "teacher", "no name or no file", "NAME=FILE.npz or NAME=FILE.csv", "Give both.")
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return _read_npz(name, path, kind, by_rows)
    if suffix == ".csv":
        return _read_csv(name, path, kind)
    raise InputError(
        path, "file name", f"the ending {suffix!r}", "'.npz' or '.csv'", "Save the outputs as one of them."
    )


def _read_npz(name: str, path: str, kind: Kind | None, by_rows: bool) -> TeacherFile:
    with open_npz(path) as file:
        names = file.names
    if ("logits" in names) == ("probs" in names):
        found = "both" if "logits" in names else "neither"
        action = "Save the outputs of one teacher, `[examples, classes]`, under one of these names."
        raise InputError(path, "logits or probs", found, "one of these fields", action)
    field = "logits" if "logits" in names else "probs"
    besides = ("ids", "class_names", "softening")
    fields = read_npz(path, optional=besides if by_rows else (field, *besides))
    if kind is None and field == "probs":
        kind = "probabilities"
    softening = check_softening(fields.get("softening", 1.0), path)
    class_names = check_class_names(fields["class_names"], path) if "class_names" in fields else None
    ids = check_ids(fields["ids"], path) if "ids" in fields else None
    if not by_rows:
        return _teacher_file(name, path, ids, as_logits(fields[field], kind, path, field), class_names, softening)
    rows = open_rows(path, field)
    if len(rows.shape) != 2:
        raise InputError(path, field, f"shape {rows.shape}", "[examples, classes]", "Give a column for each class.")
    check_num_classes(rows.shape[1], path, field)
    logits = MappedRows(rows, lambda block: as_logits(block, kind, path, field), rows.shape[1:])
    return _teacher_file(name, path, ids, logits, class_names, softening)


def _read_csv(name: str, path: str, kind: Kind | None) -> TeacherFile:
    ids, numbers = [], array("f")
    lines = csv_lines(path)
    header = next(lines, CsvLine(0, [])).cells
    id_column = _check_csv_header(header, path)
    for line, cells in lines:
        if id_column is not None:
            ids.append(cells.pop(id_column))
        try:
            numbers.extend(map(float, cells))
        except ValueError as error:
            action = "Correct the cell; decimals are written with a point."
            raise InputError(path, f"line {line}", str(error), "numbers", action) from error
    classes = [cell for column, cell in enumerate(header) if column != id_column]
    values = np.frombuffer(numbers, np.float32).reshape(-1, len(classes))
    indices = row_ids(len(classes)).tolist()
    class_names = None
    if set(classes) == set(indices):
        values = values[:, [classes.index(index) for index in indices]]
    else:
        class_names = check_class_names(classes, path, "header")
    checked_ids = None if id_column is None else check_ids(ids, path, "id")
    return _teacher_file(name, path, checked_ids, as_logits(values, kind, path, "cells"), class_names, 1.0)


def _check_csv_header(header: list[str], path: str) -> int | None:
    """Check that a CSV file has a header, and return the place of the column with the ids."""
    expected = "class names or class indices from 0, and `id` over the ids"
    if "" in header or not header:
        action = "Name the column `id` if it holds ids, or leave it out (in pandas, `to_csv(index=False)`)."
        raise InputError(path, "header", "a column without a name" if header else "nothing", expected, action)
    id_columns = [column for column, cell in enumerate(header) if cell.strip().lower() in ("id", "ids")]
    if len(id_columns) > 1:
        raise InputError(path, "header", "several columns of ids", expected, "Leave one.")
    check_num_classes(len(header) - len(id_columns), path)
    if any(_is_fraction(cell) for cell in header):
        raise InputError(path, "header", f"numbers: {some(header)}", expected, "Put a header above the first example.")
    return id_columns[0] if id_columns else None


def _is_fraction(cell: str) -> bool:
    try:
        return not float(cell).is_integer()
    except ValueError:
        return False


def _teacher_file(
    name: str,
    path: str,
    ids: np.ndarray | None,
    logits: Rows,
    class_names: tuple[str, ...] | None,
    softening: float,
) -> TeacherFile:
    """Make a teacher of what a file holds, if it all has the same length."""
    num_rows = logits.shape[0]
    check_num_examples(num_rows, path)
    if ids is not None:
        check_same_number("rows", num_rows, len(ids), "as there are ids", path, "logits")
    if class_names is not None:
        check_same_number("classes", len(class_names), logits.shape[1], "as the logits have", path, "class_names")
    return TeacherFile((name,), path, ids, logits, class_names, (softening,))
