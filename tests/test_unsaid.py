import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.tails import RULES
from mtbkd_jax.unsaid import check_heard, check_heard_rows, heard

NOT_ASKED = np.full(3, np.nan, np.float32)


@pytest.fixture
def logits():
    """Of two teachers, about four examples."""
    return np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)


def test_where_everything_was_said_the_logits_are_handed_on_and_there_is_no_mask(logits):
    found = heard(check_heard(logits, "refuse", None, "distil"))
    np.testing.assert_array_equal(found.logits, logits)
    assert found.is_asked is None


def test_a_teacher_that_was_not_asked_gets_the_flat_distribution_and_a_mask(logits):
    logits[1, 0] = NOT_ASKED
    found = heard(check_heard(logits, "mask", None, "distil"))
    assert found.is_asked.tolist() == [[True, True], [False, True], [True, True], [True, True]]
    assert found.logits[1, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(found.logits[found.is_asked], logits[found.is_asked])


def test_a_teacher_that_was_not_asked_is_refused_unless_that_is_meant(logits):
    logits[1, 0] = NOT_ASKED
    with pytest.raises(InputError, match=r"NaN for all classes of teacher 0 in row 1.*missing_teachers='mask'"):
        check_heard(logits, "refuse", None, "distil")
    with pytest.raises(InputError, match=r"teacher_logits from row 0: found NaN for all classes"):
        check_heard_rows(logits, "refuse", None, "distil")


@pytest.mark.parametrize("missing", ["refuse", "mask"])
@pytest.mark.parametrize(("value", "found"), [(np.nan, "NaN in row 2"), (np.inf, "an infinite number")])
def test_a_row_that_is_not_finite_in_part_is_refused(logits, missing, value, found):
    logits[2, 1, 0] = value
    for check in check_heard, check_heard_rows:
        with pytest.raises(InputError, match=found):
            check(logits, missing, None, "distil")


def test_classes_of_which_nothing_was_said_share_what_is_left(logits):
    logits[1, 0] = [np.log(0.6), np.nan, np.nan]
    logits[2, 1] = NOT_ASKED
    checked = check_heard(logits, "mask", "bucket", "distil")
    found = heard(checked, "bucket")
    np.testing.assert_allclose(np.exp(found.logits[1, 0]), [0.6, 0.2, 0.2], rtol=1e-6)
    assert found.known.is_known[1, 0].tolist() == [True, False, False]
    assert found.known.is_known.sum() == 4 * 2 * 3 - 2
    assert np.argwhere(~found.is_asked).tolist() == [[2, 1]]
    is_dense = np.array([0, 3])
    np.testing.assert_array_equal(found.logits[is_dense], logits[is_dense])


@pytest.mark.parametrize("tail", RULES)
def test_the_same_stands_in_for_what_was_not_said_under_every_rule(logits, tail):
    logits[1, 0] = [np.log(0.6), np.nan, np.nan]
    np.testing.assert_array_equal(heard(logits, tail).logits, heard(logits, "drop").logits)
    assert isinstance(heard(logits, tail).known, RULES[tail])


def test_what_becomes_of_the_other_classes_has_to_be_said(logits):
    logits[1, 0] = [np.log(0.6), np.nan, np.nan]
    with pytest.raises(
        InputError, match=r"NaN in row 1, and 1 of 4 rows .*`tail`, one of drop, renormalise and bucket"
    ):
        check_heard(logits, "mask", None, "distil")


@pytest.mark.parametrize("row", [[0.5, np.nan, np.nan], [-0.1, -0.1, np.nan], [-np.inf, -0.1, np.nan]])
def test_beside_what_was_not_said_only_log_probabilities_are_taken(logits, row):
    logits[1, 0] = row
    for check in check_heard, check_heard_rows:
        with pytest.raises(InputError, match="of teacher 0: found row 1 with largest element"):
            check(logits, "refuse", "drop", "distil")


def test_a_teacher_that_was_asked_about_nothing_is_refused(logits):
    logits[:, 1] = NOT_ASKED
    with pytest.raises(InputError, match="NaN in all 4 rows of teacher 1"):
        check_heard(logits, "mask", None, "distil")
