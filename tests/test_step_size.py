import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.step_size import (
    hamiltonian_step_size,
    langevin_step_size,
    largest_curvature,
    largest_curvature_around,
)


def test_largest_curvature_is_the_top_eigenvalue_of_the_negative_hessian():
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    precision = jnp.asarray(matrix @ matrix.T, jnp.float32)

    def log_density(params, batch):
        w = jnp.concatenate([params["a"], params["b"].ravel()])
        return -w @ precision @ w / 2 * batch

    position = {"a": jnp.ones(2), "b": jnp.ones((2, 2))}
    curvature = jax.jit(lambda key: largest_curvature(log_density, position, 3.0, key, num_iterations=100))
    eigenvalues = np.linalg.eigvalsh(3.0 * np.asarray(precision, np.float64))
    unconverged = (eigenvalues[-2] / eigenvalues[-1]) ** 200
    assert float(curvature(jax.random.key(0))) == pytest.approx(eigenvalues[-1], rel=1e-5 + unconverged)


def test_a_flat_density_has_no_curvature():
    assert float(largest_curvature(lambda w, _: jnp.sum(w), jnp.ones(3), None, jax.random.key(0))) == 0.0
    assert float(largest_curvature(lambda w, _: jnp.sum(w**4), jnp.zeros(3), None, jax.random.key(0))) == 0.0


def test_curvature_around_a_flat_mode_is_that_of_where_the_chain_goes():
    def log_density(params, batch):
        return -jnp.sum(params**4)  # the Hessian is diagonal, -12 w²: zero at the mode

    curvature = largest_curvature_around(log_density, jnp.zeros(50), 2.0, None, jax.random.key(0))
    # The largest of 50 squared normals is beyond 1 but once in 1e8, and below 30 but once in 1e6.
    assert 48 < float(curvature) < 48 * 30


def test_curvature_around_a_steep_mode_is_that_of_the_mode():
    def log_density(params, batch):
        return 10 * jnp.sum(jnp.exp(-(params**2) / 2))

    curvature = largest_curvature_around(log_density, jnp.zeros(3), 1.0, None, jax.random.key(0))
    assert float(curvature) == pytest.approx(10.0, rel=1e-4)


def test_step_sizes_follow_their_formulas():
    assert float(hamiltonian_step_size(jnp.float32(16.0), fraction=0.5)) == 0.125
    assert float(langevin_step_size(jnp.float32(16.0), fraction=0.5)) == 0.03125


@pytest.mark.parametrize("rule", [hamiltonian_step_size, langevin_step_size])
def test_wrong_numbers_are_refused(rule):
    with pytest.raises(InputError):
        rule(0.0)
    with pytest.raises(InputError):
        rule(1.0, fraction=-1.0)
