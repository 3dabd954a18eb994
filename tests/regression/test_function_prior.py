import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples
from mtbkd_jax.regression.function_prior import (
    gaussian_components,
    gaussian_mixture_prior,
    gaussian_responsibilities,
)
from mtbkd_jax.regression.teachers import Broad

MEANS, SDS = jnp.array([[0.0, 2.0], [1.0, -1.0]]), jnp.array([[0.5, 1.0], [0.2, 0.3]])
WEIGHTS = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
BROAD = Broad(jnp.array(0.5), jnp.array(3.0))
OUTPUTS = jnp.array([[0.7, -1.0], [0.1, -1.0]])
CONCENTRATION = 4.0


def examples_with(weights=WEIGHTS, concentration=CONCENTRATION):
    with np.errstate(divide="ignore"):
        log_weights = jnp.asarray(np.log(weights), jnp.float32)
    components = gaussian_components(MEANS, SDS, log_weights, BROAD, concentration)
    return Examples(jnp.zeros((2, 1)), jnp.full(2, jnp.nan), components)


def densities():
    """Of each component at the student's means, by SciPy; the concentration divides the teachers' variances alone."""
    means = np.concatenate([np.full((2, 1), 0.5), MEANS], axis=1)
    sds = np.concatenate([np.full((2, 1), 3.0), SDS / np.sqrt(CONCENTRATION)], axis=1)
    return means, sds, norm.pdf(np.asarray(OUTPUTS[:, :1]), means, sds)


@pytest.mark.parametrize("power", [1.0, 0.25, 0.0])
def test_density_is_the_mixture_to_a_power(power):
    expected = power * np.log((WEIGHTS * densities()[2]).sum(1))
    np.testing.assert_allclose(gaussian_mixture_prior(power=power)(OUTPUTS, examples_with()), expected, rtol=1e-5)


def test_gradient_is_the_pull_of_each_component_by_its_responsibility():
    means, sds, density = densities()
    shares = WEIGHTS * density / (WEIGHTS * density).sum(1, keepdims=True)
    np.testing.assert_allclose(gaussian_responsibilities(OUTPUTS, examples_with().components), shares, rtol=1e-4)
    gradient = jax.grad(lambda outputs: gaussian_mixture_prior(power=0.3)(outputs, examples_with()).sum())(OUTPUTS)
    expected = 0.3 * (shares * (means - np.asarray(OUTPUTS[:, :1])) / sds**2).sum(1)
    np.testing.assert_allclose(gradient, np.stack([expected, np.zeros(2)], axis=1), rtol=1e-4)


def test_a_teacher_far_away_leaves_a_finite_gradient():
    alone = examples_with(np.array([[0.0, 1.0, 0.0]] * 2), concentration=1e6)
    far = jnp.array([[1e3], [-1e3]])
    value, gradient = jax.value_and_grad(lambda outputs: gaussian_mixture_prior()(outputs, alone).sum())(far)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, 1e6 * (MEANS[:, :1] - far) / SDS[:, :1] ** 2, rtol=1e-4)


@pytest.mark.parametrize("power", [-1.0, np.nan])
def test_a_power_that_is_none_is_refused(power):
    with pytest.raises(InputError, match="power"):
        gaussian_mixture_prior(power=power)


@pytest.mark.parametrize(("sds", "concentration"), [(-SDS, 1.0), (SDS.at[0, 0].set(jnp.nan), 1.0), (SDS, 0.0)])
def test_components_without_a_width_are_refused(sds, concentration):
    with pytest.raises(InputError):
        gaussian_components(MEANS, sds, jnp.zeros((2, 3)), BROAD, concentration)
