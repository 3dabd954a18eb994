"""Tests of mtbkd_jax.teachers and mtbkd_jax.teacher_files: outputs by id, whole or refused."""

import errno
import json
import subprocess
import sys
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax import storage, teachers
from mtbkd_jax.checks import as_logits
from mtbkd_jax.errors import CorruptDataError, InputError, StorageError
from mtbkd_jax.teacher_files import read_teacher_file

IDS = np.array([f"protein {row} ü" for row in range(10)])
CLASS_NAMES = ("nucleus", "membrane", "cytoplasm")


@pytest.fixture
def logits():
    """Logits of two teachers: [examples, teachers, classes]."""
    return np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)


@pytest.fixture
def directory(tmp_path, logits):
    path = tmp_path / "outputs"
    teachers.write_teacher_outputs(
        path,
        {"a": logits[:, 0], "b/../c": logits[:, 1]},
        ids=IDS,
        class_names=CLASS_NAMES,
        softening={"a": 2.0},
        sources={"a": "model A, revision 3"},
    )
    return path


@pytest.fixture
def save(tmp_path):
    """Save the outputs of one teacher to an NPZ file and return ``name=FILE``."""

    def save(name="a", **fields):
        np.savez(tmp_path / f"{name}.npz", **fields)
        return f"{name}={tmp_path / name}.npz"

    return save


@pytest.fixture
def save_csv(tmp_path):
    def save_csv(text, name="a"):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        return f"{name}={tmp_path / name}.csv"

    return save_csv


@contextmanager
def refused(where, field, found, action):
    """Expect an error whose message names the place, the field, what was found, what was expected and what to do."""
    with pytest.raises(InputError) as caught:
        yield
    error = caught.value
    assert error.where.endswith(where)
    assert error.field.endswith(field)
    assert error.found.startswith(found)
    assert error.expected
    assert error.action.startswith(action)
    assert str(error) == f"{error.where}: {error.field}: found {error.found}, expected {error.expected}. {error.action}"


# Directories


def test_a_directory_describes_itself_and_returns_logits_by_id(directory, logits):
    outputs = teachers.open_teacher_outputs(directory)
    assert outputs.names == ("a", "b/../c")
    assert outputs.class_names == CLASS_NAMES
    assert (outputs.num_classes, outputs.num_examples) == (3, 10)
    assert outputs.softening == (2.0, 1.0)
    assert outputs.sources == ("model A, revision 3", "")
    np.testing.assert_array_equal(outputs.ids, IDS)
    outputs.verify()
    order = np.array([7, 0, 7, 3])
    np.testing.assert_array_equal(outputs.logits(IDS[order]), logits[order])
    assert outputs.logits(IDS).dtype == np.float32


def test_opening_reads_only_the_manifest(directory):
    for path in [path for path in directory.rglob("*") if path.is_file() and path.name != "teachers.json"]:
        path.unlink()
    assert teachers.open_teacher_outputs(directory).names == ("a", "b/../c")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", None),
        ("num_classes", "3"),
        ("num_examples", True),
        ("num_examples", 10**12),
        ("id_bytes", 0),
        ("id_bytes", 10**12),
        ("class_names", [["a"], "b", "c"]),
        ("class_names", ["a", "b"]),
        ("teachers", []),
        ("teachers", [{"name": "a"}]),
        ("teachers", "a"),
        ("conditions", 3),
        ("version", None),
    ],
)
def test_a_manifest_that_was_altered_with_its_digest_is_refused(directory, field, value):
    body = storage.read_json(directory / "teachers.json") | {field: value}
    body.pop("sha256")
    storage.write_json(directory / "teachers.json", body | {"sha256": storage._digest(body)})
    with pytest.raises(InputError):
        teachers.open_teacher_outputs(directory).logits(IDS)


def test_rows_that_are_said_to_be_there_are_not_given_memory(directory):
    metadata = storage.read_json(directory / "logits" / "0" / "zarr.json")
    metadata["shape"] = [10**11, 3]
    storage.write_json(directory / "logits" / "0" / "zarr.json", metadata)
    manifest = storage.read_json(directory / "teachers.json") | {"num_examples": 10**11}
    outputs = teachers.TeacherOutputs(directory, manifest)
    outputs.__dict__["ids"] = IDS
    with pytest.raises(CorruptDataError, match=r"blocks: found .* bytes, expected 1200000000000 or more"):
        outputs.logits(IDS)


