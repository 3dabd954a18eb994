"""How teacher outputs lie on the disk: names of files, blocks of rows, and what a manifest must say.

``teachers`` describes the format.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from mtbkd_jax import storage
from mtbkd_jax.checks import (
    check_class_names,
    check_num_classes,
    check_num_examples,
    check_same_number,
    check_softening,
    check_whole,
    some,
)
from mtbkd_jax.errors import CorruptDataError, InputError

FORMAT = "mtbkd teacher outputs"
VERSION = 2
MANIFEST = "teachers.json"
ROWS_AT_A_TIME = 4096
TOP_CLASSES = "log probabilities of the most probable classes"


def check_manifest(manifest: Mapping[str, Any], where: str) -> None:
    """Check that a manifest is what the writer makes: whoever altered one may have renewed its digest as well."""
    of_all: dict[str, type | tuple[type, ...]] = {
        "num_examples": int,
        "num_classes": int,
        "id_bytes": int,
        "ids_sha256": str,
        "class_names": (list, type(None)),
        "teachers": list,
        "conditions": (dict, type(None)),
    }
    of_teacher: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "softening": (int, float),
        "source": str,
        "sha256": str,
    }
    check_types(manifest, of_all, where)
    for number, teacher in enumerate(manifest["teachers"]):
        check_types(teacher, of_teacher, where, f"teachers.{number}.")
        check_softening(teacher["softening"], where)
        if (gives := teacher.get("gives", TOP_CLASSES)) != TOP_CLASSES:
            field = f"teachers.{number}.gives"
            raise CorruptDataError(where, field, f"{gives!r:.80}", repr(TOP_CLASSES), storage.COPY_AGAIN)
    check_teacher_names([teacher["name"] for teacher in manifest["teachers"]], where)
    check_num_examples(manifest["num_examples"], where)
    check_num_classes(manifest["num_classes"], where)
    check_whole(where, 1, id_bytes=manifest["id_bytes"])
    if manifest["class_names"] is not None:
        by_number = dict(enumerate(manifest["class_names"]))
        check_types(by_number, dict.fromkeys(by_number, str), where, "class_names.")
        named = check_class_names(manifest["class_names"], where)
        check_same_number("names", len(named), manifest["num_classes"], "as there are classes", where, "class_names")


def check_teacher_names(names: Sequence[str], where: str) -> None:
    """Check that there are teachers, and that each has a name of its own."""
    if not names:
        raise InputError(where, "teachers", "none", "one teacher or more", "Give the outputs of a teacher.")
    if "" in names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1 or not name})
        action = "Give every teacher a name of its own."
        raise InputError(where, "teachers", f"names more than once or empty: {some(twice)}", "each name once", action)


def logits_path(path: Path, teacher: int) -> Path:
    """Where in a directory the logits of a teacher are, by its number."""
    return path / "logits" / str(teacher)


def create_stored_rows(path: Path, shape: tuple[int, ...], dtype: Any) -> ts.TensorStore:
    """Create an array that is stored in blocks of rows, which ``open_stored_rows`` opens."""
    return storage.create_array(path, shape=shape, dtype=dtype, chunk_shape=(ROWS_AT_A_TIME, *shape[1:]))


def open_stored_rows(path: Path, shape: tuple[int, int], dtype: Any) -> ts.TensorStore:
    """Open an array that the writer made, and make sure that it is stored as it is: plain, in blocks, and all there.

    Memory is taken for as many rows as a manifest says there are, so that they have to be on the disk.
    """
    array = storage.open_array(path, shape=shape, dtype=dtype)
    codecs = [codec["name"] for codec in array.spec().to_json()["metadata"]["codecs"]]
    found = codecs, array.chunk_layout.write_chunk.shape
    expected = ["bytes", "crc32c"], (ROWS_AT_A_TIME, *shape[1:])
    if found != expected:
        raise CorruptDataError(str(path), "codecs and blocks", f"{found}", f"{expected}", storage.COPY_AGAIN)
    stored, needed = storage.bytes_of_files(path), shape[0] * shape[1] * np.dtype(dtype).itemsize
    if stored < needed:
        raise CorruptDataError(str(path), "blocks", f"{stored} bytes", f"{needed} or more", storage.COPY_AGAIN)
    return array


def blocks(array: ts.TensorStore, num_rows: int) -> Iterator[np.ndarray]:
    """The first rows of an array, as many at a time as are stored in one file."""
    for start in range(0, num_rows, ROWS_AT_A_TIME):
        yield storage.read(array, slice(start, min(start + ROWS_AT_A_TIME, num_rows)))


def as_bytes(ids: np.ndarray) -> np.ndarray:
    """Text as UTF-8, ``[examples, bytes]``, padded by zeros."""
    encoded = np.strings.encode(ids, "utf-8")
    return encoded.view(np.uint8).reshape(len(ids), -1)


def as_text(encoded: np.ndarray, where: str) -> np.ndarray:
    """The text that ``as_bytes`` made bytes of."""
    try:
        return np.strings.decode(np.ascontiguousarray(encoded).view(f"S{encoded.shape[1]}")[:, 0], "utf-8")
    except UnicodeDecodeError as error:
        raise CorruptDataError(where, "ids", f"bytes ({error})", "UTF-8", storage.COPY_AGAIN) from error


def check_types(found: Any, expected: Mapping[Any, type | tuple[type, ...]], where: str, prefix: str = "") -> None:
    """Check that JSON has these fields, of these types; messages name a field after the prefix."""
    for key, kinds in expected.items():
        value = found.get(key) if isinstance(found, dict) else None
        if not isinstance(value, kinds) or isinstance(value, bool):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise CorruptDataError(where, f"{prefix}{key}", f"{value!r:.80}", names, storage.COPY_AGAIN)
