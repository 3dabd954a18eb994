import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.chains import BatchKey
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import (
    Examples,
    all_blocks,
    full_batch,
    in_blocks,
    labelled_first,
    minibatch_of_blocks,
    noise_beyond_sample,
    rows_of_epoch,
    steps_of_epoch,
    stratified_minibatch,
)
from mtbkd_jax.samplers import sghmc
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant

NUM_LABELLED, NUM_UNLABELLED = 6, 34
NUM_EXAMPLES = NUM_LABELLED + NUM_UNLABELLED


@pytest.fixture
def examples():
    rows = jnp.arange(NUM_EXAMPLES)
    labels = jnp.where(rows < NUM_LABELLED, rows % 2, -1)
    return Examples(rows[:, None].astype(jnp.float32), labels, {"of_row": rows})


def test_labelled_rows_come_first_and_in_no_order_of_the_user():
    labels = np.where(np.arange(1000) % 4 == 0, 1, -1)
    order = labelled_first(labels)
    assert sorted(order) == list(range(1000))
    assert (labels[order[:250]] >= 0).all()
    for part in (order[:250], order[250:]):
        correlation = np.corrcoef(part, np.arange(part.size))[0, 1]
        assert abs(correlation) < 4 / np.sqrt(part.size)
    assert (order == labelled_first(labels)).all()


@pytest.mark.parametrize(("num_rows", "count"), [(34, 8), (12_000, 64), (999, 333), (5, 1), (70_000, 256)])
def test_an_epoch_takes_no_row_twice_and_all_that_fill_a_batch(num_rows, count):
    num_batches = num_rows // count
    steps = num_batches * 3 + jnp.arange(num_batches)
    rows = np.asarray(jax.vmap(lambda step: rows_of_epoch(BatchKey(jax.random.key(0), step), num_rows, count))(steps))
    assert rows.min() >= 0
    assert rows.max() < num_rows
    assert np.unique(rows).size == num_batches * count


def test_epochs_have_orders_of_their_own():
    def order(epoch):
        steps = 10 * epoch + jnp.arange(10)
        return jax.vmap(lambda step: rows_of_epoch(BatchKey(jax.random.key(1), step), 1000, 100))(steps).reshape(-1)

    orders = np.asarray(jax.vmap(order)(jnp.arange(50)))
    agreeing = (orders[1:] == orders[:-1]).mean()
    assert agreeing < 0.05  # two of 400 strides agree once in 400 times, and places of other strides one in a thousand
    assert len({tuple(order) for order in orders[:, :2].tolist()}) == 50


def test_every_pair_of_rows_shares_a_batch_about_as_often_as_any():
    # All pairs of a small prime number of rows: 22 strides and 23 starts, of which a batch of four has six pairs.
    def rows(key):
        return rows_of_epoch(BatchKey(key, 0), 23, 4)

    batches = np.asarray(jax.vmap(rows)(jax.random.split(jax.random.key(2), 20_000)))
    together = np.zeros((23, 23))
    for i in range(4):
        for j in range(4):
            np.add.at(together, (batches[:, i], batches[:, j]), 1)
    pairs = together[np.triu_indices(23, 1)]
    expected = 20_000 * 6 / pairs.size
    assert np.abs(pairs - expected).max() < 5 * np.sqrt(expected)


def test_a_billion_rows_do_not_overflow():
    steps = jnp.array([0, 1, 999, 500_000])
    rows = np.asarray(jax.vmap(lambda step: rows_of_epoch(BatchKey(jax.random.key(3), step), 10**9, 1000))(steps))
    assert np.unique(rows).size == rows.size
    assert rows.min() >= 0
    assert rows.max() < 10**9


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
    batch = draw(BatchKey(jax.random.key(0), 0), examples)
    has_label = batch.examples.labels >= 0
    assert batch.weights.shape == (batch_size,)
    assert float(batch.weights[has_label].sum()) == pytest.approx(NUM_LABELLED, rel=1e-6)
    assert float(batch.weights[~has_label].sum()) == pytest.approx(NUM_UNLABELLED, rel=1e-6)


def test_the_parts_of_a_row_stay_together(examples):
    draw = stratified_minibatch(num_labelled=NUM_LABELLED, num_unlabelled=NUM_UNLABELLED, batch_size=8)
    batch = draw(BatchKey(jax.random.key(0), 0), examples).examples
    rows = batch.components["of_row"]
    assert (batch.inputs[:, 0] == rows).all()
    assert (batch.labels == examples.labels[rows]).all()


