"""The function-space prior in regression: per example, a mixture of Gaussians around the teachers' means.

    log π_F(θ) = power · Σ_i log [ w_i^0 Normal(f_i; m⁰, (s⁰)²) + Σ_g w_i^g Normal(f_i; m_i^g, (s_i^g)² / λ) ]

f_i = f(x_i; θ) is the student's mean, λ the concentration, and component 0 the broad one, "nobody knows": the mean and
the standard deviation of the targets. The counterpart of the Dirichlet mixture of ``mtbkd_jax.function_prior`` and the
paper's outlook (arXiv 2605.27967): with λ = 1 a teacher counts as one observation of f_i with its own error. Everything
that does not depend on θ is computed once, in ``gaussian_components``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.examples import Examples
from mtbkd_jax.posterior import PerExampleTerm
from mtbkd_jax.regression.teachers import Broad


class GaussianComponents(NamedTuple):
    """The mixture's components for each example; component 0 is the broad one, then one for each teacher.

    Attributes:
      means: m_i^g.
      precisions: one over the variances, those of teachers multiplied by λ.
      log_offsets: log w_i^g plus the log normaliser of the Gaussian, nats.
    """

    means: Float[Array, "examples components"]
    precisions: Float[Array, "examples components"]
    log_offsets: Float[Array, "examples components"]

    @property
    def log_weights(self) -> Float[Array, "examples components"]:
        """log w_i^g."""
        return self.log_offsets - _log_normalisers(self.precisions)


def gaussian_components(
    means: Float[Array, "examples teachers"],
    sds: Float[Array, "examples teachers"],
    log_weights: Float[Array, "examples components"],
    broad: Broad,
    concentration: float | Float[Array, ""] = 1.0,
) -> GaussianComponents:
    """Put the broad component beside the teachers.

    Args:
      means: m_i^g, in the unit of the targets.
      sds: s_i^g, positive.
      log_weights: log w_i^g; column 0 belongs to the broad component and is -inf where there is none.
      broad: the broad component.
      concentration: λ, by which a teacher's variance is divided; positive.

    Raises:
      InputError: if a standard deviation or ``concentration`` is not positive.
    """
    check_positive(sds=sds, broad_sd=broad.sd, concentration=concentration)

    def beside(of_broad: Array, of_teachers: Array) -> Array:
        return jnp.concatenate([jnp.full_like(of_teachers[:, :1], of_broad), of_teachers], axis=1)

    precisions = beside(broad.sd**-2, concentration / jnp.square(sds))
    return GaussianComponents(beside(broad.mean, means), precisions, log_weights + _log_normalisers(precisions))


def gaussian_mixture_prior(*, power: float | Float[Array, ""] = 1.0) -> PerExampleTerm:
    """Build the per-example term ``(outputs, examples) -> log density [examples]`` in nats, of the first output.

    Args:
      power: what the teachers' advice is worth against the labels; 0 is no teacher.

    Raises:
      InputError: if ``power`` is negative.
    """
    check_not_negative(power=power)

    def log_density(outputs: Float[Array, "examples outputs"], examples: Examples) -> Float[Array, " examples"]:
        return power * jax.nn.logsumexp(_component_log_densities(outputs, examples.components), axis=1)

    return log_density


def gaussian_responsibilities(
    outputs: Float[Array, "examples outputs"], components: GaussianComponents
) -> Float[Array, "examples components"]:
    """r_i^g ∝ w_i^g Normal(f_i; m_i^g, ·): how far each component explains the student's mean; rows sum to one.

    The gradient of the log prior is power · Σ_g r_i^g (m_i^g − f_i) precision_i^g, so a teacher pulls on the student
    in proportion to its r.
    """
    return jax.nn.softmax(_component_log_densities(outputs, components), axis=1)


def _component_log_densities(outputs: Array, components: GaussianComponents) -> Array:
    return components.log_offsets - 0.5 * components.precisions * jnp.square(outputs[:, :1] - components.means)


def _log_normalisers(precisions: Array) -> Array:
    return 0.5 * jnp.log(precisions / (2 * jnp.pi))
