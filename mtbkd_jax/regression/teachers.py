"""Teachers in regression: for each example a mean, and a standard deviation up to a factor that labels tell.

    y_i ~ Normal(m_i^g, (c_g d_i^g)²)

d is what teacher g says of its own uncertainty, or one where it says nothing, and c_g is how far that has to be
stretched to be true of labels. There are two ways to see it. Taken alone, a teacher answers for all labels, and c_g is
its root mean square error. As one of several, a specialist answers for those labels alone that it explains better than
the others do, and than the *broad* component, Normal(mean of the labels, their variance), which stands for "nobody
knows": its errors far from home are then no reason to distrust it at home.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from mtbkd_jax.checks import check_finite, check_num_examples, check_numbers
from mtbkd_jax.errors import InputError

_NUM_ITERATIONS = 100


class GaussianTeachers(NamedTuple):
    """What all teachers say of all examples; make them by ``gaussian_teachers``, which checks them.

    Attributes:
      means: m_i^g, in the unit of the targets.
      sds: d_i^g, standard deviations up to a factor for each teacher; one where a teacher gives none.
    """

    means: Float[Array, "examples teachers"]
    sds: Float[Array, "examples teachers"]


class Broad(NamedTuple):
    """The broad component: mean and standard deviation of the targets that are known, in their unit."""

    mean: Float[Array, ""]
    sd: Float[Array, ""]


def gaussian_teachers(means: ArrayLike, sds: ArrayLike | None = None, *, where: str = "teachers") -> GaussianTeachers:
    """Check the teachers' outputs.

    Args:
      means: ``[examples, teachers]``, in the unit of the targets.
      sds: of the same shape; None where the teachers give none.
      where: what error messages call them.

    Raises:
      InputError: if a number is not finite, a standard deviation is not above zero, or the shapes do not fit.

    >>> gaussian_teachers([[1.0, 2.0], [3.0, 4.0]]).sds.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    checked = check_finite(means, where, "means")
    if checked.ndim != 2 or checked.shape[1] == 0:
        action = "Give a row for each example and a column for each teacher; a single teacher is a column."
        raise InputError(where, "means", f"an array of shape {checked.shape}", "[examples, teachers]", action)
    if sds is None:
        return GaussianTeachers(jnp.asarray(checked), jnp.ones(checked.shape))
    spread = check_finite(sds, where, "sds")
    if spread.shape != checked.shape:
        action = "Give a standard deviation for each mean, or none at all."
        raise InputError(where, "sds", f"shape {spread.shape}", f"{checked.shape}, as the means have", action)
    if (wrong := np.argwhere(spread <= 0)).size:
        row, teacher = wrong[0]
        found = f"{spread[row, teacher]} of teacher {teacher} in row {row}, and {len(wrong)} such numbers"
        raise InputError(where, "sds", found, "numbers above zero", "Give standard deviations, not their logarithms.")
    return GaussianTeachers(jnp.asarray(checked), jnp.asarray(spread))


def check_targets(targets: ArrayLike, num_examples: int, where: str = "targets") -> Float[np.ndarray, " examples"]:
    """Return targets as float32: finite numbers, or NaN where a target is unknown.

    Raises:
      InputError: if they are not one number an example, one is infinite, or fewer than two are known or differ.
    """
    array = check_numbers(targets, where, "values")
    if array.shape != (num_examples,):
        action = "Give one number for each example, and NaN where it is unknown."
        raise InputError(where, "values", f"an array of shape {array.shape}", f"({num_examples},)", action)
    if (infinite := np.flatnonzero(np.isinf(array))).size:
        found = f"an infinite number (in float32) in row {infinite[0]}"
        raise InputError(where, "values", found, "finite numbers, or NaN", "Write NaN only where a target is unknown.")
    known = array[~np.isnan(array)]
    check_num_examples(known.size, where, "known values")
    if known.min() == known.max():
        raise InputError(where, "values", f"{known[0]} everywhere", "numbers that differ", "There is nothing to learn.")
    return array


