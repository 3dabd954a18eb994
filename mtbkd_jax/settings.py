"""Settings of the posterior, and the log density that they make."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mtbkd_jax.centers import Centers
from mtbkd_jax.examples import WeightedExamples
from mtbkd_jax.function_prior import teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import PerExampleTerm, linearised_curvature, log_posterior
from mtbkd_jax.storage import finite_or_none
from mtbkd_jax.students import Student
from mtbkd_jax.tree import tree_add_scaled
from mtbkd_jax.types import MinibatchLogDensity, Params, Scalar
from mtbkd_jax.weight_prior import WeightMixture, gaussian_prior, weight_space_prior


class PosteriorSettings(NamedTuple):
    """What is chosen on the labels. Numbers, or traced arrays when several candidates are tried at once.

    Attributes:
      power: what the function-space prior is worth, 0 to leave it out.
      concentration: λ of the function-space prior.
      center_scale: standard deviation around the teacher-derived centers; infinite to leave them out, so that the wide
        component is the whole weight-space prior.
      wide_scale: standard deviation of the wide component around zero.
      temperature: T of the posterior p(θ | D)^(1/T) that is sampled; 1 is Bayes, below it draws lie closer together.
      prediction_temperature: what predictions divide the student's logits by; the posterior does not depend on it.
    """

    power: Any
    concentration: Any
    center_scale: Any
    wide_scale: Any
    temperature: Any = 1.0
    prediction_temperature: Any = 1.0

    @property
    def uses_teachers(self):
        """False for *no teacher*: power zero and the wide component alone."""
        return (self.power > 0) | jnp.isfinite(self.center_scale)

    @property
    def weight_scale(self):
        """Standard deviation of the component that the student's weights are sampled in."""
        return jnp.where(jnp.isfinite(self.center_scale), self.center_scale, self.wide_scale)

    def to_json(self) -> dict[str, float | None]:
        """The numbers as JSON values; infinite ones become None."""
        return {name: finite_or_none(value) for name, value in self._asdict().items()}


def no_teacher(wide_scale: float, temperature: float = 1.0, prediction_temperature: float = 1.0) -> PosteriorSettings:
    """The plain Bayesian student: a Gaussian prior on its weights, no teacher."""
    return PosteriorSettings(0.0, 1.0, float("inf"), wide_scale, temperature, prediction_temperature)


