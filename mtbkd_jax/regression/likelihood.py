"""The Gaussian likelihood: a per-example log-density term ``(outputs, examples) -> [examples]`` of the targets."""

import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_positive
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples
from mtbkd_jax.posterior import PerExampleTerm


def gaussian_log_likelihood(*, noise: float | Float[Array, ""] | None = None) -> PerExampleTerm:
    """Build the term log Normal(y_i; f_i, σ_i²), in nats; zero for an example whose target is unknown (NaN).

    Args:
      noise: σ; None takes exp of the second output, log σ_i, of a student such as ``with_noise`` makes.

    Raises:
      InputError: if ``noise`` is not positive, or (when applied) there is neither it nor a second output.

    >>> examples = Examples(jnp.zeros((2, 1)), jnp.array([0.0, jnp.nan]))
    >>> gaussian_log_likelihood(noise=1.0)(jnp.zeros((2, 1)), examples).tolist()
    [-0.9189385175704956, 0.0]
    """
    if noise is not None:
        check_positive(noise=noise)

    def log_likelihood(outputs: Float[Array, "examples outputs"], examples: Examples) -> Float[Array, " examples"]:
        if noise is None and outputs.shape[1] != 2:
            raise InputError(
                "gaussian_log_likelihood",
                "outputs",
                f"{outputs.shape[1]} for each example",
                "two, the mean and the logarithm of the noise",
                "Wrap the student by `with_noise`, or give `noise`.",
            )
        is_known = jnp.isfinite(examples.labels)
        # The unknown is replaced before anything is computed from it, so that no gradient becomes NaN.
        errors = jnp.where(is_known, examples.labels, 0.0) - outputs[:, 0]
        log_noise = outputs[:, 1] if noise is None else jnp.log(jnp.full_like(errors, noise))
        return jnp.where(is_known, norm.logpdf(errors * jnp.exp(-log_noise)) - log_noise, 0.0)

    return log_likelihood
