"""Tests of mtbkd_jax.data."""

import hashlib
import json

import numpy as np
import pytest

from mtbkd_jax import data
from mtbkd_jax.errors import CorruptDataError, InputError


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        "inputs": random.normal(size=(20, 3)),
        "labels": np.array([-1, 0, 1, 2] * 5),
        "ids": np.array([f"é{row}" for row in range(20)]),
    }


@pytest.fixture
def save(tmp_path):
    """Save arrays to an NPZ file and return its path."""

    def save(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return save


def test_a_data_set_is_read_back(save, arrays):
    found = data.read_dataset(save(**arrays, class_names=np.array(["a", "b", "c"])))
    assert found.ids.tolist() == arrays["ids"].tolist()
    np.testing.assert_array_equal(found.inputs, arrays["inputs"].astype(np.float32))
    assert found.inputs.dtype == np.float32
    assert found.labels.dtype == np.int32
    assert found.labels.tolist() == arrays["labels"].tolist()
    assert found.class_names == ("a", "b", "c")
    assert found.groups is None


def test_many_examples_may_be_of_one_group(save, arrays):
    groups = np.repeat([7, 8], 10)
    assert data.read_dataset(save(**arrays, groups=groups)).groups.tolist() == ["7"] * 10 + ["8"] * 10


def test_fields_may_have_other_names_and_ids_may_be_left_out(save, arrays):
    path = save(pixels=arrays["inputs"], digit=arrays["labels"], extra=np.array([{}], object))
    found = data.read_dataset(path, inputs_field="pixels", labels_field="digit")
    assert found.ids.tolist() == [str(row) for row in range(20)]
    assert found.class_names is None
    np.testing.assert_array_equal(data.read_inputs(path, inputs_field="pixels"), found.inputs)


def test_images_of_bytes_become_float32(save):
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    found = data.read_dataset(save(inputs=images, labels=np.array([0, 1])))
    assert found.inputs.shape == (2, 4, 4)
    assert found.inputs.dtype == np.float32


NAN_INPUTS = np.full((20, 3), np.nan)
OBJECTS = np.array(["a"] * 20, object)


@pytest.mark.parametrize(
    ("changes", "field", "found", "action"),
    [
        ({"inputs": NAN_INPUTS}, "inputs", "NaN in row 0, and 20 of 20 rows", "Correct or leave out these rows"),
        ({"inputs": -np.inf * np.ones((20, 1))}, "inputs", "an infinite number", "Correct or leave out these rows"),
        ({"inputs": np.ones(20)}, "inputs", r"an array of shape \(20,\)", r"a column, `inputs\[:, None\]`"),
        ({"inputs": np.ones((20, 0))}, "inputs", r"an array of shape \(20, 0\)", "Give a row for each example"),
        ({"inputs": OBJECTS}, "inputs", "Python objects", r"Save it again .*`inputs\.astype\(str\)`"),
        ({"labels": np.arange(20) - 2}, "labels", "-2 in row 0, and 16 of 20 labels out of range", "Count the classes"),
        ({"labels": np.arange(20)}, "labels", "3 in row 3, and 17 of 20 labels out of range", "Count the classes"),
        ({"labels": np.zeros(20)}, "labels", "elements of type float64", r"convert by `\.astype\(int\)`"),
        ({"labels": np.zeros(19, int)}, "labels", "19 rows, expected 20, as the inputs have", "Give the same rows"),
        ({"labels": OBJECTS}, "labels", "Python objects", "Save it again with a type of its own"),
        ({"ids": np.array(["a"] * 20)}, "ids", "1 more than once: 'a'", "Remove or rename the repeated example"),
        ({"ids": np.array([""] * 20)}, "ids", "20 missing, the first in row 0", "Fill it in or leave the example out"),
        ({"ids": np.arange(3)}, "ids", "3 rows, expected 20, as the inputs have", "Give the same rows"),
        ({"ids": OBJECTS}, "ids", "Python objects", r"`ids\.astype\(str\)`"),
        ({"groups": np.arange(3)}, "groups", "3 rows, expected 20, as the inputs have", "Give the same rows"),
        ({"groups": np.array([""] * 20)}, "groups", "20 missing, the first in row 0", "Fill it in"),
        ({"class_names": np.array(["a"])}, "class_names", "1, expected two classes or more", "Give every class"),
        (
            {"inputs": np.ones((1, 3)), "labels": np.zeros(1, int), "ids": np.arange(1)},
            "examples",
            "1, expected two examples or more",
            "Give more examples",
        ),
    ],
)
def test_bad_data_are_named(save, arrays, changes, field, found, action):
    path = save(**({"class_names": np.array(["a", "b", "c"])} | arrays | changes))
    with pytest.raises(InputError, match=rf"data\.npz: {field}: found {found}.*{action}") as caught:
        data.read_dataset(path)
    assert f", expected {caught.value.expected}. " in str(caught.value)


def test_a_missing_field_is_named_with_those_there_are(save, arrays):
    path = save(inputs=arrays["inputs"], y=arrays["labels"])
    with pytest.raises(InputError, match=r"data\.npz: labels: found only the fields inputs, y, expected a field"):
        data.read_dataset(path)


def test_one_example_is_enough_to_predict(save):
    assert data.read_inputs(save(inputs=np.ones((1, 3)))).shape == (1, 3)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"data\.npz: file: found no such file, .*Check the path"):
        data.read_dataset(tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04N."])
def test_a_file_that_is_no_archive_is_never_unpickled(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.npz: format: found something else, expected an NPZ.*`numpy\.savez"):
        data.read_dataset(tmp_path / "data.npz")


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_archive_is_found(tmp_path, arrays, savez, damage):
    path = tmp_path / "data.npz"
    savez(path, inputs=arrays["inputs"], labels=arrays["labels"])
    content = bytearray(path.read_bytes())
    content[300] ^= 255  # the inputs
    path.write_bytes(content if damage == "altered" else content[:300])
    with pytest.raises(CorruptDataError, match=r"data\.npz: .*found damage.*Copy it again"):
        data.read_dataset(path)


def test_standardized_training_inputs_have_mean_zero_and_variance_one_and_constants_become_zero():
    inputs = np.random.default_rng(0).normal(100, [1, 5, 0], size=(500, 3)).astype(np.float32)
    standardize = data.Standardizer.fit(inputs)
    # The mean in float32 is off by up to its rounding error, 100 * 2^-24, over the smallest scale, 1.
    np.testing.assert_allclose(standardize(inputs).mean(axis=0, dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(standardize(inputs).std(axis=0), [1, 1, 0], atol=1e-5)
    assert standardize(inputs).dtype == np.float32
    assert standardize.scale[2] == 1


def test_standardizer_survives_json_to_the_bit():
    inputs = np.random.default_rng(0).normal(size=(50, 2, 3)).astype(np.float32)
    standardize = data.Standardizer.fit(inputs)
    again = data.Standardizer.from_json(json.loads(json.dumps(standardize.to_json())))
    np.testing.assert_array_equal(again(inputs), standardize(inputs))


def test_standardizer_refuses_other_features():
    standardize = data.Standardizer.fit(np.ones((4, 3), np.float32))
    with pytest.raises(InputError, match=r"inputs: shape of an example: found \(2,\), expected \(3,\), as in training"):
        standardize(np.ones((4, 2), np.float32))


def test_sha256_of_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 10**6)
    assert data.sha256_of_file(tmp_path / "file") == hashlib.sha256(b"abc" * 10**6).hexdigest()
    with pytest.raises(InputError, match="no such file"):
        data.sha256_of_file(tmp_path / "other")
