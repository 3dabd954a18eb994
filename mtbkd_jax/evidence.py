"""Evidence: what each component of the weight-space prior is worth, given the data.

Under a mixture Σ_k v_k N(center_k, scale_k²) over the student's weights the posterior is a mixture as well,

    p(θ | D) = Σ_k ω_k p_k(θ | D),        ω_k ∝ v_k Z_k,        Z_k = ∫ L(θ) N(θ; center_k, scale_k²) dθ

where p_k is the posterior under component k alone, Z_k its evidence, and L everything else that depends on θ: the
likelihood and the function-space prior. So chains of one component each, weighted by ω_k, sample it exactly, and none
has to jump between far modes. Three estimates of log Z_k, from the quickest to the most trustworthy at any distance:

- ``laplace_evidence``: a Gaussian at the mode. A first look; exact for a Gaussian L.
- ``bridge_evidence``: from chains of all components, where these overlap; asks for no new evaluation of L.
- ``tempered_evidence``: by a population that is led from the component to its posterior.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from mtbkd_jax.checks import check_positive
from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Batch, Key, MinibatchLogDensity, Params, Scalar

Method = Literal["alone", "laplace", "bridge", "tempering"]
"""How evidence was estimated; a component that is alone needs no estimate."""

Curvature = Callable[[Params, Batch], Callable[[Params], Params]]
"""``(params, data) -> product``; ``product(direction)`` is a matrix times a direction in parameter space."""

ENOUGH_OVERLAP = 0.03
"""The least overlap at which a bridge is trusted: the share of draws that neighbours must have in common by Klimovich,
Shirts and Mobley (2015)."""

_LEAST_CURVATURE = 0.1
_NUM_ERRORS = 10_000
NUM_BLOCKS = 20
"""Blocks of draws that the standard errors of a bridge come from."""

NUM_POPULATIONS = 8
"""Populations that the standard error of tempering comes from."""


class Evidence(NamedTuple):
    """Log evidence of each component, up to a constant that all share.

    Attributes:
      log_evidence: log Z_k, ``[components]``, nats.
      covariance: of the estimates, ``[components, components]``.
      method: how it was estimated.
    """

    log_evidence: Float[np.ndarray, " components"]
    covariance: Float[np.ndarray, "components components"]
    method: Method


class ComponentWeights(NamedTuple):
    """Posterior probabilities of the components.

    Attributes:
      weights: ω_k, ``[components]``; they sum to one.
      standard_errors: of ω_k.
      method: how the evidence was estimated.
    """

    weights: Float[np.ndarray, " components"]
    standard_errors: Float[np.ndarray, " components"]
    method: Method


def component_weights(log_prior_weights: Float[np.ndarray, " components"], evidence: Evidence) -> ComponentWeights:
    """ω_k ∝ v_k Z_k; the standard errors are the spread of ω_k over normal errors of log Z.

    A derivative would do for small errors only: where one component has nearly all the weight it is next to zero,
    however little log Z is known.

    Args:
      log_prior_weights: log v_k.
      evidence: of the same components.
    """
    log_weights = np.asarray(log_prior_weights, np.float64) + evidence.log_evidence
    weights = scipy.special.softmax(log_weights)
    zeros = np.zeros_like(log_weights)
    errors = np.random.default_rng(0).multivariate_normal(zeros, evidence.covariance, _NUM_ERRORS, method="eigh")
    around = scipy.special.softmax(log_weights + errors, axis=1) - weights
    return ComponentWeights(weights, np.sqrt(np.mean(np.square(around), axis=0)), evidence.method)


class Laplace(NamedTuple):
    """A Gaussian approximation of one component's evidence.

    Attributes:
      log_evidence: log Z_k, nats.
      standard_error: of the log determinant, from the spread of the probes and from what the last quarter of the
        Lanczos steps changed, nats.
      is_damped: whether the posterior curved upwards somewhere, so that its curvature there was raised.
    """

    log_evidence: Scalar
    standard_error: Scalar
    is_damped: Array


def laplace_evidence(
    key: Key,
    log_likelihood: MinibatchLogDensity,
    data: Batch,
    mode: Params,
    center: Params,
    scale: Float[Array, ""] | float,
    *,
    curvature: Curvature | None = None,
    num_probes: int = 16,
    num_lanczos_steps: int = 30,
) -> Laplace:
    """log Z ≈ log L(θ*) − |z*|² / 2 − ½ log det(I + s² H),    H = −∇² log L(θ*),    z* = (θ* − center) / s.

    In units of the component's scale the prior's normaliser and the Gaussian integral cancel. The log determinant is
    that of stochastic Lanczos quadrature (Ubaru, Chen and Saad, 2017): products with H only, so that any number of
    parameters will do. Can be traced.

    Args:
      key: of the probes; the same one for all components makes their differences less noisy.
      log_likelihood: log L, in nats.
      data: all of it.
      mode: θ*, of the component's posterior.
      center: of the component.
      scale: s, of the component.
      curvature: ``(params, data) -> product``, where ``product(direction)`` is H times a direction, or a matrix that
        stands for H times it, such as ``posterior.linearised_curvature``; None takes the Hessian itself.
      num_probes: random sign vectors.
      num_lanczos_steps: products with H for each; no more than there are parameters.
    """
    flat_mode, unravel = ravel_pytree(mode)
    standardized = (flat_mode - ravel_pytree(center)[0]) / scale
    num_steps = min(num_lanczos_steps, flat_mode.size)
    product = (curvature or partial(_hessian, log_likelihood))(mode, data)

    def precision_times(direction: Array) -> Array:
        return direction + scale**2 * ravel_pytree(product(unravel(direction)))[0]

    def log_determinant(tridiagonal: Array) -> tuple[Scalar, Scalar]:
        eigenvalues, vectors = jnp.linalg.eigh(tridiagonal)
        log_eigenvalues = jnp.log(jnp.maximum(eigenvalues, _LEAST_CURVATURE))
        weights = jnp.square(vectors[0])
        smallest = jnp.min(jnp.where(weights > jnp.finfo(weights.dtype).eps, eigenvalues, jnp.inf))
        return flat_mode.size * jnp.vdot(weights, log_eigenvalues), smallest

    def quadrature(probe: Array) -> tuple[Scalar, Scalar, Scalar]:
        tridiagonal = _lanczos(precision_times, probe, num_steps)
        value, smallest = log_determinant(tridiagonal)
        if num_steps == flat_mode.size:
            return value, jnp.zeros_like(value), smallest
        fewer = max(1, 3 * num_steps // 4)
        return value, value - log_determinant(tridiagonal[:fewer, :fewer])[0], smallest

    probes = jax.random.rademacher(key, (num_probes, flat_mode.size), flat_mode.dtype)
    log_determinants, changes, smallest = jax.lax.map(quadrature, probes)
    by_probes = jnp.std(log_determinants, ddof=1) / num_probes**0.5
    standard_error = 0.5 * jnp.hypot(by_probes, changes.mean())
    value = log_likelihood(mode, data) - 0.5 * jnp.vdot(standardized, standardized) - 0.5 * log_determinants.mean()
    return Laplace(value, standard_error, smallest.min() < _LEAST_CURVATURE)


def _hessian(log_likelihood: MinibatchLogDensity, params: Params, data: Batch) -> Callable[[Params], Params]:
    """``direction -> −∇² log L · direction``."""
    gradient = jax.grad(lambda params: -log_likelihood(params, data))
    return lambda direction: jax.jvp(gradient, (params,), (direction,))[1]


def _lanczos(times: Callable[[Array], Array], start: Array, num_steps: int) -> Float[Array, "steps steps"]:
    """The tridiagonal matrix of a symmetric one in the Krylov space of ``start``, with full reorthogonalisation.

    Where the space has no further dimension, as with a matrix of few distinct eigenvalues, the rest is zero, which has
    no part in a quadrature from the first row.
    """

    def step(carry, index):
        basis, vector, previous_length = carry
        basis = basis.at[index].set(vector)
        image = times(vector)
        diagonal = jnp.vdot(vector, image)
        for _ in range(2):  # once is not enough in float32
            image -= basis.T @ (basis @ image)
        length = jnp.linalg.norm(image)
        is_new = length > 1e-5 * (jnp.abs(diagonal) + previous_length)
        following = jnp.where(is_new, image / jnp.where(is_new, length, 1.0), 0.0)
        length = jnp.where(is_new, length, 0.0)
        return (basis, following, length), (diagonal, length)

    no_basis = jnp.zeros((num_steps, start.size), start.dtype)
    first = start / jnp.linalg.norm(start), jnp.zeros((), start.dtype)
    _, (diagonal, lengths) = jax.lax.scan(step, (no_basis, *first), jnp.arange(num_steps))
    return jnp.diag(diagonal) + jnp.diag(lengths[:-1], 1) + jnp.diag(lengths[:-1], -1)


class Bridge(NamedTuple):
    """Evidence from chains, and whether they overlap enough for it.

    Attributes:
      evidence: of the components.
      overlap: from 0 (some components have nothing in common with the others) to 1 (all are the same).
    """

    evidence: Evidence
    overlap: float

    @property
    def is_trustworthy(self) -> bool:
        """Whether the overlap is enough."""
        return self.overlap >= ENOUGH_OVERLAP


def bridge_evidence(
    log_densities: Float[np.ndarray, "chains draws components"], component_of_chain: Int[np.ndarray, " chains"]
) -> Bridge:
    """The multistate Bennett estimate of all log Z_k (Shirts and Chodera, 2008) from chains of one component each.

        Z_k = Σ_n N_k(θ_n) / Σ_j n_j N_j(θ_n) / Z_j        over all draws θ_n, of which n_j are of component j

    L cancels: the densities are those of the prior's components. The solution is the minimum of a convex function. Its
    covariance is that of a jackknife over blocks of consecutive draws, which the draws' correlation does not mislead.
    The overlap is one less the second largest eigenvalue of the matrix of shares that the components have in each
    other's draws.

    Args:
      log_densities: log N_k of every draw, normalised up to a constant that all components share, nats.
      component_of_chain: which component's posterior a chain has sampled; each at least once.

    Raises:
      InputError: if a component has no chain, or there are fewer draws than blocks.
    """
    num_draws, num_components = log_densities.shape[1:]
    if set(component_of_chain.tolist()) != set(range(num_components)):
        raise InputError(
            "bridge_evidence",
            "component_of_chain",
            f"chains of {sorted(set(component_of_chain.tolist()))}",
            f"at least one for each of {num_components} components",
            "Sample every component, or leave out the density of the one that has no chain.",
        )
    if num_draws < NUM_BLOCKS:
        raise InputError("bridge_evidence", "draws", f"{num_draws}", f"{NUM_BLOCKS} or more", "Draw more.")
    densities = np.asarray(log_densities, np.float64)
    log_evidence, shares = _solve_bridge(densities, component_of_chain, np.zeros(num_components))
    blocks = np.array_split(np.arange(num_draws), NUM_BLOCKS)
    without = np.stack(
        [_solve_bridge(np.delete(densities, block, axis=1), component_of_chain, log_evidence)[0] for block in blocks]
    )
    deviations = without - without.mean(0)
    # Student's t with one degree of freedom less than there are blocks has this much more variance than a normal.
    inflation = (NUM_BLOCKS - 1) / (NUM_BLOCKS - 3)
    covariance = inflation * (NUM_BLOCKS - 1) / NUM_BLOCKS * deviations.T @ deviations
    counts = np.bincount(component_of_chain) * num_draws
    overlap_matrix = shares.T @ shares / counts[:, None]
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(overlap_matrix)))
    overlap = 1.0 if num_components == 1 else float(1 - eigenvalues[-2])
    return Bridge(Evidence(log_evidence, covariance, "bridge"), overlap)


def _solve_bridge(
    densities: Float[np.ndarray, "chains draws components"],
    component_of_chain: Int[np.ndarray, " chains"],
    start: Float[np.ndarray, " components"],
) -> tuple[Float[np.ndarray, " components"], Float[np.ndarray, "pooled components"]]:
    """log Z, the first being zero, and the share of each component in each draw."""
    counts = np.bincount(component_of_chain) * densities.shape[1]
    rows = densities.reshape(-1, densities.shape[2]) + np.log(counts)
    total = counts.sum()

    def shares_of(log_evidence: np.ndarray) -> np.ndarray:
        return scipy.special.softmax(rows - log_evidence, axis=1)

    def objective(others: np.ndarray) -> tuple[float, np.ndarray]:
        log_evidence = np.concatenate([[0.0], others])
        value = scipy.special.logsumexp(rows - log_evidence, axis=1).sum() + counts @ log_evidence
        gradient = counts - shares_of(log_evidence).sum(0)
        return value / total, gradient[1:] / total

    def hessian(others: np.ndarray) -> np.ndarray:
        shares = shares_of(np.concatenate([[0.0], others]))
        return ((np.diag(shares.sum(0)) - shares.T @ shares) / total)[1:, 1:]

    others = start[1:] - start[0]
    if others.size:
        found = scipy.optimize.minimize(
            objective, others, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-9}
        )
        others = found.x
    log_evidence = np.concatenate([[0.0], others])
    return log_evidence, shares_of(log_evidence)


@partial(jax.jit, static_argnames=("log_likelihood", "num_populations", "num_particles", "num_moves"))
def tempered_evidence(
    key: Key,
    log_likelihood: MinibatchLogDensity,
    data: Batch,
    center: Params,
    scale: Float[Array, ""] | float,
    *,
    num_populations: int = NUM_POPULATIONS,
    num_particles: int = 128,
    num_moves: int = 10,
) -> Float[Array, " populations"]:
    """Estimates of log Z_k by adaptive tempered sequential Monte Carlo (Del Moral, Doucet and Jasra, 2006).

    A population starts as draws of the component, z = (θ − center) / s ~ N(0, I), and is led to its posterior through
    N(z; 0, I) L(θ)^β with β from 0 to 1, each step as long as half of the population stays effective, by BlackJAX. It
    is moved by HMC, whose mass matrix is that of the population and whose step size follows the acceptance.

    Args:
      key: of the populations.
      log_likelihood: log L, in nats.
      data: all of it.
      center: of the component.
      scale: s, of the component.
      num_populations: independent ones, whose spread is the standard error.
      num_particles: of each population.
      num_moves: HMC trajectories between two temperatures.

    Returns:
      An estimate for each population; exp of it is unbiased but for the adaptation.
    """
    check_positive(num_populations=num_populations, num_particles=num_particles, num_moves=num_moves)
    flat_center, unravel = ravel_pytree(center)

    def standardized_log_likelihood(z: Array) -> Scalar:
        return log_likelihood(unravel(flat_center + scale * z), data)

    num_leapfrog_steps = 8
    kernel = blackjax.smc.adaptive_tempered.build_kernel(
        lambda z: -0.5 * jnp.vdot(z, z),
        standardized_log_likelihood,
        partial(blackjax.hmc.build_kernel(), num_integration_steps=num_leapfrog_steps),
        blackjax.hmc.init,
        blackjax.smc.resampling.systematic,
        target_ess=0.5,
    )

    def lead(key: Key) -> Scalar:
        start_key, key = jax.random.split(key)
        particles = jax.random.normal(start_key, (num_particles, flat_center.size), flat_center.dtype)
        state = blackjax.smc.tempered.init(particles)._replace(tempering_param=jnp.zeros((), flat_center.dtype))

        def step(carry):
            state, index, log_step_size, log_evidence = carry
            mean = state.weights @ state.particles
            variances = state.weights @ jnp.square(state.particles - mean[None])
            parameters = {"step_size": jnp.exp(log_step_size)[None], "inverse_mass_matrix": variances[None]}
            state, info = kernel(jax.random.fold_in(key, index), state, num_moves, parameters)
            log_step_size += info.update_info.acceptance_rate.mean() - 0.8
            return state, index + 1, log_step_size, log_evidence + info.log_likelihood_increment

        start_step_size = jnp.log(jnp.asarray(1.0 / num_leapfrog_steps, flat_center.dtype))
        carry = state, 0, start_step_size, jnp.zeros((), flat_center.dtype)
        return jax.lax.while_loop(lambda carry: carry[0].tempering_param < 1, step, carry)[3]

    return jax.lax.map(lead, jax.random.split(key, num_populations))


def evidence_of_populations(log_evidence: Float[np.ndarray, "components populations"]) -> Evidence:
    """log Z_k from independent populations, whose estimates Ẑ are unbiased and log-normal for many particles.

        log Z = m + s² / 2,        variance s² / n + s⁴ / (2 (n − 1))

    with m and s² the mean and the variance of log Ẑ over n populations (Bérard, Del Moral and Doucet, 2014). The
    logarithm of their mean would lean on the few highest where they differ by nats. The variance is raised by (n − 1) /
    (n − 3), that of Student's t, since s² is an estimate itself.

    Args:
      log_evidence: log Ẑ, nats.

    Raises:
      InputError: if there are fewer than four populations.
    """
    log_evidence = np.asarray(log_evidence, np.float64)
    count = log_evidence.shape[1]
    if count < 4:
        raise InputError("evidence_of_populations", "populations", f"{count}", "four or more", "Run more of them.")
    spread = log_evidence.var(1, ddof=1)
    variances = (spread / count + spread**2 / (2 * (count - 1))) * (count - 1) / (count - 3)
    return Evidence(log_evidence.mean(1) + spread / 2, np.diag(variances), "tempering")
