"""Step sizes from the curvature of the log density."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_positive
from mtbkd_jax.tree import tree_add_scaled, tree_norm, tree_random_normal, tree_scale
from mtbkd_jax.types import Batch, Key, MinibatchLogDensity, Params


def largest_curvature(
    log_density: MinibatchLogDensity, position: Params, batch: Batch, key: Key, *, num_iterations: int = 30
) -> Float[Array, ""]:
    """Largest size of an eigenvalue of the Hessian of the log density, in nats per squared unit of the parameters.

    Power iteration v ← Hv / |Hv| from a random direction; |Hv| comes from below, with a relative error that shrinks as
    (second largest / largest)^(2 · iterations). The sign is dropped: near a mode the largest eigenvalues are those of
    −H.

    >>> precision = jnp.array([1.0, 9.0])
    >>> curvature = largest_curvature(
    ...     lambda w, _: -jnp.sum(precision * w**2) / 2, jnp.zeros(2), None, jax.random.key(0)
    ... )
    >>> round(float(curvature), 3)
    9.0

    Raises:
      InputError: if ``num_iterations`` is not positive.
    """
    check_positive(num_iterations=num_iterations)
    force = jax.grad(log_density)

    def hessian_times(direction):
        return jax.jvp(lambda p: force(p, batch), (position,), (direction,))[1]

    def iterate(_, carry):
        direction, _ = carry
        image = hessian_times(direction)
        length = tree_norm(image)
        return tree_scale(1 / jnp.where(length > 0, length, 1.0), image), length  # where it is flat, so is the image

    start = tree_random_normal(key, position)
    start = tree_scale(1 / tree_norm(start), start)
    return jax.lax.fori_loop(0, num_iterations, iterate, (start, jnp.zeros(())))[1]


def largest_curvature_around(
    log_density: MinibatchLogDensity, mode: Params, scale: Any, batch: Batch, key: Key
) -> Float[Array, ""]:
    """The larger of the curvatures at a mode and at a point ``scale`` away in every parameter.

    A classifier that fits its labels is flat at its mode, since its probabilities are saturated there, and steep
    where a chain will go: a step size from the mode alone blows the chain up.

    Args:
      log_density: the posterior.
      mode: where the chain starts.
      scale: how far a parameter may move, such as the standard deviation of its prior.
      batch: what the curvature is measured on.
      key: of the direction.
    """
    noise_key, *keys = jax.random.split(key, 3)
    away = tree_add_scaled(mode, scale, tree_random_normal(noise_key, mode))
    points = jax.tree.map(lambda *leaves: jnp.stack(leaves), mode, away)

    def curvature_at(point_and_key):
        point, key = point_and_key
        return largest_curvature(log_density, point, batch, key)

    # One after the other by one compiled loop: that of a Hessian takes seconds to compile.
    return jnp.max(jax.lax.map(curvature_at, (points, jnp.stack(keys))))


def hamiltonian_step_size(curvature: Any, *, fraction: float = 0.5) -> Float[Array, "..."]:
    """``fraction / sqrt(curvature)``, for SGHMC, HMC and NUTS, whose leapfrog is stable for a fraction below 2.

    >>> float(hamiltonian_step_size(4.0, fraction=1.0))
    0.5

    Raises:
      InputError: if an argument is not positive.
    """
    check_positive(curvature=curvature, fraction=fraction)
    return fraction / jnp.sqrt(curvature)


def langevin_step_size(curvature: Any, *, fraction: float = 0.2) -> Float[Array, "..."]:
    """``fraction / curvature``, for SGLD, which is stable for a fraction below 2 and has a bias of about fraction / 2.

    >>> float(langevin_step_size(4.0, fraction=1.0))
    0.25

    Raises:
      InputError: if an argument is not positive.
    """
    check_positive(curvature=curvature, fraction=fraction)
    return jnp.asarray(fraction / curvature)