def test_an_array_that_is_compressed_is_not_ours(directory):
    metadata = storage.read_json(directory / "logits" / "0" / "zarr.json")
    metadata["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 1}})
    storage.write_json(directory / "logits" / "0" / "zarr.json", metadata)
    with pytest.raises(CorruptDataError, match=r"codecs and blocks: found .*gzip"):
        teachers.open_teacher_outputs(directory).logits(IDS)


def test_numbers_that_are_not_finite_are_refused_when_read(tmp_path, logits):
    path = tmp_path / "out"
    with teachers.TeacherOutputsWriter(path, ["a"], ids=IDS) as writer:
        writer.append("a", IDS, logits[:, 0])
        writer._rows["a"].pending[0][3] = np.nan
    with refused("out", "logits of a", "NaN in row 3", "Correct or leave out these rows"):
        teachers.open_teacher_outputs(path).logits(IDS)


def test_ids_that_are_missing_are_named(directory):
    outputs = teachers.open_teacher_outputs(directory)
    with refused("outputs", "ids", "no outputs for 2 of 3 examples: 'x', '~'", "Add them, or leave these examples out"):
        outputs.logits(np.array(["x", IDS[0], "~"]))


def test_written_in_parts_is_the_same_as_written_at_once(tmp_path, directory, logits):
    with teachers.TeacherOutputsWriter(
        tmp_path / "parts",
        ["a", "b/../c"],
        ids=IDS,
        class_names=CLASS_NAMES,
        softening={"a": 2.0},
        sources={"a": "model A, revision 3"},
    ) as writer:
        for rows in (slice(0, 1), slice(1, 7), slice(7, 7), slice(7, 10)):
            writer.append("b/../c", IDS[rows], logits[rows, 1])
        writer.append("a", IDS, logits[:, 0])
    manifests = [storage.read_json(path / "teachers.json") for path in (tmp_path / "parts", directory)]
    assert manifests[0] == manifests[1]
    teachers.open_teacher_outputs(tmp_path / "parts").verify()


def test_functions_are_called_with_parts_of_the_inputs(tmp_path):
    inputs = np.random.default_rng(1).normal(size=(10_000, 2))
    sizes = []

    def teacher(batch):
        sizes.append(len(batch))
        return np.concatenate([batch, batch.sum(axis=1, keepdims=True)], axis=1)

    ids = np.arange(10_000).astype(str)
    outputs = teachers.write_teacher_outputs(tmp_path / "out", {"sum": teacher}, ids=ids, inputs=inputs)
    assert max(sizes) < 5_000
    np.testing.assert_array_equal(outputs.logits(ids)[:, 0], teacher(inputs).astype(np.float32))
    with refused("out2", "inputs", "none", "Give `inputs`"):
        teachers.write_teacher_outputs(tmp_path / "out2", {"sum": teacher}, ids=ids)
    with refused("out2", "inputs", "9 rows", "Give the same rows"):
        teachers.write_teacher_outputs(tmp_path / "out2", {"sum": teacher}, ids=ids, inputs=inputs[:9])


def test_an_unfinished_directory_is_not_opened(tmp_path, logits):
    def interrupted(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teachers.write_teacher_outputs(tmp_path / "out", {"a": logits[:, 0], "b": interrupted}, ids=IDS, inputs=IDS)
    with refused("out", "teachers.json", "no such file", "Check the path; where writing was interrupted"):
        teachers.open_teacher_outputs(tmp_path / "out")


def test_closing_before_all_rows_are_there_is_refused(tmp_path, logits):
    writer = teachers.TeacherOutputsWriter(tmp_path / "out", ["a", "b"], ids=IDS)
    writer.append("a", IDS, logits[:, 0])
    writer.append("b", IDS[:4], logits[:4, 1])
    with refused("out", "logits of b", "4 rows", "Append the missing rows"):
        writer.close()


def test_a_writer_that_stops_early_lets_another_go_on(tmp_path, logits):
    def begin(num_rows, resume=False):
        with teachers.TeacherOutputsWriter(tmp_path / "out", ["a"], ids=IDS, resume=resume) as writer:
            start = writer.num_appended("a")
            writer.append("a", IDS[start:num_rows], logits[start:num_rows, 0])
            writer.flush()

    with refused("out", "logits of a", "4 rows", "Append the missing rows"):
        begin(4)
    begin(10, resume=True)
    np.testing.assert_array_equal(teachers.open_teacher_outputs(tmp_path / "out").logits(IDS)[:, 0], logits[:, 0])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ids", "logits", "teachers.json"}


def test_teachers_that_disagree_are_refused_by_the_writer(tmp_path, logits):
    writer = teachers.TeacherOutputsWriter(tmp_path / "out", ["a", "b"], ids=IDS)
    writer.append("a", IDS[:5], logits[:5, 0])
    with refused("out", "ids of b", "'protein 1 ü' in row 0", "Put the rows in that order"):
        writer.append("b", IDS[[1, 0, 2]], logits[:3, 1])
    with refused("out", "ids of a", "'protein 0 ü' in row 5", "Put the rows in that order"):
        writer.append("a", IDS[:5], logits[:5, 0])
    with refused("out", "ids of b", "2 ids for 3 rows of logits from row 0", "Give the logits of just these examples"):
        writer.append("b", IDS[:2], logits[:3, 1])
    with refused("out", "ids of a", "6 ids for 6 rows of logits from row 5", "Give the logits of just these examples"):
        writer.append("a", IDS[4:], logits[4:, 0])
    with refused("out", "logits of b from row 0", "2 classes", "Give the same classes"):
        writer.append("b", IDS, logits[:, 1, :2])
    with refused("out", "teacher", "'c'", "Check the spelling"):
        writer.append("c", IDS, logits[:, 0])


@pytest.mark.parametrize(
    ("changes", "field", "found", "action"),
    [
        ({"teachers": {}}, "teachers", "none", "Give the outputs of a teacher"),
        ({"teachers": {"": np.ones((10, 3))}}, "teachers", "names more than once or empty: ''", "Give every teacher"),
        ({"teachers": {"a": np.ones((9, 3))}}, "logits of a", "9 rows", "Give the same rows"),
        (
            {"teachers": {"a": np.full((10, 3), np.nan)}},
            "logits of a from row 0",
            "NaN in row 0",
            "Correct or leave out these rows",
        ),
        (
            {"teachers": {"a": np.full((10, 3), np.inf)}},
            "logits of a from row 0",
            "an infinite number",
            "Correct or leave out",
        ),
        (
            {"teachers": {"a": np.full((10, 3), 1 / 3)}},
            "logits of a from row 0",
            "rows that are non-negative and sum",
            "Say what they",
        ),
        (
            {"kinds": {"a": "probabilities"}},
            "logits of a from row 0",
            "row 0 with least element",
            "If these are logits, say so",
        ),
        ({"kinds": {"b": "logits"}}, "kinds", "'b'", "Check the spelling"),
        ({"softening": {"b": 2.0}}, "softening", "'b'", "Check the spelling"),
        ({"softening": {"a": 0.0}}, "softening of a", "0.0", "Pass another value"),
        ({"sources": {"b": "x"}}, "sources", "'b'", "Check the spelling"),
        ({"ids": ["a"] * 10}, "ids", "1 more than once: 'a'", "Remove or rename the repeated example"),
        ({"ids": [""] * 10}, "ids", "10 missing", "Fill it in or leave the example out"),
        ({"ids": ["a"], "teachers": {"a": np.ones((1, 3))}}, "examples", "1", "Give more examples"),
        ({"class_names": ["x", "y"]}, "logits of a from row 0", "3 classes", "Give the same classes"),
        (
            {"class_names": ["x", "x", "y"]},
            "class_names",
            "1 more than once: 'x'",
            "Remove or rename the repeated class",
        ),
        ({"teachers": {"a": np.ones((10, 1))}}, "logits of a from row 0", "1", "Give every class a column"),
        (
            {"teachers": {"a": np.ones(10)}},
            "logits of a from row 0",
            "an array of shape (10,)",
            "Give a row for each example",
        ),
    ],
)
def test_bad_outputs_are_refused(tmp_path, logits, changes, field, found, action):
    arguments = {"teachers": {"a": logits[:, 0]}, "ids": IDS} | changes
    with refused("out", field, found, action):
        teachers.write_teacher_outputs(tmp_path / "out", **arguments)


def test_an_output_directory_with_files_in_it_is_left_alone(directory, logits):
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with refused("outputs", "output directory", "files in it", "Choose another path"):
        teachers.write_teacher_outputs(directory, {"a": logits[:, 0]}, ids=IDS)
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def stored_files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("damage", ["altered", "truncated", "removed"])
def test_any_damage_to_any_file_is_found(directory, number, damage):
    files = stored_files(directory)
    assert len(files) == 7  # the manifest, and metadata and one chunk of the ids and of each teacher
    path = [path for path in files if path.name != "teachers.json"][number]
    content = bytearray(path.read_bytes())
    if damage == "removed":
        path.unlink()
    else:
        content[20] ^= 4
        path.write_bytes(content if damage == "altered" else content[:20])
    outputs = teachers.open_teacher_outputs(directory)
    with pytest.raises(CorruptDataError, match=r"outputs.*found .*expected .*Copy it again"):
        outputs.verify()


def test_an_altered_manifest_is_found(directory):
    content = json.loads((directory / "teachers.json").read_text())
    content["class_names"].reverse()
    (directory / "teachers.json").write_text(json.dumps(content))
    with pytest.raises(CorruptDataError, match=r"teachers\.json: sha256: found .*expected .*Copy it again"):
        teachers.open_teacher_outputs(directory)


def test_logits_replaced_by_others_with_valid_checksums_are_found(tmp_path, directory, logits):
    other = teachers.write_teacher_outputs(tmp_path / "other", {"a": -logits[:, 0]}, ids=IDS)
    chunk = "logits/0/c/0/0"
    (directory / chunk).write_bytes((tmp_path / "other" / chunk).read_bytes())
    outputs = teachers.open_teacher_outputs(directory)
    np.testing.assert_array_equal(outputs.logits(IDS)[:, 0], other.logits(IDS)[:, 0])
    with pytest.raises(CorruptDataError, match="outputs: logits of a: found content with the SHA-256 digest"):
        outputs.verify()


# A file size limit stands for a full disk: the operating system refuses the write in the same place.
FULL_DISK = """
import resource, signal, sys
import numpy as np
from mtbkd_jax.errors import StorageError
from mtbkd_jax.teachers import write_teacher_outputs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    write_teacher_outputs(sys.argv[1], {"a": -np.ones((9999, 3))}, ids=np.arange(9999))
except StorageError as error:
    print(error.errno, error)
"""


def test_a_full_disk_leaves_a_directory_that_is_known_to_be_unfinished(tmp_path):
    path = str(tmp_path / "out")
    output = subprocess.run([sys.executable, "-c", FULL_DISK, path], check=True, capture_output=True, text=True).stdout
    assert output.startswith(f"{errno.EFBIG} ")
    assert "Free some space or choose another disk, then go on with --resume or begin a new directory" in output
    assert path in output
    with pytest.raises(InputError, match="expected a finished directory"):
        teachers.open_teacher_outputs(path)


def test_rows_of_later_parts_are_counted_from_where_the_part_starts(tmp_path, logits):
    writer = teachers.TeacherOutputsWriter(tmp_path / "out", ["a"], ids=IDS)
    writer.append("a", IDS[:7], logits[:7, 0])
    with refused("out", "logits of a from row 7", "NaN in row 1", "Correct or leave out these rows"):
        writer.append("a", IDS[7:], np.array([[1, 2, 3], [1, 2, np.nan], [1, 2, 3]]))


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path, logits):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Check the path and your permissions"):
        teachers.write_teacher_outputs(tmp_path / "file" / "out", {"a": logits[:, 0]}, ids=IDS)


# Files


def test_an_npz_file_is_read_with_all_it_says(save, logits):
    teacher = read_teacher_file(
        save(logits=logits[:, 0], ids=IDS, class_names=np.array(CLASS_NAMES), softening=np.array(3.0))
    )
    assert teacher.names == ("a",)
    assert teacher.softening == (3.0,)
    assert teacher.class_names == CLASS_NAMES
    np.testing.assert_array_equal(teacher.logits(IDS[[4, 2]]), logits[[4, 2], :1])


def test_probabilities_are_stored_as_their_logarithms_zero_included(save):
    probs = np.array([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    for spec, kind in ((save(probs=probs), None), (save("b", logits=probs), "probabilities")):
        values = read_teacher_file(spec, kind=kind).values
        assert np.isfinite(values).all()
        np.testing.assert_allclose(np.exp(values), probs, rtol=1e-6, atol=1e-37)


def test_a_csv_file_is_read_whatever_the_place_of_its_columns(save_csv):
    text = '\ufeffmembrane,id,"cyto, plasm"\n1.5,"x, 1",-2\n\n-3e-1,ü,4\n'
    teacher = read_teacher_file(save_csv(text))
    assert teacher.class_names == ("membrane", "cyto, plasm")
    assert teacher.softening == (1.0,)
    np.testing.assert_array_equal(teacher.logits(np.array(["ü", "x, 1"]))[:, 0], np.float32([[-0.3, 4], [1.5, -2]]))


def test_class_indices_over_a_csv_file_put_its_columns_in_order(save_csv):
    teacher = read_teacher_file(save_csv("2,0,1\n12,10,11\n-2,-0,-1\n"))
    assert teacher.class_names is None
    assert teacher.ids is None
    np.testing.assert_array_equal(teacher.values, [[10, 11, 12], [0, -1, -2]])


LOGITS = np.arange(6.0).reshape(2, 3)
PROBS = np.full((2, 3), 1 / 3)


@pytest.mark.parametrize(
    ("fields", "field", "found", "action"),
    [
        ({"logits": PROBS}, "logits", "rows that are non-negative and sum to one", "Say what they are"),
        ({"probs": LOGITS}, "probs", "row 0 with least element 0 and sum 3, and 2 such rows", "If these are logits"),
        ({"logits": LOGITS * np.nan}, "logits", "NaN in row 0, and 2 of 2 rows", "Correct or leave out these rows"),
        ({"logits": LOGITS + np.inf}, "logits", "an infinite number", "Correct or leave out these rows"),
        ({"logits": LOGITS, "probs": PROBS}, "logits or probs", "both", "Save the outputs of one teacher"),
        ({"scores": LOGITS}, "logits or probs", "neither", "Save the outputs of one teacher"),
        ({"logits": LOGITS, "ids": np.array(["a"])}, "logits", "2 rows", "Give the same"),
        ({"logits": LOGITS, "ids": np.array(["a", "a"])}, "ids", "1 more than once: 'a'", "Remove or rename"),
        ({"logits": LOGITS, "ids": np.array(["a", None])}, "ids", "Python objects", "Save it again with a type"),
        ({"logits": LOGITS.astype(object)}, "logits", "Python objects", "Save it again with a type of its own"),
        ({"logits": LOGITS, "class_names": np.array(["a", "b"])}, "class_names", "2 classes", "Give the same classes"),
        ({"logits": LOGITS, "softening": np.array(-1.0)}, "softening", "-1.0", "Pass another value"),
        ({"logits": LOGITS, "softening": np.ones(2)}, "softening", "2 numbers", "Give a single number"),
        ({"logits": LOGITS[:, :1]}, "logits", "1", "Give every class a column"),
        ({"logits": LOGITS[:1]}, "examples", "1", "Give more examples"),
        ({"logits": LOGITS[:0]}, "examples", "0", "Give more examples"),
    ],
)
def test_bad_npz_files_are_refused(save, fields, field, found, action):
    with refused("a.npz", field, found, action):
        read_teacher_file(save(**fields))


@pytest.mark.parametrize(
    ("text", "field", "found", "action"),
    [
        ("", "header", "nothing", "Name the column `id`"),
        (",x,y\n0,1,2\n", "header", "a column without a name", "Name the column `id` if it holds ids, or leave it out"),
        ("1.5,-2.25\n3,4\n", "header", "numbers: '1.5', '-2.25'", "Put a header above the first example"),
        ("id,ids,x,y\na,a,1,2\n", "header", "several columns of ids", "Leave one"),
        ("id,x\na,1\n", "classes", "1", "Give every class a column"),
        ("x,x\n1,2\n", "header", "1 more than once: 'x'", "Remove or rename the repeated class"),
        ("id,x,y\n", "examples", "0", "Give more examples"),
        ("id,x,y\na,1,2\nb,3\n", "line 3", "2 cells", "Complete the line"),
        ("id,x,y\na,1,2\nb,3,4,5\n", "line 3", "4 cells", "Complete the line"),
        ("id,x,y\na,1,2\nb,3,?\n", "line 3", "could not convert string to float: '?'", "Correct the cell"),
        ("id,x,y\na,1,2\nb,3,\n", "line 3", "could not convert string to float: ''", "Correct the cell"),
        ("id,x,y\na,1,2\nb,nan,1\n", "cells", "NaN in row 1", "Correct or leave out these rows"),
        ("id,x,y\na,1,2\nb,1e60,1\n", "cells", "an infinite number (in float32) in row 1", "Correct or leave out"),
        ("id,x,y\na,1,2\na,3,4\n", "id", "1 more than once: 'a'", "Remove or rename the repeated example"),
        ("id,x,y\na,1,2\n,3,4\n", "id", "1 missing, the first in row 1", "Fill it in or leave the example out"),
        ("id,x,y\na,0.1,0.9\nb,0.5,0.5\n", "cells", "rows that are non-negative and sum to one", "Say what they are"),
    ],
)
def test_bad_csv_files_are_refused(save_csv, text, field, found, action):
    with refused("a.csv", field, found, action):
        read_teacher_file(save_csv(text))


def test_a_csv_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("id,x,y\nü,1,2\n".encode("latin-1"))
    with refused("a.csv", "content", "something else (", "Save it again as CSV in UTF-8"):
        read_teacher_file(f"a={tmp_path}/a.csv")


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("a.csv", "no name or no file"),
        ("=a.csv", "no name or no file"),
        ("a=", "no name or no file"),
        ("a=b.txt", "the ending '.txt'"),
        ("a=missing.csv", "no such file"),
        ("a=missing.npz", "no such file"),
        ("missing", "no name or no file"),
    ],
)
def test_what_is_not_the_name_of_a_teacher_file_is_refused(spec, found):
    with pytest.raises(InputError, match=f"found {found}, expected"):
        teachers.open_teachers([spec])


def test_a_truncated_teacher_file_is_refused(tmp_path, save, logits):
    spec = save(logits=logits[:, 0], ids=IDS)
    path = tmp_path / "a.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        CorruptDataError, match=r"a\.npz: archive: found damage .*, expected a whole NPZ.*Copy it again"
    ):
        read_teacher_file(spec)


