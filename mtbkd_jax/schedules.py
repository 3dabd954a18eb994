"""Step sizes as plain functions of the step.

A schedule is also a pytree whose leaves are its numbers: another step size does not make the sampler compile again.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.errors import InputError


@runtime_checkable
class Schedule(Protocol):
    """``step -> step size``: one number, or one for each chain."""

    def __call__(self, step: Any, /) -> Float[Array, "..."]:
        """Step size at ``step``."""
        ...


def constant(step_size: Any) -> Schedule:
    """The same step size always; an array ``[chains]`` gives each chain its own (as ``warm_up`` finds them).

    >>> float(constant(0.5)(1000))
    0.5

    Raises:
      InputError: if a step size is not positive.
    """
    check_positive(step_size=step_size)
    return Partial(_constant, jnp.asarray(step_size, float))


def polynomial(scale: float, *, offset: float = 1.0, power: float = 0.55) -> Schedule:
    """``scale * (offset + step) ** -power`` (Welling and Teh, 2011, section 3).

    Steps shrink, so that the bias vanishes, and their sum diverges for a power of at most one, so that the chain never
    freezes.

    >>> float(polynomial(1.0, offset=4.0, power=0.5)(0))
    0.5

    Raises:
      InputError: if ``scale`` or ``offset`` is not positive or ``power`` is negative.
    """
    check_positive(scale=scale, offset=offset)
    check_not_negative(power=power)
    return Partial(_polynomial, *jnp.array([scale, offset, power], float))


class Cyclical(NamedTuple):
    """Built by ``cyclical``."""

    peak: Float[Array, ""]
    cycle_length: int
    num_exploring: int

    def __call__(self, step: Any) -> Float[Array, "..."]:
        """Step size at ``step``."""
        return self.peak / 2 * (1 + jnp.cos(jnp.pi * (step % self.cycle_length) / self.cycle_length))

    def is_sampling(self, step: Any) -> Bool[Array, "..."] | Bool[np.ndarray, "..."] | bool:
        """Whether ``step`` is in the sampling part of its cycle, the only part that draws are kept from."""
        return step % self.cycle_length >= self.num_exploring


def cyclical(peak: float, *, cycle_length: int, exploration: float = 0.8) -> Cyclical:
    """Cosine cycles from ``peak`` to zero (Zhang et al., 2020, equation 1 and algorithm 1).

    The large steps at the start of a cycle look for another mode and the small ones at its end sample it:
    ``sample_chains`` keeps draws only after the first ``exploration`` share of a cycle. In the publication that first
    part has no noise; give ``sample_chains`` the same sampler at temperature zero as its ``explorer`` for that.

    >>> schedule = cyclical(0.2, cycle_length=10, exploration=0.5)
    >>> float(schedule(10)), bool(schedule.is_sampling(4)), bool(schedule.is_sampling(5))
    (0.20000000298023224, False, True)

    Raises:
      InputError: if ``peak`` or ``cycle_length`` is not positive, or no step of a cycle would be a sampling step.
    """
    check_positive(peak=peak, cycle_length=cycle_length)
    check_not_negative(exploration=exploration)
    num_exploring = round(exploration * cycle_length)
    if num_exploring >= cycle_length:
        raise InputError(
            "cyclical",
            "exploration",
            f"{exploration} of {cycle_length} steps",
            "at least one sampling step in a cycle",
            "Lower exploration or make the cycle longer.",
        )
    return Cyclical(jnp.asarray(peak, float), cycle_length, num_exploring)


def _constant(step_size, step):
    del step
    return step_size


def _polynomial(scale, offset, power, step):
    return scale * (offset + step) ** -power
