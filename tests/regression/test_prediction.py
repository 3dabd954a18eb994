import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from mtbkd_jax.errors import InputError
from mtbkd_jax.regression.metrics import regression_metrics
from mtbkd_jax.regression.prediction import (
    GaussianPrediction,
    central_interval,
    gaussian_cdf,
    gaussian_log_score,
    predict_gaussian,
)
from mtbkd_jax.regression.students import with_noise
from mtbkd_jax.students import mlp

MIXTURE = GaussianPrediction(jnp.array([[0.0, 1.0], [4.0, 1.0]]), jnp.array([[1.0, 0.5], [0.5, 2.0]]))
TARGETS = jnp.array([3.5, -1.0])


def test_score_and_distribution_function_are_those_of_the_mixture():
    means, sds, targets = (np.asarray(array) for array in (*MIXTURE, TARGETS))
    np.testing.assert_allclose(
        gaussian_log_score(MIXTURE, TARGETS), np.log(norm.pdf(targets, means, sds).mean(0)), rtol=1e-5
    )
    np.testing.assert_allclose(gaussian_cdf(MIXTURE, TARGETS), norm.cdf(targets, means, sds).mean(0), rtol=1e-5)


def test_a_target_that_no_draw_thinks_possible_has_a_finite_score():
    assert float(gaussian_log_score(MIXTURE, jnp.array([100.0, 1.0]))[0]) < -1000


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_central_interval_leaves_the_same_probability_on_both_sides(level):
    low, high = central_interval(MIXTURE, level=level)
    np.testing.assert_allclose(gaussian_cdf(MIXTURE, low), (1 - level) / 2, atol=1e-5)
    np.testing.assert_allclose(gaussian_cdf(MIXTURE, high), (1 + level) / 2, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_level_that_is_no_probability_is_refused(level):
    with pytest.raises(InputError, match="level"):
        central_interval(MIXTURE, level=level)


def test_metrics_of_targets_from_the_predictive_distribution_itself():
    count = 20_000
    prediction = GaussianPrediction(jnp.full((1, count), 2.0), jnp.full((1, count), 0.5))
    targets = 2.0 + 0.5 * jax.random.normal(jax.random.key(0), (count,))
    metrics = regression_metrics(prediction, targets.at[0].set(jnp.nan))
    assert metrics["rmse"] == pytest.approx(0.5, rel=4 / np.sqrt(2 * count))
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.25)
    assert metrics["negative_log_likelihood"] == pytest.approx(entropy, abs=4 * np.sqrt(0.5 / count))
    for level in (0.85, 0.90, 0.95):
        error = np.sqrt(level * (1 - level) / count)
        assert metrics[f"coverage_{round(100 * level)}"] == pytest.approx(level, abs=4 * error)


def test_coverage_counts_targets_inside_the_central_interval():
    targets = jnp.linspace(-3, 6, 50)
    prediction = GaussianPrediction(*(jnp.repeat(part[:, :1], 50, axis=1) for part in MIXTURE))
    low, high = central_interval(prediction, level=0.9)
    inside = float(jnp.mean((targets >= low) & (targets <= high)))
    assert regression_metrics(prediction, targets)["coverage_90"] == pytest.approx(inside)


def test_metrics_without_a_target_are_refused():
    with pytest.raises(InputError, match="none that is known"):
        regression_metrics(MIXTURE, jnp.full(2, jnp.nan))


def test_a_noisy_student_predicts_its_network_and_its_noise():
    network = mlp(num_features=2, hidden=(3,), num_classes=1)
    student = with_noise(network, initial_noise=0.25)
    draws = jax.vmap(student.init)(jax.random.split(jax.random.key(0), 5))
    inputs = jnp.ones((4, 2))
    prediction = predict_gaussian(student, draws, inputs)
    np.testing.assert_allclose(prediction.sds, 0.25, rtol=1e-6)
    of_first = network.apply(jax.tree.map(lambda leaf: leaf[0], draws.network), inputs)[:, 0]
    np.testing.assert_allclose(prediction.means[0], of_first, rtol=1e-5)


@pytest.mark.parametrize("noise", [0.0, -1.0])
def test_a_start_without_noise_is_refused(noise):
    with pytest.raises(InputError, match="initial_noise"):
        with_noise(mlp(num_features=2, hidden=(3,), num_classes=1), initial_noise=noise)
