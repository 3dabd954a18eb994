"""Tests of mtbkd_jax.aligned_teachers: outputs from several places, by id and by the names of classes."""

import numpy as np
import pytest

from mtbkd_jax.aligned_teachers import align_teachers, open_teachers
from mtbkd_jax.errors import InputError
from mtbkd_jax.teacher_files import read_teacher_file
from mtbkd_jax.teacher_writer import write_teacher_outputs
from tests.small_teachers import CLASS_NAMES, IDS, LOGITS, refused


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
        open_teachers([spec])


def test_teachers_from_files_and_directories_are_aligned_by_id_and_class_name(directory, logits, save, save_csv):
    reverse = slice(None, None, -1)
    lines = [",".join([i, *map(str, row)]) for i, row in zip(IDS, logits[:, 0].tolist(), strict=True)]
    specs = [
        save("npz", logits=logits[reverse, 1], ids=IDS[reverse], softening=np.array(4.0)),
        str(directory),
        save_csv("\n".join(["id,cytoplasm,nucleus,membrane", *lines]), "csv"),
    ]
    wanted = np.array([3, 9, 0])
    aligned = align_teachers(open_teachers(specs), ids=IDS[wanted], class_names=CLASS_NAMES)
    assert aligned.names == ("npz", "a", "b/../c", "csv")
    assert aligned.class_names == CLASS_NAMES
    assert aligned.softening.tolist() == [4.0, 2.0, 1.0, 1.0]
    in_csv = logits[:, 0][:, [1, 2, 0]]  # nucleus, membrane and cytoplasm in a file that starts with cytoplasm
    expected = np.stack([logits[:, 1], logits[:, 0], logits[:, 1], in_csv], axis=1)
    np.testing.assert_array_equal(aligned.logits, expected[wanted])


@pytest.mark.parametrize("by_rows", [False, True])
def test_where_a_teacher_was_not_asked_it_is_refused_or_masked(directory, logits, save, by_rows):
    asked = np.array([8, 3, 0])
    files = open_teachers([str(directory), save("few", logits=logits[asked, 1], ids=IDS[asked])])
    with refused("few.npz", "ids", "no outputs for 7 of 10 examples", "Add them, or leave"):
        align_teachers(files, ids=IDS, by_rows=by_rows)
    aligned = align_teachers(files, ids=IDS, by_rows=by_rows, missing="mask")
    found = np.asarray(aligned.logits[:])
    np.testing.assert_array_equal(found[:, :2], logits)
    np.testing.assert_array_equal(found[asked, 2], logits[asked, 1])
    assert np.isnan(np.delete(found[:, 2], asked, axis=0)).all()
    np.testing.assert_array_equal(aligned.logits[np.array([1, 3])], found[[1, 3]])
    np.testing.assert_array_equal(aligned.logits[np.array([1, 2])], found[[1, 2]])  # of these it knows none


def test_a_directory_may_lack_examples_too_but_not_all_of_them(directory, save, logits):
    ids = np.concatenate([IDS[:4], ["of another study"]])
    aligned = align_teachers(open_teachers([str(directory)]), ids=ids, missing="mask")
    np.testing.assert_array_equal(aligned.logits[:4], logits[:4])
    assert np.isnan(aligned.logits[4]).all()
    stranger = save("stranger", logits=logits[:, 0], ids=np.arange(10))
    with refused("stranger.npz", "ids", "no outputs for 10 of 10 examples", "Leave this teacher out, or spell"):
        align_teachers(open_teachers([str(directory), stranger]), ids=IDS, missing="mask")


def test_what_files_hold_can_be_written_to_a_directory(tmp_path, logits, save):
    files = open_teachers([save("a", logits=logits[:, 0], ids=IDS), save("b", logits=logits[::-1, 1], ids=IDS[::-1])])
    aligned = align_teachers(files, ids=IDS)
    arrays = {name: aligned.logits[:, column] for column, name in enumerate(aligned.names)}
    outputs = write_teacher_outputs(tmp_path / "out", arrays, ids=IDS)
    np.testing.assert_array_equal(outputs.logits(IDS), logits)


def test_class_names_come_from_the_first_teacher_that_has_some(logits, save):
    files = [
        save("a", logits=logits[:, 0], ids=IDS),
        save("b", logits=logits[:, 1], ids=IDS, class_names=np.array(CLASS_NAMES)),
    ]
    assert align_teachers(open_teachers(files), ids=IDS).class_names == CLASS_NAMES
    assert align_teachers(open_teachers(files[:1]), ids=IDS).class_names is None


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
        align_teachers(open_teachers([str(directory), spec]), ids=IDS)


def test_rows_without_ids_match_only_data_without_ids(save):
    file = read_teacher_file(save(logits=LOGITS))
    assert align_teachers([file], ids=np.array(["0", "1"])).logits.shape == (2, 1, 3)
    with refused(
        "a.npz", "ids", "no ids, and 2 rows for 2 examples that have ids: 'x', 'y'", "Add a field `ids` (NPZ)"
    ):
        align_teachers([file], ids=np.array(["x", "y"]))
    with refused("a.npz", "ids", "no ids, and 2 rows for 1 examples", "Add a field `ids` (NPZ)"):
        align_teachers([file], ids=np.array(["0"]))


def test_zero_teachers_and_repeated_names_are_refused(save):
    with refused("teachers", "teachers", "none", "Give the outputs of a teacher"):
        align_teachers([], ids=IDS)
    file = read_teacher_file(save(logits=LOGITS))
    with refused("teachers", "teachers", "names more than once or empty: 'a'", "Give every teacher a name of its own"):
        align_teachers([file, file], ids=np.array(["0", "1"]))
