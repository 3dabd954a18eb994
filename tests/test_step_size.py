import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.samplers import sghmc
from mtbkd_jax.step_size import (
    cooled_hamiltonian,
    cooled_langevin,
    gradient_noise,
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


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_gradient_noise_is_the_variance_of_a_component(mean):
    scale = jnp.array([0.0, 1.0, 2.0, 3.0])

    def draw(key):
        return mean + scale * jax.random.normal(key, 4)

    noise = gradient_noise(lambda w, batch: jnp.sum(w * batch), jnp.zeros(4), draw, jax.random.key(0), num_batches=4000)
    # Relative error of a mean of variances of 4,000 normals: sqrt(2 / 4000 * (1 + 16 + 81) / 14²), four times.
    assert float(noise) == pytest.approx(14 / 4, rel=4 * 0.016)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0, 100.0])
def test_minibatches_heat_a_chain_by_a_tenth_of_its_temperature_at_most(noise, temperature):
    # A unit Gaussian in many dimensions, whose gradients are as noisy as those of minibatches.
    def log_density(params, batch):
        return -jnp.sum(params**2) / 2 + noise**0.5 * jnp.vdot(params, batch)

    step_size, decay = cooled_hamiltonian(0.5, 0.03, noise=noise, temperature=temperature)
    if noise == 0:
        assert float(step_size) == 0.5
        assert float(decay) == pytest.approx(0.03)
    sampler = sghmc(log_density, friction=decay / step_size, temperature=temperature)

    def step(number, state):
        batch_key, key = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        return sampler.step(key, state, jax.random.normal(batch_key, 2000), step_size)[0]

    # As many steps as it takes to forget the start, exp(-5) of which is left.
    num_steps = int(5 * max(decay / step_size**2, 2 / decay))
    start = sampler.init(jnp.zeros(2000), jax.random.key(0))
    end = jax.jit(lambda state: jax.lax.fori_loop(0, num_steps, step, state))(start)
    # A variance of 2,000 draws is good to 3 %; the discretisation adds 7 % at a step of a half.
    assert float(jnp.var(end.position)) == pytest.approx(temperature * (1.0 if noise == 0 else 1.1), rel=0.15)


def test_sgld_is_cooled_by_smaller_steps():
    assert float(cooled_langevin(0.1, noise=0.0, temperature=1.0)) == pytest.approx(0.1)
    assert float(cooled_langevin(0.1, noise=100.0, temperature=0.5)) == pytest.approx(0.1 * 2 * 0.5 / 100)


def test_step_sizes_follow_their_formulas():
    assert float(hamiltonian_step_size(jnp.float32(16.0), fraction=0.5)) == 0.125
    assert float(langevin_step_size(jnp.float32(16.0), fraction=0.5)) == 0.03125


@pytest.mark.parametrize("rule", [hamiltonian_step_size, langevin_step_size])
def test_wrong_numbers_are_refused(rule):
    with pytest.raises(InputError):
        rule(0.0)
    with pytest.raises(InputError):
        rule(1.0, fraction=-1.0)
