import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from mtbkd_jax.errors import InputError
from mtbkd_jax.regression.teachers import (
    broad_component,
    check_targets,
    gaussian_teachers,
    log_scores,
    scales_alone,
    scales_together,
)


@pytest.mark.parametrize(
    ("means", "sds", "message"),
    [
        ([[1.0, np.nan]], None, "NaN"),
        ([[1.0, np.inf]], None, "infinite"),
        ([1.0, 2.0], None, r"\[examples, teachers\]"),
        ([[1.0, 2.0]], [[1.0, 0.0]], "above zero"),
        ([[1.0, 2.0]], [[1.0, -1.0]], "above zero"),
        ([[1.0, 2.0]], [[1.0]], "shape"),
        ([[1.0, 2.0]], [[1.0, np.nan]], "NaN"),
        ([["a", "b"]], None, "real numbers"),
    ],
)
def test_outputs_that_are_none_are_refused(means, sds, message):
    with pytest.raises(InputError, match=message):
        gaussian_teachers(means, sds)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1.0, 2.0], "shape"),
        ([1.0, np.inf, 2.0], "infinite"),
        ([1.0, np.nan, np.nan], "two examples"),
        ([1.0, 1.0, np.nan], "nothing to learn"),
    ],
)
def test_targets_that_teach_nothing_are_refused(targets, message):
    with pytest.raises(InputError, match=message):
        check_targets(targets, 3)


def test_an_unknown_target_is_nan_and_passes():
    np.testing.assert_array_equal(check_targets([1, np.nan, 2], 3), np.array([1, np.nan, 2], np.float32))


def specialists(seed=0, num_examples=400, num_known=200):
    """Teacher 0 errs by 0.1 where x < 0 and by 2 elsewhere; teacher 1, the reverse, says so by twice the sd it has."""
    rng = np.random.default_rng(seed)
    x, truth, noise = rng.uniform(-1, 1, num_examples), rng.normal(0, 1, num_examples), rng.normal(size=num_examples)
    at_home = np.stack([x < 0, x >= 0], axis=1)
    teachers = gaussian_teachers(truth[:, None] + np.where(at_home, 0.1, 2.0) * noise[:, None], np.full((400, 2), 0.2))
    targets = jnp.asarray(np.where(np.arange(num_examples) < num_known, truth, np.nan), jnp.float32)
    return x, teachers, targets


def test_a_teacher_alone_answers_for_all_its_errors():
    _, teachers, targets = specialists()
    broad = broad_component(targets)
    errors = np.asarray((targets[:, None] - teachers.means)[:200])
    expected = np.sqrt((errors**2).sum(0) + np.asarray(broad.sd) ** 2) / np.sqrt(201)
    np.testing.assert_allclose(0.2 * scales_alone(teachers, targets, broad), expected, rtol=1e-4)


def test_together_with_others_a_specialist_answers_for_its_own_domain():
    _, teachers, targets = specialists()
    sds = 0.2 * np.asarray(scales_together(teachers, targets, broad_component(targets)))
    # The prior's one error, as large as the broad component's, among a hundred: √((1 + 100 · 0.01) / 101) = 0.14.
    assert (sds < 0.2).all()


def test_a_teacher_that_hits_every_label_keeps_a_standard_deviation():
    targets = jnp.arange(20.0)
    teachers = gaussian_teachers(np.arange(20.0)[:, None])
    assert float(scales_together(teachers, targets, broad_component(targets))[0]) > 0.5


def test_scores_are_log_densities_and_zero_where_the_target_is_unknown():
    teachers = gaussian_teachers([[1.0], [2.0]], [[0.5], [3.0]])
    targets = jnp.array([0.0, jnp.nan])
    broad = broad_component(jnp.array([-1.0, 1.0]))
    scores = log_scores(teachers, targets, jnp.array([[2.0]]), broad)
    np.testing.assert_allclose(scores[0], [norm.logpdf(0, 0, np.sqrt(2)), norm.logpdf(0, 1, 1)], rtol=1e-5)
    np.testing.assert_array_equal(scores[1], 0)


def test_gradients_are_finite_where_targets_are_unknown():
    _, teachers, targets = specialists()

    def total(means):
        broad = broad_component(targets)
        return log_scores(teachers._replace(means=means), targets, jnp.ones((1, 2)), broad).sum()

    assert bool(jnp.isfinite(jax.grad(total)(teachers.means)).all())
