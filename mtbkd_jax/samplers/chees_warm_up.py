"""Adaptation of ChEES-HMC: one step size, trajectory length and mass matrix for all chains (Hoffman et al., 2021).

After every step, with α the acceptance probability of a chain, θ its position, θ' and r' the position and momentum that
it proposed, m the mean of its positions, and distances measured by the mass matrix,

    log ε  by dual averaging, until the harmonic mean of α over chains is at its target
    log τ  by Adam, along the mean over chains, weighted by α, of  hτ (|θ' − m|² − |θ − m|²) (θ' − m)ᵀ r'

Two things differ from the paper. There m is the mean over chains; here it is the chain's own, since chains may sample
different components of a mixture, or sit in different modes, whose distance from each other no trajectory should be
learned from. And the diagonal of the mass matrix is adapted too, in the windows of Stan: the variance of a parameter
within a chain, averaged over chains.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc.dynamic_hmc import halton_sequence
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mtbkd_jax.chains import DrawBatch, each_chain, keys_of_step, of_all_chains, over_devices, specs_with_data, with_own
from mtbkd_jax.samplers.base import Proposal, Propose, SamplerInfo

_OPTIMIZER = optax.adam(0.025, b1=0.0, b2=0.95)
"""The paper's, section 4."""


class _TrajectoryLength(NamedTuple):
    """What is learned of it.

    Attributes:
      log: of τ, as Adam has it.
      optimizer: its state.
      average: of the logarithm since the last window; later steps count more.
      num_steps: since then.
    """

    log: Float[Array, ""]
    optimizer: Any
    average: Float[Array, ""]
    num_steps: Int[Array, ""]


class _Adapting(NamedTuple):
    """All chains of a device on their way; every leaf is stacked over chains, also of what they share.

    Attributes:
      states: of the sampler.
      step_size: what BlackJAX has learned of it.
      length: what is known of the trajectory length.
      mass_matrix: the variances of each chain since the last window.
      means: of the parameters of each chain, in the order of the raveled position.
    """

    states: Any
    step_size: Any
    length: _TrajectoryLength
    mass_matrix: Any
    means: Float[Array, "chains parameters"]


def begin_together(states: Any, initial_step_size: float) -> _Adapting:
    """What ``adapt_together`` goes on from."""
    means = _flat(states.position)
    num_chains, num_parameters = means.shape
    start_step_size, *_ = dual_averaging_adaptation(0.5)  # the target has no part in it
    start_matrix, *_ = mass_matrix_adaptation(is_diagonal_matrix=True)
    log_length = jnp.log(jnp.asarray(initial_step_size, means.dtype))
    length = _TrajectoryLength(log_length, _OPTIMIZER.init(log_length), log_length, jnp.int32(0))
    shared = start_step_size(initial_step_size), length, start_matrix(num_parameters)
    step_size, length, moments = _for_each(shared, num_chains)
    return _Adapting(states, step_size, length, moments, means)


def finish_together(adapting: _Adapting) -> tuple[Any, Float[Array, " chains"]]:
    """The states with the averages that were learned, and the step sizes."""
    *_, final_step_size = dual_averaging_adaptation(0.5)
    states = adapting.states._replace(trajectory_length=jnp.exp(adapting.length.average))
    return states, jax.vmap(final_step_size)(adapting.step_size)


@partial(jax.jit, static_argnames=("propose", "draw_batch", "mesh", "num_blocks"))
def adapt_together(
    chains: Any, shared: Any, *, propose: Propose, draw_batch: DrawBatch, mesh: Mesh, num_blocks: int
) -> _Adapting:
    """All chains some steps further; the arguments are those that ``warm_up`` has laid out."""
    adapt = partial(_adapt, propose=propose, draw_batch=draw_batch, mesh=mesh)
    return over_devices(adapt, mesh, of_shared=specs_with_data(num_blocks))(chains, shared)


