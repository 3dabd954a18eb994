import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax import prediction
from mtbkd_jax.prediction import flatten_chains, predict, predictive_log_probs
from mtbkd_jax.students import mlp
from mtbkd_jax.uncertainty import credible_upper, mean_deviance

STUDENT = mlp(num_features=3, hidden=(4,), num_classes=2)
DRAWS = jax.vmap(STUDENT.init)(jax.random.split(jax.random.key(0), 5))
INPUTS = jax.random.normal(jax.random.key(1), (11, 3))


@pytest.mark.parametrize("block_values", [1, 200, 1 << 24])
def test_blocks_of_any_size_are_a_loop_over_draws(monkeypatch, block_values):
    monkeypatch.setattr(prediction, "_BLOCK_VALUES", block_values)
    loop = [
        jax.nn.log_softmax(STUDENT.apply(jax.tree.map(lambda leaf: leaf[s], DRAWS), INPUTS))  # noqa: B023
        for s in range(5)
    ]
    log_probs = jnp.asarray(predictive_log_probs(STUDENT, DRAWS, INPUTS))
    np.testing.assert_allclose(log_probs, loop, rtol=1e-4, atol=1e-6)
    predicted = predict(STUDENT, DRAWS, INPUTS, level=0.8)
    np.testing.assert_allclose(predicted.credible_upper, credible_upper(log_probs, level=0.8), rtol=1e-4)
    np.testing.assert_allclose(predicted.mean_deviance, mean_deviance(log_probs), rtol=1e-4)


def test_the_prediction_averages_probabilities_over_draws():
    probs = np.exp(predictive_log_probs(STUDENT, DRAWS, INPUTS)).mean(0)
    predicted = predict(STUDENT, DRAWS, INPUTS)
    np.testing.assert_allclose(predicted.probs, probs, rtol=1e-5)
    assert (predicted.epistemic >= 0).all()


def test_chains_are_flattened_one_after_the_other():
    chains = {"w": jax.random.normal(jax.random.key(2), (2, 3, 4))}
    np.testing.assert_array_equal(flatten_chains(chains)["w"], np.concatenate(np.asarray(chains["w"])))
