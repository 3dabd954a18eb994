"""Parquet files, and directories of Hugging Face ``datasets`` (``save_to_disk``), as tables, by pyarrow alone.

A directory of ``datasets`` has Arrow streams, which ``state.json`` names, and ``dataset_info.json`` with the names of
classes. A name that leads out of the directory is refused, and so is a stream without its end, or one that is
compressed: ``datasets`` writes none, and nothing would say how long it gets.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtbkd_jax.checks import check_class_names, check_expansion
from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.imports.arrow_messages import is_compressed
from mtbkd_jax.imports.tables import Column, Table, check_columns, rows_at_a_time
from mtbkd_jax.storage import COPY_AGAIN, read_json, translated_damage, translated_errors

if TYPE_CHECKING:
    import pyarrow as pa

_STATE, _INFO = "state.json", "dataset_info.json"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_PLAIN_NAME = re.compile(r"\w[\w.=-]{,200}", re.ASCII)
_BYTES_OF_NUMBER = 8
_READABLE = "what Arrow can read"


def open_parquet_table(path: str | Path) -> Table:
    """Open a Parquet file; nothing but its footer is read.

    Raises:
      InputError: if pyarrow is not there, or the file is said to hold far more rows than its length allows.
      CorruptDataError: if it is no whole Parquet file.
    """
    _check_pyarrow()
    where, digest = str(path), sha256_of_file(path)
    stored_bytes = Path(path).stat().st_size
    with _parquet(path) as file:
        schema = file.schema_arrow
        names = check_columns(schema.names, where)
        check_expansion(_BYTES_OF_NUMBER * file.metadata.num_rows, stored_bytes, where, "rows")

    def batches(columns: Sequence[str]) -> Iterator[list[Column]]:
        # Text is kept as a dictionary until it is known how long it gets: a page may hold one long word many times.
        with _parquet(path, [name for name in columns if _is_text(schema.field(name).type)]) as file:
            found = 0
            selected = file.iter_batches(
                batch_size=rows_at_a_time(len(columns)), columns=list(columns), use_threads=False
            )
            for batch in selected:
                if batch.num_rows:
                    found += batch.num_rows
                    yield _columns(batch, columns, where, stored_bytes)
            if found != file.metadata.num_rows:
                expected = f"{file.metadata.num_rows}, as the footer says"
                raise CorruptDataError(where, "rows", f"{found}", expected, COPY_AGAIN)

    return Table(where, names, batches, {}, stored_bytes, digest)


def open_dataset_table(path: str | Path) -> Table:
    """Open a directory that ``Dataset.save_to_disk`` made; its JSON files and the heads of its streams are read.

    Raises:
      InputError: if pyarrow is not there, it is another directory, or one of several data sets.
      CorruptDataError: if its JSON files or a stream were truncated or altered.
    """
    _check_pyarrow()
    path, where = Path(path), str(path)
    files = _stream_files(path)
    names = _names_of_streams(files)
    stored_bytes = sum(file.stat().st_size for file in files)
    digest = hashlib.sha256("".join(map(sha256_of_file, files)).encode()).hexdigest()

    def batches(columns: Sequence[str]) -> Iterator[list[Column]]:
        size = rows_at_a_time(len(columns))
        for file in files:
            for batch in _record_batches(file):
                for start in range(0, batch.num_rows, size):
                    yield _columns(batch.slice(start, size), columns, where, stored_bytes)

    return Table(where, names, batches, _class_names(path, names), stored_bytes, digest)


def _stream_files(path: Path) -> list[Path]:
    """The streams that ``state.json`` names, all of them in the directory."""
    if (path / "dataset_dict.json").is_file():
        action = f"Give one of them, such as {path / 'train'}."
        raise InputError(str(path), "directory", "several data sets", "one data set", action)
    state = read_json(path / _STATE)
    where = str(path / _STATE)
    entries = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(entries, list) or not entries:
        expected = "a list of files under `_data_files`"
        raise InputError(where, "_data_files", f"{entries!r:.80}", expected, "Save it by `Dataset.save_to_disk`.")
    if state.get("_indices_data_files"):
        action = "Save it again by a newer version of `datasets`, after `flatten_indices()`."
        raise InputError(where, "_indices_data_files", "a selection of rows", "all rows of the files", action)
    files = []
    for entry in entries:
        name = str(entry.get("filename")) if isinstance(entry, dict) else ""
        # A plain name has no way out; a link has.
        is_plain = _PLAIN_NAME.fullmatch(name) is not None
        if not is_plain or not (path / name).resolve().is_relative_to(path.resolve()):
            action = "Look at who made it: nothing outside is read."
            raise InputError(where, "filename", f"{name!r:.80}", "the name of a file in the directory", action)
        files.append(path / name)
    for file in files:
        with translated_errors(file), open(file, "rb") as content:
            content.seek(max(0, file.stat().st_size - len(_END_OF_STREAM)))
            if content.read() != _END_OF_STREAM:
                raise CorruptDataError(str(file), "end", "something else", "the mark of the end", COPY_AGAIN)
    return files


def _names_of_streams(files: Sequence[Path]) -> tuple[str, ...]:
    """The names of the columns, alike in all streams."""
    schemas = []
    for file in files:
        with _stream(file) as reader:
            schemas.append(reader.schema.remove_metadata())
        if not schemas[-1].equals(schemas[0]):
            expected = f"those of {files[0].name}"
            raise CorruptDataError(str(file), "columns", "other columns or types", expected, COPY_AGAIN)
    return check_columns(schemas[0].names, str(files[0]))


def _class_names(path: Path, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The names of the classes in columns of class labels, where ``dataset_info.json`` has them."""
    if not (path / _INFO).is_file():
        return {}
    info = read_json(path / _INFO)
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict):
        return {}
    found = {}
    for column in columns:
        feature = features.get(column)
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names, field = feature.get("names"), f"names of {column}"
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                action = "Correct it, or save the data set again."
                raise InputError(str(path / _INFO), field, f"{names!r:.80}", "a list of names", action)
            found[column] = check_class_names(names, str(path / _INFO), field)
    return found