class Powers(NamedTuple):
    """Powers of the function-space prior that every chain visits, from the largest to the smallest, and that twice.

    Chains begin at different phases of the path, so that between them they have started from modes under every power.
    Each half of a chain is a whole path: those who compare halves (split R-hat) compare draws of the same mixture.

    Attributes:
      values: the powers, largest first.
      shares: the share of the draws at each; they sum to one.
    """

    values: tuple[float, ...]
    shares: tuple[float, ...]

    def share_of(self, power: float) -> float:
        """The share of a power; zero if it is not visited."""
        return dict(zip(self.values, self.shares, strict=True)).get(power, 0.0)

    def at(self, elapsed: Float[Array, ""], phase: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
        """The power at a point of the chain, from 0 at its first draw to 1 at its last; before that as at the first.

        >>> powers = Powers((0.5, 0.0), (0.75, 0.25))
        >>> [float(powers.at(jnp.float32(elapsed))) for elapsed in (-1, 0, 0.3, 0.4, 0.6, 0.9)]
        [0.5, 0.5, 0.5, 0.0, 0.5, 0.0]
        """
        along = (2 * jnp.maximum(elapsed, 0.0) + phase) % 1.0
        ends = jnp.cumsum(jnp.array(self.shares))[:-1]
        return jnp.array(self.values)[jnp.searchsorted(ends, along, side="right")]


class Component(NamedTuple):
    """A Gaussian over the student's weights; stacked where there are several.

    Attributes:
      center: parameters.
      scale: standard deviation.
    """

    center: Params
    scale: Float[Array, "*components"]


class ComponentBatch(NamedTuple):
    """What the posterior under one component is evaluated on: examples, the component, and the prior's power."""

    examples: WeightedExamples
    component: Component
    power: Float[Array, ""]


def prior_components(
    centers: Centers, settings: PosteriorSettings, *, defensive_weight: float
) -> tuple[Component, Float[Array, " components"]]:
    """The components of the weight-space prior: the wide (defensive) one, then the pool's, then each teacher's.

    The pool has the weight of an average teacher, 1 / (1 + G); teacher g has its mean trust over the examples, of what
    is left.

    Args:
      centers: teacher-derived parameters.
      settings: gives the two scales.
      defensive_weight: weight of the wide component, from 0 to less than 1; it has all the weight where
        ``center_scale`` is infinite.

    Returns:
      The components, stacked, and their log weights.
    """
    rows = jax.tree.map(lambda leaf: jnp.concatenate([jnp.zeros_like(leaf[:1]), leaf]), centers.params)
    is_wide_alone = jnp.isinf(settings.center_scale)
    center_scale = jnp.where(is_wide_alone, 1.0, settings.center_scale)
    num_teachers = centers.mean_weights.shape[0] - 1
    scales = jnp.concatenate([jnp.reshape(settings.wide_scale, 1), jnp.full(1 + num_teachers, center_scale)])

    total = centers.mean_weights[1:].sum()
    # Where no teacher was asked about what is left of the examples, they are alike.
    trust = jnp.where(total > 0, centers.mean_weights[1:] / jnp.where(total > 0, total, 1.0), 1 / num_teachers)
    among_centers = jnp.concatenate([jnp.full(1, 1 / (1 + num_teachers)), trust * num_teachers / (1 + num_teachers)])
    wide = jnp.where(is_wide_alone, 1.0, defensive_weight)
    return Component(rows, scales), jnp.log(jnp.concatenate([wide[None], (1 - wide) * among_centers]))


def weight_mixture(centers: Centers, settings: PosteriorSettings, *, defensive_weight: float) -> WeightMixture:
    """The weight-space prior; arguments are those of ``prior_components``."""
    return mixture_of(*prior_components(centers, settings, defensive_weight=defensive_weight))


def mixture_of(components: Component, log_weights: Float[Array, " components"]) -> WeightMixture:
    """Stacked components as a distribution over the flat parameter vector."""
    flat = jax.vmap(lambda params: ravel_pytree(params)[0])(components.center)
    return WeightMixture(flat, components.scale, log_weights)


def distillation_posterior(
    student: Student,
    centers: Centers,
    settings: PosteriorSettings,
    *,
    softening: float = 1.0,
    defensive_weight: float = 0.05,
) -> MinibatchLogDensity:
    """Likelihood, function-space prior and weight-space prior, added up."""
    mixture = weight_mixture(centers, settings, defensive_weight=defensive_weight)
    return log_posterior(
        student,
        per_example=_per_example(settings, softening),
        per_parameters=(weight_space_prior(mixture),),
    )


def distillation_likelihood(
    student: Student, settings: PosteriorSettings, *, softening: float = 1.0, over_devices: bool = False
) -> MinibatchLogDensity:
    """Likelihood and function-space prior: all of the posterior but the weight-space prior."""
    return log_posterior(student, per_example=_per_example(settings, softening), over_devices=over_devices)


def distillation_curvature(
    student: Student, settings: PosteriorSettings, *, softening: float = 1.0
) -> Callable[[Params, WeightedExamples], Callable[[Params], Params]]:
    """``linearised_curvature`` of the same terms as ``distillation_likelihood``."""
    return linearised_curvature(student, per_example=_per_example(settings, softening))


def component_posterior(
    student: Student, settings: PosteriorSettings, *, softening: float = 1.0, over_devices: bool = False
) -> MinibatchLogDensity:
    """The posterior under one component of the weight-space prior alone, ``(params, ComponentBatch) -> nats``.

    The power is that of the batch. For ``over_devices`` see ``log_posterior``.
    """

    def log_density(params: Params, batch: ComponentBatch) -> Scalar:
        at_power = settings._replace(power=batch.power)
        likelihood = distillation_likelihood(student, at_power, softening=softening, over_devices=over_devices)
        offset = tree_add_scaled(params, -1.0, batch.component.center)
        return likelihood(params, batch.examples) + gaussian_prior(batch.component.scale)(offset)

    return log_density


def _per_example(settings: PosteriorSettings, softening: float) -> tuple[PerExampleTerm, ...]:
    return categorical_log_likelihood, teacher_informed_prior(power=settings.power, temperature=softening)
