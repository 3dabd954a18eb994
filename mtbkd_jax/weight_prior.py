"""The weight-space prior: a mixture of Gaussians over the student's whole parameter vector.

    θ ~ Σ_k v_k · Normal(center_k, scale_k²)

There is one component index for all of θ, not one for each weight. The centers are derived from the teachers
(``centers``); a wide component around zero, if there is one, is just another row of ``centers``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from mtbkd_jax.checks import SUM_TOLERANCE
from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key, Params, Scalar

_ROW_LENGTH = 512


class WeightMixture(dist.Distribution):
    """The mixture as a NumPyro distribution over the flat parameter vector.

    Args:
      centers: ``[components, parameters]``.
      scales: standard deviations, ``[components]`` or ``[components, parameters]``; positive.
      log_weights: ``[components]``, log v_k; they sum to one in probability. A component of weight zero (log weight
        -inf) takes no part.

    Raises:
      InputError: if a shape does not fit, a center is not finite, a scale is not a finite number above zero, or the
        weights are no probabilities. Only the shape of what is traced by JAX is looked at.

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
        scales: Float[Array, "..."],
        log_weights: Float[Array, "..."],
        *,
        validate_args: bool | None = None,
    ):
        # NumPyro rebuilds a distribution that has passed through a transformation without calling this.
        _check_mixture(centers, scales, log_weights)
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
        of_first, beyond_first = self._log_determinants()
        shared = -0.5 * value.shape[-1] * (jnp.log(2 * jnp.pi) + 1.0) + of_first + beyond_first.max()
        relative = jnp.vectorize(self.relative_log_prob, signature="(d)->()")
        return relative(value) + shared

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()):
        """Draw a component index, then that component alone."""
        index_key, noise_key = jax.random.split(key)
        index = jax.random.categorical(index_key, self.log_weights, shape=sample_shape)
        noise = jax.random.normal(noise_key, (*sample_shape, self.centers.shape[1]), self.centers.dtype)
        return self.centers[index] + self.scales[index] * noise

    def _log_determinants(self) -> tuple[Scalar, Float[Array, " components"]]:
        """-Σ_i log s_ki in two parts: that of component 0, and what the others have beyond it.

        The first part is what would drown, at millions of parameters, the differences between components: the second is
        summed without it, and is exactly zero for the same scales.
        """
        per_column = self.centers.shape[1] // self.scales.shape[1]
        # A constant of the derivatives: the sum of the two parts does not depend on it.
        first = jax.lax.stop_gradient(self.scales[0])
        beyond_first = _for_each_component(lambda scales: jnp.sum(jnp.log(scales) - jnp.log(first)), self.scales)
        return -per_column * jnp.sum(jnp.log(first)), -per_column * beyond_first

    def _log_constants(self) -> Array:
        _, beyond_first = self._log_determinants()
        return self.log_weights + beyond_first - beyond_first.max()


def _exponents(value: Array, centers: Array, precisions: Array) -> Float[Array, " components"]:
    """-Σ_i (z_ki² - 1) / 2 with z_k = (value - center_k) · precision_k.

    Near the prior's mass Σ z² is the number of parameters and little else: taking that constant out of the sum leaves
    float32 digits for what varies. The sum is over the columns of a matrix first, which CPUs do many at a time.
    """
    num_in_rows = value.shape[0] // _ROW_LENGTH * _ROW_LENGTH

    def exponent(center: Array, precision: Array) -> Array:
        terms = jnp.square((value - center) * precision) - 1
        by_column = jnp.sum(terms[:num_in_rows].reshape(-1, _ROW_LENGTH), axis=0)
        return -0.5 * (jnp.sum(by_column) + jnp.sum(terms[num_in_rows:]))

    return _for_each_component(exponent, centers, precisions)


def _for_each_component(function: Callable[..., Scalar], *arrays: Array) -> Float[Array, " components"]:
    """A number for each row of the arrays.

    On a CPU the rows are scanned, so that what is computed of no more than one of them is held. An accelerator sums as
    it computes and holds nothing, but would wait for every turn of a loop.
    """

    def scanned(*arrays: Array) -> Array:
        return jax.lax.map(lambda rows: function(*rows), arrays)

    return jax.lax.platform_dependent(*arrays, cpu=scanned, default=jax.vmap(function))


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


def _check_mixture(centers: Array, scales: Array, log_weights: Array) -> None:
    """Refuse what makes no mixture; of what is traced by JAX only the shape can be looked at."""
    where = "WeightMixture"
    if jnp.ndim(centers) != 2 or 0 in centers.shape:
        expected, action = "(components, parameters), at least one of each", "Stack flat parameter vectors."
        raise InputError(where, "centers", f"shape {jnp.shape(centers)}", expected, action)
    num_components, num_parameters = centers.shape
    if jnp.shape(scales) not in ((num_components,), (num_components, num_parameters)):
        expected = f"({num_components},) or ({num_components}, {num_parameters})"
        action = "Give one standard deviation for each component, or one for each of its parameters."
        raise InputError(where, "scales", f"shape {jnp.shape(scales)}", expected, action)
    if jnp.shape(log_weights) != (num_components,):
        action = "Give one log weight for each component."
        raise InputError(where, "log_weights", f"shape {jnp.shape(log_weights)}", f"({num_components},)", action)

    if _is_known(centers):
        rows = np.flatnonzero(~np.isfinite(np.asarray(centers)).all(axis=1))
        if rows.size:
            found = (
                f"NaN or infinite numbers in component {rows[0]}, and {rows.size} of {num_components} such components"
            )
            action = "Leave these components out, or distil them again: a climb that diverges ends in such numbers."
            raise InputError(where, "centers", found, "finite numbers", action)
    if _is_known(scales):
        numbers = np.asarray(scales)
        wrong = ~((numbers > 0) & np.isfinite(numbers))
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            found = f"{numbers[first]} in component {first[0]}, and {wrong.sum()} of {numbers.size} such numbers"
            action = "A component without a width, or without bounds, has no density: leave it out."
            raise InputError(where, "scales", found, "finite numbers above zero", action)
    if _is_known(log_weights):
        with np.errstate(over="ignore"):
            weights = np.exp(np.asarray(log_weights, np.float64))
        if np.isnan(weights).any():
            found = f"NaN in component {np.flatnonzero(np.isnan(weights))[0]}, as the logarithm of a negative weight is"
            action = "Give the logarithms of weights that are zero or above and sum to one."
            raise InputError(where, "log_weights", found, "logarithms of probabilities", action)
        if not abs(weights.sum() - 1) < SUM_TOLERANCE:
            found = f"weights that sum to {weights.sum():.4g}"
            action = "Normalise them, for example by `jax.nn.log_softmax`."
            raise InputError(where, "log_weights", found, "logarithms of weights that sum to one", action)


def _is_known(value: Array) -> bool:
    return not isinstance(value, jax.core.Tracer)
