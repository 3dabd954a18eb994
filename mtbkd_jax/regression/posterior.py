"""The posterior in regression: Gaussian likelihood, Gaussian mixture around the teachers, priors of weights and noise.

log p(θ, σ | D) = Σ_i log Normal(y_i; f_i, σ²) + power · Σ_i log Σ_g w_i^g Normal(f_i; m_i^g, ·)
                + log Normal(θ; 0, weight_scale²) + log p(σ) + const
"""

from functools import cache
from typing import Any, NamedTuple

from mtbkd_jax.examples import WeightedExamples
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.regression.function_prior import gaussian_mixture_prior
from mtbkd_jax.regression.likelihood import gaussian_log_likelihood
from mtbkd_jax.regression.students import NoisePrior, NoisyParams, noisy_params_prior
from mtbkd_jax.students import Student
from mtbkd_jax.types import MinibatchLogDensity, Scalar


class RegressionSettings(NamedTuple):
    """What is chosen on the labels: numbers, or arrays where there are several.

    Attributes:
      power: what the function-space prior is worth; 0 is no teacher.
      weight_scale: standard deviation of the network's weights.
    """

    power: Any
    weight_scale: Any


class RegressionBatch(NamedTuple):
    """What the posterior is evaluated on: examples, and the settings under which."""

    examples: WeightedExamples
    settings: RegressionSettings


@cache  # the same function for the same student, so that what was compiled for it serves again
def regression_posterior(student: Student, noise: NoisePrior) -> MinibatchLogDensity:
    """Add the terms up to ``(params, RegressionBatch) -> log density`` in nats, up to a constant.

    Args:
      student: made by ``with_noise``.
      noise: prior of σ.
    """

    def log_density(params: NoisyParams, batch: RegressionBatch) -> Scalar:
        settings = batch.settings
        density = log_posterior(
            student,
            per_example=(gaussian_log_likelihood(), gaussian_mixture_prior(power=settings.power)),
            per_parameters=(noisy_params_prior(weight_scale=settings.weight_scale, noise=noise),),
        )
        return density(params, batch.examples)

    return log_density
