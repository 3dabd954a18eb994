"""Imports: examples and teacher outputs from CSV, NPZ, Parquet, safetensors and ``datasets`` on disk.

A file is believed nothing until it is checked: it may come from anywhere. No code in it is run, no Python object in it
is unpickled, no file that it names outside its directory is opened, and no size that it claims is taken in memory.
"""

from mtbkd_jax.imports.data_file import ImportedData, import_data
from mtbkd_jax.imports.formats import open_table
from mtbkd_jax.imports.tables import Column, Table
from mtbkd_jax.imports.teacher_directory import import_teacher

__all__ = ["Column", "ImportedData", "Table", "import_data", "import_teacher", "open_table"]
