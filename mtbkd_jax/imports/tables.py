"""Tables: named columns of examples, whatever the format of the file, read a batch of rows at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from mtbkd_jax.checks import some
from mtbkd_jax.errors import InputError

_ROWS_AT_A_TIME = 4096
_CELLS_AT_A_TIME = 2**20
_ID_COLUMNS = ("id", "ids")


class Column(NamedTuple):
    """Some rows of a column.

    Attributes:
      values: numbers ``[rows, ...]``, or a text for each row; zero or empty where missing.
      is_missing: where the file has nothing.
    """

    values: np.ndarray | list[str]
    is_missing: Bool[np.ndarray, " rows"]


class Table(NamedTuple):
    """A file of examples, opened; made by ``imports.open_table``.

    Attributes:
      where: the path, for messages.
      names: of the columns, in the order of the file.
      batches: from names of columns to their rows in batches, all columns of a batch with as many rows; it can be
        called again, and reads the file again.
      class_names: by name of a column, the names that the file gives the classes in it.
      stored_bytes: how long the file is.
      sha256: of its content.
    """

    where: str
    names: tuple[str, ...]
    batches: Callable[[Sequence[str]], Iterator[list[Column]]]
    class_names: Mapping[str, tuple[str, ...]]
    stored_bytes: int
    sha256: str


def select_columns(table: Table, patterns: Sequence[str]) -> tuple[str, ...]:
    """The columns that names or patterns like ``pixel_*`` stand for: in the order of the patterns, then of the file.

    Raises:
      InputError: if no column has such a name.
    """
    selected: dict[str, None] = {}
    for pattern in patterns:
        found = [pattern] if pattern in table.names else [name for name in table.names if fnmatchcase(name, pattern)]
        if not found:
            columns = f"only the columns {some(list(table.names))}" if table.names else "no column at all"
            raise InputError(table.where, pattern, columns, "a column of that name", "Check the spelling.")
        selected |= dict.fromkeys(found)
    return tuple(selected)


def id_column(table: Table, name: str | None) -> str | None:
    """The column with the ids: the one that is named, or the one that is called ``id`` or ``ids``; None without any.

    Raises:
      InputError: if there is none of that name, or several are called so.
    """
    if name is not None:
        return select_columns(table, [name])[0]
    found = [column for column in table.names if column.strip().lower() in _ID_COLUMNS]
    if len(found) > 1:
        action = "Say which of them holds the ids."
        raise InputError(table.where, "columns", f"several of ids: {some(found)}", "one", action)
    return found[0] if found else None


def check_columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Check that columns have names, each its own."""
    if "" in names or not names:
        action = "Name it in the header, or leave it out (in pandas, `to_csv(index=False)`)."
        raise InputError(where, "header", "a column without a name" if names else "nothing", "a name for each", action)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(where, "header", f"more than once: {some(twice)}", "each name once", "Rename the column.")
    return tuple(names)


def rows_at_a_time(num_columns: int) -> int:
    """How many rows of so many columns make a batch."""
    return max(1, min(_ROWS_AT_A_TIME, _CELLS_AT_A_TIME // max(1, num_columns)))


def in_slices(
    lengths: Mapping[str, int], read: Callable[[str, int, int], Column], where: str
) -> Iterator[list[Column]]:
    """Batches of columns that are read by their rows; all have to be of one length."""
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        action = "Give the same examples in all columns."
        raise InputError(where, "rows", found, "as many in each column", action)
    size = rows_at_a_time(len(lengths))
    length = next(iter(lengths.values()))
    for start in range(0, length, size):
        yield [read(name, start, min(start + size, length)) for name in lengths]
