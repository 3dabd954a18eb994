"""Predictions in regression: the posterior predictive, a mixture of a Gaussian for each draw.

p(y | x, D) = (1/S) Σ_s Normal(y; f^(s)(x), σ_s²)
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from mtbkd_jax.errors import InputError
from mtbkd_jax.students import Student
from mtbkd_jax.types import Params

_NUM_BISECTIONS = 60


class GaussianPrediction(NamedTuple):
    """A Gaussian for each draw and example, in the unit of the targets; a point prediction has one draw.

    Attributes:
      means: f^(s)(x_i).
      sds: σ_s.
    """

    means: Float[Array, "draws examples"]
    sds: Float[Array, "draws examples"]


@partial(jax.jit, static_argnames="student")
def predict_gaussian(student: Student, draws: Params, inputs: Float[Array, "examples ..."]) -> GaussianPrediction:
    """Predict from all draws.

    Args:
      student: made by ``with_noise``.
      draws: parameters stacked over draws.
      inputs: standardised as those that the student was taught on.
    """
    outputs = jax.vmap(lambda params: student.apply(params, inputs))(draws)
    return GaussianPrediction(outputs[..., 0], jnp.exp(outputs[..., 1]))


def gaussian_log_score(prediction: GaussianPrediction, targets: Float[Array, " examples"]) -> Float[Array, " examples"]:
    """log p(y_i | x_i, D), in nats."""
    errors = (targets[None] - prediction.means) / prediction.sds
    densities = norm.logpdf(errors) - jnp.log(prediction.sds)
    return jax.nn.logsumexp(densities, axis=0) - jnp.log(densities.shape[0])


def gaussian_cdf(prediction: GaussianPrediction, targets: Float[Array, " examples"]) -> Float[Array, " examples"]:
    """P(y ≤ y_i | x_i, D): uniform over examples where predictions are calibrated."""
    return jnp.mean(norm.cdf((targets[None] - prediction.means) / prediction.sds), axis=0)


def central_interval(
    prediction: GaussianPrediction, *, level: float
) -> tuple[Float[Array, " examples"], Float[Array, " examples"]]:
    """The interval with probability ``level`` that leaves as much below it as above, by bisection.

    >>> low, high = central_interval(GaussianPrediction(jnp.zeros((1, 1)), jnp.ones((1, 1))), level=0.95)
    >>> round(float(low[0]), 3), round(float(high[0]), 3)
    (-1.96, 1.96)

    Raises:
      InputError: if ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        expected = "a number strictly between 0 and 1"
        raise InputError("central_interval", "level", f"{level}", expected, "Use 0.9 for a 90 % interval.")
    # Every quantile of the mixture is between the least and the greatest of the draws' own.
    tail = (1 - level) / 2
    own = prediction.means[None] + prediction.sds[None] * norm.ppf(jnp.array([tail, 1 - tail]))[:, None, None]

    def quantile(own_quantiles, probability):
        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            is_below = gaussian_cdf(prediction, middle) < probability
            return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

        low, high = jax.lax.fori_loop(0, _NUM_BISECTIONS, halve, (own_quantiles.min(0), own_quantiles.max(0)))
        return (low + high) / 2

    return quantile(own[0], tail), quantile(own[1], 1 - tail)
