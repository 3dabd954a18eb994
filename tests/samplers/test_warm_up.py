import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.samplers import hmc, nuts, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant

SCALES = jnp.array([0.1, 1.0, 5.0])


def log_density(params, batch):
    return -jnp.sum((params / SCALES) ** 2) / 2 + 0.0 * batch


def whole(key, data):
    return data


# Three steps of about .8 go a third of the way around; five would go half, to the mirror image of where they began, and
# the draws would know little of the variance.
@pytest.mark.parametrize("build", [lambda f: hmc(f, num_leapfrog_steps=3), nuts])
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
