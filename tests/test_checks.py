"""Tests of mtbkd_jax.checks: what is right comes back in the library's form, what is wrong is named in the message."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax import checks
from mtbkd_jax.errors import InputError


def message(check, *args):
    """The message of the error that a check raises, after the parts that every message must have."""
    with pytest.raises(InputError) as caught:
        check(*args)
    text = str(caught.value)
    assert text.startswith(f"{caught.value.where}: {caught.value.field}: found ")
    assert f", expected {caught.value.expected}. {caught.value.action}" in text
    assert all((caught.value.where, caught.value.field, caught.value.found, caught.value.expected, caught.value.action))
    return text


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), jnp.ones(3)])
def test_positive_numbers_pass(value):
    checks.check_positive(value=value)
    checks.check_not_negative(value=value, zero=0)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1", None, np.array([1.0, 0.0])])
def test_what_is_not_positive_is_named(value):
    with pytest.raises(InputError, match=r"concentration: value: found .*, expected a finite number above zero"):
        checks.check_positive(temperature=1.0, concentration=value)


@pytest.mark.parametrize("value", [-1, -1e-9, float("nan"), float("inf"), "1"])
def test_what_is_negative_is_named(value):
    with pytest.raises(InputError, match=r"power: value: found .*, expected a finite number, zero or above"):
        checks.check_not_negative(power=value)


def test_traced_values_pass():
    @jax.jit
    def double(value):
        checks.check_positive(value=value)
        return 2 * value

    assert double(3.0) == 6.0


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(["a", "β"], ["a", "β"]), ([b"a", "β".encode()], ["a", "β"]), ([10, -2], ["10", "-2"]), (np.array([], str), [])],
)
def test_ids_come_back_as_text(ids, expected):
    found = checks.check_ids(ids, "FILE")
    assert found.dtype.kind == "U"
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (["a", "", "b", ""], "FILE: ids: found 2 missing, the first in row 1, expected one for each example"),
        (["b", "a", "b"], "FILE: ids: found 1 more than once: 'b', expected each of them once"),
        ([1.0, 2.0], "FILE: ids: found elements of type float64, expected text or integers"),
        (np.array(["a", None], object), r"found elements of type object, expected text or integers. Convert it"),
        ([["a", "b"]], "FILE: ids: found an array of shape (1, 2), expected a flat array, one for each example"),
        ([b"\xff"], "FILE: ids: found bytes ("),
    ],
)
def test_wrong_ids(ids, found):
    assert found in message(checks.check_ids, ids, "FILE")


def test_class_names():
    assert checks.check_class_names(np.array(["cat", "dog"]), "FILE") == ("cat", "dog")
    assert "FILE: class_names: found 1, expected two classes" in message(checks.check_class_names, ["cat"], "FILE")
    assert "found 1 more than once: 'a'" in message(checks.check_class_names, ["a", "a"], "FILE")


def test_labels_come_back_as_int32():
    found = checks.check_labels(np.array([0, 9, -1], np.int64), 10, "FILE")
    assert found.dtype == np.int32
    assert found.tolist() == [0, 9, -1]
    assert checks.check_labels(np.array([0, 200], np.uint8), None, "FILE").tolist() == [0, 200]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 10, 1], "FILE: labels: found 10 in row 1, and 1 of 3 labels out of range, expected integers from -1"),
        ([0, -2], "FILE: labels: found -2 in row 1, and 1 of 2 labels out of range, expected integers from -1"),
        (np.array([2**40]), f"FILE: labels: found {2**40} in row 0"),
        ([0.0, 1.0], "FILE: labels: found elements of type float64, expected integers. Code the classes"),
        (["cat"], "FILE: labels: found elements of type <U3, expected integers"),
        ([[0, 1]], "FILE: labels: found an array of shape (1, 2), expected one integer for each example"),
    ],
)
def test_wrong_labels(labels, found):
    assert found in message(checks.check_labels, labels, 10, "FILE")


def test_labels_below_minus_one_are_wrong_whatever_the_number_of_classes():
    assert "the number of classes less one" in message(checks.check_labels, [-2], None, "FILE")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, bool, jnp.bfloat16])
def test_numbers_of_every_real_type_become_float32(dtype):
    found = checks.check_finite(np.ones((2, 3), dtype), "FILE", "inputs")
    assert found.dtype == np.float32
    assert (found == 1).all()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([[0.0], [np.nan]], "found NaN in row 1, and 1 of 2 rows with NaN or infinite numbers, expected finite"),
        ([[-np.inf], [np.nan]], "found an infinite number (in float32) in row 0, and 2 of 2 rows"),
        ([[1e60], [0.0]], "found an infinite number (in float32) in row 0"),
        (["1"], "found elements of type <U1, expected real numbers"),
        ([1j], "found elements of type complex128, expected real numbers"),
        (np.array(3.0), "found a single number, expected an array"),
    ],
)
def test_what_is_not_finite(values, found):
    assert f"FILE: inputs: {found}" in message(checks.check_finite, values, "FILE", "inputs")


def test_logits_of_the_wrong_shape():
    assert "FILE: logits: found 1, expected two classes or more" in message(checks.check_logits, [[1.0]], "FILE")
    assert "found an array of shape (3,), expected two axes" in message(checks.check_logits, [1.0, 2.0, 3.0], "FILE")


def test_too_few_examples():
    assert "FILE: examples: found 1, expected two examples" in message(checks.check_num_examples, 1, "FILE")


def test_probabilities_are_told_from_logits():
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 4)).astype(np.float32)
    probs = random.dirichlet(np.ones(4), size=500).astype(np.float16).astype(np.float32)
    assert checks.looks_like_probabilities(probs)
    assert not checks.looks_like_probabilities(logits)
    assert not checks.looks_like_probabilities(np.log(probs + 1e-6))
    np.testing.assert_array_equal(checks.check_probabilities(probs, "FILE"), probs)


@pytest.mark.parametrize("row", [[0.5, 0.4], [1.1, -0.1], [2.0, 3.0]])
def test_rows_that_are_no_probabilities(row):
    found = message(checks.check_probabilities, [[0.5, 0.5], row], "FILE")
    assert (
        f"FILE: probs: found row 1 with least element {min(row):.3g} and sum {sum(row):.3g}, and 1 such rows" in found
    )
    assert "If these are logits, say so" in found


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None])
def test_what_is_no_count_is_named(value):
    checks.check_whole("PLACE", 1, one=1, many=np.int64(5))
    assert "PLACE: draws: found" in message(lambda: checks.check_whole("PLACE", 1, draws=value))


def test_a_word_that_is_not_allowed_is_named_with_those_that_are():
    checks.check_one_of(("up", "down"), "PLACE", "way", "up")
    assert "found 'left', expected one of 'up', 'down'" in message(
        checks.check_one_of, ("up", "down"), "PLACE", "way", "left"
    )


@pytest.mark.parametrize("seed", [1.5, "1", 2**63, -(2**63) - 1])
def test_a_seed_is_a_whole_number_that_jax_takes(seed):
    jax.random.key(2**63 - 1), jax.random.key(-(2**63))
    assert "expected a whole number of 64 bits" in message(checks.check_seed, seed, "PLACE")


def test_the_first_field_that_differs_from_what_was_begun_is_named():
    begun = {"a": 1, "b": {"c": [1, 2], "d": None}}
    checks.check_same("config.json", begun, {"b": {"d": None, "c": [1, 2]}, "a": 1})
    with pytest.raises(InputError, match=r"config\.json: b\.c: found \[1, 2\], expected \[1, 3\], as is asked for now"):
        checks.check_same("config.json", begun, {"a": 1, "b": {"c": [1, 3], "d": None}})
    with pytest.raises(InputError, match=r"config\.json: e: found None, expected 3"):
        checks.check_same("config.json", begun, begun | {"e": 3})


def test_a_long_name_among_many_takes_no_memory():
    with pytest.raises(InputError, match="ids: found 40,000,040,000,000 bytes that are stored as"):
        checks.check_ids(["a" * 10**7, *map(str, range(10**6))], "FILE")


def test_what_somebody_vouches_for_is_taken_as_logits():
    probs = np.full((2, 3), 1 / 3)
    np.testing.assert_array_equal(checks.as_logits(probs, "logits", "FILE"), probs.astype(np.float32))
    with pytest.raises(InputError, match="FILE: kind: found 'probs', expected 'logits' or 'probabilities'"):
        checks.as_logits.__wrapped__(probs, "probs", "FILE")
