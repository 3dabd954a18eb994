"""NPZ files as tables: a field is a column. A field is read whole, and then handed on in batches.

``class_names`` is no column: it names the classes of all others, as in the project's own files.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mtbkd_jax.checks import check_class_names, check_text
from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.errors import InputError
from mtbkd_jax.imports.tables import Column, Table, in_slices
from mtbkd_jax.npz_files import open_npz, read_npz

_CLASS_NAMES = "class_names"


def open_npz_table(path: str | Path) -> Table:
    """Open an NPZ file; nothing but its directory and ``class_names`` is read.

    Raises:
      InputError: if it is no NPZ archive.
      CorruptDataError: if it was truncated or altered.
    """
    where = str(path)
    digest = sha256_of_file(path)
    with open_npz(path) as file:
        names = tuple(name for name in file.names if name != _CLASS_NAMES)
        given = check_class_names(file.read(_CLASS_NAMES), where) if _CLASS_NAMES in file.names else None

    def batches(columns: Sequence[str]) -> Iterator[list[Column]]:
        fields = read_npz(path, required=columns)
        for name, values in fields.items():
            if values.ndim == 0:
                action = "Choose another field."
                raise InputError(where, name, "a single number", "a row for each example", action)

        def read(name: str, start: int, stop: int) -> Column:
            return _column(fields[name][start:stop], where, name)

        yield from in_slices({name: len(values) for name, values in fields.items()}, read, where)

    class_names = {} if given is None else dict.fromkeys(names, given)
    return Table(where, names, batches, class_names, Path(path).stat().st_size, digest)


def _column(values: np.ndarray, where: str, name: str) -> Column:
    if values.dtype.kind not in "SU":
        return Column(values, np.zeros(len(values), bool))
    if values.ndim != 1:
        found = f"text of shape {values.shape}"
        raise InputError(where, name, found, "one text for each example", "Choose another field.")
    try:
        texts = (
            np.strings.decode(values, "utf-8") if values.dtype.kind == "S" else check_text(values, where, name)
        ).tolist()
    except UnicodeDecodeError as error:
        raise InputError(where, name, f"bytes ({error})", "UTF-8", "Save it as text.") from error
    return Column(texts, np.array([not text for text in texts], bool))
