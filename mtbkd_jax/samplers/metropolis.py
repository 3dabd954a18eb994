"""What HMC, NUTS and ChEES share: one step of a BlackJAX kernel at a temperature, and the inverse mass matrix."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_positive
from mtbkd_jax.samplers.base import Sampler, SamplerInfo
from mtbkd_jax.tree import tree_size
from mtbkd_jax.types import Key, MinibatchLogDensity, Params


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
    """
    move = metropolis_move(kernel, log_density, temperature)

    def init(position, key):
        del key  # the momentum is drawn in the step
        return MetropolisState(position, identity(position))

    def step(key, state, batch, step_size):
        position, summary, _ = move(key, state, batch, step_size)
        return state._replace(position=position), summary

    return Sampler(init, step)


def identity(position: Params) -> Float[Array, " parameters"]:
    """The inverse mass matrix before there is a better one."""
    return jnp.ones(tree_size(position), jnp.result_type(*jax.tree.leaves(position)))


def metropolis_move(kernel: Callable, log_density: MinibatchLogDensity, temperature: float) -> Callable:
    """``(key, state, batch, step_size, *of_kernel) -> (position, info, what BlackJAX tells of it)``.

    The target is ``log_density / temperature`` and the step size is in the time unit of SGHMC, whose momentum is N(0,
    T): the largest stable step is the same at every temperature.

    Args:
      kernel: ``(key, state, log_density, step_size, inverse_mass_matrix, *of_kernel) -> (state, info)``.
      log_density: in nats.
      temperature: T.
    """
    check_positive(temperature=temperature)

    def move(key: Key, state: Any, batch: Any, step_size: Any, *of_kernel: Any) -> tuple[Params, SamplerInfo, Any]:
        def target(position):
            return log_density(position, batch) / temperature

        start = blackjax.hmc.init(state.position, target)
        end, info = kernel(key, start, target, step_size * temperature**0.5, state.inverse_mass_matrix, *of_kernel)
        return end.position, SamplerInfo(temperature * end.logdensity, info.acceptance_rate, info.is_divergent), info

    return move
