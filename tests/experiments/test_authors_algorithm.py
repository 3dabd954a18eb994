import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import dirichlet

from experiments import authors_algorithm as authors
from mtbkd_jax.errors import InputError


@pytest.fixture
def problem():
    """70 examples of 4 features and 3 classes, two teachers, 6 test inputs."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(3.0, 2.0, (70, 4)).astype(np.float32)
    labels = inputs[:, :3].argmax(-1).astype(np.int32)
    teacher_logits = rng.normal(size=(70, 2, 3)).astype(np.float32)
    return inputs, labels, teacher_logits, rng.normal(3.0, 2.0, (6, 4)).astype(np.float32)


def test_entropy_weights_of_two_teachers_are_each_others_entropies():
    probs = np.array([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]], np.float32)
    entropies = -(probs * np.log(probs)).sum(-1)
    log_weights = authors.entropy_log_weights(jnp.log(probs))
    np.testing.assert_allclose(np.exp(log_weights), entropies[::-1] / entropies.sum(), rtol=1e-5)


def test_a_single_teacher_has_weight_one():
    np.testing.assert_array_equal(authors.entropy_log_weights(jnp.array([[1.0, 0.0]])), [0.0])


def test_prior_is_the_mixture_of_softened_dirichlet_densities():
    logits_key, teacher_key = jax.random.split(jax.random.key(1))
    logits, teacher_logits = jax.random.normal(logits_key, (5, 4)), 2.0 * jax.random.normal(teacher_key, (5, 3, 4))
    ours = authors.log_prior(logits, *authors._dirichlet_mixture(teacher_logits))

    student = np.asarray(jax.nn.softmax(logits / authors.TEMPERATURE), np.float64)
    teachers = np.asarray(jax.nn.softmax(teacher_logits / authors.TEMPERATURE), np.float64)
    weights = np.exp(authors.entropy_log_weights(teacher_logits))
    for i in range(5):
        simplex_point = student[i] / student[i].sum()
        densities = [dirichlet.pdf(simplex_point, 1.0 + authors.CONCENTRATION * p) for p in teachers[i]]
        np.testing.assert_allclose(ours[i], np.log(weights[i] @ densities), rtol=1e-4, atol=1e-4)


def test_prior_does_not_underflow_where_the_student_contradicts_the_teachers():
    components = authors._dirichlet_mixture(jnp.array([[50.0, 0.0], [40.0, 0.0]]))
    assert authors.log_prior(jnp.array([0.0, 1e4]), *components) == pytest.approx(-2.5e4, rel=1e-3)


@pytest.mark.parametrize("num_examples", [64, 70, 130])
def test_an_epoch_visits_each_example_once(num_examples):
    index, is_example = authors._epoch_batches(jax.random.key(0), num_examples)
    assert index.shape == is_example.shape == (-(-num_examples // 64), 64)
    np.testing.assert_array_equal(np.sort(index[is_example]), np.arange(num_examples))


def test_draws_are_log_probabilities_and_depend_on_the_seed_alone(problem):
    draws = authors.authors_algorithm(*problem, seed=3, adam_epochs=5, sgld_epochs=11)
    assert draws.shape == (11 // authors.THINNING, 6, 3)
    np.testing.assert_allclose(np.exp(draws).sum(-1), 1.0, rtol=1e-5)
    assert float(jnp.abs(draws[1] - draws[0]).max()) > 0.0
    again = authors.authors_algorithm(*problem, seed=3, adam_epochs=5, sgld_epochs=11)
    np.testing.assert_array_equal(draws, again)
    other = authors.authors_algorithm(*problem, seed=4, adam_epochs=5, sgld_epochs=11)
    assert float(jnp.abs(draws - other).max()) > 1e-3


def test_draws_do_not_depend_on_the_units_of_the_inputs(problem):
    inputs, labels, teacher_logits, test_inputs = problem
    draws = authors.authors_algorithm(*problem, seed=0, adam_epochs=5, sgld_epochs=5)
    scaled = authors.authors_algorithm(
        8.0 * inputs, labels, teacher_logits, 8.0 * test_inputs, seed=0, adam_epochs=5, sgld_epochs=5
    )
    np.testing.assert_allclose(draws, scaled, atol=1e-4)


def test_sgld_step_is_n_times_the_minibatch_gradient_and_noise_of_variance_two_epsilon(problem, monkeypatch):
    inputs, labels, teacher_logits, _ = problem
    data = (jnp.asarray(inputs), jnp.asarray(labels), *authors._dirichlet_mixture(jnp.asarray(teacher_logits)))
    params = authors._initial_params(jax.random.key(0), (4, 128, 3))
    index, is_example = jnp.arange(64), jnp.arange(64) < 40
    gradient = jax.grad(authors._loss)(params, tuple(rows[:40] for rows in data), jnp.ones(40, bool))

    def noise_of_a_step():
        moved = authors._sgld_step(jax.random.key(1), params, data, index, is_example)
        drift = jax.tree.map(lambda value, slope: value - authors.SGLD_STEP_SIZE * 70 * slope, params, gradient)
        return ravel_pytree(jax.tree.map(jnp.subtract, moved, drift))[0]

    noise, num_params = noise_of_a_step(), 4 * 128 + 128 + 128 * 3 + 3
    assert noise.size == num_params
    # The relative standard error of a variance is √(2/n).
    assert float((noise**2).mean()) == pytest.approx(2 * 8e-8, rel=4 * np.sqrt(2 / num_params))
    # With a long step the drift outweighs the noise: a gradient that is not N times the batch's leaves a remainder.
    monkeypatch.setattr(authors, "SGLD_STEP_SIZE", 80.0)
    noise = noise_of_a_step()
    assert float((noise**2).mean()) == pytest.approx(2 * 80.0, rel=4 * np.sqrt(2 / num_params))


def test_missing_labels_are_refused(problem):
    inputs, labels, teacher_logits, test_inputs = problem
    labels[3] = -1
    with pytest.raises(InputError, match="missing label"):
        authors.authors_algorithm(inputs, labels, teacher_logits, test_inputs, seed=0)
