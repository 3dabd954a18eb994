"""Files of any format as tables."""

from collections.abc import Callable
from pathlib import Path

from mtbkd_jax.errors import InputError
from mtbkd_jax.imports.arrow_tables import open_dataset_table, open_parquet_table
from mtbkd_jax.imports.csv_tables import open_csv_table
from mtbkd_jax.imports.npz_tables import open_npz_table
from mtbkd_jax.imports.safetensors_tables import open_safetensors_table
from mtbkd_jax.imports.tables import Table

_OPEN: dict[str, Callable[[str | Path], Table]] = {
    ".csv": open_csv_table,
    ".npz": open_npz_table,
    ".parquet": open_parquet_table,
    ".safetensors": open_safetensors_table,
}


def open_table(path: str | Path) -> Table:
    """Open a file by the ending of its name, or a directory of Hugging Face ``datasets``.

    Raises:
      InputError: if the ending is of no format that is read, or the file is not what it must be.
      CorruptDataError: if it was truncated or altered.
    """
    path = Path(path)
    if path.is_dir():
        return open_dataset_table(path)
    suffix = path.suffix.lower()
    if suffix not in _OPEN:
        expected = f"{', '.join(_OPEN)}, or a directory of `datasets`"
        raise InputError(str(path), "file name", f"the ending {suffix!r}", expected, "Save it as one of them.")
    return _OPEN[suffix](path)
