"""Evidence against closed forms: a linear student with Gaussian noise, whose component posteriors are Gaussian."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mtbkd_jax.errors import InputError
from mtbkd_jax.evidence import (
    Evidence,
    bridge_evidence,
    component_weights,
    evidence_of_populations,
    laplace_evidence,
    tempered_evidence,
)

NUM_PARAMETERS, NUM_COMPONENTS = 6, 3
NOISE = 0.7


class Problem(NamedTuple):
    inputs: np.ndarray
    targets: np.ndarray
    centers: np.ndarray
    scales: np.ndarray
    log_evidence: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def linear_gaussian(distance):
    """y = x·θ + noise; component k has Z_k = N(y; X center_k, noise² I + scale_k² X Xᵀ)."""
    rng = np.random.default_rng(0)
    num_examples = 2 * NUM_PARAMETERS
    inputs = rng.normal(size=(num_examples, NUM_PARAMETERS)) / np.sqrt(NUM_PARAMETERS)
    truth = rng.normal(size=NUM_PARAMETERS)
    targets = inputs @ truth + NOISE * rng.normal(size=num_examples)
    centers = truth + distance * rng.normal(size=(NUM_COMPONENTS, NUM_PARAMETERS))
    scales = np.array([0.6, 0.7, 0.9])
    log_evidence, means, covariances = [], [], []
    for center, scale in zip(centers, scales, strict=True):
        covariance = np.linalg.inv(inputs.T @ inputs / NOISE**2 + np.eye(NUM_PARAMETERS) / scale**2)
        marginal = NOISE**2 * np.eye(num_examples) + scale**2 * inputs @ inputs.T
        residual = targets - inputs @ center
        quadratic = residual @ np.linalg.solve(marginal, residual)
        log_evidence.append(-0.5 * quadratic - 0.5 * np.linalg.slogdet(marginal)[1])
        means.append(covariance @ (inputs.T @ targets / NOISE**2 + center / scale**2))
        covariances.append(covariance)
    return Problem(inputs, targets, centers, scales, np.array(log_evidence), np.array(means), np.array(covariances))


def log_likelihood(params, data):
    inputs, targets = data
    return -0.5 * jnp.sum(jnp.square((targets - inputs @ params) / NOISE))


def in_float32(problem):
    return jax.tree.map(jnp.float32, (problem.inputs, problem.targets))


def relative(log_evidence):
    return np.asarray(log_evidence) - np.asarray(log_evidence)[0]


def correlated_draws(problem, component, num_draws, key):
    """A stationary chain of the component's posterior with an autocorrelation of .6 from draw to draw."""
    rng = np.random.default_rng(key)
    normals = rng.normal(size=(num_draws, NUM_PARAMETERS))
    chain = np.empty_like(normals)
    chain[0] = normals[0]
    for i in range(1, num_draws):
        chain[i] = 0.6 * chain[i - 1] + 0.8 * normals[i]
    return problem.means[component] + chain @ np.linalg.cholesky(problem.covariances[component]).T


def component_log_densities(problem, draws):
    exponents = -0.5 * np.sum(((draws[..., None, :] - problem.centers) / problem.scales[:, None]) ** 2, axis=-1)
    return exponents - NUM_PARAMETERS * np.log(problem.scales)


@pytest.mark.parametrize("distance", [0.3, 3.0], ids=["near", "far"])
def test_laplace_is_exact_for_a_gaussian(distance):
    problem = linear_gaussian(distance)
    estimates = [
        laplace_evidence(
            jax.random.key(0),
            log_likelihood,
            in_float32(problem),
            jnp.float32(problem.means[k]),
            jnp.float32(problem.centers[k]),
            jnp.float32(problem.scales[k]),
            num_probes=256,
        )
        for k in range(NUM_COMPONENTS)
    ]
    errors = np.abs(relative([e.log_evidence for e in estimates]) - relative(problem.log_evidence))
    # The same probes for all components: what is left of their noise cancels in part.
    assert (errors < 4 * np.sqrt(2) * np.array([e.standard_error for e in estimates])).all()
    assert not any(bool(e.is_damped) for e in estimates)


def test_laplace_says_where_the_density_curves_upwards():
    def convex(params, data):
        del data
        return jnp.sum(jnp.square(params))

    estimate = laplace_evidence(jax.random.key(0), convex, None, jnp.zeros(4), jnp.zeros(4), 1.0)
    assert bool(estimate.is_damped)
    assert jnp.isfinite(estimate.log_evidence)


def test_the_error_says_where_the_lanczos_steps_were_too_few():
    """Curvatures from 1 to 10⁵: thirty products cannot resolve them, and the error has to say so."""
    curvatures = jnp.logspace(0, 5, 400)

    def log_likelihood(params, data):
        del data
        return -0.5 * jnp.sum(curvatures * jnp.square(params))

    exact = -0.5 * np.log1p(np.asarray(curvatures, np.float64)).sum()
    zero = jnp.zeros(400)
    few, many = (
        laplace_evidence(jax.random.key(0), log_likelihood, None, zero, zero, 1.0, num_lanczos_steps=steps)
        for steps in (30, 150)
    )
    assert abs(few.log_evidence - exact) > 10.0
    for estimate in (few, many):
        assert abs(estimate.log_evidence - exact) < 3 * estimate.standard_error
    assert many.standard_error < 0.2 * few.standard_error


