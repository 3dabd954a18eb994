"""Import of a teacher's outputs: from columns of a table to a directory of teacher outputs.

The table is read twice: once to check all of it and to learn the ids, and once to write. So nothing is written where
anything is wrong, and no more than the ids and a batch of rows is in memory.

A teacher that gave its k most probable classes alone has a column of their numbers ``[examples, k]``, in any order, and
one of their log probabilities; -1 stands where an example has fewer. What becomes of the other classes is decided when
a student is distilled (``tails``), and not here.
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
    check_whole,
    some,
)
from mtbkd_jax.data import row_ids
from mtbkd_jax.errors import InputError
from mtbkd_jax.imports.cells import GrowingBytes, names, numbers
from mtbkd_jax.imports.formats import open_table
from mtbkd_jax.imports.tables import Column, Table, id_column, select_columns
from mtbkd_jax.teacher_writer import TeacherOutputsWriter
from mtbkd_jax.teachers import TeacherOutputs
from mtbkd_jax.unsaid import check_sparse

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
    top_classes: str | None = None,
    num_classes: int | None = None,
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
      top_classes: the column that says, counted from 0, which classes the outputs are about, where the teacher gave its
        most probable ones alone; the outputs are then one column of log probabilities in nats.
      num_classes: how many classes there are, where ``top_classes`` is given and the classes have no names.

    Raises:
      InputError: if the file, a column or a cell is not what it must be, or there is something in ``out`` already.
      CorruptDataError: if the file was truncated or altered.
      StorageError: if the disk is full.
    """
    table = open_table(file)
    plan = _plan(table, outputs, ids, kind, class_names, _top_classes(table, top_classes, num_classes))
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
        sparse=() if plan.top is None else (name,),
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
      top: which classes the outputs are about; None where they are about all.
    """

    columns: tuple[str, ...]
    of_ids: str | None
    kind: Kind | None
    class_names: tuple[str, ...] | None
    top: "_TopClasses | None" = None


class _TopClasses(NamedTuple):
    """Which classes the outputs are about.

    Attributes:
      column: that says so.
      num_classes: how many classes there are; None where their names say it.
    """

    column: str
    num_classes: int | None


def _top_classes(table: Table, column: str | None, num_classes: int | None) -> _TopClasses | None:
    if column is not None:
        if num_classes is not None:
            check_whole(table.where, 2, num_classes=num_classes)
        return _TopClasses(select_columns(table, [column])[0], num_classes)
    if num_classes is not None:
        expected, action = "none, where every class has an output", "Leave it out, or name the column `top_classes`."
        raise InputError(table.where, "num_classes", f"{num_classes}", expected, action)
    return None


def _plan(
    table: Table,
    outputs: Sequence[str],
    ids: str | None,
    kind: Kind | None,
    class_names: Sequence[str] | None,
    top: _TopClasses | None,
) -> _Plan:
    of_ids = id_column(table, ids)
    rest = tuple(column for column in table.names if column not in (of_ids, top.column if top else None))
    columns = select_columns(table, outputs) if outputs else rest
    if of_ids in columns:
        action = "Leave it out of the outputs."
        raise InputError(table.where, "outputs", f"the column {of_ids!r} of the ids", "columns of outputs", action)
    if not columns:
        raise InputError(table.where, "outputs", "no column", "one column or more", "Name the columns of outputs.")
    given = table.class_names.get(columns[0]) if class_names is None else class_names
    if top is not None:
        return _sparse_plan(table, columns, of_ids, kind, given, top)
    if given is not None:
        return _Plan(columns, of_ids, kind, check_class_names(given, table.where))
    if len(columns) == 1:
        return _Plan(columns, of_ids, kind, None)
    indices = tuple(row_ids(len(columns)).tolist())
    if set(columns) == set(indices):
        return _Plan(indices, of_ids, kind, None)
    return _Plan(columns, of_ids, kind, check_class_names(columns, table.where, "names of columns"))


def _sparse_plan(
    table: Table,
    columns: tuple[str, ...],
    of_ids: str | None,
    kind: Kind | None,
    class_names: Sequence[str] | None,
    top: _TopClasses,
) -> _Plan:
    if len(columns) > 1 or top.column in (*columns, of_ids):
        action = "Name the column of log probabilities as the only one of the outputs."
        expected = f"one column beside {top.column!r}"
        raise InputError(table.where, "outputs", f"the columns {some(list(columns))}", expected, action)
    if kind is not None:
        expected, action = "none: outputs of the most probable classes are log probabilities", "Leave it out."
        raise InputError(table.where, "kind", repr(kind), expected, action)
    names_of_classes = None if class_names is None else check_class_names(class_names, table.where)
    num_classes = top.num_classes if names_of_classes is None else len(names_of_classes)
    if num_classes is None:
        expected, action = "the names of the classes, or their number", "Give `class_names` or `num_classes`."
        raise InputError(table.where, "classes", "neither names nor a number", expected, action)
    if top.num_classes is not None:
        check_same_number("names", num_classes, top.num_classes, "as there are classes", table.where, "class_names")
    return _Plan(columns, of_ids, kind, names_of_classes, top._replace(num_classes=num_classes))


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
    of_classes = () if plan.top is None else (plan.top.column,)
    for batch in table.batches((*plan.columns, *of_classes, *(() if plan.of_ids is None else (plan.of_ids,)))):
        field = f"outputs from row {start}"
        parts = [
            numbers(column, table.where, f"{name} from row {start}")
            for name, column in zip((*plan.columns, *of_classes), batch, strict=False)
        ]
        if plan.top is not None:
            logits = check_sparse(_spread(parts[0], parts[1], plan.top, table.where, start), table.where, field)
        else:
            logits = as_logits(_side_by_side(parts, plan.columns, table.where), plan.kind, table.where, field)
        yield start, logits, None if plan.of_ids is None else batch[-1]
        start += len(logits)


def _side_by_side(
    parts: Sequence[Float[np.ndarray, "rows ..."]], names_of_parts: Sequence[str], where: str
) -> Float[np.ndarray, "rows ..."]:
    """The one column that has all classes, or one for each of them."""
    if len(parts) == 1 and parts[0].ndim > 1:
        return parts[0]
    for name, part in zip(names_of_parts, parts, strict=True):
        if part.ndim != 1:
            action = "Give one column for each class, or one column that has them all."
            raise InputError(where, name, f"an array of shape {part.shape}", "a number for each example", action)
    return np.stack(parts, axis=1)


def _spread(
    log_probs: Float[np.ndarray, "rows ..."],
    classes: Float[np.ndarray, "rows ..."],
    top: _TopClasses,
    where: str,
    start: int,
) -> Float[np.ndarray, "rows classes"]:
    """Log probabilities of some classes in the columns of theirs, and NaN in the others."""
    field = f"{top.column} from row {start}"
    assert top.num_classes is not None  # the plan has found it
    if log_probs.ndim != 2 or classes.shape != log_probs.shape:
        found, expected = f"shape {classes.shape}, and outputs of shape {log_probs.shape}", "[examples, k] of both"
        raise InputError(where, field, found, expected, "Give a class for each log probability.")
    if (wrong := np.argwhere((classes != np.round(classes)) | (classes < -1) | (classes >= top.num_classes))).size:
        row, column = wrong[0]
        expected = f"whole numbers from 0 to {top.num_classes - 1}, and -1 for none"
        action = "Count the classes from 0, in the order of their names."
        raise InputError(where, field, f"{classes[row, column]:g} in row {row}", expected, action)
    numbered = classes.astype(np.int64)
    in_order = np.sort(numbered, axis=1)
    if (twice := np.argwhere((np.diff(in_order, axis=1) == 0) & (in_order[:, 1:] >= 0))).size:
        row, column = twice[0]
        found = f"class {in_order[row, column]} more than once in row {row}"
        raise InputError(where, field, found, "each class once", "Add the probabilities of its outputs up.")
    # What is about no class is put into a column that is cut off.
    spread = np.full((len(numbered), top.num_classes + 1), np.nan, np.float32)
    np.put_along_axis(spread, numbered, log_probs, axis=1)
    return spread[:, : top.num_classes]