def test_labelled_rows_that_fit_are_all_taken(examples):
    draw = stratified_minibatch(num_labelled=NUM_LABELLED, num_unlabelled=NUM_UNLABELLED, batch_size=16)
    for seed in range(3):
        batch = draw(BatchKey(jax.random.key(seed), 0), examples)
        assert batch.examples.components["of_row"][:NUM_LABELLED].tolist() == list(range(NUM_LABELLED))
        assert (batch.weights[:NUM_LABELLED] == 1).all()


@pytest.mark.parametrize(("num_labelled", "num_unlabelled"), [(6, 34), (34, 6), (40, 0), (0, 40)])
def test_the_weighted_sum_is_unbiased(examples, num_labelled, num_unlabelled):
    draw = stratified_minibatch(num_labelled=num_labelled, num_unlabelled=num_unlabelled, batch_size=8)
    values = jax.random.normal(jax.random.key(1), (NUM_EXAMPLES,)) + jnp.arange(NUM_EXAMPLES) / 10

    def estimate(key):
        batch = draw(BatchKey(key, 5), examples)
        return jnp.sum(batch.weights * values[batch.examples.components["of_row"]])

    estimates = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(2), 20_000)))
    standard_error = estimates.std() / np.sqrt(estimates.size)
    assert abs(estimates.mean() - float(values.sum())) < 4 * standard_error


def test_batches_of_an_epoch_heat_a_chain_less_than_batches_drawn_apart():
    # A Gaussian, −½ Σ_i |θ − x_i|², of curvature N and gradient noise V = N² var(x) / B. Batches that are drawn apart
    # heat it by ε² V / (2 d); those of an epoch, eight steps, cancel within the memory of the momentum, 1 / d = 50.
    num_rows, count, decay, num_parameters = 64, 8, 0.02, 256
    values = jax.random.normal(jax.random.key(0), (num_rows, num_parameters))
    spread = jnp.mean(values.var(0))
    step_size = 0.1 / np.sqrt(num_rows)
    heating = step_size**2 * float(num_rows**2 * spread / count) / (2 * decay)
    assert heating > 1

    def log_density(position, rows):
        offsets = position[None] - values[rows]
        return -0.5 * num_rows * jnp.mean(jnp.sum(jnp.square(offsets), axis=1))

    def temperature(draw_rows):
        run = sample_chains(
            sampler := sghmc(log_density, friction=decay / step_size),
            start_chains(sampler, values.mean(0)[None], jax.random.key(1)),
            key=jax.random.key(2),
            data=jnp.zeros(()),
            draw_batch=lambda key, _: draw_rows(key),
            step_size=constant(step_size),
            num_draws=200,
            num_burn_in=1000,
            thinning=50,
        )
        return num_rows * float(jnp.mean(jnp.square(run.positions[0] - values.mean(0)[None])))

    apart = temperature(lambda key: jax.random.randint(key.own, (count,), 0, num_rows))
    of_epoch = temperature(lambda key: rows_of_epoch(key, num_rows, count))
    assert apart == pytest.approx(1 + heating, rel=0.1)
    assert of_epoch - 1 < heating / 10


def test_a_batch_too_small_is_refused():
    with pytest.raises(InputError, match="batch_size"):
        stratified_minibatch(num_labelled=3, num_unlabelled=4, batch_size=0)
    with pytest.raises(InputError, match="batch_size: found 1, expected two or more"):
        stratified_minibatch(num_labelled=3, num_unlabelled=4, batch_size=1)


@pytest.mark.parametrize("num_blocks", [1, 2, 4, 7])
def test_blocks_are_of_one_size_and_hold_every_row_once(examples, num_blocks):
    data = in_blocks(examples, num_blocks)
    size = data.weights.shape[0] // num_blocks
    has_label = np.asarray(data.examples.labels).reshape(num_blocks, size) >= 0
    assert (has_label == has_label[:1]).all()  # as many labelled rows in each, and first
    assert (np.diff(has_label[0].astype(int)) <= 0).all()
    counts = np.zeros(NUM_EXAMPLES)
    np.add.at(counts, np.asarray(data.examples.components["of_row"]), np.asarray(data.weights))
    np.testing.assert_array_equal(counts, np.ones(NUM_EXAMPLES))
    if num_blocks == 1:
        jax.tree.map(np.testing.assert_array_equal, data.examples, examples)