def test_a_curvature_that_is_given_stands_for_the_hessian():
    def log_likelihood(params, data):
        del data
        return -0.5 * jnp.sum(jnp.square(params))

    def curvature(params, data):
        del params, data
        return lambda direction: 3.0 * direction

    estimate = laplace_evidence(
        jax.random.key(0), log_likelihood, None, jnp.zeros(4), jnp.zeros(4), 1.0, curvature=curvature
    )
    assert float(estimate.log_evidence) == pytest.approx(-2 * np.log(4.0), rel=1e-5)


def test_bridge_finds_the_evidence_from_correlated_chains():
    problem = linear_gaussian(0.3)
    rounds = []
    for repetition in range(20):
        draws = np.stack([correlated_draws(problem, k % 3, 400, 100 * repetition + k) for k in range(6)])
        bridge = bridge_evidence(component_log_densities(problem, draws), np.arange(6) % 3)
        assert bridge.is_trustworthy
        errors = bridge.evidence.log_evidence - relative(problem.log_evidence)
        rounds.append(errors[1:] / np.sqrt(np.diag(bridge.evidence.covariance))[1:])
    scores = np.array(rounds)
    assert (np.abs(scores) < 4).all()
    # Standard errors that took the draws for independent ones would be half as large, and the scores twice.
    assert 0.6 < np.sqrt(np.mean(scores**2)) < 1.5


def test_bridge_says_that_far_components_do_not_overlap():
    problem = linear_gaussian(3.0)
    draws = np.stack([correlated_draws(problem, k, 200, k) for k in range(3)])
    assert not bridge_evidence(component_log_densities(problem, draws), np.arange(3)).is_trustworthy


def test_bridge_of_one_component_has_nothing_to_compare():
    bridge = bridge_evidence(np.zeros((2, 30, 1)), np.zeros(2, int))
    assert bridge.evidence.log_evidence.tolist() == [0.0]
    assert bridge.is_trustworthy


@pytest.mark.parametrize("distance", [0.3, 3.0], ids=["near", "far"])
def test_tempering_finds_the_evidence_at_any_distance(distance):
    problem = linear_gaussian(distance)
    data = in_float32(problem)
    populations = [
        tempered_evidence(
            jax.random.key(k), log_likelihood, data, jnp.float32(problem.centers[k]), jnp.float32(problem.scales[k])
        )
        for k in range(NUM_COMPONENTS)
    ]
    evidence = evidence_of_populations(np.stack(populations))
    errors = np.abs(relative(evidence.log_evidence) - relative(problem.log_evidence))
    variances = np.diag(evidence.covariance)
    assert (errors[1:] < 4 * np.sqrt(variances[1:] + variances[0])).all()
    assert (np.sqrt(variances) < 0.5).all()


def test_weights_and_their_errors():
    log_prior = np.log(np.array([0.5, 0.3, 0.2]))
    log_evidence = np.array([0.0, 1.0, -2.0])
    covariance = np.diag([0.01, 0.02, 0.04])
    found = component_weights(log_prior, Evidence(log_evidence, covariance, "bridge"))
    np.testing.assert_allclose(found.weights, scipy.special.softmax(log_prior + log_evidence))
    draws = np.random.default_rng(1).multivariate_normal(log_evidence, covariance, size=100_000)
    simulated = scipy.special.softmax(log_prior + draws, axis=1).std(0)
    np.testing.assert_allclose(found.standard_errors, simulated, rtol=0.03)


def test_a_component_without_a_chain_is_refused():
    with pytest.raises(InputError, match="component_of_chain: found chains of \\[0\\]"):
        bridge_evidence(np.zeros((2, 30, 2)), np.zeros(2, int))


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="draws: found 5"):
        bridge_evidence(np.zeros((1, 5, 1)), np.zeros(1, int))


def test_laplace_where_the_data_say_nothing():
    def flat(params, data):
        del data
        return 0.0 * jnp.sum(params)

    estimate = laplace_evidence(jax.random.key(0), flat, None, jnp.zeros(40), jnp.zeros(40), 0.5)
    np.testing.assert_allclose(estimate.log_evidence, 0.0, atol=1e-5)


def test_an_uncertain_lead_of_many_nats_is_an_uncertain_weight():
    # The derivative of the larger weight is e⁻⁵ here, and the lead may as well be none.
    found = component_weights(np.log([0.5, 0.5]), Evidence(np.array([5.0, 0.0]), np.diag([9.0, 9.0]), "tempering"))
    assert found.standard_errors[0] > 0.1


def test_few_populations_are_refused():
    with pytest.raises(InputError, match="populations: found 3"):
        evidence_of_populations(np.zeros((2, 3)))
