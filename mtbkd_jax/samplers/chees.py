"""ChEES-HMC: many chains whose trajectories are equally long (Hoffman, Radul and Sountsov, 2021), by BlackJAX.

Samples exp(log p(θ) / T) exactly, as HMC does, with trajectories of ⌈hₜ τ / ε⌉ leapfrog steps in step t, where

    h₁, h₂, ... = 1/2, 1/4, 3/4, 1/8, ...        (Halton's sequence, so that no trajectory is always of one length)

and the trajectory length τ is learned in the warm-up, from all chains together, as the one that changes the squared
distance from the mean most. All chains take the same number of steps, and none waits for another: where they run side
by side in one batch, as on an accelerator, those of NUTS all take as long as the longest of their trees.
"""

from typing import NamedTuple

import blackjax
import jax.numpy as jnp
from blackjax.mcmc.dynamic_hmc import halton_sequence
from jaxtyping import Array, Float, Int

from mtbkd_jax.checks import check_positive
from mtbkd_jax.samplers.base import Proposal, Sampler
from mtbkd_jax.samplers.metropolis import identity, metropolis_move
from mtbkd_jax.types import MinibatchLogDensity, Params

MOST_LEAPFROG_STEPS = 1000
"""Of a trajectory, however long it would be."""


class CheesState(NamedTuple):
    """Position, what the warm-up has learned, and where in Halton's sequence the chain is.

    Attributes:
      position: the parameters.
      inverse_mass_matrix: its diagonal, in the order of the raveled position.
      trajectory_length: τ, in the time unit of the step size.
      num_steps: so far, t.
    """

    position: Params
    inverse_mass_matrix: Float[Array, "*chains parameters"]
    trajectory_length: Float[Array, "*chains"]
    num_steps: Int[Array, "*chains"]


def chees(log_density: MinibatchLogDensity, *, trajectory_length: float = 1.0, temperature: float = 1.0) -> Sampler:
    """Build the sampler.

    Args:
      log_density: the log posterior, ``(params, batch) -> scalar``, in nats. The batch must be the whole data for the
        chain to be exact.
      trajectory_length: τ, until ``warm_up`` adapts it.
      temperature: T; 1 samples the posterior.

    Returns:
      Pure functions ``init(position, key) -> state`` and ``step(key, state, batch, step_size) -> (state, info)``. The
      inverse mass matrix in the state is the identity until ``warm_up`` adapts it.

    Raises:
      InputError: if ``trajectory_length`` or ``temperature`` is not positive.
    """
    check_positive(trajectory_length=trajectory_length)
    move = metropolis_move(blackjax.hmc.build_kernel(), log_density, temperature)

    def init(position, key):
        del key  # the momentum is drawn in the step
        matrix = identity(position)
        return CheesState(position, matrix, jnp.asarray(trajectory_length, matrix.dtype), jnp.int32(0))

    def propose(key, state, batch, step_size):
        leapfrog_steps = jnp.ceil(halton_sequence(state.num_steps) * state.trajectory_length / step_size)
        leapfrog_steps = jnp.clip(leapfrog_steps, 1, MOST_LEAPFROG_STEPS).astype(jnp.int32)
        position, summary, info = move(key, state, batch, step_size, leapfrog_steps)
        proposal = Proposal(info.proposal.position, info.proposal.momentum)
        return state._replace(position=position, num_steps=state.num_steps + 1), summary, proposal

    def step(key, state, batch, step_size):
        state, summary, _ = propose(key, state, batch, step_size)
        return state, summary

    return Sampler(init, step, propose)