def _columns(batch: "pa.RecordBatch", columns: Sequence[str], where: str, stored_bytes: int) -> list[Column]:
    """The named columns of a batch, once it is what it says it is."""
    with translated_damage(where, "content", _READABLE):
        batch.validate(full=True)
        return [_column(batch.column(name), where, name, stored_bytes) for name in columns]


def _column(array: "pa.Array", where: str, name: str, stored_bytes: int) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    is_missing = array.is_null().to_numpy(zero_copy_only=False)
    kind = array.type
    if pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        lengths = pc.binary_length(array.dictionary).take(array.indices.cast(pa.int64()))
        check_expansion(pc.sum(lengths).as_py() or 0, stored_bytes, where, name)
        array = array.dictionary_decode()
        kind = array.type
    if _is_text(kind):
        return Column(array.fill_null("").to_pylist(), is_missing)
    if pa.types.is_boolean(kind):
        return Column(array.fill_null(False).to_numpy(zero_copy_only=False), is_missing)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = array.fill_null(pa.scalar(0, kind)) if array.null_count else array
        return Column(values.to_numpy(zero_copy_only=False), is_missing)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(array, where, name, stored_bytes)
    action = "Cast it before it is saved, or choose another column."
    raise InputError(where, name, f"elements of type {kind}", "numbers, text, or lists of numbers", action)


def _lists(array: "pa.Array", where: str, name: str, stored_bytes: int) -> Column:
    """Lists of one length as the rows of an array."""
    import pyarrow.compute as pc

    lengths = np.unique(pc.list_value_length(array).to_numpy(zero_copy_only=False))
    if array.null_count or len(lengths) != 1:
        found = "missing lists" if array.null_count else f"lists of {lengths.min()} to {lengths.max()} elements"
        action = "Pad or cut them, or leave out these rows."
        raise InputError(where, name, found, "lists of one length", action)
    inner = _column(array.flatten(), where, name, stored_bytes)
    if not isinstance(inner.values, np.ndarray):
        raise InputError(where, name, "lists of text", "numbers, text, or lists of numbers", "Choose another column.")
    values = inner.values.reshape(len(array), int(lengths[0]), *inner.values.shape[1:])
    is_missing = np.asarray(inner.is_missing.reshape(len(array), int(lengths[0])).any(axis=1))
    return Column(values, is_missing)


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


@contextmanager
def _parquet(path: str | Path, as_dictionary: Sequence[str] = ()) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with translated_damage(str(path), "content", _READABLE):
        file = pq.ParquetFile(path, read_dictionary=list(as_dictionary), page_checksum_verification=True)
        with file:
            yield file


@contextmanager
def _stream(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    with (
        translated_damage(str(file), "content", _READABLE),
        pa.memory_map(str(file)) as content,
        pa.ipc.open_stream(content) as reader,
    ):
        yield reader


def _record_batches(file: Path) -> Iterator["pa.RecordBatch"]:
    """The batches of a stream, none of which is longer than what is stored."""
    import pyarrow as pa

    with translated_damage(str(file), "content", _READABLE), pa.memory_map(str(file)) as content:
        for message in pa.ipc.MessageReader.open_stream(content):
            if is_compressed(message.metadata.to_pybytes()):
                action = "Save it again by `Dataset.save_to_disk`, which compresses nothing."
                raise InputError(str(file), "batch", "compressed buffers", "buffers as they are", action)
    with _stream(file) as reader:
        yield from reader


def _check_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401 (only whether it is there)
    except ModuleNotFoundError as error:
        action = "Run: pip install 'mtbkd-jax[parquet]'."
        raise InputError("pyarrow", "library", "no such module", "pyarrow to read Arrow files", action) from error
