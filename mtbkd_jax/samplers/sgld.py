"""SGLD: stochastic gradient Langevin dynamics.

Samples exp(log p(θ) / T) by the Euler scheme of Welling and Teh (2011), in the scaling of the paper:

    θ ← θ + ε ∇log p̂(θ) + √(2εT) ξ,        ξ ~ N(0, I)

Stable while ε is below two over the largest curvature. The bias of the stationary law is O(ε): on a Gaussian with
precision Λ the covariance is T (Λ − εΛ²/2)⁻¹ in place of T Λ⁻¹, to which minibatches add ε/2 times the variance of
their gradients. It is written out, and not BlackJAX's, for the reason that ``sghmc`` gives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtbkd_jax.checks import check_not_negative
from mtbkd_jax.noise import noise_like
from mtbkd_jax.samplers.base import Sampler, SamplerInfo
from mtbkd_jax.types import MinibatchLogDensity, Params


class SGLDState(NamedTuple):
    """The position is all that a Langevin chain remembers."""

    position: Params


def sgld(log_density: MinibatchLogDensity, *, temperature: float = 1.0) -> Sampler:
    """Build the sampler.

    Args:
      log_density: unbiased estimate of the log posterior, ``(params, batch) -> scalar``, in nats.
      temperature: T; 1 samples the posterior, 0 descends to its mode.

    Returns:
      A pair of pure functions ``init(position, key) -> state`` and ``step(key, state, batch, step_size) -> (state,
      info)``.

    Raises:
      InputError: if ``temperature`` is negative or not a number.
    """
    check_not_negative(temperature=temperature)
    value_and_grad = jax.value_and_grad(log_density)

    def init(position, key):
        del key  # a Langevin chain has nothing to draw at its start
        return SGLDState(position)

    def step(key, state, batch, step_size):
        value, force = value_and_grad(state.position, batch)
        kick = jnp.sqrt(2 * step_size * temperature)
        position = jax.tree.map(
            lambda p, f, n: p + step_size * f + kick * n, state.position, force, noise_like(key, state.position)
        )
        return SGLDState(position), SamplerInfo(value, jnp.ones_like(value), jnp.array(False))

    return Sampler(init, step)