def broad_component(targets: Float[Array, " examples"]) -> Broad:
    """Mean and standard deviation (of a sample) of the targets that are known.

    >>> broad_component(jnp.array([1.0, 3.0, jnp.nan]))
    Broad(mean=Array(2., dtype=float32), sd=Array(1.4142135, dtype=float32))
    """
    return Broad(jnp.nanmean(targets), jnp.nanstd(targets, ddof=1))


def scales_alone(
    teachers: GaussianTeachers, targets: Float[Array, " examples"], broad: Broad
) -> Float[Array, " teachers"]:
    """c_g of each teacher alone: the root mean square of its errors in units of d.

    One error that is as large as the broad component would make stands for a prior on it.

    Args:
      teachers: what they say.
      targets: NaN where unknown.
      broad: the broad component.
    """
    is_known = jnp.isfinite(targets)
    squares = jnp.square(_relative_errors(teachers, targets))
    return jnp.sqrt((_prior_squares(teachers, broad) + squares.sum(0)) / (1 + is_known.sum()))


@jax.jit
def scales_together(
    teachers: GaussianTeachers, targets: Float[Array, " examples"], broad: Broad
) -> Float[Array, " teachers"]:
    """c_g of the mixture of all teachers and the broad component, by expectation maximisation:

        r_i^g ∝ w_g Normal(y_i; m_i^g, (c_g d_i^g)²),    w_g ∝ 1 + Σ_i r_i^g,
        c_g² = (broad error² + Σ_i r_i^g ((y_i − m_i^g) / d_i^g)²) / (1 + Σ_i r_i^g)

    Every teacher's prior is one label, on which it errs as the broad component does; hence no c_g falls to zero on a
    label that a teacher happens to hit.

    Args:
      teachers: what they say.
      targets: NaN where unknown.
      broad: the broad component.
    """  # noqa: D415 (the summary ends in the formula)
    is_known = jnp.isfinite(targets)
    squares = jnp.square(_relative_errors(teachers, targets))
    prior_squares = _prior_squares(teachers, broad)

    def iterate(_, carry):
        scales, log_weights = carry
        scores = log_scores(teachers, targets, scales[None], broad)
        shares = jax.nn.softmax(log_weights[None] + scores, axis=1) * is_known[:, None]
        counts = shares.sum(0)
        scales = jnp.sqrt((prior_squares + (shares[:, 1:] * squares).sum(0)) / (1 + counts[1:]))
        return scales, jnp.log(1 + counts)

    start = 0.5 * scales_alone(teachers, targets, broad), jnp.zeros(1 + teachers.means.shape[1])
    return jax.lax.fori_loop(0, _NUM_ITERATIONS, iterate, start)[0]


def log_scores(
    teachers: GaussianTeachers,
    targets: Float[Array, " examples"],
    scales: Float[Array, "#examples teachers"],
    broad: Broad,
) -> Float[Array, "examples components"]:
    """Log density of each target under the broad component and under each teacher, in nats; zero where it is unknown.

    Args:
      teachers: what they say.
      targets: NaN where unknown.
      scales: c_g, the same for all examples or of each.
      broad: the broad component.
    """
    errors = jnp.where(jnp.isfinite(targets), targets - broad.mean, 0.0) / broad.sd
    of_broad = jax.scipy.stats.norm.logpdf(errors) - jnp.log(broad.sd)
    of_teachers = jax.scipy.stats.norm.logpdf(_relative_errors(teachers, targets) / scales) - jnp.log(
        scales * teachers.sds
    )
    scores = jnp.concatenate([of_broad[:, None], of_teachers], axis=1)
    return jnp.where(jnp.isfinite(targets)[:, None], scores, 0.0)


def _relative_errors(teachers: GaussianTeachers, targets: Array) -> Array:
    """(y − m) / d, zero where the target is unknown."""
    return jnp.where(jnp.isfinite(targets)[:, None], targets[:, None] - teachers.means, 0.0) / teachers.sds


def _prior_squares(teachers: GaussianTeachers, broad: Broad) -> Array:
    """What the broad component's variance is in units of a teacher's d²."""
    return jnp.square(broad.sd) / jnp.mean(jnp.square(teachers.sds), axis=0)
