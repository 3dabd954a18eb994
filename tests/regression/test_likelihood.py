import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples
from mtbkd_jax.regression.likelihood import gaussian_log_likelihood

EXAMPLES = Examples(jnp.zeros((3, 1)), jnp.array([1.0, jnp.nan, -2.0]))
MEANS, LOG_NOISE = jnp.array([0.5, 3.0, -1.0]), jnp.log(jnp.array([0.1, 1.0, 2.0]))


def test_density_is_that_of_the_target_and_zero_where_it_is_unknown():
    density = gaussian_log_likelihood()(jnp.stack([MEANS, LOG_NOISE], axis=1), EXAMPLES)
    np.testing.assert_allclose(density, [norm.logpdf(1, 0.5, 0.1), 0.0, norm.logpdf(-2, -1, 2)], rtol=1e-5)


def test_given_noise_needs_one_output_only():
    density = gaussian_log_likelihood(noise=0.5)(MEANS[:, None], EXAMPLES)
    np.testing.assert_allclose(density, [norm.logpdf(1, 0.5, 0.5), 0.0, norm.logpdf(-2, -1, 0.5)], rtol=1e-5)


def test_gradient_pulls_towards_the_target_and_is_zero_where_it_is_unknown():
    outputs = jnp.stack([MEANS, LOG_NOISE], axis=1)
    gradient = jax.grad(lambda outputs: gaussian_log_likelihood()(outputs, EXAMPLES).sum())(outputs)
    errors = jnp.array([0.5, 0.0, -1.0]) * jnp.exp(-LOG_NOISE)
    of_log_noise = jnp.where(jnp.isnan(EXAMPLES.labels), 0.0, errors**2 - 1)
    np.testing.assert_allclose(gradient, jnp.stack([errors * jnp.exp(-LOG_NOISE), of_log_noise], axis=1), rtol=1e-5)


@pytest.mark.parametrize("noise", [0.0, -1.0, np.nan])
def test_noise_that_is_not_positive_is_refused(noise):
    with pytest.raises(InputError, match="noise"):
        gaussian_log_likelihood(noise=noise)


def test_a_student_without_noise_is_told_what_to_do():
    with pytest.raises(InputError, match="with_noise"):
        gaussian_log_likelihood()(MEANS[:, None], EXAMPLES)
