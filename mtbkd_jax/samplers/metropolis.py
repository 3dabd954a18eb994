"""What HMC and NUTS share: a state with the inverse mass matrix, and one step of a BlackJAX kernel at a temperature."""

from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_positive
from mtbkd_jax.samplers.base import Sampler, SamplerInfo
from mtbkd_jax.tree import tree_size
from mtbkd_jax.types import MinibatchLogDensity, Params


class MetropolisState(NamedTuple):
    """Position, and the diagonal of the inverse mass matrix in the order of the raveled position.

    Neither the log density nor its gradient is remembered: the batch is an argument of the step, so they may be those
    of another density. The price is one gradient on top of those of the trajectory.
    """

    position: Params
    inverse_mass_matrix: Float[Array, "*chains parameters"]


def metropolis_sampler(kernel: Callable, log_density: MinibatchLogDensity, temperature: float) -> Sampler:
    """Turn a BlackJAX kernel into a sampler.

    The kernel is ``(key, state, log_density, step_size, inverse_mass_matrix) -> (state, info)``.

    The target is ``log_density / temperature`` and the step size is in the time unit of SGHMC, whose momentum is N(0,
    T): the largest stable step is the same at every temperature.
    """
    check_positive(temperature=temperature)

    def init(position, key):
        del key  # the momentum is drawn in the step
        dtype = jnp.result_type(*jax.tree.leaves(position))
        return MetropolisState(position, jnp.ones(tree_size(position), dtype))

    def step(key, state, batch, step_size):
        def target(position):
            return log_density(position, batch) / temperature

        start = blackjax.hmc.init(state.position, target)
        end, info = kernel(key, start, target, step_size * temperature**0.5, state.inverse_mass_matrix)
        summary = SamplerInfo(temperature * end.logdensity, info.acceptance_rate, info.is_divergent)
        return MetropolisState(end.position, state.inverse_mass_matrix), summary

    return Sampler(init, step)
