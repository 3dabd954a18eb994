"""Uncertainty against definitions computed the slow way in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.uncertainty import (
    aleatoric_entropy,
    coverage,
    credible_upper,
    epistemic,
    mean_deviance,
    predictive_entropy,
    predictive_mean,
)

PER_EXAMPLE = [predictive_mean, mean_deviance, predictive_entropy, aleatoric_entropy, epistemic]
LEVELS = [0.5, 0.85, 0.9, 0.95]


def random_log_probs(seed, draws=40, examples=30, classes=5, spread=2.0):
    logits = spread * jax.random.normal(jax.random.key(seed), (draws, examples, classes))
    return jax.nn.log_softmax(logits)


def random_draw_weights(seed, draws=40):
    return jax.nn.softmax(2 * jax.random.normal(jax.random.key(seed), (draws,)))


def mass_below(log_probs, draw_weights, upper):
    """Σ_s v_s Σ_c q_ic 1{-2 log q_ic <= u_i} in float64."""
    log_probs = np.asarray(log_probs, np.float64)
    masses = np.asarray(draw_weights, np.float64)[:, None, None] * np.exp(log_probs)
    return np.sum(masses * (-2 * log_probs <= upper[None, :, None]), axis=(0, 2))


def upper_by_bisection(log_probs, draw_weights, level):
    low, high = np.full(log_probs.shape[1], -1.0), np.full(log_probs.shape[1], 400.0)
    for _ in range(100):
        middle = (low + high) / 2
        is_enough = mass_below(log_probs, draw_weights, middle) >= level
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    return high


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_credible_upper_is_the_weighted_quantile_that_bisection_finds(level, weighted):
    log_probs = random_log_probs(0)
    weights = random_draw_weights(1) if weighted else None
    expected = upper_by_bisection(log_probs, jnp.full(40, 1 / 40) if weights is None else weights, level)
    # The same deviance, computed once in float32 and once in float64.
    np.testing.assert_allclose(credible_upper(log_probs, weights, level=level), expected, rtol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_credible_upper_with_ties_between_classes_and_draws(level):
    probs = jnp.array([[[0.4, 0.4, 0.2], [0.25, 0.5, 0.25]], [[0.2, 0.4, 0.4], [0.25, 0.25, 0.5]]])
    log_probs = jnp.repeat(jnp.log(probs), 3, axis=0)
    weights = jnp.array([0.3, 0.1, 0.1, 0.2, 0.2, 0.1])
    tied_away_from_levels = level + 1e-4  # 0.5 is a mass that is reached exactly; the two precisions may disagree on it
    expected = upper_by_bisection(log_probs, weights, tied_away_from_levels)
    np.testing.assert_allclose(credible_upper(log_probs, weights, level=tied_away_from_levels), expected, rtol=1e-5)


def test_credible_upper_gives_weight_to_draws_by_their_weights():
    log_probs = jnp.log(jnp.array([[[0.9, 0.1]], [[0.6, 0.4]]]))
    only_second = jnp.array([0.0, 1.0])
    assert credible_upper(log_probs, only_second, level=0.5)[0] == -2 * log_probs[1, 0, 0]
    assert credible_upper(log_probs, only_second, level=0.9)[0] == -2 * log_probs[1, 0, 1]


def test_a_mass_equal_to_the_level_reaches_it_despite_rounding():
    # 0.9 in float32 is rounded, and so is the sum of a thousand of them.
    log_probs = jnp.log(jnp.broadcast_to(jnp.array([0.9, 0.1]), (1000, 1, 2)))
    assert credible_upper(log_probs, level=0.9)[0] == -2 * log_probs[0, 0, 0]


def test_one_draw_is_covered_by_whole_classes_from_the_top():
    log_probs = jnp.log(jnp.array([[[0.7, 0.2, 0.1]] * 3]))
    labels = jnp.array([0, 1, 2])
    np.testing.assert_allclose(credible_upper(log_probs, level=0.6), -2 * np.log(0.7), rtol=1e-6)
    assert coverage(log_probs, labels, level=0.6) == pytest.approx(1 / 3)
    assert coverage(log_probs, labels, level=0.85) == pytest.approx(2 / 3)
    assert coverage(log_probs, labels, level=0.95) == pytest.approx(1)


def test_coverage_is_its_definition():
    log_probs, weights = random_log_probs(2), random_draw_weights(3)
    labels = jax.random.randint(jax.random.key(4), (30,), 0, 5)
    deviances = -2 * np.asarray(log_probs)[:, np.arange(30), np.asarray(labels)]
    is_covered = deviances <= np.asarray(credible_upper(log_probs, weights, level=0.9))
    expected = np.asarray(weights) @ is_covered.mean(axis=1)
    assert 0 < expected < 1
    assert coverage(log_probs, labels, weights, level=0.9) == pytest.approx(expected, rel=1e-5)


def test_unlabelled_examples_do_not_count_in_the_coverage():
    log_probs = random_log_probs(5)
    labels = jax.random.randint(jax.random.key(6), (30,), 0, 5)
    some = labels.at[10:].set(-1)
    assert coverage(log_probs, some, level=0.5) == pytest.approx(coverage(log_probs[:, :10], labels[:10], level=0.5))
    assert jnp.isnan(coverage(log_probs, jnp.full(30, -1), level=0.5))


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_is_nominal_for_labels_from_the_posterior_predictive(level):
    # Labels from the predictive mean. The expected coverage is the mass inside the interval (level, or above it by less
    # than the largest mass of a tied value) up to the mean total variation distance between the draws and their mean.
    draws, examples = 100, 2000
    center = 1.5 * jax.random.normal(jax.random.key(7), (1, examples, 4))
    log_probs = jax.nn.log_softmax(center + 0.1 * jax.random.normal(jax.random.key(8), (draws, examples, 4)))
    mean = predictive_mean(log_probs)
    labels = jax.random.categorical(jax.random.key(9), jnp.log(mean))
    disagreement = float(jnp.mean(jnp.sum(jnp.abs(jnp.exp(log_probs) - mean[None]), axis=-1) / 2))
    overshoot = 1 / draws  # one value holds at most one class of one draw: there are no ties
    standard_error = np.sqrt(level * (1 - level) / examples)  # an upper bound: given i, coverage averages over draws
    assert disagreement < 0.03
    found = float(coverage(log_probs, labels, level=level))
    assert level - disagreement - 4 * standard_error < found < level + overshoot + disagreement + 4 * standard_error
    # Exactly: Σ_c q̄_c Σ_s v_s 1{-2 log q_c^(s) <= u}, whatever the disagreement.
    inside = jnp.mean(-2 * log_probs <= credible_upper(log_probs, level=level)[None, :, None], axis=0)
    assert found == pytest.approx(float(jnp.mean(jnp.sum(mean * inside, axis=-1))), abs=4 * standard_error)


@pytest.mark.parametrize("weighted", [False, True])
def test_total_entropy_is_aleatoric_plus_epistemic(weighted):
    log_probs = random_log_probs(10)
    weights = random_draw_weights(11) if weighted else None
    parts = aleatoric_entropy(log_probs, weights) + epistemic(log_probs, weights)
    np.testing.assert_allclose(predictive_entropy(log_probs, weights), parts, atol=1e-5)
    assert jnp.all(epistemic(log_probs, weights) > 0.1)


def test_epistemic_is_zero_for_identical_draws_and_log_two_for_opposite_certain_ones():
    identical = jnp.broadcast_to(random_log_probs(12)[:1], (40, 30, 5))
    np.testing.assert_allclose(epistemic(identical), 0, atol=1e-10)
    opposite = jnp.log(jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    np.testing.assert_allclose(epistemic(opposite), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(aleatoric_entropy(opposite), 0, atol=1e-10)


def test_small_epistemic_values_are_not_lost_to_rounding_and_none_is_negative():
    log_probs = random_log_probs(13, spread=1e-3)
    exact = np.exp(np.asarray(log_probs, np.float64))
    exact /= exact.sum(axis=-1, keepdims=True)
    mean = exact.mean(axis=0)
    expected = np.mean(np.sum(exact * np.log(exact / mean), axis=-1), axis=0)
    assert np.all(expected < 1e-6)  # where entropies have a spacing of 1e-7
    np.testing.assert_allclose(epistemic(log_probs), expected, rtol=2e-3)
    assert jnp.all(epistemic(random_log_probs(14, spread=1e-8)) >= 0)


def test_mean_deviance_is_its_definition():
    log_probs, weights = np.asarray(random_log_probs(15)), np.asarray(random_draw_weights(16))
    expected = -2 * np.einsum("s,snc->n", weights, np.exp(log_probs) * log_probs)
    np.testing.assert_allclose(mean_deviance(jnp.array(log_probs), jnp.array(weights)), expected, rtol=1e-5)


@pytest.mark.parametrize("function", PER_EXAMPLE)
def test_equal_weights_are_the_default_and_weights_count_draws(function):
    log_probs = random_log_probs(17, draws=3)
    repeated = log_probs[jnp.array([0, 0, 1, 2])]
    np.testing.assert_allclose(
        function(log_probs, jnp.array([0.5, 0.25, 0.25])), function(repeated), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("function", PER_EXAMPLE)
def test_a_class_of_probability_zero_changes_nothing(function):
    log_probs = random_log_probs(18)
    with_impossible = jnp.concatenate([log_probs, jnp.full((40, 30, 1), -jnp.inf)], axis=-1)
    found, expected = function(with_impossible), function(log_probs)
    np.testing.assert_allclose(found[..., :5] if found.ndim == 2 else found, expected, rtol=1e-5, atol=1e-7)


def test_credible_upper_and_coverage_with_a_class_of_probability_zero():
    log_probs = random_log_probs(19)
    with_impossible = jnp.concatenate([log_probs, jnp.full((40, 30, 1), -jnp.inf)], axis=-1)
    np.testing.assert_array_equal(
        credible_upper(with_impossible, level=0.999999), credible_upper(log_probs, level=0.999999)
    )
    assert coverage(with_impossible, jnp.full(30, 5), level=0.9) == 0


def test_everything_compiles_and_maps_over_a_batch_of_posteriors():
    batch = jnp.stack([random_log_probs(20), random_log_probs(21)])
    weights = jnp.stack([random_draw_weights(22), random_draw_weights(23)])
    labels = jax.random.randint(jax.random.key(24), (30,), -1, 5)

    def everything(log_probs, draw_weights):
        return (
            [function(log_probs, draw_weights) for function in PER_EXAMPLE],
            credible_upper(log_probs, draw_weights, level=0.9),
            coverage(log_probs, labels, draw_weights, level=0.9),
        )

    together = jax.jit(jax.vmap(everything))(batch, weights)
    one_by_one = [everything(*pair) for pair in zip(batch, weights, strict=True)]
    apart = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), together, apart)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90.0])
def test_a_level_that_is_not_a_probability_is_refused(level):
    with pytest.raises(InputError, match="level"):
        credible_upper(random_log_probs(0), level=level)
