"""Arrays and manifests on disk: a thin layer on TensorStore's zarr3 and on JSON.

Every chunk of an array carries a CRC-32C checksum (RFC 3720), and a chunk that was never written is an error when it is
read, not zeros. A manifest carries a SHA-256 digest of its own content, and is written last and at once, so that a
directory without one is unfinished. What TensorStore and the operating system report is translated to ``errors``.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
import tensorstore as ts
from numpy.typing import ArrayLike, DTypeLike

from mtbkd_jax.errors import CorruptDataError, InputError, MTBKDError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAMAGED = ("DATA_LOSS", "FAILED_PRECONDITION", "NOT_FOUND")
LOCK = ".lock"
COPY_AGAIN = "Copy it again from where it came from, or make it again."


def new_directory(path: str | Path) -> Path:
    """Make a directory, with its parents, that nothing is in yet.

    Raises:
      InputError: if something is there already, other than an empty directory.
      StorageError: if it cannot be made.
    """
    path = Path(path)
    with translated_errors(path):
        if path.exists() and not path.is_dir():
            raise InputError(
                str(path), "output directory", "a file", "a new or an empty directory", "Choose another path."
            )
        if path.is_dir() and any(path.iterdir()):
            action = "Choose another path, or remove the directory yourself: nothing is ever overwritten."
            raise InputError(str(path), "output directory", "files in it", "a new or an empty directory", action)
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_new_file(path: str | Path) -> None:
    """Check that there is nothing at a path that is to be written.

    Raises:
      InputError: if there is.
    """
    if os.path.lexists(path):
        action = (
            "Choose another path, or remove it yourself: nothing is ever overwritten, unless a command has --overwrite."
        )
        raise InputError(str(path), "output file", "something there", "a new file", action)


@contextmanager
def translated_damage(path: str | Path, field: str, expected: str) -> Iterator[None]:
    """Say that a file was altered, of whatever a library complains while it reads the content; our errors stay.

    Libraries raise each their own classes there, some of them built-in ones, and an operating system's errors are of
    the disk and not of the content, but for an offset that leads nowhere.

    Raises:
      CorruptDataError: if the content cannot be read.
      StorageError: if the disk cannot.
    """
    try:
        yield
    except MTBKDError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            with translated_errors(path):
                raise
        reason = str(error).partition("\n")[0]
        found = f"damage ({type(error).__name__}: {reason})"
        raise CorruptDataError(str(path), field, found, expected, COPY_AGAIN) from error


@contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
    """Write a new file at once: other processes see nothing, or all of it, and what is there is never overwritten.

    Yields:
      A file that gets the name at the end of the block; after an error nothing is left.

    Raises:
      InputError: if there is something at the path.
      StorageError: if the disk is full or does not let us write.
    """
    path = Path(path)
    check_new_file(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with translated_errors(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                # Only one can create it, whoever comes between; from there on it is ours to replace.
                open(path, "xb").close()
                os.replace(temporary, path)
                return
            check_new_file(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other processes out of a directory while the block runs; the system frees it when the process ends, however.

    Raises:
      InputError: if another process holds it.
    """
    with translated_errors(path):
        lock = filelock.FileLock(Path(path) / LOCK, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            action = "Wait until that process has ended, or choose another path."
            found, expected = "held by another process", "a directory that nobody writes"
            raise InputError(str(path), "lock", found, expected, action) from None
    try:
        yield
    finally:
        lock.release()


def create_array(
    path: str | Path,
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    chunk_shape: Sequence[int],
    part_shape: Sequence[int] | None = None,
) -> ts.TensorStore:
    """Create an array whose chunks are written with checksums.

    Args:
      path: the directory of the array; it must not hold one yet.
      shape: how long each axis is.
      dtype: of the elements.
      chunk_shape: what is stored in one file, and so what is written at the least.
      part_shape: what is read of a file at the least, with a checksum of its own; None is all of it.

    Raises:
      StorageError: if the disk is full or does not let us write.
    """
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    if part_shape is not None:
        sharding = {"chunk_shape": list(part_shape), "codecs": codecs, "index_codecs": codecs}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    metadata = {
        "shape": list(shape),
        "data_type": np.dtype(dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "codecs": codecs,
    }
    with translated_errors(path):
        return ts.open(_spec(path) | {"metadata": metadata}, create=True).result()


def open_array(path: str | Path, *, shape: Sequence[int], dtype: DTypeLike) -> ts.TensorStore:
    """Open an array that ``create_array`` made; nothing but its metadata is read.

    Args:
      path: the directory of the array.
      shape: what the shape must be; the manifest beside the array says so.
      dtype: what the elements must be.

    Raises:
      CorruptDataError: if there is no such array, or it has another shape or type.
    """
    with translated_errors(path):
        array = ts.open(_spec(path), open=True).result()
    found = f"{array.dtype.numpy_dtype} of shape {array.shape}"
    expected = f"{np.dtype(dtype)} of shape {tuple(shape)}"
    if found != expected:
        raise CorruptDataError(str(path), "shape and type", found, expected, COPY_AGAIN)
    return array


def resize(array: ts.TensorStore, shape: Sequence[int]) -> ts.TensorStore:
    """Give an array another shape; what is new has to be written before it can be read."""
    with translated_errors(_path(array)):
        return array.resize(exclusive_max=list(shape)).result()


def read(array: ts.TensorStore, index: Any) -> np.ndarray:
    """Read ``array[index]``: slices, integers or integer arrays; a negative index does not count from the end.

    Raises:
      CorruptDataError: if a chunk was truncated, altered, removed or never written.
    """
    with translated_errors(_path(array)):
        return np.asarray(array[index].read().result())


def write(array: ts.TensorStore, index: Any, values: ArrayLike) -> None:
    """Write ``array[index] = values``; they are on the disk when this returns.

    Raises:
      StorageError: if the disk is full or does not let us write.
    """
    if np.size(values) == 0:
        return  # TensorStore takes an index array without an index for one of a zero, and writes there
    with translated_errors(_path(array)):
        array[index].write(values).result()


def bytes_of_files(path: str | Path) -> int:
    """How long all files below a directory are together."""
    with translated_errors(path):
        return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file as ``write_text`` writes text.

    Raises:
      StorageError: if the disk is full or does not let us write.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a file at once: a reader sees the old file or the whole new one, even after a power cut.

    Raises:
      StorageError: if the disk is full or does not let us write.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    with translated_errors(path):
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
      InputError: if there is no such file.
      CorruptDataError: if it is not JSON.
    """
    try:
        with translated_errors(path):
            return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise CorruptDataError(str(path), "content", f"no JSON ({error})", "a JSON file", COPY_AGAIN) from error


def finite_or_none(value: Any) -> float | None:
    """A number as JSON holds it: None where it is not finite, for which JSON has no word."""
    return float(value) if np.isfinite(value) else None


def write_manifest(path: str | Path, content: Mapping[str, Any], *, format_name: str, version: int) -> None:
    """Write the file that says what a directory holds, as the last one of the directory.

    Args:
      path: of the file.
      content: anything that JSON can hold, by name.
      format_name: what kind of directory this is.
      version: of the format.
    """
    body = {"format": format_name, "version": version, **content}
    write_json(path, body | {"sha256": _digest(body)})


def read_manifest(path: str | Path, *, format_name: str, version: int) -> dict[str, Any]:
    """Read what ``write_manifest`` wrote, and make sure that it is just that.

    Raises:
      InputError: if there is none, or it is of another format or a newer version.
      CorruptDataError: if it was altered.
    """
    path = Path(path)
    if not path.is_file():
        action = "Check the path; where writing was interrupted, write to a new directory again."
        raise InputError(str(path.parent), path.name, "no such file", f"a finished directory of {format_name}", action)
    body = read_json(path)
    if not isinstance(body, dict) or body.get("format") != format_name:
        found = repr(body.get("format")) if isinstance(body, dict) else "no format"
        raise InputError(str(path), "format", found, repr(format_name), "Check that this is the path you meant.")
    digest = body.pop("sha256", None)
    if digest != _digest(body):
        raise CorruptDataError(str(path), "sha256", f"{digest}", f"{_digest(body)}, the digest of the rest", COPY_AGAIN)
    if not isinstance(body.get("version"), int):
        found, expected = f"{body.get('version')!r:.80}", "a whole number"
        raise CorruptDataError(str(path), "version", found, expected, COPY_AGAIN)
    if body["version"] > version:
        raise InputError(
            str(path), "version", f"{body['version']}", f"at most {version}", "Upgrade mtbkd-jax to read it."
        )
    return body


@contextmanager
def translated_errors(path: str | Path) -> Iterator[None]:
    """Turn what TensorStore and the operating system raise about ``path`` into errors of ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(str(path), "file", "no such file", "a file that can be read", "Check the path.") from error
    except IsADirectoryError as error:
        raise InputError(str(path), "file", "a directory", "a file", "Check the path.") from error
    except OSError as error:
        raise _storage_error(error.errno or errno.EIO, path) from error
    except ValueError as error:
        # TensorStore reports everything as a ValueError; the operating system's error number is in the text.
        text = str(error)
        if number := re.search(r"os_error_code='(\d+)'", text):
            raise _storage_error(int(number[1]), path) from error
        if text.startswith(_DAMAGED):
            expected = "what was written there"
            raise CorruptDataError(str(path), "stored array", text.split(" [")[0], expected, COPY_AGAIN) from error
        raise


def _spec(path: str | Path) -> dict[str, Any]:
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(Path(path).absolute())},
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
    }


def _path(array: ts.TensorStore) -> str:
    return array.kvstore.path if array.kvstore else ""


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _storage_error(number: int, path: str | Path) -> StorageError:
    action = "Free some space or choose another disk" if number in _FULL else "Check the path and your permissions"
    return StorageError(
        number, f"{os.strerror(number)}. {action}, then go on with --resume or begin a new directory", str(path)
    )