def test_what_somebody_vouches_for_is_taken_as_logits():
    np.testing.assert_array_equal(as_logits(PROBS, "logits", "FILE"), PROBS.astype(np.float32))
    with pytest.raises(InputError, match="FILE: kind: found 'probs', expected 'logits' or 'probabilities'"):
        as_logits.__wrapped__(PROBS, "probs", "FILE")


# Alignment


def test_teachers_from_files_and_directories_are_aligned_by_id_and_class_name(directory, logits, save, save_csv):
    reverse = slice(None, None, -1)
    lines = [",".join([i, *map(str, row)]) for i, row in zip(IDS, logits[:, 0].tolist(), strict=True)]
    specs = [
        save("npz", logits=logits[reverse, 1], ids=IDS[reverse], softening=np.array(4.0)),
        str(directory),
        save_csv("\n".join(["id,cytoplasm,nucleus,membrane", *lines]), "csv"),
    ]
    wanted = np.array([3, 9, 0])
    aligned = teachers.align_teachers(teachers.open_teachers(specs), ids=IDS[wanted], class_names=CLASS_NAMES)
    assert aligned.names == ("npz", "a", "b/../c", "csv")
    assert aligned.class_names == CLASS_NAMES
    assert aligned.softening.tolist() == [4.0, 2.0, 1.0, 1.0]
    in_csv = logits[:, 0][:, [1, 2, 0]]  # nucleus, membrane and cytoplasm in a file that starts with cytoplasm
    expected = np.stack([logits[:, 1], logits[:, 0], logits[:, 1], in_csv], axis=1)
    np.testing.assert_array_equal(aligned.logits, expected[wanted])


