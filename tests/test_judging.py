import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.draws import create_draws
from mtbkd_jax.examples import Examples
from mtbkd_jax.judging import judged_of, log_probs_by_chain, rows_of_probes, rows_to_weigh_by
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.students import mlp

STUDENT = mlp(num_features=3, hidden=(4,), num_classes=2)
INPUTS = jax.random.normal(jax.random.key(1), (5, 3))


@pytest.fixture(scope="module")
def positions():
    """Two chains of seven draws."""
    return jax.vmap(jax.vmap(STUDENT.init))(jax.random.split(jax.random.key(0), (2, 7)))


@pytest.mark.parametrize("values", [1, 1 << 21])
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


def test_a_run_without_parameters_keeps_all_rows_that_it_is_judged_by():
    order = np.random.default_rng(0).permutation(3000)
    labels = jnp.where(jnp.arange(3000) < 1700, 1, -1)
    inputs = jnp.arange(3000.0)[:, None]
    lessons = Lessons(Examples(inputs, labels), jnp.ones((3000, 1, 2)) / 2, jnp.zeros((3000, 2)), None)
    labelled, advised = rows_to_weigh_by(labels, num_draws=1200)
    assert (advised[0], advised[-1], advised.size) == (1700, 2999, 500)
    probes = rows_of_probes(order)
    np.testing.assert_array_equal(order[probes], np.arange(100))

    judged = judged_of(lessons, order, num_draws=1200)
    assert set(judged.rows) == {*labelled, *advised, *probes}
    assert (np.diff(judged.rows) > 0).all()
    np.testing.assert_array_equal(judged.inputs[:, 0], judged.rows)
    assert judged.every == 3


@pytest.mark.parametrize(("num_draws", "num_labels"), [(1, 4000), (100, 4000), (500, 800), (501, 1593), (10_000, 800)])
def test_labels_to_weigh_by_come_from_all_over_and_are_fewer_for_many_draws(num_draws, num_labels):
    labelled, _ = rows_to_weigh_by(np.zeros(12_000, int), num_draws)
    assert (labelled[0], labelled[-1], labelled.size) == (0, 11_999, num_labels)
    gaps = np.diff(labelled)
    assert gaps.max() - gaps.min() <= 1


def test_few_examples_are_all_judged_by():
    labelled, advised = rows_to_weigh_by(np.array([0, 1, -1, -1, -1]), num_draws=100)
    assert (labelled.tolist(), advised.tolist()) == ([0, 1], [2, 3, 4])
    assert rows_to_weigh_by(np.array([0, 1]), num_draws=100)[1].size == 0
