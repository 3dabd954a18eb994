import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.adaptation.window_adaptation import build_schedule

from mtbkd_jax.chains import chain_mesh
from mtbkd_jax.errors import InputError
from mtbkd_jax.samplers import chees, hmc, nuts, warm_up
from mtbkd_jax.samplers.chees_warm_up import adapt_together, begin_together, finish_together
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant

SCALES = jnp.array([0.1, 1.0, 5.0])


def log_density(params, batch):
    return -jnp.sum((params / SCALES) ** 2) / 2 + 0.0 * batch


def whole(key, data):
    return data


# Three steps of about .8 go a third of the way around; five would go half, to the mirror image of where they began, and
# the draws would know little of the variance.
@pytest.mark.parametrize("build", [lambda f: hmc(f, num_leapfrog_steps=3), nuts, chees])
def test_warm_up_finds_the_scales_and_the_acceptance_rate(build):
    sampler = build(log_density)
    states = start_chains(sampler, jnp.ones((3, 3)), jax.random.key(0))
    arguments = {"data": jnp.zeros(()), "draw_batch": whole}
    states, step_sizes = warm_up(sampler, states, key=jax.random.key(1), num_steps=1000, **arguments)
    # The last slow window has about 500 correlated draws: a variance is known to a few tens of per cent.
    assert step_sizes.shape == (3,)
    np.testing.assert_allclose(
        np.log(np.asarray(states.inverse_mass_matrix) / np.asarray(SCALES) ** 2), 0, atol=np.log(2)
    )
    run = sample_chains(
        sampler, states, key=jax.random.key(2), step_size=constant(step_sizes), num_draws=1000, **arguments
    )
    # Dual averaging ends near its target from above; a chain left at the first step size would be far from it.
    assert 0.7 < float(run.info.acceptance_rate.mean()) < 0.97
    np.testing.assert_allclose(run.positions.std(axis=(0, 1)), SCALES, rtol=0.1)


def test_warm_up_refuses_no_steps():
    sampler = nuts(log_density)
    states = start_chains(sampler, jnp.ones((2, 3)), jax.random.key(0))
    with pytest.raises(InputError):
        warm_up(sampler, states, key=jax.random.key(1), data=jnp.zeros(()), draw_batch=whole, num_steps=0)


def warmed_up_together(log_density, *, num_chains=8, num_parameters=10, own_data=None):
    """The states of ChEES after 500 steps of warm-up; its chains share what they learn."""
    sampler = chees(log_density)
    starts = jax.random.normal(jax.random.key(0), (num_chains, num_parameters))
    states = start_chains(sampler, starts, jax.random.key(1))
    arguments = {"data": jnp.zeros(()), "draw_batch": whole, "own_data": own_data}
    states, step_sizes = warm_up(sampler, states, key=jax.random.key(2), num_steps=500, **arguments)
    for shared in (states.inverse_mass_matrix, states.trajectory_length, step_sizes):
        np.testing.assert_array_equal(shared, np.broadcast_to(shared[:1], shared.shape))
    return states


def test_trajectories_are_as_long_as_changes_the_squared_distance_most():
    # Of a standard Gaussian it changes by the mean of sin² hτ over h, which is largest at tan 2τ = 2τ: 2.25. Proposals
    # are few and the curve is flat there (nine tenths of it from 1.4 to 3.1).
    (length, *_) = np.asarray(warmed_up_together(lambda params, batch: -jnp.sum(params**2) / 2).trajectory_length)
    assert 1.4 < length < 3.1
    # Along a direction whose scale a diagonal mass matrix cannot bring to one, trajectories have to be longer.
    precision = np.eye(10) + 0.1 * np.ones((10, 10))
    covariance = np.linalg.inv(precision - np.ones((10, 10)) * 0.195)
    assert np.linalg.eigvalsh(covariance).max() == pytest.approx(20)
    narrow = np.linalg.inv(covariance).astype(np.float32)
    (longer, *_) = np.asarray(warmed_up_together(lambda params, batch: -params @ narrow @ params / 2).trajectory_length)
    assert longer > 1.5 * length


def test_what_chains_learn_together_does_not_depend_on_how_far_apart_their_laws_are():
    def log_density(params, batch):
        return -jnp.sum((params - batch[1]) ** 2) / 2

    near, far = (warmed_up_together(log_density, own_data=spread * jnp.arange(8.0)) for spread in (0.0, 1000.0))
    # Float32 next to 7,000 has steps of 5e-4, so that accepted and refused proposals differ here and there.
    np.testing.assert_allclose(far.trajectory_length, near.trajectory_length, rtol=0.3)
    np.testing.assert_allclose(far.inverse_mass_matrix, near.inverse_mass_matrix, rtol=0.3)


def test_a_chain_that_fails_takes_no_other_with_it():
    own_data = jnp.zeros(8).at[3].set(jnp.nan)
    states = warmed_up_together(lambda params, batch: -jnp.sum((params - batch[1]) ** 2) / 2, own_data=own_data)
    np.testing.assert_allclose(np.log(states.inverse_mass_matrix), 0, atol=np.log(1.5))


def test_a_warm_up_together_lowers_for_every_platform():
    sampler, mesh = chees(log_density), chain_mesh(4)
    states = start_chains(sampler, jnp.ones((4, 3)), jax.random.key(0))
    platforms = ("cpu", "cuda", "tpu")

    def step_sizes(seed, positions):
        chains = jnp.arange(4), None, begin_together(states._replace(position=positions), 0.1)
        shared = jnp.zeros(()), (jax.random.key(seed), build_schedule(50), 0.8, 0, 50)
        how = {"propose": sampler.propose, "draw_batch": whole, "mesh": mesh, "num_blocks": 1}
        return finish_together(adapt_together(chains, shared, **how))[1]

    export = jax.export.export(jax.jit(step_sizes), platforms=platforms)
    assert export(jnp.uint32(0), states.position).platforms == platforms