@pytest.mark.parametrize("by_rows", [False, True])
def test_where_a_teacher_was_not_asked_it_is_refused_or_masked(directory, logits, save, by_rows):
    asked = np.array([8, 3, 0])
    files = teachers.open_teachers([str(directory), save("few", logits=logits[asked, 1], ids=IDS[asked])])
    with refused("few.npz", "ids", "no outputs for 7 of 10 examples", "Add them, or leave"):
        teachers.align_teachers(files, ids=IDS, by_rows=by_rows)
    aligned = teachers.align_teachers(files, ids=IDS, by_rows=by_rows, missing="mask")
    found = np.asarray(aligned.logits[:])
    np.testing.assert_array_equal(found[:, :2], logits)
    np.testing.assert_array_equal(found[asked, 2], logits[asked, 1])
    assert np.isnan(np.delete(found[:, 2], asked, axis=0)).all()
    np.testing.assert_array_equal(aligned.logits[np.array([1, 3])], found[[1, 3]])
    np.testing.assert_array_equal(aligned.logits[np.array([1, 2])], found[[1, 2]])  # of these it knows none


def test_a_directory_may_lack_examples_too_but_not_all_of_them(directory, save, logits):
    ids = np.concatenate([IDS[:4], ["of another study"]])
    aligned = teachers.align_teachers(teachers.open_teachers([str(directory)]), ids=ids, missing="mask")
    np.testing.assert_array_equal(aligned.logits[:4], logits[:4])
    assert np.isnan(aligned.logits[4]).all()
    stranger = save("stranger", logits=logits[:, 0], ids=np.arange(10))
    with refused("stranger.npz", "ids", "no outputs for 10 of 10 examples", "Leave this teacher out, or spell"):
        teachers.align_teachers(teachers.open_teachers([str(directory), stranger]), ids=IDS, missing="mask")


