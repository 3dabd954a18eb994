"""Whatever a file holds, it is read or refused by the documented error: nothing else, and nothing beside the target.

A few hundred files in the ordinary tests, the same ones every time. As many as one likes, over all targets together:

    MTBKD_FUZZ_FILES=10000 python -m pytest -n0 tests/imports/test_fuzz.py
"""

import copy
import decimal
import io
import json
import os
import resource
import shutil
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtbkd_jax import storage
from mtbkd_jax.adapters import read_questions
from mtbkd_jax.aligned_teachers import align_teachers
from mtbkd_jax.data import read_dataset
from mtbkd_jax.errors import InputError
from mtbkd_jax.imports import import_data, import_teacher
from mtbkd_jax.teacher_files import read_teacher_file
from mtbkd_jax.teacher_writer import write_teacher_outputs
from mtbkd_jax.teachers import open_teacher_outputs
from tests.imports.tables import CLASS_NAMES, FORMATS, NUM_ROWS, arrays, write_dataset, write_table

MOST_SECONDS = 10
MOST_NEW_BYTES = 2**30
"""By which a file may raise the most memory ever used: a few times what may be taken of any file (``FREE_BYTES``)."""

IDS = np.arange(NUM_ROWS).astype(str)


def _write_data(root: Path) -> None:
    data = arrays()
    np.savez(root / "data.npz", inputs=data["matrix"], labels=data["label"], ids=IDS, class_names=CLASS_NAMES)


def _write_teacher_npz(root: Path) -> None:
    np.savez(root / "t.npz", logits=_logits(), ids=IDS, class_names=CLASS_NAMES, softening=np.array(2.0))


def _write_teacher_csv(root: Path) -> None:
    write_table("csv", root / "t", {name: arrays()[name] for name in ("id", *CLASS_NAMES)})


def _write_directory(root: Path) -> None:
    outputs = {"a": _logits(), "b": -_logits()}
    write_teacher_outputs(root / "dir", outputs, ids=IDS, class_names=CLASS_NAMES)


def _logits() -> np.ndarray:
    return np.stack([arrays()[name] for name in CLASS_NAMES], axis=1)


def _read_directory(root: Path, out: Path) -> None:
    opened = open_teacher_outputs(root / "dir")
    opened.verify()
    align_teachers([opened], ids=opened.ids)


def _path(root: Path, format_name: str) -> Path:
    return (root / "table").with_suffix("" if format_name == "dataset" else f".{format_name}")


def _import_data(format_name: str) -> Callable[[Path, Path], object]:
    return lambda root, out: import_data(
        _path(root, format_name), out / "data.npz", inputs=["x_*"], label="label", class_names=CLASS_NAMES
    )


def _import_teacher(format_name: str) -> Callable[[Path, Path], object]:
    return lambda root, out: import_teacher(
        _path(root, format_name), out / "teacher", name="a", outputs=CLASS_NAMES, kind="logits"
    )


def _write_table(format_name: str) -> Callable[[Path], object]:
    return lambda root: write_table(format_name, root / "table")


TARGETS: dict[str, tuple[Callable, Callable]] = {
    "data file": (_write_data, lambda root, out: read_dataset(root / "data.npz")),
    "questions": (_write_data, lambda root, out: read_questions(root / "data.npz")),
    "teacher NPZ": (_write_teacher_npz, lambda root, out: read_teacher_file(f"a={root / 't.npz'}").logits(IDS)),
    "teacher CSV": (_write_teacher_csv, lambda root, out: read_teacher_file(f"a={root / 't.csv'}")),
    "teacher-output directory": (_write_directory, _read_directory),
    **{f"import-data {name}": (_write_table(name), _import_data(name)) for name in FORMATS},
    **{f"import-teacher {name}": (_write_table(name), _import_teacher(name)) for name in FORMATS},
}

