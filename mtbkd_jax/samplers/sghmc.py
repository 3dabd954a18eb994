"""SGHMC: stochastic gradient Hamiltonian Monte Carlo, with a momentum that persists between steps.

Samples exp(log p(θ) / T) by the scheme of Chen et al. (2014), equation 15, in the scaling of Ma et al. (2015):

    θ ← θ + ε r
    r ← (1 − αε) r + ε ∇log p̂(θ) + √(2αεT) ξ,        ξ ~ N(0, I)

The force is taken at the new position (symplectic Euler), which is stable while ε² times the largest curvature is below
4 − 2αε; with the force at the old one the chain would blow up as soon as ε times the curvature exceeds α. The bias of
the stationary law is O(ε) at every temperature T ≥ 0, in units where the momentum is N(0, T); on a Gaussian that of the
position's covariance is O(ε²), and only the momentum's is O(ε). Minibatch gradients with a variance V add ε V / 2α to
the temperature of the draws; ``step_size.cooled_hamiltonian`` keeps that small.

BlackJAX has the same update; it is written out here since that one draws its noise by itself, and noise is most of what
a step costs beyond its gradient (``noise``).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.noise import noise_like
from mtbkd_jax.samplers.base import Sampler, SamplerInfo
from mtbkd_jax.tree import tree_add_scaled, tree_scale
from mtbkd_jax.types import MinibatchLogDensity, Params


class SGHMCState(NamedTuple):
    """Position and momentum, both in the shape of the student's parameters."""

    position: Params
    momentum: Params


def sghmc(
    log_density: MinibatchLogDensity, *, friction: float | Float[Array, ""], temperature: float | Float[Array, ""] = 1.0
) -> Sampler:
    """Build the sampler.

    Args:
      log_density: unbiased estimate of the log posterior, ``(params, batch) -> scalar``, in nats.
      friction: α, per unit of time; 1 / α is how long a momentum is remembered. A step of size ε takes ε units of time.
      temperature: T; 1 samples the posterior, 0 descends to its mode.

    Returns:
      A pair of pure functions ``init(position, key) -> state`` and ``step(key, state, batch, step_size) -> (state,
      info)``.

    Raises:
      InputError: if ``friction`` is not positive, or ``temperature`` is negative or not a number.
    """
    check_positive(friction=friction)
    check_not_negative(temperature=temperature)
    value_and_grad = jax.value_and_grad(log_density)

    def init(position, key):
        return SGHMCState(position, tree_scale(temperature**0.5, noise_like(key, position)))

    def step(key, state, batch, step_size):
        position = tree_add_scaled(state.position, step_size, state.momentum)
        value, force = value_and_grad(position, batch)
        kick = jnp.sqrt(2 * friction * step_size * temperature)
        momentum = jax.tree.map(
            lambda r, f, n: (1 - friction * step_size) * r + step_size * f + kick * n,
            state.momentum,
            force,
            noise_like(key, state.momentum),
        )
        return SGHMCState(position, momentum), SamplerInfo(value, jnp.ones_like(value), jnp.array(False))

    return Sampler(init, step)