def _adapt(chains: Any, shared: Any, *, propose: Propose, draw_batch: DrawBatch, mesh: Mesh) -> _Adapting:
    """For the chains of a device. What all share is computed on each from what all chains say, to the same bits."""
    numbers, own, begun = chains
    data, (key, stages, target_acceptance_rate, first, last) = shared
    num_chains = numbers.size
    chain_keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    start_step_size, update_step_size, final_step_size = dual_averaging_adaptation(target_acceptance_rate)
    _, update_matrix, final_matrix = mass_matrix_adaptation(is_diagonal_matrix=True)

    def end_of_window(adapting):
        states, step_size, length, moments, means = adapting
        moments = jax.vmap(final_matrix)(moments)
        matrix = jnp.nanmean(of_all_chains(moments.inverse_mass_matrix), axis=0)  # a chain may have failed
        # The smallest scale limits the step size and the largest decides on the trajectory length: both are taken from
        # the units of the old matrix to those of the new one. There scales are near one, and a trajectory should make a
        # quarter turn at least, as it would of a Gaussian.
        units = jnp.sqrt(matrix / states.inverse_mass_matrix[0])
        step_size = start_step_size(final_step_size(step_size) / units.min())
        log_length = jnp.maximum(length.average - jnp.log(units.max()), math.log(math.pi / 2))
        length = _TrajectoryLength(log_length, length.optimizer, log_length, jnp.zeros_like(length.num_steps))
        states = states._replace(inverse_mass_matrix=_for_each(matrix, num_chains))
        return _Adapting(states, step_size, length, moments, means)

    def one_step(step, adapting):
        states, step_size, length, moments, means = adapting

        def advance(chain):
            chain_key, own, state = chain
            batch_key, sampler_key = keys_of_step(chain_key, step)
            state = state._replace(trajectory_length=jnp.exp(length.log))
            batch = draw_batch(batch_key, with_own(data, own))
            return propose(sampler_key, state, batch, jnp.exp(step_size.log_step_size))

        moved, info, proposals = each_chain(advance, (chain_keys, own, states), mesh)
        positions = _flat(moved.position)
        info, proposals, starts = of_all_chains(
            (
                info,
                Proposal(_flat(proposals.position) - means, _flat(proposals.momentum)),
                _flat(states.position) - means,
            )
        )
        harmonic_mean = 1 / jnp.mean(1 / info.acceptance_rate, where=~info.is_divergent)
        step_size = update_step_size(step_size, jnp.nan_to_num(harmonic_mean))
        slope = _slope(info, proposals, starts, states.inverse_mass_matrix[0])
        length = _ascend(length, halton_sequence(states.num_steps[0]) * jnp.exp(length.log) * slope)
        # The later positions of a chain count more: the first ones are on their way to where it stays.
        means = means + (positions - means) / jnp.sqrt(step + 1.0).astype(means.dtype)
        is_slow, is_end_of_window = stages[step]
        moments = jax.lax.cond(
            is_slow == 1, jax.vmap(update_matrix), lambda unchanged, _: unchanged, moments, positions
        )
        adapting = _Adapting(moved, step_size, length, moments, means)
        return jax.lax.cond(is_end_of_window == 1, end_of_window, lambda adapting: adapting, adapting)

    def of_one(stacked):
        return jax.tree.map(lambda leaf: leaf[0], stacked)

    begun = begun._replace(step_size=of_one(begun.step_size), length=of_one(begun.length))
    ended = jax.lax.fori_loop(first, last, one_step, begun)
    return ended._replace(step_size=_for_each(ended.step_size, num_chains), length=_for_each(ended.length, num_chains))


def _slope(
    info: SamplerInfo,
    proposals: Proposal,
    starts: Float[Array, "chains parameters"],
    inverse_mass_matrix: Float[Array, " parameters"],
) -> Float[Array, ""]:
    """By how much longer trajectories would change the squared distance from the mean more; positions are from it."""

    def squared(positions: Array) -> Array:
        return jnp.sum(positions**2 / inverse_mass_matrix[None], axis=1)

    along = -jnp.sum(proposals.position * proposals.momentum, axis=1)  # the momentum is reversed
    slopes = (squared(proposals.position) - squared(starts)) * along
    is_usable = ~info.is_divergent & jnp.isfinite(slopes)
    weights = jnp.where(is_usable, info.acceptance_rate, 0.0)
    return jnp.sum(weights * jnp.where(is_usable, slopes, 0.0)) / jnp.maximum(jnp.sum(weights), 1e-20)


def _ascend(length: _TrajectoryLength, slope: Float[Array, ""]) -> _TrajectoryLength:
    """One step of Adam, and of the average."""
    change, optimizer = _OPTIMIZER.update(-slope, length.optimizer)
    log, num_steps = length.log + change, length.num_steps + 1
    average = length.average + (log - length.average) / jnp.sqrt(num_steps).astype(log.dtype)
    return _TrajectoryLength(log, optimizer, average, num_steps)


def _for_each(tree: Any, num_chains: int) -> Any:
    """Copies of what chains share, stacked over them."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_chains, *jnp.shape(leaf))), tree)


def _flat(stacked: Any) -> Float[Array, "chains parameters"]:
    return jax.vmap(lambda tree: ravel_pytree(tree)[0])(stacked)
