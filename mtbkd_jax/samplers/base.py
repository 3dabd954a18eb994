"""What a sampler is: a pair of pure functions, as in BlackJAX and optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

from mtbkd_jax.types import Batch, Key, Params


class SamplerInfo(NamedTuple):
    """What an observer wants to know about a step.

    Attributes:
      log_density: the (minibatch estimate of the) log density in nats that the step evaluated: at the new
        position, but for SGLD, which evaluates it where the step started from.
      acceptance_rate: mean probability of acceptance; 1 for samplers that accept every step.
      is_divergent: whether the Hamiltonian was not conserved by a wide margin; never for samplers that accept every
        step.
    """

    log_density: Float[Array, "..."]
    acceptance_rate: Float[Array, "..."]
    is_divergent: Bool[Array, "..."]


class Proposal(NamedTuple):
    """Where a trajectory ended, whether that was accepted or not.

    Attributes:
      position: there.
      momentum: there, reversed: a trajectory that starts with it goes back.
    """

    position: Params
    momentum: Params


Propose = Callable[[Key, Any, Batch, Any], tuple[Any, SamplerInfo, Proposal]]
"""A step, and its proposal as well: ``(key, state, batch, step_size) -> (state, info, proposal)``."""


class Sampler(NamedTuple):
    """A Markov chain as a pair of pure functions.

    Attributes:
      init: ``(position, key) -> state``; a state is a NamedTuple of arrays, with the parameters as its ``position``.
      step: ``(key, state, batch, step_size) -> (state, info)``.
      propose: the same with its proposal, of samplers whose chains are warmed up together, by what they propose.
    """

    init: Callable[[Params, Key], Any]
    step: Callable[[Key, Any, Batch, Any], tuple[Any, SamplerInfo]]
    propose: Propose | None = None
