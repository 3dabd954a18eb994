"""Tests of mtbkd_jax.adapters.teaching: nothing is lost, nothing is mixed up, and nothing wrong gets in."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.teacher_outputs import measure
from mtbkd_jax.adapters import from_callable, make_questions, read_questions, teach
from mtbkd_jax.errors import CorruptDataError, InputError, TeacherError
from mtbkd_jax.storage import locked

INPUTS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
IDS = np.array([f"id {row}" for row in range(50)])
QUESTIONS = make_questions(INPUTS, ids=IDS)
IDENTITY = from_callable(lambda inputs: inputs, source="identity")


def failing_from(row):
    """The identity, that fails when it is asked about a row or a later one."""

    def predict(inputs):
        if (inputs[:, None] == INPUTS[row:]).all(axis=2).any():
            raise ValueError("no memory left\nand much more text")
        return inputs

    return IDENTITY._replace(predict=predict)


def begin(path, row=20, **options):
    with pytest.raises(TeacherError):
        teach(path, {"a": failing_from(row)}, QUESTIONS, batch_size=10, **options)


def resume(path, teachers=None, questions=QUESTIONS):
    return teach(path, teachers or {"a": IDENTITY}, questions, batch_size=10, resume=True)


def test_a_teacher_that_fails_is_named_with_the_rows_and_what_was_done_is_kept(tmp_path):
    with pytest.raises(TeacherError) as caught:
        teach(tmp_path / "out", {"a": failing_from(25)}, QUESTIONS, batch_size=10)
    assert str(caught.value) == (
        "a: failed on rows 20 to 29, which have shape (10, 3) (ValueError: no memory left). "
        "Correct the teacher or the inputs, and resume: no row that was done is lost."
    )
    asked = []
    recording = IDENTITY._replace(predict=lambda inputs: asked.extend(inputs) or inputs)
    outputs = resume(tmp_path / "out", {"a": recording})
    np.testing.assert_array_equal(asked, INPUTS[20:])
    np.testing.assert_array_equal(outputs.logits(IDS)[:, 0], INPUTS)
    assert not (tmp_path / "out" / "unfinished.json").exists()


def test_several_teachers_are_resumed_at_the_one_that_was_interrupted(tmp_path):
    with pytest.raises(TeacherError):
        teach(tmp_path / "out", {"a": IDENTITY, "b": failing_from(7)}, QUESTIONS, batch_size=5)
    never = IDENTITY._replace(predict=lambda inputs: 1 / 0)
    outputs = resume(tmp_path / "out", {"a": never, "b": IDENTITY})
    np.testing.assert_array_equal(outputs.logits(IDS), np.stack([INPUTS, INPUTS], axis=1))


def test_a_finished_directory_is_left_as_it_is(tmp_path):
    teach(tmp_path / "out", {"a": IDENTITY}, QUESTIONS)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    never = IDENTITY._replace(predict=lambda inputs: 1 / 0)
    assert resume(tmp_path / "out", {"a": never}).names == ("a",)
    with pytest.raises(InputError, match="output directory: found files in it"):
        teach(tmp_path / "out", {"a": IDENTITY}, QUESTIONS)
    with pytest.raises(InputError, match=r"conditions\.SHA-256 of the inputs"):
        resume(tmp_path / "out", questions=make_questions(INPUTS + 1, ids=IDS))
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("teachers", "questions", "field"),
    [
        ({"a": IDENTITY}, make_questions(INPUTS + 1, ids=IDS), r"conditions\.SHA-256 of the inputs"),
        ({"a": IDENTITY}, make_questions(INPUTS.astype(np.float64), ids=IDS), r"conditions\.SHA-256 of the inputs"),
        ({"a": IDENTITY}, make_questions(INPUTS, ids=IDS[::-1]), "ids_sha256"),
        ({"a": IDENTITY}, make_questions(INPUTS, ids=IDS, class_names=["x", "y", "z"]), "class_names"),
        ({"b": IDENTITY}, QUESTIONS, r"conditions\.kinds of outputs"),
        ({"a": IDENTITY._replace(source="another")}, QUESTIONS, "teachers"),
        ({"a": IDENTITY._replace(kind="logits")}, QUESTIONS, r"conditions\.kinds of outputs"),
        ({"a": IDENTITY, "b": IDENTITY}, QUESTIONS, r"conditions\.kinds of outputs"),
    ],
)
def test_what_was_begun_otherwise_is_not_gone_on_with(tmp_path, teachers, questions, field):
    begin(tmp_path / "out")
    with pytest.raises(InputError, match=rf"unfinished\.json: {field}.* as is asked for now"):
        resume(tmp_path / "out", teachers, questions)
    resume(tmp_path / "out")


def test_what_was_begun_is_not_written_over(tmp_path):
    begin(tmp_path / "out")
    with pytest.raises(InputError, match=r"teacher outputs that were begun.*Resume them"):
        teach(tmp_path / "out", {"a": IDENTITY}, QUESTIONS)
    resume(tmp_path / "out")


def test_a_foreign_directory_is_not_gone_on_with(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="files in it"):
        resume(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_resuming_where_nothing_is_begins(tmp_path):
    assert resume(tmp_path / "out").num_examples == 50


def test_outputs_that_are_refused_at_once_leave_the_path_free(tmp_path):
    with pytest.raises(InputError, match="rows that are non-negative and sum to one"):
        teach(tmp_path / "out", {"a": from_callable(lambda inputs: np.full((len(inputs), 2), 0.5))}, QUESTIONS)
    teach(tmp_path / "out", {"a": IDENTITY}, QUESTIONS)


@pytest.mark.parametrize("damage", ["altered", "truncated", "removed"])
@pytest.mark.parametrize("file", ["unfinished.json", "logits/0/c/0/0", "logits/0/zarr.json"])
def test_damage_to_what_was_begun_is_found(tmp_path, damage, file):
    begin(tmp_path / "out")
    path = tmp_path / "out" / file
    content = bytearray(path.read_bytes())
    if damage == "removed":
        path.unlink()
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content if damage == "altered" else content[: len(content) // 2])
    with pytest.raises(InputError) as caught:
        resume(tmp_path / "out")
    # Without its record a directory is one that somebody else has filled.
    assert isinstance(caught.value, CorruptDataError) == (damage != "removed" or file != "unfinished.json")


def test_rows_that_were_replaced_with_valid_checksums_are_found(tmp_path):
    begin(tmp_path / "out")
    others = {"a": IDENTITY._replace(predict=lambda inputs: -failing_from(20).predict(inputs))}
    with pytest.raises(TeacherError):
        teach(tmp_path / "other", others, QUESTIONS, batch_size=10)
    chunk = "logits/0/c/0/0"
    (tmp_path / "out" / chunk).write_bytes((tmp_path / "other" / chunk).read_bytes())
    with pytest.raises(CorruptDataError, match="logits of a: found content with the SHA-256 digest"):
        resume(tmp_path / "out")


def test_a_second_process_is_kept_out(tmp_path):
    begin(tmp_path / "out")
    with locked(tmp_path / "out"), pytest.raises(InputError, match="held by another process"):
        resume(tmp_path / "out")
    resume(tmp_path / "out")


SLOW = """
import sys, time
import numpy as np
from mtbkd_jax.adapters import from_callable, make_questions, teach
inputs = np.arange(9000.0).reshape(-1, 2)
def predict(rows):
    if rows[0, 0] >= 8900:
        print("far", flush=True)
        time.sleep(60)
    return rows
