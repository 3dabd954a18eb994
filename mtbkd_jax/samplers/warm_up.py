"""Adaptation of the step size and the mass matrix of samplers that accept or reject, with parts of BlackJAX.

That of HMC and NUTS has the three stages of Stan, and every chain its own; ``chees_warm_up`` says what ChEES does.

A first fast stage adapts the step size alone (dual averaging to an acceptance rate), slow windows of doubling length
also estimate the variance of each parameter, and a last fast stage fits the step size to it. What is remembered is a
fixed number of floats for each parameter, however many steps there are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mtbkd_jax.chains import (
    DrawBatch,
    chain_mesh,
    copy_data,
    copy_to_all,
    copy_to_chains,
    keys_of_step,
    on_this_host,
    over_chains,
    specs_with_data,
    with_own,
)
from mtbkd_jax.checks import check_positive
from mtbkd_jax.samplers.base import Sampler
from mtbkd_jax.samplers.chees_warm_up import adapt_together, begin_together, finish_together
from mtbkd_jax.tree import tree_size
from mtbkd_jax.types import Key

_STEPS_OF_A_PROGRAM = 10
"""With several CPU devices XLA keeps some kilobytes for every gradient of thousands of rows until a program ends, and a
step of NUTS may have a thousand gradients."""


class _Adapting(NamedTuple):
    """A chain on its way, and what BlackJAX has learned of its step size and mass matrix."""

    state: Any
    step_size: Any
    mass_matrix: Any


def warm_up(
    sampler: Sampler,
    states: Any,
    *,
    key: Key,
    data: Any,
    draw_batch: DrawBatch,
    num_steps: int,
    own_data: Any = None,
    num_blocks: int = 1,
    num_model_blocks: int = 1,
    initial_step_size: float = 0.1,
    target_acceptance_rate: float = 0.8,
) -> tuple[Any, Float[Array, " chains"]]:
    """Adapt each chain of an HMC or NUTS sampler on its own, or all chains of a ChEES sampler together.

    Args:
      sampler: made by ``hmc``, ``nuts`` or ``chees``.
      states: the states to start from, stacked over chains; they are not changed.
      key: not to be used again for sampling.
      data: what ``draw_batch`` draws from.
      draw_batch: ``(key, data) -> batch``; all of the data, if the chain is to be exact.
      own_data: of each chain, as in ``sample_chains``.
      num_blocks: of the data, as in ``sample_chains``.
      num_model_blocks: of the parameters, as in ``sample_chains``.
      num_steps: steps of adaptation; fewer than 20 adapt the step size alone.
      initial_step_size: where the search for the step size starts.
      target_acceptance_rate: mean probability of acceptance to aim at (over chains, for ChEES: the harmonic one).

    Returns:
      The states with their inverse mass matrices (of ChEES also their trajectory length), and the step sizes
      ``[chains]`` (for ``schedules.constant``).

    Raises:
      InputError: if a number is not positive.
    """
    check_positive(
        num_steps=num_steps, initial_step_size=initial_step_size, target_acceptance_rate=target_acceptance_rate
    )
    num_chains = jax.tree.leaves(states)[0].shape[0]
    mesh = chain_mesh(num_chains, num_blocks, num_model_blocks=num_model_blocks, is_global=True)
    begin: Callable[[Any, float], Any]
    advance: Callable[..., Any]
    finish: Callable[[Any], tuple[Any, Array]]
    if sampler.propose is None:
        begin, advance, finish = _begin, partial(_adapt_chains, sampler=sampler), _finish
    else:
        begin, finish = begin_together, finish_together
        advance = partial(adapt_together, propose=sampler.propose)
    # Without the weak types that Python's numbers have, what the program is given first is like what it gives.
    begun = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), begin(states, float(initial_step_size)))
    numbers, own, adapting = copy_to_chains((jnp.arange(num_chains), own_data, begun), mesh)
    placed = copy_data(data, mesh, num_blocks)
    plan = copy_to_all((key, build_schedule(num_steps), float(target_acceptance_rate)), mesh)
    for first in range(0, num_steps, _STEPS_OF_A_PROGRAM):
        steps = copy_to_all((first, min(first + _STEPS_OF_A_PROGRAM, num_steps)), mesh)
        shared = placed, (*plan, *steps)
        adapting = advance((numbers, own, adapting), shared, draw_batch=draw_batch, mesh=mesh, num_blocks=num_blocks)
    adapted, step_sizes = jax.jit(finish)(adapting)
    return adapted, jnp.asarray(on_this_host(step_sizes))


def _begin(states: Any, initial_step_size: float) -> _Adapting:
    start_step_size, *_ = dual_averaging_adaptation(0.5)  # the target has no part in it
    start_mass_matrix, *_ = mass_matrix_adaptation(is_diagonal_matrix=True)

    def begin(state: Any) -> _Adapting:
        return _Adapting(state, start_step_size(initial_step_size), start_mass_matrix(tree_size(state.position)))

    return jax.vmap(begin)(states)


def _finish(adapting: _Adapting) -> tuple[Any, Float[Array, " chains"]]:
    *_, final_step_size = dual_averaging_adaptation(0.5)
    return adapting.state, jax.vmap(final_step_size)(adapting.step_size)


@partial(jax.jit, static_argnames=("sampler", "draw_batch", "mesh", "num_blocks"))
def _adapt_chains(
    chains: Any, shared: Any, *, sampler: Sampler, draw_batch: DrawBatch, mesh: Mesh, num_blocks: int
) -> Any:
    adapt = partial(_adapt_chain, sampler=sampler, draw_batch=draw_batch)
    return over_chains(adapt, mesh, of_shared=specs_with_data(num_blocks))(chains, shared)


def _adapt_chain(chain: Any, shared: Any, *, sampler: Sampler, draw_batch: DrawBatch) -> _Adapting:
    index, own, adapting = chain
    data, (key, stages, target_acceptance_rate, first, last) = shared
    chain_key = jax.random.fold_in(key, index)
    data = with_own(data, own)
    start_step_size, update_step_size, final_step_size = dual_averaging_adaptation(target_acceptance_rate)
    _, update_mass_matrix, final_mass_matrix = mass_matrix_adaptation(is_diagonal_matrix=True)

    def end_of_window(adapting):
        mass_matrix = final_mass_matrix(adapting.mass_matrix)
        state = adapting.state._replace(inverse_mass_matrix=mass_matrix.inverse_mass_matrix)
        return _Adapting(state, start_step_size(final_step_size(adapting.step_size)), mass_matrix)

    def one_step(step, adapting):
        state, step_size, mass_matrix = adapting
        batch_key, sampler_key = keys_of_step(chain_key, step)
        state, info = sampler.step(sampler_key, state, draw_batch(batch_key, data), jnp.exp(step_size.log_step_size))
        step_size = update_step_size(step_size, info.acceptance_rate)
        is_slow, is_end_of_window = stages[step]
        mass_matrix = jax.lax.cond(is_slow == 1, update_mass_matrix, lambda m, _: m, mass_matrix, state.position)
        adapting = _Adapting(state, step_size, mass_matrix)
        return jax.lax.cond(is_end_of_window == 1, end_of_window, lambda adapting: adapting, adapting)

    return jax.lax.fori_loop(first, last, one_step, adapting)
