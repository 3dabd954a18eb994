from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from mtbkd_jax.weight_prior import WeightMixture, gaussian_prior, weight_space_prior

CENTERS = jnp.array([[-1.0, 0.0, 2.0], [3.0, 1.0, -2.0]])
SCALES = jnp.array([[0.5, 1.0, 2.0], [1.0, 0.3, 0.7]])
WEIGHTS = np.array([0.3, 0.7])
MIXTURE = WeightMixture(CENTERS, SCALES, jnp.log(jnp.asarray(WEIGHTS, jnp.float32)))


def test_draws_have_the_moments_of_the_mixture():
    num_draws = 100_000
    draws = np.asarray(MIXTURE.sample(jax.random.key(0), (num_draws,)))
    mean = WEIGHTS @ np.asarray(CENTERS)
    deviations = np.asarray(CENTERS) - mean
    covariance = np.einsum("k,ki,kj->ij", WEIGHTS, deviations, deviations)
    covariance += np.diag(WEIGHTS @ np.asarray(SCALES) ** 2)
    assert (np.abs(draws.mean(0) - mean) < 4 * np.sqrt(np.diag(covariance) / num_draws)).all()
    # The off-diagonal entries are there only if one index serves all parameters of a draw.
    products = np.einsum("si,sj->sij", draws - mean, draws - mean)
    assert (np.abs(products.mean(0) - covariance) < 4.5 * products.std(0) / np.sqrt(num_draws)).all()


def test_leading_axes_are_a_batch():
    values = MIXTURE.sample(jax.random.key(1), (4, 2))
    assert values.shape == (4, 2, 3)
    one_by_one = [[MIXTURE.log_prob(value) for value in row] for row in values]
    np.testing.assert_allclose(MIXTURE.log_prob(values), one_by_one, rtol=1e-5)


def test_far_from_every_center_the_density_stays_finite():
    value = jnp.full(3, 1e4)
    assert jnp.isfinite(MIXTURE.log_prob(value))
    assert jnp.isfinite(jax.grad(MIXTURE.log_prob)(value)).all()


def test_the_prior_of_a_tree_differs_from_the_density_by_a_constant():
    prior = weight_space_prior(MIXTURE)
    values = MIXTURE.sample(jax.random.key(2), (6,))
    of_trees = jnp.stack([prior({"a": value[:1], "b": value[1:]}) for value in values])
    differences = np.asarray(of_trees - MIXTURE.log_prob(values))
    np.testing.assert_allclose(differences, differences[0], atol=1e-5)


def test_the_gaussian_prior_pulls_to_zero():
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[3.0]])}
    assert float(gaussian_prior(2.0)(params)) == -14.0 / 8
    gradient = jax.grad(gaussian_prior(2.0))(params)
    np.testing.assert_allclose(gradient["a"], -params["a"] / 4)


def test_figure_2_in_numpyros_own_nuts():
    # Prior centers 2 and 6, one observation 3.5, all scales 1: a component has the evidence Normal(3.5; center, 1 + 1).
    def model():
        mixture = WeightMixture(jnp.array([[2.0], [6.0]]), jnp.ones(2), jnp.log(jnp.array([0.5, 0.5])))
        weight = numpyro.sample("weight", mixture)
        numpyro.sample("y", dist.Normal(weight[0], 1.0), obs=3.5)

    evidence = np.exp(-((3.5 - np.array([2.0, 6.0])) ** 2) / 4)
    weights = evidence / evidence.sum()
    means = (np.array([2.0, 6.0]) + 3.5) / 2

    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=8000, progress_bar=False)
    mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples()["weight"])[:, 0]
    # The share of the upper component, draw by draw: its posterior mean is that component's weight.
    logits = np.log(weights) - (draws[:, None] - means) ** 2
    upper = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    for of_draws, expected in ((upper, weights[1]), (draws, weights @ means)):
        batch_means = of_draws.reshape(40, -1).mean(1)
        assert abs(batch_means.mean() - expected) < 4 * batch_means.std(ddof=1) / np.sqrt(40)


@pytest.mark.parametrize("num_parameters", [3, 512, 1100], ids=["less than a row", "one row", "rows and a rest"])
@pytest.mark.parametrize("is_diagonal", [False, True], ids=["scalar scales", "diagonal scales"])
def test_value_and_gradients_are_those_of_numpyros_flat_mixture(num_parameters, is_diagonal):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), 4)
        centers = jax.random.normal(keys[0], (4, num_parameters), float)
        scales = jnp.exp(0.3 * jax.random.normal(keys[1], (4, num_parameters if is_diagonal else 1), float))
        log_weights = jax.nn.log_softmax(jax.random.normal(keys[2], (4,), float))
        value = centers.mean(0) + 0.1 * jax.random.normal(keys[3], (num_parameters,), float)

        def ours(value, centers, scales, log_weights):
            given = scales if is_diagonal else scales[:, 0]
            return WeightMixture(centers, given, log_weights).log_prob(value)

        def flat(value, centers, scales, log_weights):
            components = dist.Normal(centers, jnp.broadcast_to(scales, centers.shape)).to_event(1)
            return dist.MixtureSameFamily(dist.Categorical(logits=log_weights), components).log_prob(value)

        arguments = (value, centers, scales, log_weights)

        def curvature(function):
            gradient = jax.grad(function)
            return jax.jvp(lambda value: gradient(value, *arguments[1:]), (value,), (jnp.ones_like(value),))[1]

        compare = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
        compare(ours(*arguments), flat(*arguments))
        compare(curvature(ours), curvature(flat))
        # NumPyro normalises the weights once more, so the gradients by them differ.
        by_argument = [jax.grad(function, argnums=(0, 1, 2))(*arguments) for function in (ours, flat)]
        jax.tree.map(compare, *by_argument)