# Teachers that gave their most probable classes alone


def top_log_probs(logits):
    """Log probabilities without those of the least probable class, which are NaN."""
    log_probs = np.array(jax.nn.log_softmax(logits))
    np.put_along_axis(log_probs, log_probs.argmin(axis=-1, keepdims=True), np.nan, axis=-1)
    return log_probs


def test_a_directory_keeps_what_was_not_said(tmp_path, logits):
    top = top_log_probs(logits[:, 0])
    given = {"closed": top, "open": logits[:, 1]}
    outputs = teachers.write_teacher_outputs(tmp_path / "out", given, ids=IDS, sparse=("closed",))
    outputs.verify()
    assert outputs.is_sparse == (True, False)
    np.testing.assert_array_equal(outputs.logits(IDS), np.stack([top, logits[:, 1]], axis=1))
    assert json.loads((tmp_path / "out" / "teachers.json").read_text())["version"] == 2
    options = {"ids": IDS, "sparse": ("closed",), "resume": True}
    assert teachers.TeacherOutputsWriter(tmp_path / "out", ["closed", "open"], **options).close().is_sparse[0]
    with refused("teachers.json", "teachers", "[", "Go on with the options"):
        teachers.TeacherOutputsWriter(tmp_path / "out", ["closed", "open"], ids=IDS, resume=True)


