"""Step sizes from the curvature of the log density, and from the noise of its minibatch gradients.

The curvature says where a chain becomes unstable. The noise heats it: a minibatch gradient whose components have
variance V adds to a temperature T, to leading order,

    SGHMC   ε² V / (2 d),    d the share of the momentum that a step forgets;
    SGLD    ε V / 2

(Ma, Chen and Fox, 2015, section 3: the noise enters as a diffusion that no friction balances). Where the likelihood and
the teachers' advice of thousands of examples are estimated from a hundred of them this can be many times T, and then
the draws are far more spread than the posterior is. That is so for batches that are drawn apart, as they are where V is
measured; those of an epoch heat a chain less (``examples.rows_of_epoch``).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_positive
from mtbkd_jax.noise import noise_like
from mtbkd_jax.tree import tree_add_scaled, tree_norm, tree_scale, tree_size, tree_vdot
from mtbkd_jax.types import Batch, Key, MinibatchLogDensity, Params

MOST_HEATING = 0.1
"""Heating by minibatches that is let pass, as a share of the temperature."""
MOST_MOMENTUM_DECAY = 0.5


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

    start = noise_like(key, position)
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
    away = tree_add_scaled(mode, scale, noise_like(noise_key, mode))
    points = jax.tree.map(lambda *leaves: jnp.stack(leaves), mode, away)

    def curvature_at(point_and_key):
        point, key = point_and_key
        return largest_curvature(log_density, point, batch, key)

    # One after the other by one compiled loop: that of a Hessian takes seconds to compile.
    return jnp.max(jax.lax.map(curvature_at, (points, jnp.stack(keys))))


def gradient_noise(
    log_density: MinibatchLogDensity, mode: Params, draw: Callable[[Key], Batch], key: Key, *, num_batches: int = 16
) -> Float[Array, ""]:
    """Variance of the minibatch gradient at a mode, averaged over the parameters.

    >>> noise = gradient_noise(
    ...     lambda w, batch: jnp.sum(w * batch), jnp.zeros(1000), lambda key: 3 * jax.random.normal(key, 1000),
    ...     jax.random.key(0),
    ... )
    >>> round(float(noise))
    9

    Args:
      log_density: the posterior.
      mode: where the chain starts.
      draw: ``key -> batch``.
      key: of the batches.
      num_batches: that the variance is taken over.
    """
    force = jax.grad(log_density)
    keys = jax.random.split(key, num_batches)
    first = force(mode, draw(keys[0]))

    def add(sums: tuple[Params, Array], key: Key) -> tuple[tuple[Params, Array], None]:
        # Taken from the first one, so that a large mean does not swallow the variance.
        offset = tree_add_scaled(force(mode, draw(key)), -1.0, first)
        return (tree_add_scaled(sums[0], 1.0, offset), sums[1] + tree_vdot(offset, offset)), None

    (total, squares), _ = jax.lax.scan(add, (tree_scale(0.0, first), jnp.zeros(())), keys[1:])
    return (squares - tree_vdot(total, total) / num_batches) / (num_batches - 1) / tree_size(mode)


def hamiltonian_step_size(curvature: Any, *, fraction: float = 0.5) -> Float[Array, "..."]:
    """``fraction / sqrt(curvature)``, for SGHMC, HMC, ChEES and NUTS, whose leapfrog is stable for a fraction below 2.

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


def cooled_hamiltonian(
    step_size: Any, momentum_decay: Any, *, noise: Any, temperature: Any
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Step size and momentum decay of SGHMC at which minibatches heat it by at most ``MOST_HEATING`` of T.

    First more of the momentum is forgotten, up to half in a step; where that is not enough, steps become smaller.

    Args:
      step_size: ε that is stable.
      momentum_decay: d, the least.
      noise: V, the variance of a component of the minibatch gradient; zero for a full batch.
      temperature: T.

    Returns:
      ε and d.
    """
    heating = noise / (2 * MOST_HEATING * temperature)  # less than d / ε² it must be
    decay = jnp.clip(step_size**2 * heating, momentum_decay, jnp.maximum(momentum_decay, MOST_MOMENTUM_DECAY))
    return jnp.minimum(step_size, jnp.sqrt(decay / jnp.maximum(heating, jnp.finfo(jnp.float32).tiny))), decay


def cooled_langevin(step_size: Any, *, noise: Any, temperature: Any) -> Float[Array, "..."]:
    """Step size of SGLD at which minibatches heat it by at most ``MOST_HEATING`` of T; see ``cooled_hamiltonian``."""
    most = 2 * MOST_HEATING * temperature / jnp.maximum(noise, jnp.finfo(jnp.float32).tiny)
    return jnp.minimum(step_size, most)
