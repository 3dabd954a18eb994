"""What a sampler is: a pair of pure functions, as in BlackJAX and optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

from mtbkd_jax.types import Batch, Key, Params


class SamplerInfo(NamedTuple):
    """What an observer wants to know about a step.

    Attributes:
      log_density: the (minibatch estimate of the) log density in nats that the step evaluated. SGHMC, HMC and NUTS
        evaluate it at the new position; SGLD at the position that the step started from.
      acceptance_rate: mean probability of acceptance; 1 for samplers that accept every step.
      is_divergent: whether the Hamiltonian was not conserved by a wide margin; never for samplers that accept every
        step.
    """

    log_density: Float[Array, "..."]
    acceptance_rate: Float[Array, "..."]
    is_divergent: Bool[Array, "..."]


class Sampler(NamedTuple):
    """A Markov chain as a pair of pure functions.

    Attributes:
      init: ``(position, key) -> state``; a state is a NamedTuple of arrays, with the parameters as its ``position``.
      step: ``(key, state, batch, step_size) -> (state, info)``.
    """

    init: Callable[[Params, Key], Any]
    step: Callable[[Key, Any, Batch, Any], tuple[Any, SamplerInfo]]
