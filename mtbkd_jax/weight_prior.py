"""The weight-space prior: a mixture of Gaussians over the student's whole parameter vector.

    θ ~ Σ_k v_k · Normal(center_k, scale_k²)

There is one component index for all of θ, not one for each weight. The centers are derived from the teachers
(``centers``); a wide component around zero, if there is one, is just another row of ``centers``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from mtbkd_jax.types import Key, Params, Scalar

_ROW_LENGTH = 512


class WeightMixture(dist.Distribution):
    """The mixture as a NumPyro distribution over the flat parameter vector.

    Args:
      centers: ``[components, parameters]``.
      scales: standard deviations, ``[components]`` or ``[components, parameters]``; positive.
      log_weights: ``[components]``, log v_k; they sum to one in probability.

    >>> mixture = WeightMixture(jnp.array([[2.0], [6.0]]), jnp.ones(2), jnp.log(jnp.array([0.5, 0.5])))
    >>> round(float(mixture.log_prob(jnp.array([2.0]))), 4)
    -1.6118
    """

    arg_constraints = {  # noqa: RUF012 (NumPyro's own form)
        "centers": constraints.real_matrix,
        "scales": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    pytree_data_fields = ("centers", "scales", "log_weights")

    def __init__(
        self,
        centers: Float[Array, "components parameters"],
        scales: Float[Array, " components"] | Float[Array, "components parameters"],
        log_weights: Float[Array, " components"],
        *,
        validate_args: bool | None = None,
    ):
        self.centers = centers
        self.scales = scales if jnp.ndim(scales) == 2 else scales[:, None]
        self.log_weights = log_weights
        super().__init__(event_shape=centers.shape[1:], validate_args=validate_args)

    def component_log_densities(self, value: Float[Array, " parameters"]) -> Float[Array, " components"]:
        """log v_k + log Normal(value; center_k, scale_k²), less the constants that all components share, in nats."""
        return self._log_constants() + _exponents(value, self.centers, 1.0 / self.scales)

    def relative_log_prob(self, value: Float[Array, " parameters"]) -> Scalar:
        """The log density up to a constant that does not depend on ``value``.

        In float32 the constants of a million parameters would drown the differences that a sampler lives on.
        """
        return _log_mixture(value, self.centers, 1.0 / self.scales, self._log_constants())

    def log_prob(self, value):
        """The normalised log density, in nats; leading axes of ``value`` are a batch."""
        shared = -0.5 * value.shape[-1] * (jnp.log(2 * jnp.pi) + 1.0) + self._log_determinants().max()
        relative = jnp.vectorize(self.relative_log_prob, signature="(d)->()")
        return relative(value) + shared

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()):
        """Draw a component index, then that component alone."""
        index_key, noise_key = jax.random.split(key)
        index = jax.random.categorical(index_key, self.log_weights, shape=sample_shape)
        noise = jax.random.normal(noise_key, (*sample_shape, self.centers.shape[1]), self.centers.dtype)
        return self.centers[index] + self.scales[index] * noise

    def _log_determinants(self) -> Array:
        per_column = self.centers.shape[1] // self.scales.shape[1]
        return -per_column * jnp.sum(jnp.log(self.scales), axis=-1)

    def _log_constants(self) -> Array:
        log_determinants = self._log_determinants()
        return self.log_weights + log_determinants - log_determinants.max()


def _exponents(value: Array, centers: Array, precisions: Array) -> Float[Array, " components"]:
    """-Σ_i (z_ki² - 1) / 2 with z_k = (value - center_k) · precision_k.

    Near the prior's mass Σ z² is the number of parameters and little else: taking that constant out of the sum leaves
    float32 digits for what varies. The sum is over the columns of a matrix first, which CPUs do many at a time, and the
    components are scanned, so that no more than one of them is held.
    """
    num_in_rows = value.shape[0] // _ROW_LENGTH * _ROW_LENGTH

    def exponent(_, component):
        center, precision = component
        terms = jnp.square((value - center) * precision) - 1
        by_column = jnp.sum(terms[:num_in_rows].reshape(-1, _ROW_LENGTH), axis=0)
        return None, -0.5 * (jnp.sum(by_column) + jnp.sum(terms[num_in_rows:]))

    return jax.lax.scan(exponent, None, (centers, precisions))[1]


@jax.custom_vjp
def _log_mixture(value: Array, centers: Array, precisions: Array, log_constants: Array) -> Scalar:
    """log Σ_k exp(log_constant_k + exponent_k), with a gradient that holds one parameter vector and not one for each k.

    ∂/∂value = Σ_k r_k precision_k² (center_k - value),        r = softmax_k(log_constant_k + exponent_k)
    """
    return jax.nn.logsumexp(log_constants + _exponents(value, centers, precisions))


def _log_mixture_forward(value, centers, precisions, log_constants):
    log_densities = log_constants + _exponents(value, centers, precisions)
    residuals = (value, centers, precisions, jax.nn.softmax(log_densities))
    return jax.nn.logsumexp(log_densities), residuals


def _log_mixture_backward(residuals, cotangent):
    value, centers, precisions, responsibilities = residuals
    scaled = cotangent * responsibilities
    components = list(zip(centers, precisions, scaled, strict=True))
    pulls = [share * precision**2 * (center - value) for center, precision, share in components]
    # The compiler drops what the caller does not ask for, and fuses the sum over components into one pass.
    widths = [-share * precision * jnp.square(value - center) for center, precision, share in components]
    per_precision = [
        width if precision.size == width.size else jnp.sum(width, keepdims=True)
        for width, precision in zip(widths, precisions, strict=True)
    ]
    return sum(pulls), -jnp.stack(pulls), jnp.stack(per_precision), scaled


_log_mixture.defvjp(_log_mixture_forward, _log_mixture_backward)


def weight_space_prior(mixture: WeightMixture) -> Callable[[Params], Scalar]:
    """The mixture as a per-parameters term ``params -> log density``, up to a constant, in nats."""

    def log_density(params: Params) -> Scalar:
        return mixture.relative_log_prob(ravel_pytree(params)[0])

    return log_density


def gaussian_prior(scale: float | Float[Array, ""]) -> Callable[[Params], Scalar]:
    """log Normal(θ; 0, scale²) up to a constant, as a per-parameters term, in nats."""

    def log_density(params: Params) -> Scalar:
        flat = ravel_pytree(params)[0]
        return -0.5 * jnp.vdot(flat, flat) / jnp.square(scale)

    return log_density
