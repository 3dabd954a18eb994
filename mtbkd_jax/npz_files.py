"""NPZ files that may come from anywhere: nothing is unpickled, and no size that a file claims is believed.

An archive is refused before memory is taken for it if a field is not as long as the header of its array says, or if it
would take far more memory than it takes on the disk.
"""

import io
import math
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from mtbkd_jax.checks import check_expansion
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.storage import COPY_AGAIN, translated_damage, translated_errors

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_LOCAL_HEADER, _LOCAL_SIGNATURE = struct.Struct("<4s5H3L2H"), b"PK\x03\x04"
LONGEST_HEADER = 10_000
"""Bytes of the longest header of an array that is read."""
_READ_BYTES = 2**20
_WHOLE = "a whole NPZ archive"


class NpzFile:
    """An NPZ archive that is open; made by ``open_npz``.

    Attributes:
      where: the path, for messages.
      names: of the fields.
    """

    def __init__(self, path: str | Path, file: IO[bytes], archive: zipfile.ZipFile):
        self.where = str(path)
        self._file = file
        self._archive = archive
        self._members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        self.names = tuple(self._members)

    def read(self, name: str) -> np.ndarray:
        """Read a field into memory.

        Raises:
          InputError: if it holds Python objects, or would take far more memory than it takes on the disk.
          CorruptDataError: if it was truncated or altered.
        """
        with translated_damage(self.where, name, _WHOLE):
            member = self._members[name]
            if member.compress_type not in _COMPRESSIONS or member.flag_bits & _ENCRYPTED:
                action = "Save it again by `numpy.savez` or `numpy.savez_compressed`."
                raise InputError(self.where, name, "another compression, or encryption", "none, or deflate", action)
            stored_bytes = min(member.compress_size, Path(self.where).stat().st_size)
            with self._archive.open(member) as content:
                shape, is_fortran, dtype, header_bytes = read_header(content.read(LONGEST_HEADER))
                if dtype.hasobject:
                    action = f"Save it again with a type of its own, like `{name}.astype(str)` or `.astype('float32')`."
                    raise InputError(self.where, name, "Python objects", "numbers or text", action)
                num_bytes = math.prod(shape) * dtype.itemsize
                if (found := member.file_size - header_bytes) != num_bytes or min(shape, default=0) < 0:
                    described = f"{dtype} of shape {shape}, which take {num_bytes} bytes"
                    raise CorruptDataError(self.where, name, f"{found} bytes", described, COPY_AGAIN)
                check_expansion(num_bytes, stored_bytes, self.where, name)
                content.seek(header_bytes)
                values = np.empty(num_bytes, np.uint8)
                _fill(values, content.read)
            array = values.view(dtype) if num_bytes else np.empty(0, dtype)
            return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)

    def place_of(self, name: str) -> tuple[int, int]:
        """Where a field that is not compressed begins and ends in the file.

        Raises:
          InputError: if there is no such field, there are several, or it is compressed.
          CorruptDataError: if it does not lie in the file as the archive's directory says.
        """
        members = [member for member in self._archive.infolist() if member.filename == f"{name}.npy"]
        if len(members) != 1:
            found = f"the fields {', '.join(self.names) or '(none)'}"
            action = "Save it, or say how it is called."
            raise InputError(self.where, name, found, "a field of that name, once", action)
        (member,) = members
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            action = "Save the file by `numpy.savez`, and not by `savez_compressed`, so that it can be read by rows."
            raise InputError(self.where, name, "a compressed field", "one that is not", action)
        with translated_damage(self.where, name, _WHOLE):
            self._file.seek(member.header_offset)
            header = self._file.read(_LOCAL_HEADER.size)
        if len(header) == _LOCAL_HEADER.size and header[:4] == _LOCAL_SIGNATURE:
            *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
            start = self._file.tell() + name_bytes + extra_bytes
            end = start + member.file_size
            if member.compress_size == member.file_size and end <= Path(self.where).stat().st_size:
                return start, end
        expected = "a member that lies in the file as its directory says"
        raise CorruptDataError(self.where, name, "headers that contradict each other", expected, COPY_AGAIN)


@contextmanager
def open_npz(path: str | Path) -> Iterator[NpzFile]:
    """Open an NPZ archive; nothing but its directory is read.

    Raises:
      InputError: if there is no such file, or it is no NPZ archive.
      CorruptDataError: if it was truncated or altered.
    """
    where = str(path)
    with translated_errors(path):
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    with file:
        if (start := file.read(2)) != b"PK":
            action = "Save the arrays by `numpy.savez(path, name=array, ...)`."
            of_kind = InputError if start else CorruptDataError  # what is empty was cut off
            raise of_kind(where, "format", "something else", "an NPZ archive", action)
        with translated_damage(where, "archive", _WHOLE):
            archive = zipfile.ZipFile(file)
        with archive:
            yield NpzFile(path, file, archive)


def read_npz(path: str | Path, *, required: Sequence[str] = (), optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read some fields of an NPZ file into memory.

    Raises:
      InputError: if there is no such file, it is no NPZ archive, or a field is missing, holds Python objects or would
        take far more memory than it takes on the disk.
      CorruptDataError: if it was truncated or altered.
    """
    with open_npz(path) as file:
        if missing := [name for name in required if name not in file.names]:
            found = f"only the fields {', '.join(file.names) or '(none)'}"
            raise InputError(str(path), missing[0], found, "a field of that name", "Save it, or say how it is called.")
        return {name: file.read(name) for name in (*required, *optional) if name in file.names}


def read_header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether columns lie together, type, and how long the header is, of an array in NumPy's format.

    Whatever NumPy complains of is raised as it is: see ``storage.translated_damage``.

    Args:
      start: the first ``LONGEST_HEADER`` bytes; NumPy would read as many as a header says that it has.
    """
    stream = io.BytesIO(start)
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    with warnings.catch_warnings():
        # Of Python about odd escapes in what was altered, and of NumPy about files of Python 2, which it reads.
        warnings.simplefilter("ignore")
        shape, is_fortran, dtype = read(stream, max_header_size=LONGEST_HEADER)
    return shape, is_fortran, dtype, stream.tell()


def _fill(values: np.ndarray, read: Callable[[int], bytes]) -> None:
    """Read a member to its end, where its checksum is compared."""
    start = 0
    while part := read(_READ_BYTES):
        values[start : start + len(part)] = np.frombuffer(part, np.uint8)
        start += len(part)
    if start < len(values):
        raise EOFError(f"{len(values) - start} bytes are missing")