NUM_FILES = int(os.environ.get("MTBKD_FUZZ_FILES", "450"))
_OF_EACH_KIND = -(-NUM_FILES // (2 * len(TARGETS)))
AS_MANY = settings(
    max_examples=_OF_EACH_KIND,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

ODD_VALUES = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63,
        10**30,
        1.5,
        float("nan"),
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "\ud800",
        [],
        {},
        [[]],
        [None],
        {"filename": "../x"},
        "a" * 1000,
        "a\0b",
        "F64",
        "<f8",
        "state.json",
    ]
)
ODD_BYTES = st.sampled_from(
    [
        b"\0" * 8,
        b"\xff" * 8,
        b"\xff\xff\xff\x7f",
        b"\0\0\0\0\0\0\0\x80",
        b"PK\3\4",
        b"nan",
        b"1e999",
        b"-",
        b'"',
        b"\n",
        b",",
    ]
) | st.binary(min_size=1, max_size=12)


@st.composite
def altered_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes changed, cut off, put in, taken out, or copied elsewhere; often at the ends, where headers are."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        size = len(changed)
        near_ends = st.integers(0, min(size, 300)) | st.integers(max(0, size - 500), size)
        place = draw(near_ends | st.integers(0, size))
        match draw(st.sampled_from(["flip", "flip", "odd", "truncate", "insert", "delete", "copy"])):
            case "flip" if place < size:
                changed[place] ^= draw(st.integers(1, 255))
            case "odd":
                new = draw(ODD_BYTES)
                changed[place : place + len(new)] = new
            case "truncate":
                del changed[place:]
            case "insert":
                changed[place:place] = draw(ODD_BYTES)
            case "delete":
                del changed[place : place + draw(st.integers(1, 64))]
            case "copy":
                changed[place:place] = changed[place : place + draw(st.integers(1, 200))]
    return bytes(changed)


@st.composite
def altered_json(draw: st.DrawFn, content: object) -> object:
    """One or two fields anywhere changed, removed or added."""
    tree = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 2))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and draw(st.booleans()):
                node = node[key]
                continue
            match draw(st.sampled_from(["set", "set", "remove", "add"])):
                case "set":
                    node[key] = copy.deepcopy(draw(ODD_VALUES))
                case "remove":
                    del node[key]
                case "add" if isinstance(node, dict):
                    node[str(draw(ODD_VALUES))] = copy.deepcopy(draw(ODD_VALUES))
            break
    return tree


HEADERS = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(
            [
                "<f4",
                "<f8",
                "<i8",
                "|O",
                "<U4",
                "|S3",
                "<U100000000",
                "<M8[s]",
                "<c16",
                "|V2",
                "|V0",
                "<f2",
                ">f4",
                "x",
                "",
            ]
        )
        | st.sampled_from([[("a", "<f4")], ("<f4", (10**9,)), [], None, 3]),
        "fortran_order": st.sampled_from([False, True, 0, None]),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, NUM_ROWS, -1, 10**6, 10**9, 2**62, 2**70]), max_size=40).map(
            tuple
        )
        | st.sampled_from([None, (NUM_ROWS,), (NUM_ROWS, 3), [NUM_ROWS], (True,), (1.5,)]),
    }
)