slow = from_callable(predict, source="x")
teach(sys.argv[1], {"a": slow}, make_questions(inputs), batch_size=7, seconds_between=float(sys.argv[2]))
"""


@pytest.mark.parametrize(("seconds_between", "num_kept"), [(0.0, 4452), (1e9, 4102)])
def test_a_kill_costs_what_is_in_memory_only(tmp_path, seconds_between, num_kept):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SLOW, str(tmp_path / "out"), str(seconds_between)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"far\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    (num_rows,) = (of["num_rows"] for of in json.loads((tmp_path / "out" / "unfinished.json").read_text())["stored"])
    assert num_rows == num_kept
    inputs = np.arange(9000.0).reshape(-1, 2)
    same = from_callable(lambda rows: rows, source="x")
    outputs = teach(tmp_path / "out", {"a": same}, make_questions(inputs), resume=True)
    outputs.verify()
    np.testing.assert_array_equal(outputs.logits(outputs.ids)[:, 0], inputs)


# A file size limit stands for a full disk: the operating system refuses the write in the same place.
FULL_DISK = """
import resource, signal, sys
import numpy as np
from mtbkd_jax.adapters import from_callable, make_questions, teach
from mtbkd_jax.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
same = from_callable(lambda rows: rows, source="x")
try:
    teach(sys.argv[1], {"a": same}, make_questions(np.arange(18000.0).reshape(-1, 2)), batch_size=100)
