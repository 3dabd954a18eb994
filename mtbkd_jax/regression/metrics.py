"""How good predictions of numbers are, on targets that are known."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.errors import InputError
from mtbkd_jax.regression.prediction import GaussianPrediction, gaussian_cdf, gaussian_log_score
from mtbkd_jax.uncertainty import COVERAGE_LEVELS


def regression_metrics(prediction: GaussianPrediction, targets: Float[Array, " examples"]) -> dict[str, float]:
    """Root mean square error of the predictive mean, negative log likelihood, and coverage of central intervals.

    A target is inside the central interval of a level where its predictive distribution function is no further from one
    half than half the level.

    Args:
      prediction: of all examples.
      targets: in the same unit; examples with NaN are left out.

    Returns:
      ``rmse``, ``negative_log_likelihood`` (nats an example) and ``coverage_85`` and so on for ``COVERAGE_LEVELS``.

    Raises:
      InputError: if no target is known.
    """
    is_known = jnp.isfinite(targets)
    if not bool(is_known.any()):
        raise InputError("regression_metrics", "targets", "none that is known", "one or more", "Give targets.")
    known = GaussianPrediction(prediction.means[:, is_known], prediction.sds[:, is_known])
    targets = targets[is_known]
    distance = jnp.abs(gaussian_cdf(known, targets) - 0.5)
    return {
        "rmse": float(jnp.sqrt(jnp.mean(jnp.square(known.means.mean(0) - targets)))),
        "negative_log_likelihood": float(-jnp.mean(gaussian_log_score(known, targets))),
    } | {f"coverage_{round(100 * level)}": float(jnp.mean(distance <= level / 2)) for level in COVERAGE_LEVELS}
