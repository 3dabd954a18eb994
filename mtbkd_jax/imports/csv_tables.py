"""CSV files as tables: every cell is text, and an empty one is missing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mtbkd_jax.csv_files import CsvLine, csv_lines
from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.imports.tables import Column, Table, check_columns, rows_at_a_time


def open_csv_table(path: str | Path) -> Table:
    """Open a CSV file with a header; nothing else of it is kept.

    Raises:
      InputError: if it is not comma-separated text in UTF-8, or a column has no name or that of another.
    """
    digest = sha256_of_file(path)
    names = check_columns(next(csv_lines(path), CsvLine(0, [])).cells, str(path))

    def batches(columns: Sequence[str]) -> Iterator[list[Column]]:
        places = [names.index(column) for column in columns]
        size = rows_at_a_time(len(names))
        lines = csv_lines(path)
        next(lines)
        rows: list[list[str]] = []
        for line in lines:
            rows.append([line.cells[place] for place in places])
            if len(rows) == size:
                yield _columns(rows)
                rows = []
        if rows:
            yield _columns(rows)

    return Table(str(path), names, batches, {}, Path(path).stat().st_size, digest)


def _columns(rows: list[list[str]]) -> list[Column]:
    return [
        Column(list(cells), np.fromiter((not cell for cell in cells), bool, len(cells)))
        for cells in zip(*rows, strict=True)
    ]