def test_a_directory_of_teachers_that_gave_everything_is_of_the_first_version(directory):
    assert json.loads((directory / "teachers.json").read_text())["version"] == 1
    assert teachers.open_teacher_outputs(directory).is_sparse == (False, False)


@pytest.mark.parametrize(
    ("row", "found", "action"),
    [
        ([np.nan] * 3, "NaN for all classes in row 2", "Leave out the examples"),
        ([0.5, -1.0, np.nan], "row 2 with largest element 0.5", "Give log probabilities"),
        ([-0.1, -0.1, np.nan], "row 2 with largest element -0.1, whose exponentials sum to 1.81", "Give log prob"),
        ([-np.inf, -0.1, np.nan], "row 2 with largest element -0.1", "Give log probabilities"),
    ],
)
def test_what_is_no_log_probability_is_refused(tmp_path, logits, row, found, action):
    top = top_log_probs(logits[:, 0])
    top[2] = row
    with refused("out", "logits of closed from row 0", found, action):
        teachers.write_teacher_outputs(tmp_path / "out", {"closed": top}, ids=IDS, sparse=("closed",))


def test_what_files_hold_can_be_written_to_a_directory(tmp_path, logits, save):
    files = teachers.open_teachers(
        [save("a", logits=logits[:, 0], ids=IDS), save("b", logits=logits[::-1, 1], ids=IDS[::-1])]
    )
    aligned = teachers.align_teachers(files, ids=IDS)
    arrays = {name: aligned.logits[:, column] for column, name in enumerate(aligned.names)}
    outputs = teachers.write_teacher_outputs(tmp_path / "out", arrays, ids=IDS)
    np.testing.assert_array_equal(outputs.logits(IDS), logits)


