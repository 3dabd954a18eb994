"""The table of samplers that one battery of tests runs over, and a Gaussian whose moments are known."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mtbkd_jax.samplers import Sampler, chees, hmc, nuts, sghmc, sgld

MEAN = np.array([1.0, -2.0])
PRECISION = np.array([[2.0, 0.8], [0.8, 1.0]])
COVARIANCE = np.linalg.inv(PRECISION)
FRICTION = 1.0


def log_density(params, batch):
    """A correlated Gaussian over two leaves; the batch adds nothing to it."""
    offset = jnp.concatenate([params["a"], params["b"]]) - MEAN
    return -offset @ PRECISION @ offset / 2 + 0.0 * jnp.sum(batch)


def sgld_noise(step_size, temperature):
    """Covariance of what a step adds to the position."""
    return 2 * step_size * temperature * np.eye(2)


def sghmc_noise(step_size, temperature):
    """Covariance of what a step adds to position and momentum."""
    return 2 * FRICTION * step_size * temperature * np.diag([0.0, 0.0, 1.0, 1.0])


class Row(NamedTuple):
    """One sampler.

    Attributes:
      build: ``(log_density, temperature) -> Sampler``.
      step_size: large enough for a bias to show.
      noise: ``(step size, temperature) -> covariance`` of the noise of a step; None for samplers without bias.
      order: power of the step size that the bias of the position's covariance is proportional to.
    """

    build: Callable[..., Sampler]
    step_size: float
    noise: Callable[[float, float], np.ndarray] | None = None
    order: int | None = None


SAMPLERS = {
    "sgld": Row(sgld, 0.2, sgld_noise, order=1),
    "sghmc": Row(lambda f, **options: sghmc(f, friction=FRICTION, **options), 0.6, sghmc_noise, order=2),
    "hmc": Row(lambda f, **options: hmc(f, num_leapfrog_steps=3, **options), 0.5),
    "chees": Row(lambda f, **options: chees(f, trajectory_length=4.0, **options), 0.5),
    "nuts": Row(lambda f, **options: nuts(f, max_tree_depth=4, **options), 0.6),
}
BIASED = [name for name, row in SAMPLERS.items() if row.noise is not None]
