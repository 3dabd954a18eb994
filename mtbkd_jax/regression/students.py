"""Students in regression: a network for the mean, and the noise of the targets as one more parameter."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_positive
from mtbkd_jax.students import Student
from mtbkd_jax.types import Key, Params, Scalar
from mtbkd_jax.weight_prior import gaussian_prior


class NoisyParams(NamedTuple):
    """Parameters of a student with noise.

    Attributes:
      network: of the mean.
      log_noise: log σ, of the standard deviation of a target around its mean.
    """

    network: Params
    log_noise: Float[Array, "..."]


class NoisePrior(NamedTuple):
    """log σ ~ Normal(log median, spread²).

    Attributes:
      median: of σ, in the unit of the targets.
      spread: standard deviation of log σ.
    """

    median: float
    spread: float


STANDARD_NOISE = NoisePrior(median=0.5, spread=0.5)
"""For targets in units of their standard deviation."""


@cache  # the same student for the same network, so that what was compiled for it serves again
def with_noise(network: Student, *, initial_noise: float = STANDARD_NOISE.median) -> Student:
    """Make a student with a noise of its own: outputs are f(x_i) and log σ, ``[examples, 2]``.

    Args:
      network: has one output, the mean.
      initial_noise: where σ starts.

    Raises:
      InputError: if ``initial_noise`` is not positive.
    """
    check_positive(initial_noise=initial_noise)

    def init(key: Key) -> NoisyParams:
        return NoisyParams(network.init(key), jnp.log(jnp.float32(initial_noise)))

    def apply(params: NoisyParams, inputs: Array) -> Array:
        means = network.apply(params.network, inputs)
        return jnp.concatenate([means, jnp.full_like(means, params.log_noise)], axis=1)

    return Student(init, apply)


def noisy_params_prior(*, weight_scale: float | Float[Array, ""], noise: NoisePrior) -> Callable[[NoisyParams], Scalar]:
    """log Normal(network; 0, weight_scale²) + log Normal(log σ; log median, spread²) up to a constant, in nats.

    Raises:
      InputError: if ``weight_scale``, the median or the spread is not positive.
    """
    check_positive(weight_scale=weight_scale, noise_median=noise.median, noise_spread=noise.spread)
    of_network, of_log_noise = gaussian_prior(weight_scale), gaussian_prior(noise.spread)

    def log_density(params: NoisyParams) -> Scalar:
        return of_network(params.network) + of_log_noise(params.log_noise - jnp.log(noise.median))

    return log_density