def test_class_names_come_from_the_first_teacher_that_has_some(logits, save):
    files = [
        save("a", logits=logits[:, 0], ids=IDS),
        save("b", logits=logits[:, 1], ids=IDS, class_names=np.array(CLASS_NAMES)),
    ]
    assert teachers.align_teachers(teachers.open_teachers(files), ids=IDS).class_names == CLASS_NAMES
    assert teachers.align_teachers(teachers.open_teachers(files[:1]), ids=IDS).class_names is None


@pytest.mark.parametrize(
    ("fields", "field", "found", "action"),
    [
        ({"logits": -np.ones((10, 4))}, "classes", "4 classes", "Give the same classes"),
        (
            {"class_names": np.array(["nucleus", "plastid", "cytoplasm"])},
            "class_names",
            "names that only it has: 'plastid'",
            "Call the classes by the same names everywhere",
        ),
        ({"ids": np.arange(10)}, "ids", "no outputs for 10 of 10 examples: 'protein 0 ü'", "Add them, or leave"),
    ],
)
def test_teachers_that_disagree_are_refused(directory, save, fields, field, found, action):
    spec = save("other", **({"logits": -np.ones((10, 3)), "ids": IDS} | fields))
    with refused("other.npz", field, found, action):
        teachers.align_teachers(teachers.open_teachers([str(directory), spec]), ids=IDS)


