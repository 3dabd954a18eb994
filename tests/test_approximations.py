"""Each approximation on a posterior for which the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.approximations import (
    Objective,
    climb,
    dropout_draws,
    ensemble_draws,
    laplace_draws,
    mean_field_draws,
    swag_draws,
)
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, full_batch

KEY = jax.random.key(0)
MEAN = {"first": jnp.array([[1.0, -2.0], [0.5, 0.0]]), "last": jnp.array([3.0, 1.0])}
PRECISION = jnp.array([[4.0, 1.0], [1.0, 2.0]])
EXAMPLES = Examples(jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32))


def gaussian(params, batch):
    """Independent with precision 25 in ``first``, correlated in ``last``."""
    del batch
    first, last = params["first"] - MEAN["first"], params["last"] - MEAN["last"]
    return -12.5 * jnp.sum(jnp.square(first)) - 0.5 * last @ PRECISION @ last


OBJECTIVE = Objective(gaussian, EXAMPLES, full_batch)


def zeros(*leading):
    return jax.tree.map(lambda leaf: jnp.zeros((*leading, *leaf.shape)), MEAN)


def test_the_climb_and_every_member_of_an_ensemble_reach_the_mode():
    params = climb(KEY, OBJECTIVE, zeros(), num_steps=5000)
    starts = jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape) / 2, zeros(3))
    members = ensemble_draws(KEY, OBJECTIVE, starts, num_steps=10_000)
    # The log density is zero at the mode; a thousandth of a nat below it is where no draw would be told from it.
    below = [-float(gaussian(params, None)), *-jax.vmap(lambda member: gaussian(member, None))(members)]
    assert len(below) == 4
    assert max(below) < 1e-3


@pytest.mark.parametrize("prior_precision", [4.0, 0.0])
def test_laplace_of_a_layer_is_exact_for_a_gaussian_and_leaves_the_others(prior_precision):
    def with_prior(params, batch):
        # Flat in ``last`` at the mean, as a posterior is at its mode.
        return gaussian(params, batch) - 0.5 * prior_precision * jnp.sum(jnp.square(params["last"] - MEAN["last"]))

    objective = Objective(with_prior, EXAMPLES, full_batch)
    draws = laplace_draws(KEY, objective, MEAN, layer="last", prior_precision=prior_precision, num_draws=20_000)
    np.testing.assert_array_equal(draws["first"], jnp.broadcast_to(MEAN["first"], draws["first"].shape))
    # The precision of the layer's prior is the one with the most evidence, whatever the prior of the objective was.
    precisions = np.geomspace(1e-3, 1e3, 10_001)
    mean = np.asarray(MEAN["last"])
    evidence = [
        0.5 * (2 * np.log(tau) - np.linalg.slogdet(PRECISION + tau * np.eye(2))[1] - tau * mean @ mean)
        for tau in precisions
    ]
    covariance = np.linalg.inv(PRECISION + precisions[np.argmax(evidence)] * np.eye(2))
    np.testing.assert_allclose(draws["last"].mean(0), MEAN["last"], atol=0.03)  # 4 standard errors
    np.testing.assert_allclose(np.cov(draws["last"].T), covariance, atol=0.03)


def test_laplace_where_the_posterior_curves_upwards_is_refused():
    saddle = Objective(lambda params, batch: jnp.sum(jnp.square(params["last"])), EXAMPLES, full_batch)
    with pytest.raises(InputError, match="curve upwards"):
        laplace_draws(KEY, saddle, MEAN, layer="last", prior_precision=0.0, num_draws=2)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"'head'.*first"):
        laplace_draws(KEY, OBJECTIVE, MEAN, layer="head", prior_precision=1.0, num_draws=2)


def test_mean_field_has_the_mean_and_the_conditional_scales_of_a_gaussian():
    with jax.numpy_rank_promotion("allow"):  # BlackJAX broadcasts
        draws = mean_field_draws(KEY, OBJECTIVE, zeros(), num_steps=4000, num_draws=20_000, learning_rate=0.01)
    np.testing.assert_allclose(draws["first"].mean(0), MEAN["first"], atol=0.02)
    np.testing.assert_allclose(draws["last"].mean(0), MEAN["last"], atol=0.05)
    # The nearest independent normals have the precision's diagonal (Bishop 2006, equation 10.13).
    np.testing.assert_allclose(draws["first"].std(0), 0.2, rtol=0.05)
    np.testing.assert_allclose(draws["last"].std(0), 1 / np.sqrt(np.diag(PRECISION)), rtol=0.05)
    assert abs(np.corrcoef(draws["last"].T)[0, 1]) < 0.03


def test_dropout_leaves_out_whole_input_units_and_keeps_the_mean():
    kernel = {"kernel": jnp.arange(1.0, 7.0).reshape(3, 2), "bias": jnp.array([0.5, -0.5])}
    flat = Objective(lambda params, batch: jnp.zeros(()), EXAMPLES, full_batch)
    draws = dropout_draws(KEY, flat, kernel, num_steps=1, num_draws=20_000, rate=0.25)
    np.testing.assert_array_equal(draws["bias"], jnp.broadcast_to(kernel["bias"], draws["bias"].shape))
    is_out = np.asarray(draws["kernel"] == 0)
    assert (is_out.all(2) == is_out.any(2)).all()
    np.testing.assert_allclose(is_out[..., 0].mean(0), 0.25, atol=0.013)  # 4 standard errors
    np.testing.assert_allclose(draws["kernel"].mean(0), kernel["kernel"], rtol=0.02)


def test_dropout_is_trained_under_dropout():
    # One weight that should be one: E (z m / .75 − 1)² is least at m = .75, since E z² = E z = .75.
    one = Objective(lambda params, batch: -jnp.sum(jnp.square(params - 1)), EXAMPLES, full_batch)
    draws = dropout_draws(KEY, one, jnp.ones((1, 1)), num_steps=4000, num_draws=1000, rate=0.25)
    np.testing.assert_allclose(draws.max() * 0.75, 0.75, atol=0.03)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_that_leaves_out_nothing_or_everything_is_refused(rate):
    with pytest.raises(InputError):
        dropout_draws(KEY, OBJECTIVE, MEAN, num_steps=1, num_draws=1, rate=rate)


def test_swag_has_the_moments_of_stochastic_gradient_ascent():
    # θ ← θ + η (−a (θ − m) + s ξ): stationary variance η s² / (a (2 − η a)).
    rate, curvature, noise = 0.05, 4.0, 3.0

    def draw_batch(key, examples):
        del examples
        return jax.random.normal(key.own, (3,))

    objective = Objective(
        lambda params, batch: -curvature / 2 * jnp.sum(jnp.square(params - 1)) + noise * jnp.vdot(batch, params),
        EXAMPLES,
        draw_batch,
    )
    draws = swag_draws(
        KEY,
        objective,
        jnp.ones(3),
        learning_rate=rate,
        num_draws=20_000,
        num_snapshots=400,
        steps_between=20,
    )
    expected = rate * noise**2 / (curvature * (2 - rate * curvature))
    # 400 snapshots: the variance is known to 7 %, the mean to a twentieth of the spread.
    np.testing.assert_allclose(draws.var(0), expected, rtol=0.25)
    np.testing.assert_allclose(draws.mean(0), 1.0, atol=0.2 * expected**0.5)


def test_swag_keeps_the_correlation_of_its_snapshots():
    # The parameters are pushed together, so that half of the variance, that of the low-rank part, is shared.
    def push(key, examples):
        del examples
        return jax.random.normal(key.own)

    objective = Objective(
        lambda params, batch: -2 * jnp.sum(jnp.square(params)) + 3 * batch * params.sum(), EXAMPLES, push
    )
    draws = swag_draws(KEY, objective, jnp.zeros(2), learning_rate=0.05, num_draws=20_000, num_snapshots=100)
    np.testing.assert_allclose(np.corrcoef(draws.T)[0, 1], 0.5, atol=0.03)
