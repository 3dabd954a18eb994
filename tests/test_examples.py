import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, full_batch, labelled_first, stratified_minibatch

NUM_LABELLED, NUM_UNLABELLED = 6, 34
NUM_EXAMPLES = NUM_LABELLED + NUM_UNLABELLED


@pytest.fixture
def examples():
    rows = jnp.arange(NUM_EXAMPLES)
    labels = jnp.where(rows < NUM_LABELLED, rows % 2, -1)
    return Examples(rows[:, None].astype(jnp.float32), labels, {"of_row": rows})


def test_labelled_rows_come_first_and_keep_their_order():
    assert labelled_first(np.array([-1, 3, -1, 0, 2])).tolist() == [1, 3, 4, 0, 2]


def test_the_full_batch_counts_each_row_once(examples):
    batch = full_batch(jax.random.key(0), examples)
    assert batch.examples is examples
    assert (batch.weights == 1).all()


def test_a_batch_as_large_as_the_data_is_the_data():
    draw = stratified_minibatch(num_labelled=3, num_unlabelled=4, batch_size=7)
    assert draw is full_batch


@pytest.mark.parametrize("batch_size", [2, 8, 20])
def test_the_weights_of_a_stratum_sum_to_its_rows(examples, batch_size):
    draw = stratified_minibatch(num_labelled=NUM_LABELLED, num_unlabelled=NUM_UNLABELLED, batch_size=batch_size)
    batch = draw(jax.random.key(0), examples)
    has_label = batch.examples.labels >= 0
    assert batch.weights.shape == (batch_size,)
    assert float(batch.weights[has_label].sum()) == pytest.approx(NUM_LABELLED, rel=1e-6)
    assert float(batch.weights[~has_label].sum()) == pytest.approx(NUM_UNLABELLED, rel=1e-6)


def test_the_parts_of_a_row_stay_together(examples):
    draw = stratified_minibatch(num_labelled=NUM_LABELLED, num_unlabelled=NUM_UNLABELLED, batch_size=8)
    batch = draw(jax.random.key(0), examples).examples
    rows = batch.components["of_row"]
    assert (batch.inputs[:, 0] == rows).all()
    assert (batch.labels == examples.labels[rows]).all()


def test_labelled_rows_that_fit_are_all_taken(examples):
    draw = stratified_minibatch(num_labelled=NUM_LABELLED, num_unlabelled=NUM_UNLABELLED, batch_size=16)
    for seed in range(3):
        batch = draw(jax.random.key(seed), examples)
        assert batch.examples.components["of_row"][:NUM_LABELLED].tolist() == list(range(NUM_LABELLED))
        assert (batch.weights[:NUM_LABELLED] == 1).all()


@pytest.mark.parametrize(("num_labelled", "num_unlabelled"), [(6, 34), (34, 6), (40, 0), (0, 40)])
def test_the_weighted_sum_is_unbiased(examples, num_labelled, num_unlabelled):
    draw = stratified_minibatch(num_labelled=num_labelled, num_unlabelled=num_unlabelled, batch_size=8)
    values = jax.random.normal(jax.random.key(1), (NUM_EXAMPLES,)) + jnp.arange(NUM_EXAMPLES) / 10

    def estimate(key):
        batch = draw(key, examples)
        return jnp.sum(batch.weights * values[batch.examples.components["of_row"]])

    estimates = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(2), 20_000)))
    standard_error = estimates.std() / np.sqrt(estimates.size)
    assert abs(estimates.mean() - float(values.sum())) < 4 * standard_error


def test_a_batch_too_small_is_refused():
    with pytest.raises(InputError, match="batch_size"):
        stratified_minibatch(num_labelled=3, num_unlabelled=4, batch_size=0)
    with pytest.raises(InputError, match="batch_size: found 1, expected two or more"):
        stratified_minibatch(num_labelled=3, num_unlabelled=4, batch_size=1)