def test_rows_without_ids_match_only_data_without_ids(save):
    file = read_teacher_file(save(logits=LOGITS))
    assert teachers.align_teachers([file], ids=np.array(["0", "1"])).logits.shape == (2, 1, 3)
    with refused(
        "a.npz", "ids", "no ids, and 2 rows for 2 examples that have ids: 'x', 'y'", "Add a field `ids` (NPZ)"
    ):
        teachers.align_teachers([file], ids=np.array(["x", "y"]))
    with refused("a.npz", "ids", "no ids, and 2 rows for 1 examples", "Add a field `ids` (NPZ)"):
        teachers.align_teachers([file], ids=np.array(["0"]))


def test_zero_teachers_and_repeated_names_are_refused(save):
    with refused("teachers", "teachers", "none", "Give the outputs of a teacher"):
        teachers.align_teachers([], ids=IDS)
    file = read_teacher_file(save(logits=LOGITS))
    with refused("teachers", "teachers", "names more than once or empty: 'a'", "Give every teacher a name of its own"):
        teachers.align_teachers([file, file], ids=np.array(["0", "1"]))


# Softening


def test_the_temperature_is_relative_to_the_teachers_own_logits(logits):
    plain = jax.nn.softmax(logits / 3.0)
    softened_before = logits / np.array([1.0, 5.0], np.float32)[:, None]
    probs = teachers.softened_probs(jnp.asarray(softened_before), 3.0, jnp.array([1.0, 5.0]))
    traced = jax.jit(teachers.softened_probs)(softened_before, jnp.array(3.0), jnp.array([1.0, 5.0]))
    # Rounding of logits of magnitude 3 in float32: a few units of 2^-23.
    np.testing.assert_allclose(probs, plain, rtol=3e-6)
    np.testing.assert_allclose(traced, plain, rtol=3e-6)
    with pytest.raises(InputError, match="temperature: value: found 0"):
        teachers.softened_probs(logits, 0.0, np.ones(2, np.float32))