@st.composite
def altered_npz(draw: st.DrawFn, content: bytes) -> bytes:
    """A member with another header or other bytes, in an archive whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(members)))
    array = members[name]
    match draw(st.sampled_from(["header", "header text", "bytes", "remove", "no array"])):
        case "header":
            header = repr(draw(HEADERS)).encode("latin-1", "replace") + b"\n"
            members[name] = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + array[128:]
        case "header text":
            header = draw(altered_bytes(array[10:128]))
            members[name] = array[:8] + len(header).to_bytes(2, "little") + header + array[128:]
        case "bytes":
            members[name] = draw(altered_bytes(array))
        case "remove":
            del members[name]
        case "no array":
            members[name] = draw(st.binary(max_size=40))
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
    ) as z:
        for member, data in members.items():
            z.writestr(member, data)
    return buffer.getvalue()


@st.composite
def altered_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(draw(altered_json(json.loads(content[8 : 8 + length])))).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


@st.composite
def alteration(draw: st.DrawFn, root: Path) -> None:
    """Alter one file of a folder in place, with an eye to what it is."""
    file = draw(st.sampled_from(sorted(path for path in root.rglob("*") if path.is_file())))
    content = file.read_bytes()
    if file.suffix == ".json" and draw(st.integers(0, 3)):
        tree = draw(altered_json(json.loads(content)))
        if isinstance(tree, dict) and "sha256" in tree:  # a manifest, whose digest is renewed
            body = {key: value for key, value in tree.items() if key != "sha256"}
            tree["sha256"] = storage._digest(body)
        file.write_text(json.dumps(tree))
    elif file.suffix == ".npz" and draw(st.integers(0, 3)):
        file.write_bytes(draw(altered_npz(content)))
    elif file.suffix == ".safetensors" and draw(st.booleans()):
        file.write_bytes(draw(altered_safetensors(content)))
    else:
        file.write_bytes(draw(altered_bytes(content)))


ODD_CELLS = st.sampled_from(
    ["", "1", "0", "-1", "1.5", "nan", "inf", "1e999", "cat", "dog", "é", "1_0", " 1", "٣", "a\0b", "9" * 400]
)
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), 1e300, 2.0**31, 3.0])
DTYPES = st.sampled_from(
    ["float32", "float64", "float16", "int8", "int64", "uint64", "bool", "complex64", "U3", "S3", "M8[s]", "longdouble"]
)
COLUMNS = ("id", "label", "x_0", "x_1", *CLASS_NAMES)


@st.composite
def odd_array(draw: st.DrawFn) -> np.ndarray:
    rows = draw(st.sampled_from([NUM_ROWS] * 6 + [0, 1, 2]))
    shape = (rows, *draw(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=2)))
    values = np.resize(np.array(draw(st.lists(NUMBERS, min_size=1, max_size=6))), shape)
    if draw(st.booleans()):
        values = np.arange(int(np.prod(shape)), dtype=float).reshape(shape)
    dtype = draw(DTYPES)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dtype == "M8[s]":
            return np.nan_to_num(values, posinf=0).astype("int64").astype(dtype)
        return values.astype(dtype)


ARROW_TYPES = st.sampled_from(
    [
        pa.float64(),
        pa.float32(),
        pa.float16(),
        pa.int8(),
        pa.int64(),
        pa.uint64(),
        pa.bool_(),
        pa.string(),
        pa.large_string(),
        pa.null(),
        pa.binary(),
        pa.decimal128(10, 2),
        pa.date32(),
        pa.list_(pa.float64()),
        pa.list_(pa.string()),
        pa.list_(pa.int64(), 2),
        pa.list_(pa.list_(pa.float32())),
        pa.dictionary(pa.int8(), pa.string()),
        pa.duration("s"),
        pa.struct([("a", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
        pa.dictionary(pa.int32(), pa.int64()),
    ]
)


@st.composite
def odd_column(draw: st.DrawFn) -> pa.Array:
    kind, missing = draw(ARROW_TYPES), draw(st.booleans())

    def value(kind: pa.DataType, row: int) -> object:
        if missing and row % 5 == 3:
            return None
        if pa.types.is_null(kind):
            return None
        if pa.types.is_dictionary(kind):
            return value(kind.value_type, row % 3)
        if pa.types.is_fixed_size_list(kind):
            return [value(kind.value_type, row), value(kind.value_type, row)]
        if pa.types.is_list(kind):
            return [value(kind.value_type, row)] * (2 + (missing and row % 3))
        if pa.types.is_struct(kind):
            return {"a": row}
        if pa.types.is_map(kind):
            return [("a", row)]
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return ("cat", "dog", "7", "")[row % 4] if missing else f"r{row}"
        if pa.types.is_binary(kind):
            return b"\xff"
        if pa.types.is_decimal(kind):
            return decimal.Decimal(row)
        if pa.types.is_boolean(kind):
            return bool(row % 2)
        if pa.types.is_floating(kind):
            return np.float16(row) if kind == pa.float16() else (float("nan") if missing and row == 1 else row / 2)
        return row

    return pa.array([value(kind, row) for row in range(NUM_ROWS)], kind)


@st.composite
def generation(draw: st.DrawFn, root: Path, name: str) -> None:
    """Put a well-formed file with odd content in the place of the valid one."""
    if name in ("data file", "questions", "teacher NPZ"):
        file = next(root.glob("*.npz"))
        fields = [*np.load(file), "probs", "groups"]
        chosen = draw(st.lists(st.sampled_from(fields), unique=True))
        np.savez(file, **{field: draw(odd_array()) for field in chosen})
    elif name == "teacher-output directory":
        draw(alteration(root))
    elif name == "teacher CSV" or name.endswith("csv"):
        header = draw(st.sampled_from([["id", *CLASS_NAMES], list(COLUMNS), ["0", "1", "2"]]))
        header = header if draw(st.booleans()) else draw(st.lists(ODD_CELLS, max_size=5))
        rows = [
            draw(st.lists(ODD_CELLS, min_size=len(header), max_size=len(header)))
            for _ in range(draw(st.integers(0, 6)))
        ]
        text = "\n".join(",".join(row) for row in (header, *rows))
        next(root.glob("*.csv")).write_text(text, encoding=draw(st.sampled_from(["utf-8", "utf-16", "utf-8-sig"])))
    elif name.endswith(("npz", "safetensors")):
        columns = {column: draw(odd_array()) for column in COLUMNS if draw(st.integers(0, 9))}
        if name.endswith("safetensors"):
            columns = {
                key: array for key, array in columns.items() if array.dtype.kind in "fiub" and array.itemsize < 9
            }
        (_path(root, name.split()[-1])).unlink()
        write_table(name.split()[-1], root / "table", columns)
    else:
        path = _path(root, name.split()[-1])
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        columns = {column: arrays()[column] for column in COLUMNS}
        columns |= {column: draw(odd_column()) for column in draw(st.lists(st.sampled_from(COLUMNS), min_size=1))}
        if draw(st.booleans()):
            columns["label"] = draw(odd_column())
        write_arrow(name.split()[-1], path, pa.table(columns))


def write_arrow(format_name: str, path: Path, table: pa.Table) -> None:
    if format_name == "dataset":
        write_dataset(path, table)
        return
    try:
        pq.write_table(table, path)
    except (pa.ArrowException, NotImplementedError):  # Parquet has no such type
        pq.write_table(pa.table({"id": [1, 2]}), path)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The valid files of each target, written once."""
    folders = {}
    for name, (write, _) in TARGETS.items():
        folders[name] = tmp_path_factory.mktemp("valid")
        write(folders[name])
    return folders


