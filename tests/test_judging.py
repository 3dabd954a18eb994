import jax
import numpy as np
import pytest

from mtbkd_jax.draws import create_draws
from mtbkd_jax.judging import log_probs_by_chain
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.students import mlp

STUDENT = mlp(num_features=3, hidden=(4,), num_classes=2)
INPUTS = jax.random.normal(jax.random.key(1), (5, 3))


@pytest.fixture(scope="module")
def positions():
    """Two chains of seven draws."""
    return jax.vmap(jax.vmap(STUDENT.init))(jax.random.split(jax.random.key(0), (2, 7)))


@pytest.mark.parametrize("values", [1, 1 << 23])
def test_predictions_of_a_store_are_those_of_its_draws(positions, tmp_path, monkeypatch, values):
    monkeypatch.setattr("mtbkd_jax.draws._BLOCK_VALUES", values)
    store = create_draws(tmp_path / "draws", jax.eval_shape(STUDENT.init, jax.random.key(0)), num_chains=2, num_draws=7)
    store.append(positions, np.zeros((2, 7), np.float32), np.array([-1, -1]))
    every_second = jax.tree.map(lambda leaf: leaf[:, ::2], positions)
    expected = predictive_log_probs(STUDENT, flatten_chains(every_second), INPUTS, temperature=2.0)
    for draws in (store, positions):
        log_probs = log_probs_by_chain(STUDENT, draws, INPUTS, every=2, temperature=2.0)
        assert log_probs.shape == (2, 4, 5, 2)
        np.testing.assert_allclose(log_probs.reshape(8, 5, 2), expected, rtol=1e-5)