@pytest.mark.parametrize("num_blocks", [1, 4, 7])
@pytest.mark.parametrize("num_held", [1, 3])
def test_what_devices_draw_from_their_blocks_is_unbiased_and_the_same_together(examples, num_blocks, num_held):
    values = jax.random.normal(jax.random.key(1), (NUM_EXAMPLES,)) + jnp.arange(NUM_EXAMPLES) / 10
    data = in_blocks(examples, num_blocks)
    draw = minibatch_of_blocks(examples.labels, 8, num_blocks)
    size = data.weights.shape[0] // num_blocks

    def estimate(key, held):
        batch = draw(BatchKey(key, 2), held)
        return jnp.sum(batch.weights * values[batch.examples.components["of_row"]])

    def of_devices(key):
        starts = range(0, num_blocks, num_held)
        held = [jax.tree.map(lambda leaf: leaf[start * size : (start + num_held) * size], data) for start in starts]  # noqa: B023
        return sum(estimate(key, part) for part in held)

    keys = jax.random.split(jax.random.key(2), 5000)
    together = np.asarray(jax.jit(jax.vmap(of_devices))(keys))
    whole = np.asarray(jax.jit(jax.vmap(lambda key: estimate(key, data)))(keys))
    np.testing.assert_allclose(together, whole, rtol=1e-4)
    assert abs(whole.mean() - float(values.sum())) < 4 * whole.std() / np.sqrt(whole.size)


def test_a_batch_of_all_rows_is_all_blocks(examples):
    assert minibatch_of_blocks(examples.labels, NUM_EXAMPLES, 4) is all_blocks


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_rows_of_a_sample_count_for_those_they_stand_for_in_every_batch(examples, num_blocks):
    stands_for = jnp.where(examples.labels >= 0, 1.0, 3.5)
    sample = examples._replace(stands_for=stands_for)
    total = float((stands_for * examples.inputs[:, 0]).sum())

    def summed(batch):
        return float((batch.weights * batch.examples.inputs[:, 0]).sum())

    key = BatchKey(jax.random.key(0), 0)
    assert summed(full_batch(key, sample)) == pytest.approx(total)
    assert summed(all_blocks(key, in_blocks(sample, num_blocks))) == pytest.approx(total)
    draw = minibatch_of_blocks(examples.labels, 8, num_blocks)
    steps = steps_of_epoch(NUM_LABELLED, NUM_UNLABELLED, 8, num_blocks)
    assert (NUM_UNLABELLED, num_blocks, steps) in {(34, 1, 8), (34, 2, 8)}
    batches = jax.vmap(lambda step: draw(BatchKey(jax.random.key(0), step), in_blocks(sample, num_blocks)))(
        jnp.arange(4000)
    )
    sums = (batches.weights * batches.examples.inputs[..., 0]).sum(1)
    # Batches of an epoch cancel, so that this is more than the error of the mean.
    assert float(sums.mean()) == pytest.approx(total, abs=4 * float(sums.std()) / np.sqrt(4000))


def test_the_noise_of_minibatches_of_all_rows_is_known_from_a_sample():
    values, num_sampled, batch_size = np.random.default_rng(0).normal(size=60), 20, 12
    draw = stratified_minibatch(num_labelled=0, num_unlabelled=num_sampled, batch_size=batch_size)

    def sums(key):
        """Sums over batches of a sample, of which each row stands for three."""
        sample_key, batch_key = jax.random.split(key)
        sample = jax.random.choice(sample_key, jnp.asarray(values, jnp.float32), (num_sampled,), replace=False)
        examples = Examples(sample[:, None], jnp.full(num_sampled, -1), stands_for=jnp.full(num_sampled, 3.0))
        batches = jax.vmap(lambda step: draw(BatchKey(batch_key, step), examples))(jnp.arange(40))
        return (batches.weights * batches.examples.inputs[..., 0]).sum(1)

    found = np.asarray(jax.vmap(sums)(jax.random.split(jax.random.key(1), 4000)))
    within = found.var(axis=1, ddof=1).mean()
    # 4,000 samples, one batch of each: the variance of all batches to √(2 / 4,000), and that within samples better.
    factor = noise_beyond_sample(0, num_sampled, values.size, batch_size)
    assert found[:, 0].var() == pytest.approx(factor * within, rel=4 * np.sqrt(2 / 4000))


def test_a_batch_that_takes_the_whole_sample_is_refused():
    with pytest.raises(InputError, match="batch_size: found 30, which takes all 20 rows without a label"):
        noise_beyond_sample(5, 20, 100, 30)
