"""CSV files: comma-separated text in UTF-8, read a line at a time."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mtbkd_jax.errors import InputError
from mtbkd_jax.storage import translated_errors

_LONGEST_CELL = 10_000_000


class CsvLine(NamedTuple):
    """A line of a CSV file: its number, from 1, and its cells."""

    number: int
    cells: list[str]


def csv_columns(path: str | Path, columns: Sequence[str], action: str) -> list[dict[str, str]]:
    """The named columns of a CSV file with a header, each row by the names of the columns.

    Args:
      path: of the file.
      columns: their names.
      action: what an error tells the user to do.

    Raises:
      InputError: if a column is missing, and as ``csv_lines`` does.
    """
    lines = csv_lines(path, action)
    header = next(lines, CsvLine(0, [])).cells
    if missing := [column for column in columns if column not in header]:
        found = f"only the columns {', '.join(header) or '(none)'}"
        raise InputError(str(path), missing[0], found, "a column of that name", action)
    places = [header.index(column) for column in columns]
    return [{column: line.cells[place] for column, place in zip(columns, places, strict=True)} for line in lines]


def csv_lines(path: str | Path, action: str = "Save it again as CSV in UTF-8, with commas.") -> Iterator[CsvLine]:
    """The lines of a CSV file, those without a cell left out; the first is the header, and all have as many cells.

    Args:
      path: of the file; a byte order mark is skipped.
      action: what an error tells the user to do.

    Raises:
      InputError: if there is no such file, it is not comma-separated text, or a line has too few or too many cells.
    """
    try:
        with translated_errors(path), open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            num_columns = None
            while (cells := _next(lines)) is not None:
                if not cells:
                    continue
                num_columns = len(cells) if num_columns is None else num_columns
                if len(cells) != num_columns:
                    field, found, expected = f"line {lines.line_num}", f"{len(cells)} cells", f"{num_columns}"
                    complete = "Complete the line; a comma inside a cell needs quotation marks."
                    raise InputError(str(path), field, found, f"{expected}, as in the header", complete)
                yield CsvLine(lines.line_num, cells)
    except (csv.Error, UnicodeDecodeError) as error:
        found = f"something else ({error})"
        raise InputError(str(path), "content", found, "comma-separated text in UTF-8", action) from error


def _next(lines: Iterator[list[str]]) -> list[str] | None:
    # The limit is one for all of Python: it is ours only while a line is read.
    limit_before = csv.field_size_limit(_LONGEST_CELL)
    try:
        return next(lines, None)
    finally:
        csv.field_size_limit(limit_before)
