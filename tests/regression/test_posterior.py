"""The posterior of a linear student with given noise and one teacher is a Gaussian in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.regression.function_prior import gaussian_components, gaussian_mixture_prior
from mtbkd_jax.regression.likelihood import gaussian_log_likelihood
from mtbkd_jax.regression.teachers import Broad
from mtbkd_jax.samplers import hmc, nuts, sghmc, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.students import Student
from mtbkd_jax.weight_prior import gaussian_prior

LINEAR = Student(lambda key: jax.random.normal(key, (3,)), lambda weights, inputs: (inputs @ weights)[:, None])
NOISE, TEACHER_SD, CONCENTRATION, WEIGHT_SCALE = 0.5, 0.8, 2.0, 1.5
NUM_CHAINS, NUM_DRAWS = 4, 1500


@pytest.fixture(scope="module")
def examples():
    """30 examples of which 12 have a target, and one teacher with all the weight."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(30, 3)).astype(np.float32)
    targets = np.where(np.arange(30) < 12, inputs @ [1.0, -1.0, 0.5] + NOISE * rng.normal(size=30), np.nan)
    means = (inputs @ [0.5, -1.0, 1.0] + 0.3).astype(np.float32)[:, None]
    components = gaussian_components(
        jnp.asarray(means),
        jnp.full((30, 1), TEACHER_SD),
        jnp.broadcast_to(jnp.array([-jnp.inf, 0.0]), (30, 2)),
        Broad(jnp.array(0.0), jnp.array(1.0)),
        CONCENTRATION,
    )
    return Examples(jnp.asarray(inputs), jnp.asarray(targets, jnp.float32), components)


def closed_form(examples, power):
    """Mean and covariance: two regressions, one on targets and one on the teacher's means, and a ridge."""
    inputs, targets = np.asarray(examples.inputs, np.float64), np.asarray(examples.labels, np.float64)
    means, known = np.asarray(examples.components.means[:, 1], np.float64), np.isfinite(targets)
    of_teacher = power * CONCENTRATION / TEACHER_SD**2
    precision = (
        inputs[known].T @ inputs[known] / NOISE**2 + of_teacher * inputs.T @ inputs + np.eye(3) / WEIGHT_SCALE**2
    )
    pull = inputs[known].T @ targets[known] / NOISE**2 + of_teacher * inputs.T @ means
    covariance = np.linalg.inv(precision)
    return covariance @ pull, covariance


def log_density(power):
    return log_posterior(
        LINEAR,
        per_example=(gaussian_log_likelihood(noise=NOISE), gaussian_mixture_prior(power=power)),
        per_parameters=(gaussian_prior(WEIGHT_SCALE),),
    )


SAMPLERS = {
    "hmc": lambda density: hmc(density, num_leapfrog_steps=5),
    "nuts": lambda density: nuts(density, max_tree_depth=5),
    "sghmc": lambda density: sghmc(density, friction=3.0),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("power", [0.0, 0.7])
def test_samplers_find_the_closed_form(examples, sampler, power):
    """Power zero is the plain posterior of the labels."""
    built = SAMPLERS[sampler](log_density(power))
    states = start_chains(built, jnp.zeros((NUM_CHAINS, 3)), jax.random.key(0))
    shared = {"data": examples, "draw_batch": full_batch}
    if sampler == "sghmc":
        step_size, thinning = constant(0.02), 30
    else:
        states, step_sizes = warm_up(built, states, key=jax.random.key(1), num_steps=200, **shared)
        step_size, thinning = constant(step_sizes), 2
    run = sample_chains(
        built,
        states,
        key=jax.random.key(2),
        step_size=step_size,
        num_draws=NUM_DRAWS,
        num_burn_in=300,
        thinning=thinning,
        **shared,
    )
    draws = np.asarray(run.positions, np.float64).reshape(-1, 3)
    mean, covariance = closed_form(examples, power)
    # Four standard errors for a third of the draws being independent; SGHMC's covariance is off by O(ε²) besides.
    sd, count = np.sqrt(np.diag(covariance)), len(draws) / 3
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / sd, 4 / np.sqrt(count))
    error = np.abs(np.cov(draws.T) - covariance) / np.outer(sd, sd)
    np.testing.assert_array_less(error, 4 * np.sqrt(2 / count) + (0.02 if sampler == "sghmc" else 0.0))


def test_power_zero_adds_nothing(examples):
    plain = log_posterior(
        LINEAR, per_example=(gaussian_log_likelihood(noise=NOISE),), per_parameters=(gaussian_prior(WEIGHT_SCALE),)
    )
    weights, batch = jnp.array([0.3, 0.1, -2.0]), full_batch(jax.random.key(0), examples)
    with_power, without = (jax.value_and_grad(density)(weights, batch) for density in (log_density(0.0), plain))
    np.testing.assert_allclose(with_power[0], without[0], rtol=1e-6)
    np.testing.assert_allclose(with_power[1], without[1], rtol=1e-6)
