"""Rows of arrays that need not fit in memory: read some at a time, and checked a block at a time.

Anything with a shape, a type and rows that can be indexed will do (``Rows``): an array in memory, a memory map of
NumPy, or what this module opens. ``open_rows`` reads ``.npy`` files and members of uncompressed NPZ files where they
lie. It maps a part of the file at a time, so that the pages of the others do not count as this process's memory.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from mtbkd_jax.checks import check_finite
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.npz_files import LONGEST_HEADER, open_npz, read_header
from mtbkd_jax.storage import COPY_AGAIN, translated_damage, translated_errors

ROWS_AT_A_TIME = 4096
"""Rows of a block that is checked; teachers' directories are stored in such blocks as well."""

_BYTES_MAPPED = 1 << 23


@runtime_checkable
class Rows(Protocol):
    """An array whose rows are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How long each axis is; the first runs over rows."""

    @property
    def dtype(self) -> Any:
        """Of the elements."""

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a slice of rows, or those of an integer array."""


@dataclass(frozen=True)
class FileRows:
    """Rows that lie one after the other in a file.

    Attributes:
      path: the file.
      offset: where the first row begins, in bytes.
      dtype: of the elements.
      shape: of the array.
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def __getitem__(self, index: slice | Int[np.ndarray, " rows"]) -> np.ndarray:
        """Read a slice of rows, or those of an integer array, in its order."""
        rows = np.arange(*index.indices(self.shape[0])) if isinstance(index, slice) else index
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        rows_of_part = max(1, _BYTES_MAPPED // max(1, self._bytes_of_row))
        parts = rows[order] // rows_of_part
        starts = np.flatnonzero(np.diff(parts, prepend=-1))
        for places in np.split(order, starts[1:]) if len(rows) else ():
            first, last = int(rows[places[0]]), int(rows[places[-1]])
            values[places] = self._mapped(first, last + 1)[rows[places] - first]
        return values

    @property
    def _bytes_of_row(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def _mapped(self, start: int, stop: int) -> np.ndarray:
        offset = self.offset + start * self._bytes_of_row
        with translated_errors(self.path):
            return np.memmap(self.path, self.dtype, "r", offset, (stop - start, *self.shape[1:]))


@dataclass(frozen=True)
class MappedRows:
    """Rows that are computed from others when they are read.

    Attributes:
      rows: what is read.
      function: what is computed of a block of it; it keeps the number and the order of rows.
      row_shape: of a row that is computed.
      dtype: of the result.
    """

    rows: Rows
    function: Callable[[np.ndarray], np.ndarray]
    row_shape: tuple[int, ...]
    dtype: Any = np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """How long each axis is."""
        return self.rows.shape[0], *self.row_shape

    def __getitem__(self, index: slice | Int[np.ndarray, " rows"]) -> np.ndarray:
        """Read a slice of rows, or those of an integer array, in its order."""
        return self.function(self.rows[index])


def open_rows(path: str | Path, field: str | None = None) -> FileRows:
    """Open an array in a ``.npy`` file, or in an NPZ file that is not compressed; only headers are read.

    The file may come from anywhere: what its headers say is compared with its size, and nothing is unpickled.

    Args:
      path: of the file.
      field: name of the array in an NPZ file; None for a ``.npy`` file.

    Raises:
      InputError: if there is no such file or field, the field is compressed, or it holds no plain numbers in C order.
      CorruptDataError: if the headers do not agree with each other, or with the size of the file.
    """
    where, name = str(path), "array" if field is None else field
    start, end = 0, None
    if field is not None:
        with open_npz(path) as archive:
            start, end = archive.place_of(field)
    with translated_errors(path), open(path, "rb") as file:
        file.seek(start)
        dtype, shape, header_bytes = _header(file.read(LONGEST_HEADER), where, name)
        offset, size = start + header_bytes, dtype.itemsize * math.prod(shape)
        found = (os.fstat(file.fileno()).st_size if end is None else end) - offset
    if found != size:
        described = f"{found} bytes for an array of {dtype} and shape {shape}"
        raise CorruptDataError(where, name, described, f"{size} bytes", COPY_AGAIN)
    return FileRows(Path(path), offset, dtype, shape)


def _header(start: bytes, where: str, field: str) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and length of the header of an array that can be read by rows, by the first bytes of it."""
    with translated_damage(where, field, "the header of a .npy file"):
        shape, is_fortran, dtype, header_bytes = read_header(start)
    if dtype.hasobject or dtype.kind not in "fiub" or is_fortran or not shape or min(shape) < 0:
        found = f"{dtype} of shape {shape}{' in Fortran order' if is_fortran else ''}"
        action = "Save `numpy.ascontiguousarray(array)`, of numbers."
        raise InputError(where, field, found, "an array of numbers in C order, with a row for each example", action)
    return dtype, shape, header_bytes


def blocks(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    """All rows, a block at a time, each with the number of its first row."""
    for start in range(0, rows.shape[0], ROWS_AT_A_TIME):
        yield start, np.asarray(rows[start : start + ROWS_AT_A_TIME])


def check_finite_rows(rows: Rows, where: str, field: str) -> None:
    """``checks.check_finite`` of all rows, in bounded memory.

    Raises:
      InputError: if a number is not finite, or something else than a number; it names the row within its block.
    """
    for start, block in blocks(rows):
        check_finite(block, where, f"{field} from row {start}")