except StorageError:
    print("full")
"""


@pytest.mark.parametrize("most_bytes", [1_000, 20_000])  # before the first rows, and among them
def test_a_full_disk_costs_nothing_that_was_on_it(tmp_path, most_bytes):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "out"), str(most_bytes)]
    assert subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout == "full\n"
    inputs = np.arange(18000.0).reshape(-1, 2)
    same = from_callable(lambda rows: rows, source="x")
    outputs = teach(tmp_path / "out", {"a": same}, make_questions(inputs), resume=True)
    outputs.verify()
    np.testing.assert_array_equal(outputs.logits(outputs.ids)[:, 0], inputs)


def test_classes_are_put_in_the_order_of_the_data(tmp_path):
    questions = make_questions(INPUTS, ids=IDS, class_names=["x", "y", "z"])
    teachers = {
        "a": from_callable(lambda inputs: inputs[:, [2, 0, 1]], class_names=["z", "x", "y"]),
        "b": from_callable(lambda inputs: inputs),
    }
    outputs = teach(tmp_path / "out", teachers, questions)
    assert outputs.class_names == ("x", "y", "z")
    np.testing.assert_array_equal(outputs.logits(IDS), np.stack([INPUTS, INPUTS], axis=1))
    del teachers["b"]
    assert teach(tmp_path / "own", teachers, QUESTIONS).class_names == ("z", "x", "y")
    with pytest.raises(InputError, match="a: class_names: found 'x', 'y', 'z', expected 'x', 'y'"):
        teach(tmp_path / "no", teachers, make_questions(INPUTS, class_names=["x", "y"]))
    teachers["a"] = teachers["a"]._replace(predict=lambda inputs: inputs[:, :2])
    with pytest.raises(InputError, match="2 classes"):
        teach(tmp_path / "no", teachers, questions)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda inputs: inputs[1:], "50 ids for 49 rows"),
        (lambda inputs: inputs[0], r"an array of shape \(3,\)"),
        (lambda inputs: np.where(inputs == INPUTS[30], np.nan, inputs), "NaN in row 30"),
        (lambda inputs: np.where(inputs == INPUTS[3], np.inf, inputs), "an infinite number"),
        (lambda inputs: [["a", "b"]] * len(inputs), "elements of type"),
        (lambda inputs: None, "elements of type object"),
    ],
)
def test_hostile_outputs_are_refused(tmp_path, predict, message):
    with pytest.raises(InputError, match=message):
        teach(tmp_path / "out", {"a": from_callable(predict)}, QUESTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": np.full((3, 2), np.nan)}, "NaN in row 0"),
        ({"inputs": np.array(["a", "", "c"])}, "no text in 1 of 3 rows: 1"),
        ({"inputs": np.array([["a", "b"], ["c", "d"]])}, r"text of shape \(2, 2\)"),
        ({"inputs": np.ones((1, 2))}, "two examples or more"),
        ({"inputs": np.array([None, 1])}, "elements of type object"),
        ({"inputs": np.ones((3, 2)), "ids": ["a", "b"]}, "found 2 rows"),
        ({"inputs": np.ones((3, 2)), "ids": ["a", "b", "a"]}, "1 more than once"),
    ],
)
def test_questions_that_are_not_what_they_must_be_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_questions(**arguments)


def test_questions_keep_their_type_in_a_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", inputs=images, ids=np.arange(4), labels=np.zeros(4))
    questions = read_questions(tmp_path / "images.npz")
    assert questions.inputs.dtype == np.uint8
    assert questions.ids.tolist() == ["0", "1", "2", "3"]
    np.savez(tmp_path / "objects.npz", inputs=np.array([{}, {}]))
    with pytest.raises(InputError, match="Python objects"):
        read_questions(tmp_path / "objects.npz")


def test_progress_counts_what_was_done_before(tmp_path):
    begin(tmp_path / "out")
    seen = []
    teach(
        tmp_path / "out",
        {"a": IDENTITY},
        QUESTIONS,
        batch_size=20,
        resume=True,
        progress=lambda teacher, num_done: seen.append((teacher, num_done)),
    )
    assert seen == [("a", 20), ("a", 40), ("a", 50)]


def test_a_large_directory_takes_little_time_and_memory(tmp_path):
    of = measure(tmp_path / "out", 64)
    # Of the processor, since others may use it; all of it is imports, writing, verifying and opening.
    assert of["cpu_seconds"] < 10
    assert of["peak_megabytes"] < 300
