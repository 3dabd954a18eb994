"""Safetensors files as tables: a tensor is a column, read by its rows.

They hold no text, so that ids are whole numbers, and class names have to be given.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.imports.tables import Column, Table, in_slices
from mtbkd_jax.storage import COPY_AGAIN, translated_errors

_TYPES = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64")


def open_safetensors_table(path: str | Path) -> Table:
    """Open a safetensors file; nothing but its header is read.

    Raises:
      CorruptDataError: if it is no whole safetensors file.
    """
    where = str(path)
    digest = sha256_of_file(path)
    with _opened(path) as file:
        names = tuple(file.keys())

    def batches(columns: Sequence[str]) -> Iterator[list[Column]]:
        with _opened(path) as file:
            parts = {name: file.get_slice(name) for name in columns}
            for name, part in parts.items():
                if part.get_dtype() not in _TYPES or not part.get_shape():
                    found, expected = f"{part.get_dtype()} of shape {tuple(part.get_shape())}", "real numbers in rows"
                    raise InputError(where, name, found, expected, "Save it as float32, with a row for each example.")

            def read(name: str, start: int, stop: int) -> Column:
                return Column(np.asarray(parts[name][start:stop]), np.zeros(stop - start, bool))

            yield from in_slices({name: part.get_shape()[0] for name, part in parts.items()}, read, where)

    return Table(where, names, batches, {}, Path(path).stat().st_size, digest)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with translated_errors(path), safetensors.safe_open(path, framework="np") as file:
            yield file
    except safetensors.SafetensorError as error:
        found, expected = f"something else ({error})", "a whole safetensors file"
        raise CorruptDataError(str(path), "content", found, expected, COPY_AGAIN) from error
