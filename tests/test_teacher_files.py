"""Tests of mtbkd_jax.teacher_files: NPZ and CSV files are read as they are meant, or refused."""

import numpy as np
import pytest

from mtbkd_jax.errors import CorruptDataError
from mtbkd_jax.teacher_files import read_teacher_file
from tests.small_teachers import CLASS_NAMES, IDS, LOGITS, refused

PROBS = np.full((2, 3), 1 / 3)


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


def test_a_truncated_teacher_file_is_refused(tmp_path, save, logits):
    spec = save(logits=logits[:, 0], ids=IDS)
    path = tmp_path / "a.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        CorruptDataError, match=r"a\.npz: archive: found damage .*, expected a whole NPZ.*Copy it again"
    ):
        read_teacher_file(spec)
