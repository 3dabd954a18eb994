"""Import of a teacher's outputs: from columns of a table to a directory of teacher outputs.

The table is read twice: once to check all of it and to learn the ids, and once to write. So nothing is written where
anything is wrong, and no more than the ids and a batch of rows is in memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mtbkd_jax.checks import (
    Kind,
    as_logits,
    check_class_names,
    check_ids,
    check_num_examples,
    check_same_number,
    check_softening,
)
from mtbkd_jax.data import row_ids
from mtbkd_jax.errors import InputError
from mtbkd_jax.imports.cells import GrowingBytes, names, numbers
from mtbkd_jax.imports.formats import open_table
from mtbkd_jax.imports.tables import Column, Table, id_column, select_columns
from mtbkd_jax.teachers import TeacherOutputs, TeacherOutputsWriter

_SOFTENING = "softening"


def import_teacher(
    file: str | Path,
    out: str | Path,
    *,
    name: str,
    outputs: Sequence[str] = (),
    ids: str | None = None,
    kind: Kind | None = None,
    class_names: Sequence[str] | None = None,
    softening: float | None = None,
) -> TeacherOutputs:
    """Write columns of a table as the outputs of one teacher, and open them; all of it is checked before.

    Args:
      file: a CSV, NPZ, Parquet or safetensors file, or a directory of Hugging Face ``datasets``.
      out: a new or an empty directory.
      name: of the teacher.
      outputs: names or patterns of a column for each class, or one column that holds a row for each example; none takes
        all columns but that of the ids.
      ids: the column with the ids; None takes that called ``id`` or ``ids``, or else the numbers of the rows.
      kind: what the outputs are; None means logits, and outputs that look like probabilities are refused.
      class_names: in the order of the outputs; None takes what the file says, or else the names of the columns.
      softening: the temperature that the logits were divided by already; None is 1.

    Raises:
      InputError: if the file, a column or a cell is not what it must be, or there is something in ``out`` already.
      CorruptDataError: if the file was truncated or altered.
      StorageError: if the disk is full.
    """
    table = open_table(file)
    plan = _plan(table, outputs, ids, kind, class_names)
    if _SOFTENING in table.names and softening is None:
        found, expected = "a field of that name", "to be told the temperature"
        raise InputError(table.where, _SOFTENING, found, expected, "Give it as the option `softening`.")
    checked_softening = check_softening(1.0 if softening is None else softening, table.where)
    checked_ids = _check(table, plan)
    with TeacherOutputsWriter(
        out,
        [name],
        ids=checked_ids,
        class_names=plan.class_names,
        softening={name: checked_softening},
        sources={name: f"{Path(file).name}, SHA-256 {table.sha256}"},
    ) as writer:
        for start, logits, _ in _batches(table, plan):
            writer.append(name, checked_ids[start : start + len(logits)], logits, kind="logits")
        return writer.close()


class _Plan(NamedTuple):
    """What is read of a table, and what of it are the outputs.

    Attributes:
      columns: of the outputs, in the order of the classes.
      of_ids: the column with the ids; None where the numbers of the rows stand in.
      kind: what the outputs are.
      class_names: in the order of the outputs.
    """

    columns: tuple[str, ...]
    of_ids: str | None
    kind: Kind | None
    class_names: tuple[str, ...] | None


def _plan(
    table: Table, outputs: Sequence[str], ids: str | None, kind: Kind | None, class_names: Sequence[str] | None
) -> _Plan:
    of_ids = id_column(table, ids)
    rest = tuple(column for column in table.names if column != of_ids)
    columns = select_columns(table, outputs) if outputs else rest
    if of_ids in columns:
        action = "Leave it out of the outputs."
        raise InputError(table.where, "outputs", f"the column {of_ids!r} of the ids", "columns of outputs", action)
    if not columns:
        raise InputError(table.where, "outputs", "no column", "one column or more", "Name the columns of outputs.")
    given = table.class_names.get(columns[0]) if class_names is None else class_names
    if given is not None:
        return _Plan(columns, of_ids, kind, check_class_names(given, table.where))
    if len(columns) == 1:
        return _Plan(columns, of_ids, kind, None)
    indices = tuple(row_ids(len(columns)).tolist())
    if set(columns) == set(indices):
        return _Plan(indices, of_ids, kind, None)
    return _Plan(columns, of_ids, kind, check_class_names(columns, table.where, "names of columns"))


def _check(table: Table, plan: _Plan) -> np.ndarray:
    """Read the whole table once, and return the ids."""
    found_ids: list[str] = []
    num_examples, growing, num_classes = 0, GrowingBytes(table.where, table.stored_bytes), None
    for start, logits, of_ids in _batches(table, plan):
        num_classes = logits.shape[1] if num_classes is None else num_classes
        check_same_number("classes", logits.shape[1], num_classes, "as before", table.where, f"row {start}")
        num_examples += len(logits)
        if plan.of_ids is not None and of_ids is not None:
            found_ids += (texts := names(of_ids, table.where, plan.of_ids))
            growing.add(sum(map(len, texts)), plan.of_ids)
    check_num_examples(num_examples, table.where)
    if plan.class_names is not None and num_classes is not None:
        check_same_number("names", len(plan.class_names), num_classes, "as there are classes", table.where, "classes")
    return row_ids(num_examples) if plan.of_ids is None else check_ids(found_ids, table.where, plan.of_ids)


def _batches(table: Table, plan: _Plan) -> Iterator[tuple[int, Float[np.ndarray, "rows classes"], Column | None]]:
    """The first row of each batch, its logits, and its ids."""
    start = 0
    for batch in table.batches((*plan.columns, *(() if plan.of_ids is None else (plan.of_ids,)))):
        field = f"outputs from row {start}"
        parts = [
            numbers(column, table.where, f"{name} from row {start}")
            for name, column in zip(plan.columns, batch, strict=False)
        ]
        if len(parts) == 1 and parts[0].ndim > 1:
            values = parts[0]
        else:
            for name, part in zip(plan.columns, parts, strict=True):
                if part.ndim != 1:
                    found = f"an array of shape {part.shape}"
                    action = "Give one column for each class, or one column that has them all."
                    raise InputError(table.where, name, found, "a number for each example", action)
            values = np.stack(parts, axis=1)
        yield start, as_logits(values, plan.kind, table.where, field), None if plan.of_ids is None else batch[-1]
        start += len(values)
