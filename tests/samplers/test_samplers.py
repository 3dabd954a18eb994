"""One battery of tests for all samplers."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc import diffusions
from jax.flatten_util import ravel_pytree
from scipy.linalg import solve_discrete_lyapunov

from mtbkd_jax.errors import InputError
from mtbkd_jax.noise import standard_normals
from mtbkd_jax.samplers import chees, hmc, nuts, sghmc, sgld
from mtbkd_jax.samplers.sghmc import SGHMCState
from mtbkd_jax.samplers.sgld import SGLDState
from tests.samplers.table import BIASED, COVARIANCE, FRICTION, MEAN, PRECISION, SAMPLERS, log_density

POSITION = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
BATCH = jnp.zeros(1)
MANY = 40_000
NUM_ERRORS = 4.5
"""Standard errors allowed: exceeded by chance in 7 of a million comparisons."""


def draw_independently(name, temperature, step_size, num_chains=MANY, num_steps=60):
    """The last position of many independent chains: draws whose Monte Carlo error is known exactly."""
    sampler = SAMPLERS[name].build(log_density, temperature=temperature)

    @jax.vmap
    def run(key):
        start_key, key = jax.random.split(key)
        start = {"a": jnp.array([MEAN[0]], jnp.float32), "b": jnp.array([MEAN[1]], jnp.float32)}
        state = sampler.init(start, start_key)
        state = jax.lax.fori_loop(
            0, num_steps, lambda t, s: sampler.step(jax.random.fold_in(key, t), s, BATCH, step_size)[0], state
        )
        return jnp.concatenate([state.position["a"], state.position["b"]])

    return np.asarray(jax.jit(run)(jax.random.split(jax.random.key(7), num_chains)), np.float64)


def stationary_covariance(name, temperature, step_size):
    """Of the position, in closed form: S = A S Aᵀ + Q, where A is the Jacobian of the step that is under test."""
    row = SAMPLERS[name]
    if row.noise is None:
        return temperature * COVARIANCE
    sampler = row.build(log_density, temperature=temperature)
    flat, unravel = ravel_pytree(sampler.init(POSITION, jax.random.key(0)))

    def step(flat):
        return ravel_pytree(sampler.step(jax.random.key(1), unravel(flat), BATCH, step_size)[0])[0]

    transition = np.asarray(jax.jacfwd(step)(flat), np.float64)
    return solve_discrete_lyapunov(transition, row.noise(step_size, temperature))[:2, :2]


def standard_errors(covariance, num_draws=MANY):
    """Of the entries of a sample covariance of independent Gaussian draws."""
    variances = np.diag(covariance)
    return np.sqrt((np.outer(variances, variances) + covariance**2) / num_draws)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("name", SAMPLERS)
def test_stationary_moments_of_a_correlated_gaussian(name, temperature):
    step_size = SAMPLERS[name].step_size
    # An independent start at the mean is forgotten in 60 small steps, and in 15 trajectories.
    draws = draw_independently(name, temperature, step_size, num_steps=60 if name in BIASED else 15)
    expected = stationary_covariance(name, temperature, step_size)
    error = np.abs(draws.mean(axis=0) - MEAN)
    assert (error < NUM_ERRORS * np.sqrt(np.diag(expected) / MANY)).all()
    assert (np.abs(np.cov(draws.T) - expected) < NUM_ERRORS * standard_errors(expected)).all()


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("name", BIASED)
def test_bias_shrinks_at_its_order_when_the_step_is_halved(name, temperature):
    row = SAMPLERS[name]
    target = temperature * COVARIANCE
    wide, narrow = (stationary_covariance(name, temperature, row.step_size * f) for f in (1.0, 0.5))
    narrowest = stationary_covariance(name, temperature, row.step_size / 4)
    # Seen in the draws: the bias at the full step is many Monte Carlo errors, and half the step has what is left of it.
    for expected, factor in ((wide, 1.0), (narrow, 0.5)):
        draws = draw_independently(name, temperature, row.step_size * factor, num_steps=round(60 / factor))
        assert (np.abs(np.cov(draws.T) - expected) < NUM_ERRORS * standard_errors(expected)).all()
    assert np.trace(wide - target) > 6 * np.trace(standard_errors(wide))
    # For small steps the ratio is 2^order; the tolerance leaves room for the next order in the step.
    ratio = np.trace(narrow - target) / np.trace(narrowest - target)
    assert ratio == pytest.approx(2**row.order, rel=0.2)


def test_sgld_on_a_gaussian_has_the_stationary_covariance_of_its_docstring():
    expected = np.linalg.inv(PRECISION - 0.2 * PRECISION @ PRECISION / 2)
    np.testing.assert_allclose(stationary_covariance("sgld", 1.0, 0.2), expected, rtol=1e-5)


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_sghmc_is_stable_up_to_the_step_size_of_its_docstring(factor):
    curvature = np.linalg.eigvalsh(PRECISION).max()
    largest = (-FRICTION + np.sqrt(FRICTION**2 + 4 * curvature)) / curvature  # ε²λ = 4 − 2αε
    draws = draw_independently("sghmc", 1.0, factor * largest, num_chains=10, num_steps=2000)
    assert (np.abs(draws).max() < 100) == (factor < 1)


@pytest.mark.parametrize("name", BIASED)
def test_temperature_zero_descends_to_the_mode(name):
    draws = draw_independently(name, 0.0, 0.2, num_chains=2, num_steps=200)
    np.testing.assert_allclose(draws, np.broadcast_to(MEAN, (2, 2)), atol=1e-5)


@pytest.mark.parametrize("name", ["sghmc", "hmc", "chees", "nuts"])
def test_reported_log_density_is_that_of_the_new_position_in_nats(name):
    sampler = SAMPLERS[name].build(log_density, temperature=0.1)
    state = sampler.init(POSITION, jax.random.key(0))
    state, info = sampler.step(jax.random.key(1), state, BATCH, 0.3)
    assert float(info.log_density) == pytest.approx(float(log_density(state.position, BATCH)), rel=1e-5)


def test_sgld_reports_the_log_density_of_the_position_it_started_from():
    sampler = sgld(log_density)
    _, info = sampler.step(jax.random.key(1), sampler.init(POSITION, jax.random.key(0)), BATCH, 0.3)
    assert float(info.log_density) == float(log_density(POSITION, BATCH))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_chains", [None, 3], ids=["one chain", "batched"])
def test_step_lowers_for_every_platform(name, num_chains):
    sampler = SAMPLERS[name].build(log_density)
    state = sampler.init(POSITION, jax.random.key(0))
    leaves, structure = jax.tree.flatten(state)

    def step(seed, leaves, batch, step_size):
        state = jax.tree.unflatten(structure, leaves)
        return jax.tree.leaves(sampler.step(jax.random.key(seed), state, batch, step_size))

    def argument(leaf):
        shape = leaf.shape if num_chains is None else (num_chains, *leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    arguments = jax.tree.map(argument, (jnp.uint32(1), leaves, BATCH, jnp.float32(0.1)))
    every_chain = step if num_chains is None else jax.vmap(step)
    platforms = ("cpu", "cuda", "tpu")
    assert jax.export.export(jax.jit(every_chain), platforms=platforms)(*arguments).platforms == platforms


@pytest.mark.parametrize(
    "build",
    [
        partial(sgld, temperature=-0.1),
        partial(sgld, temperature=float("nan")),
        partial(sghmc, friction=0.0),
        partial(sghmc, friction=1.0, temperature=-1.0),
        partial(hmc, num_leapfrog_steps=0),
        partial(hmc, num_leapfrog_steps=3, temperature=0.0),
        partial(chees, trajectory_length=0.0),
        partial(chees, temperature=0.0),
        partial(nuts, temperature=0.0),
        partial(nuts, max_tree_depth=0),
    ],
)
def test_wrong_numbers_are_refused_when_the_sampler_is_built(build):
    with pytest.raises(InputError):
        build(log_density)


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_a_step_is_that_of_blackjax_with_the_same_noise(temperature, monkeypatch):
    monkeypatch.setattr("blackjax.util.normal", lambda key, shape, dtype: standard_normals(key, *shape))
    key, step_size = jax.random.key(3), 0.07
    position, momentum = {"a": jnp.array([0.3]), "b": jnp.array([-1.0])}, {"a": jnp.array([0.5]), "b": jnp.array([2.0])}
    langevin, _ = sgld(log_density, temperature=temperature).step(key, SGLDState(position), BATCH, step_size)
    force = jax.grad(log_density)(position, BATCH)
    theirs = diffusions.overdamped_langevin()(key, position, force, step_size, temperature)
    chex.assert_trees_all_close(langevin.position, theirs, rtol=1e-6)

    state = SGHMCState(position, momentum)
    sampler = sghmc(log_density, friction=FRICTION, temperature=temperature)
    hamiltonian, _ = sampler.step(key, state, BATCH, step_size)
    force = jax.grad(log_density)(
        hamiltonian.position, BATCH
    )  # at the new position, where theirs takes what it is given
    theirs = diffusions.sghmc(alpha=FRICTION)(key, position, momentum, force, step_size, temperature)
    chex.assert_trees_all_close(tuple(hamiltonian), theirs, rtol=1e-6)
