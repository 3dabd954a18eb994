"""Tests of mtbkd_jax.teacher_writer: in parts or at once it is the same, and nothing wrong is written."""

import errno
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from mtbkd_jax import storage
from mtbkd_jax.errors import CorruptDataError, InputError, StorageError
from mtbkd_jax.teacher_writer import TeacherOutputsWriter, write_teacher_outputs
from mtbkd_jax.teachers import open_teacher_outputs
from tests.small_teachers import CLASS_NAMES, IDS, refused


def test_written_in_parts_is_the_same_as_written_at_once(tmp_path, directory, logits):
    with TeacherOutputsWriter(
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
    open_teacher_outputs(tmp_path / "parts").verify()


def test_functions_are_called_with_parts_of_the_inputs(tmp_path):
    inputs = np.random.default_rng(1).normal(size=(10_000, 2))
    sizes = []

    def teacher(batch):
        sizes.append(len(batch))
        return np.concatenate([batch, batch.sum(axis=1, keepdims=True)], axis=1)

    ids = np.arange(10_000).astype(str)
    outputs = write_teacher_outputs(tmp_path / "out", {"sum": teacher}, ids=ids, inputs=inputs)
    assert max(sizes) < 5_000
    np.testing.assert_array_equal(outputs.logits(ids)[:, 0], teacher(inputs).astype(np.float32))
    with refused("out2", "inputs", "none", "Give `inputs`"):
        write_teacher_outputs(tmp_path / "out2", {"sum": teacher}, ids=ids)
    with refused("out2", "inputs", "9 rows", "Give the same rows"):
        write_teacher_outputs(tmp_path / "out2", {"sum": teacher}, ids=ids, inputs=inputs[:9])


def test_closing_before_all_rows_are_there_is_refused(tmp_path, logits):
    writer = TeacherOutputsWriter(tmp_path / "out", ["a", "b"], ids=IDS)
    writer.append("a", IDS, logits[:, 0])
    writer.append("b", IDS[:4], logits[:4, 1])
    with refused("out", "logits of b", "4 rows", "Append the missing rows"):
        writer.close()


def test_a_writer_that_stops_early_lets_another_go_on(tmp_path, logits):
    def begin(num_rows, resume=False):
        with TeacherOutputsWriter(tmp_path / "out", ["a"], ids=IDS, resume=resume) as writer:
            start = writer.num_appended("a")
            writer.append("a", IDS[start:num_rows], logits[start:num_rows, 0])
            writer.flush()

    with refused("out", "logits of a", "4 rows", "Append the missing rows"):
        begin(4)
    begin(10, resume=True)
    np.testing.assert_array_equal(open_teacher_outputs(tmp_path / "out").logits(IDS)[:, 0], logits[:, 0])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ids", "logits", "teachers.json"}


def test_teachers_that_disagree_are_refused_by_the_writer(tmp_path, logits):
    writer = TeacherOutputsWriter(tmp_path / "out", ["a", "b"], ids=IDS)
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
        write_teacher_outputs(tmp_path / "out", **arguments)


def test_an_output_directory_with_files_in_it_is_left_alone(directory, logits):
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with refused("outputs", "output directory", "files in it", "Choose another path"):
        write_teacher_outputs(directory, {"a": logits[:, 0]}, ids=IDS)
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# A file size limit stands for a full disk: the operating system refuses the write in the same place.
FULL_DISK = """
import resource, signal, sys
import numpy as np
from mtbkd_jax.errors import StorageError
from mtbkd_jax.teacher_writer import write_teacher_outputs
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
        open_teacher_outputs(path)


def test_rows_of_later_parts_are_counted_from_where_the_part_starts(tmp_path, logits):
    writer = TeacherOutputsWriter(tmp_path / "out", ["a"], ids=IDS)
    writer.append("a", IDS[:7], logits[:7, 0])
    with refused("out", "logits of a from row 7", "NaN in row 1", "Correct or leave out these rows"):
        writer.append("a", IDS[7:], np.array([[1, 2, 3], [1, 2, np.nan], [1, 2, 3]]))


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path, logits):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Check the path and your permissions"):
        write_teacher_outputs(tmp_path / "file" / "out", {"a": logits[:, 0]}, ids=IDS)


# Teachers that gave their most probable classes alone


def top_log_probs(logits):
    """Log probabilities without those of the least probable class, which are NaN."""
    log_probs = np.array(jax.nn.log_softmax(logits))
    np.put_along_axis(log_probs, log_probs.argmin(axis=-1, keepdims=True), np.nan, axis=-1)
    return log_probs


def test_a_directory_keeps_what_was_not_said(tmp_path, logits):
    top = top_log_probs(logits[:, 0])
    given = {"closed": top, "open": logits[:, 1]}
    outputs = write_teacher_outputs(tmp_path / "out", given, ids=IDS, sparse=("closed",))
    outputs.verify()
    assert outputs.is_sparse == (True, False)
    np.testing.assert_array_equal(outputs.logits(IDS), np.stack([top, logits[:, 1]], axis=1))
    assert json.loads((tmp_path / "out" / "teachers.json").read_text())["version"] == 2
    options = {"ids": IDS, "sparse": ("closed",), "resume": True}
    assert TeacherOutputsWriter(tmp_path / "out", ["closed", "open"], **options).close().is_sparse[0]
    with refused("teachers.json", "teachers", "[", "Go on with the options"):
        TeacherOutputsWriter(tmp_path / "out", ["closed", "open"], ids=IDS, resume=True)


def test_a_directory_of_teachers_that_gave_everything_is_of_the_first_version(directory):
    assert json.loads((directory / "teachers.json").read_text())["version"] == 1
    assert open_teacher_outputs(directory).is_sparse == (False, False)


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
        write_teacher_outputs(tmp_path / "out", {"closed": top}, ids=IDS, sparse=("closed",))


@pytest.mark.parametrize(
    ("field", "value"),
    [("stored", None), ("stored", []), ("stored", [3]), ("stored", [{"num_rows": "4", "sha256": ""}]), ("plan", [])],
)
def test_a_record_that_was_altered_with_its_digest_is_refused(tmp_path, logits, field, value):
    writer = TeacherOutputsWriter(tmp_path / "out", ["a"], ids=IDS)
    writer.append("a", IDS[:4], logits[:4, 0])
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    file = tmp_path / "out" / "unfinished.json"
    record = {key: of for key, of in storage.read_json(file).items() if key not in {"format", "version", "sha256"}}
    record[field] = value
    file.unlink()
    storage.write_manifest(file, record, format_name="mtbkd unfinished teacher outputs", version=1)
    with pytest.raises(CorruptDataError, match=field):
        TeacherOutputsWriter(tmp_path / "out", ["a"], ids=IDS, resume=True)


def test_a_finished_manifest_that_was_altered_with_its_digest_is_refused(directory):
    file = directory / "teachers.json"
    manifest = {key: of for key, of in storage.read_json(file).items() if key not in {"format", "version", "sha256"}}
    del manifest["teachers"]
    file.unlink()
    storage.write_manifest(file, manifest, format_name="mtbkd teacher outputs", version=1)
    with pytest.raises(CorruptDataError, match="teachers"):
        TeacherOutputsWriter(directory, ["a"], ids=IDS, resume=True)
