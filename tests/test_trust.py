import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.trust import fit_trust, sample_trust
from mtbkd_jax.weighting import entropy_weighting, fixed_weighting, uniform_weighting

NUM_EXAMPLES, NUM_LABELLED = 600, 120


@pytest.fixture(scope="module")
def two_domains():
    """Teacher 0 is right where x is negative and confidently wrong elsewhere; teacher 1 the reverse, less sure."""
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = jax.random.uniform(keys[0], (NUM_EXAMPLES, 2), minval=-1, maxval=1)
    labels = jax.random.bernoulli(keys[1], 0.5, (NUM_EXAMPLES,)).astype(jnp.int32)
    first_is_right = inputs[:, 0] < 0
    said = jnp.stack(
        [jnp.where(first_is_right, labels, 1 - labels), jnp.where(first_is_right, 1 - labels, labels)], axis=1
    )
    confidence = jnp.array([[0.99], [0.9]])
    probs = jnp.where(said[..., None] == jnp.arange(2)[None, None], confidence[None], 1 - confidence[None])
    known = jnp.where(jnp.arange(NUM_EXAMPLES) < NUM_LABELLED, labels, -1)
    return inputs, known, probs, np.asarray(first_is_right)


@pytest.fixture(scope="module")
def fit(two_domains):
    inputs, labels, probs, _ = two_domains
    return fit_trust(jax.random.key(1), probs, inputs, labels)


def weight_of_the_right_teacher(log_weights, first_is_right):
    weights = np.exp(np.asarray(log_weights))[NUM_LABELLED:]
    right = first_is_right[NUM_LABELLED:]
    return np.where(right, weights[:, 1], weights[:, 2])


def test_trust_goes_to_the_teacher_that_is_right_there(two_domains, fit):
    assert weight_of_the_right_teacher(fit.log_weights, two_domains[3]).mean() > 0.8


def test_entropy_prefers_the_confident_teacher_everywhere(two_domains):
    inputs, labels, probs, _ = two_domains
    weights = jnp.exp(entropy_weighting()(jax.random.key(0), probs, inputs, labels))
    assert (weights[:, 1] > weights[:, 2]).all()


def test_rows_sum_to_one(fit):
    np.testing.assert_allclose(np.exp(fit.log_weights).sum(1), 1.0, rtol=1e-5)


def test_a_labelled_example_is_weighed_without_its_own_label(two_domains, fit):
    inputs, labels, probs, _ = two_domains
    # What the teachers said of example 0 is exchanged, so that only fits that see its label change.
    again = fit_trust(jax.random.key(1), probs.at[0].set(probs[0, :, ::-1]), inputs, labels)
    change = np.abs(np.exp(again.log_weights) - np.exp(fit.log_weights)).max(1)
    assert again.slope_scale == fit.slope_scale
    assert change[0] < 1e-6
    assert change[NUM_LABELLED:].max() > 1e-4


def test_the_posterior_of_the_weights_surrounds_its_mode(fit):
    draws = np.asarray(sample_trust(jax.random.key(2), fit, num_draws=100, num_warmup=100))
    low, high = np.quantile(draws, [0.005, 0.995], axis=0)
    mode = np.exp(np.asarray(fit.log_weights))
    inside = ((low <= mode) & (mode <= high))[NUM_LABELLED:].mean()
    assert inside > 0.8


def test_too_few_labels_say_how_many_are_needed(two_domains):
    inputs, labels, probs, _ = two_domains
    with pytest.raises(InputError, match="at least 10"):
        fit_trust(jax.random.key(0), probs, inputs, labels.at[3:].set(-1))


def test_entropy_weights_by_hand():
    probs = jnp.array([[[0.5, 0.5], [0.9, 0.1]], [[1.0, 0.0], [0.0, 1.0]]])
    entropies = np.array([np.log(2), -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))])
    xi = 1 - entropies / entropies.sum()
    weights = np.exp(entropy_weighting()(jax.random.key(0), probs, jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32)))
    np.testing.assert_allclose(weights, [[0.0, *(xi / xi.sum())], [0.0, 0.5, 0.5]], rtol=1e-5)


@pytest.mark.parametrize(
    "rule", [entropy_weighting(), uniform_weighting(), fixed_weighting([3.0])], ids=["entropy", "uniform", "fixed"]
)
def test_one_teacher_has_all_the_weight(rule):
    weights = np.exp(rule(jax.random.key(0), jnp.full((4, 1, 2), 0.5), jnp.zeros((4, 1)), jnp.zeros(4, jnp.int32)))
    np.testing.assert_allclose(weights, np.tile([0.0, 1.0], (4, 1)), rtol=1e-6)


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0]], ids=["negative", "zero", "nan"])
def test_fixed_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match="non-negative"):
        fixed_weighting(weights)


def test_fixed_weights_must_be_one_for_each_teacher():
    with pytest.raises(InputError, match="2 weights"):
        fixed_weighting([1.0, 1.0])(
            jax.random.key(0), jnp.full((4, 3, 2), 0.5), jnp.zeros((4, 1)), jnp.zeros(4, jnp.int32)
        )