def tree(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def check(name: str, folder: Path, alter: Callable[[Path], None]) -> None:
    """Alter the files, read them, and look at what came of it."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        shutil.copytree(folder, root / "in")
        alter(root / "in")
        (root / "out").mkdir()
        before, bytes_before, start = tree(root), resident_bytes(), time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                TARGETS[name][1](root / "in", root / "out")
            except InputError:
                is_refused = True
            else:
                is_refused = False
        assert time.monotonic() - start < MOST_SECONDS
        assert resident_bytes() - bytes_before < MOST_NEW_BYTES
        after = tree(root)
        assert before == {path: after[path] for path in before}
        assert all(path in before or (path.startswith("out/") and not is_refused) for path in after)


def resident_bytes() -> int:
    """The most memory that this process ever had; what grows it grew in between."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_files_are_read(name, valid, tmp_path):
    TARGETS[name][1](valid[name], tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@AS_MANY
@given(data=st.data())
def test_altered_files_are_read_or_refused(name, valid, data):
    check(name, valid[name], lambda root: data.draw(alteration(root)))


@pytest.mark.parametrize("name", TARGETS)
@AS_MANY
@given(data=st.data())
def test_generated_files_are_read_or_refused(name, valid, data):
    check(name, valid[name], lambda root: data.draw(generation(root, name)))
