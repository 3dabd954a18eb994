"""Settings of the two priors, and the log posterior that they make."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mtbkd_jax.centers import Centers
from mtbkd_jax.function_prior import teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.students import Student
from mtbkd_jax.types import MinibatchLogDensity
from mtbkd_jax.weight_prior import WeightMixture, weight_space_prior


class PriorSettings(NamedTuple):
    """What is chosen on the labels. Numbers, or traced arrays when several candidates are tried at once.

    Attributes:
      power: what the function-space prior is worth, 0 to leave it out.
      concentration: λ of the function-space prior.
      center_scale: standard deviation around the teacher-derived centers; infinite to leave them out, so that the wide
        component is the whole weight-space prior.
      wide_scale: standard deviation of the wide component around zero.
    """

    power: Any
    concentration: Any
    center_scale: Any
    wide_scale: Any

    @property
    def uses_teachers(self):
        """False for *no teacher*: power zero and the wide component alone."""
        return (self.power > 0) | jnp.isfinite(self.center_scale)

    @property
    def weight_scale(self):
        """Standard deviation of the component that the student's weights are sampled in."""
        return jnp.where(jnp.isfinite(self.center_scale), self.center_scale, self.wide_scale)


def no_teacher(wide_scale: float) -> PriorSettings:
    """The plain Bayesian student: a Gaussian prior on its weights, no teacher."""
    return PriorSettings(power=0.0, concentration=1.0, center_scale=jnp.inf, wide_scale=wide_scale)


def weight_mixture(centers: Centers, settings: PriorSettings, *, defensive_weight: float) -> WeightMixture:
    """The weight-space prior: the wide (defensive) component, then the pool, then each teacher.

    The pool has the weight of an average teacher, 1 / (1 + G); teacher g has its mean trust over the examples, of what
    is left.

    Args:
      centers: teacher-derived parameters.
      settings: gives the two scales.
      defensive_weight: weight of the wide component, in (0, 1); it has all the weight where ``center_scale`` is
        infinite.
    """
    flat = jax.vmap(lambda params: ravel_pytree(params)[0])(centers.params)
    rows = jnp.concatenate([jnp.zeros_like(flat[:1]), flat])
    is_wide_alone = jnp.isinf(settings.center_scale)
    center_scale = jnp.where(is_wide_alone, 1.0, settings.center_scale)
    scales = jnp.concatenate([jnp.reshape(settings.wide_scale, 1), jnp.full(flat.shape[0], center_scale)])

    num_teachers = flat.shape[0] - 1
    trust = centers.mean_weights[1:] / centers.mean_weights[1:].sum()
    among_centers = jnp.concatenate([jnp.full(1, 1 / (1 + num_teachers)), trust * num_teachers / (1 + num_teachers)])
    wide = jnp.where(is_wide_alone, 1.0, defensive_weight)
    return WeightMixture(rows, scales, jnp.log(jnp.concatenate([wide[None], (1 - wide) * among_centers])))


def distillation_posterior(
    student: Student,
    centers: Centers,
    settings: PriorSettings,
    *,
    temperature: float = 1.0,
    defensive_weight: float = 0.05,
    chunk_size: int | None = None,
) -> MinibatchLogDensity:
    """Likelihood, function-space prior and weight-space prior, added up."""
    return log_posterior(
        student,
        per_example=(
            categorical_log_likelihood,
            teacher_informed_prior(power=settings.power, temperature=temperature),
        ),
        per_parameters=(weight_space_prior(weight_mixture(centers, settings, defensive_weight=defensive_weight)),),
        chunk_size=chunk_size,
    )
