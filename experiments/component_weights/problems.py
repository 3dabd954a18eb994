"""Random linear-Gaussian students: the probability of every component of the posterior is known.

    y = X θ + noise,        θ ~ Σ_k v_k Normal(c_k, s_k²)
    Z_k = Normal(y; X c_k, noise² I + s_k² X Xᵀ),        ω_k ∝ v_k Z_k

The prior weights are chosen last, v_k ∝ ω_k / Z_k, with ω drawn from a flat Dirichlet: so no component is negligible
because of where its center happens to lie. Neither the chains nor the estimates of Z_k see v_k.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

DIMENSIONS = (2, 5, 10, 20, 50)
NUMBERS_OF_COMPONENTS = (2, 3, 4, 5)
NUM_PROBLEMS = 100
NOISE = 0.7
TYPICAL_SCALE = 0.7
GAP = 5.0
"""Between far centers, in every coordinate, in posterior standard deviations."""

_SEED = 20261124


class Problem(NamedTuple):
    """The data, the prior, and the posterior in closed form (``D`` parameters, ``2 D`` examples)."""

    inputs: np.ndarray
    targets: np.ndarray
    centers: np.ndarray
    scales: np.ndarray
    log_prior_weights: np.ndarray
    is_near: bool
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def num_parameters(self) -> int:
        return self.inputs.shape[1]

    @property
    def num_components(self) -> int:
        return len(self.scales)

    @property
    def mean(self) -> np.ndarray:
        """Of the whole posterior."""
        return self.weights @ self.means

    @property
    def covariance(self) -> np.ndarray:
        """Of the whole posterior."""
        offsets = self.means - self.mean
        return np.einsum("k,kij->ij", self.weights, self.covariances + offsets[:, :, None] * offsets[:, None, :])


def random_problem(index: int) -> Problem:
    """Problem ``index``: every number of parameters and of components in turn, near and far centers alike."""
    rng = np.random.default_rng([_SEED, index])
    num_parameters = DIMENSIONS[index % len(DIMENSIONS)]
    num_combinations = len(DIMENSIONS) * len(NUMBERS_OF_COMPONENTS)
    num_components = NUMBERS_OF_COMPONENTS[index % num_combinations // len(DIMENSIONS)]
    is_near = (index + index // num_combinations) % 2 == 0

    num_examples = 2 * num_parameters
    inputs = rng.normal(size=(num_examples, num_parameters)) / np.sqrt(num_parameters)
    truth = rng.normal(size=num_parameters)
    targets = inputs @ truth + NOISE * rng.normal(size=num_examples)
    if is_near:
        centers, scales = _near_components(rng, truth, num_components)
    else:
        centers, scales = _far_components(rng, truth, inputs, num_components)
    # What is sampled is float32, so that is what the closed form is of.
    inputs, targets, centers, scales = (
        array.astype(np.float32).astype(np.float64) for array in (inputs, targets, centers, scales)
    )
    weights = rng.dirichlet(np.ones(num_components))
    log_prior_weights = log_softmax(np.log(weights) - _log_evidence(inputs, targets, centers, scales))
    covariances = _posterior_covariances(inputs, scales)
    means = np.einsum("kij,kj->ki", covariances, inputs.T @ targets / NOISE**2 + centers / np.square(scales)[:, None])
    return Problem(inputs, targets, centers, scales, log_prior_weights, is_near, weights, means, covariances)


def _near_components(rng: np.random.Generator, truth: np.ndarray, num_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Centers half a scale to three scales from a common point, whatever the number of parameters.

    The scales differ the less the more parameters there are, as densities of many parameters overlap only then.
    """
    num_parameters = truth.size
    common = truth + TYPICAL_SCALE * rng.normal(size=num_parameters)
    directions = rng.normal(size=(num_components, num_parameters))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    centers = common + TYPICAL_SCALE * rng.uniform(0.5, 3.0) * directions
    return centers, TYPICAL_SCALE * np.exp(rng.uniform(-0.3, 0.3, num_components) / np.sqrt(num_parameters))


def _far_components(
    rng: np.random.Generator, truth: np.ndarray, inputs: np.ndarray, num_components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Centers on evenly spaced levels around the truth, dealt anew to the components in every coordinate."""
    scales = TYPICAL_SCALE * np.exp(rng.uniform(-0.3, 0.3, num_components))
    variances = np.diagonal(_posterior_covariances(inputs, scales), axis1=1, axis2=2)
    levels = GAP * np.sqrt(variances.max()) * (np.arange(num_components) - (num_components - 1) / 2)
    return truth + rng.permuted(np.tile(levels, (truth.size, 1)), axis=1).T, scales


def _posterior_covariances(inputs: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.linalg.inv(inputs.T @ inputs / NOISE**2 + np.eye(inputs.shape[1]) / np.square(scales)[:, None, None])


def _log_evidence(inputs: np.ndarray, targets: np.ndarray, centers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """log Z_k, up to a constant that all share."""
    noise, signal = NOISE**2 * np.eye(len(inputs)), inputs @ inputs.T
    marginals = noise + np.square(scales)[:, None, None] * signal
    residuals = targets - centers @ inputs.T
    quadratic = np.einsum("ki,ki->k", residuals, np.linalg.solve(marginals, residuals[..., None])[..., 0])
    return -0.5 * quadratic - 0.5 * np.linalg.slogdet(marginals)[1]
