from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.chains import BatchKey
from mtbkd_jax.checkpoints import ChainCheckpoints, PreemptedError
from mtbkd_jax.draws import create_draws, open_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import (
    Examples,
    WeightedExamples,
    in_blocks,
    minibatch_of_blocks,
    steps_of_epoch,
)
from mtbkd_jax.samplers import sghmc, sgld
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.windows import Windows, sample_of_rows

NUM_ROWS, SIZE, BATCH_SIZE, NUM_COEFFICIENTS = 1024, 256, 64, 4
NUM_CHAINS, NUM_REPLICAS, NUM_DRAWS, THINNING = 4, 64, 60, 100
NO_LABELS = jnp.full(SIZE, -1, jnp.int32)


@pytest.fixture(scope="module")
def regression():
    """Rows of a Gaussian linear model of unit noise: inputs and targets."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(NUM_ROWS, NUM_COEFFICIENTS)).astype(np.float32)
    return inputs, (inputs @ np.ones(NUM_COEFFICIENTS) + rng.normal(size=NUM_ROWS)).astype(np.float32)


def linear_log_density(position, batch: WeightedExamples):
    """Of independent replicas ``[replicas, coefficients]``, under the prior N(0, 1)."""
    errors = batch.examples.components[None] - position @ batch.examples.inputs.T
    return -0.5 * jnp.sum(batch.weights[None] * errors**2) - 0.5 * jnp.sum(position**2)


def windows_on(regression, **options) -> Windows:
    inputs, targets = regression

    def build(blocks, read):
        examples = Examples(jnp.asarray(read[0]), jnp.full(len(read[0]), -1, jnp.int32), jnp.asarray(read[1]))
        return WeightedExamples(examples, jnp.full(len(read[0]), NUM_ROWS / SIZE, jnp.float32))

    windows = Windows(
        NUM_ROWS,
        SIZE,
        steps_of_epoch(0, SIZE, BATCH_SIZE, options.get("num_blocks", 1)),
        jax.random.key(3),
        lambda rows: (inputs[rows], targets[rows]),
        build,
    )
    return replace(windows, **options)


def sample(data, sampler, step_size, *, num_replicas=NUM_REPLICAS, **options):
    states = start_chains(sampler, jnp.ones((NUM_CHAINS, num_replicas, NUM_COEFFICIENTS)), jax.random.key(1))
    num_blocks = options.get("num_blocks", 1)
    options = {"num_draws": NUM_DRAWS, "num_burn_in": 500, "thinning": THINNING, "chunk_size": 20} | options
    return sample_chains(
        sampler,
        states,
        key=jax.random.key(2),
        data=data,
        draw_batch=minibatch_of_blocks(NO_LABELS, BATCH_SIZE, num_blocks),
        step_size=constant(step_size),
        **options,
    )


def standardised_moments(run, regression):
    """Error of the mean in posterior standard deviations, and variances in units of the posterior's, in its axes."""
    inputs, targets = (values.astype(np.float64) for values in regression)
    precision = inputs.T @ inputs + np.eye(NUM_COEFFICIENTS)
    mode = np.linalg.solve(precision, inputs.T @ targets)
    offsets = np.asarray(run.positions, np.float64).reshape(-1, NUM_COEFFICIENTS) - mode
    standard = offsets @ np.linalg.cholesky(precision)
    return standard.mean(0), standard.var(0)


# The largest precision is about NUM_ROWS, so that SGLD remembers where it was for 50 steps, three epochs of 16.
# Independent minibatches would heat it by ε V / 2 with V = NUM_ROWS² / BATCH_SIZE; those of an epoch cancel in part, so
# that this is the most that windows may do.
STEP_SIZE = 0.02 / NUM_ROWS
MOST_HEATING = STEP_SIZE * NUM_ROWS**2 / BATCH_SIZE / 2
# SGHMC with friction γ: εγ = 0.1 is forgotten in a step, and (ε² NUM_ROWS) = 0.002 is the squared frequency of a step,
# so that a chain remembers its place for γ / NUM_ROWS / ε = 50 steps as well; the same heat.
HAMILTONIAN_STEP_SIZE = float(np.sqrt(0.002 / NUM_ROWS))
SAMPLERS = {
    "sgld": (sgld(linear_log_density), STEP_SIZE),
    "sghmc": (sghmc(linear_log_density, friction=0.1 / HAMILTONIAN_STEP_SIZE), HAMILTONIAN_STEP_SIZE),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_windows_give_the_moments_of_the_posterior_of_all_rows(name, regression):
    run = sample(windows_on(regression), *SAMPLERS[name])
    errors, variances = standardised_moments(run, regression)
    # Draws are two memories apart. The noise of the sampler is independent over replicas; that of minibatches, which
    # all replicas of a chain share, and that of windows, which all chains share, is so over time alone.
    error_of_mean = np.sqrt(1 / (NUM_CHAINS * NUM_REPLICAS * NUM_DRAWS) + MOST_HEATING / NUM_DRAWS)
    assert np.abs(errors).max() < 4.5 * error_of_mean
    discretisation = 0.06  # SGHMC's is of the order εγ / 2, SGLD's 0.01
    spread = np.sqrt(2 / (NUM_CHAINS * NUM_REPLICAS * NUM_DRAWS)) + MOST_HEATING * np.sqrt(2 / NUM_DRAWS)
    assert variances.min() > 1 - 4.5 * spread - discretisation
    assert variances.max() < 1 + MOST_HEATING + 4.5 * spread + discretisation


def test_a_window_that_never_changes_samples_another_posterior(regression):
    forever = windows_on(regression, steps_each=10**9)
    errors, _ = standardised_moments(sample(forever, *SAMPLERS["sgld"], num_draws=20), regression)
    # Expected: √(NUM_ROWS / SIZE − 1) = 1.7 in each direction; allowed above: 0.24.
    assert np.sqrt(np.mean(errors**2)) > 0.8


def test_a_window_that_lasts_as_long_as_the_chain_remembers_heats_it(regression):
    slow = windows_on(regression, steps_each=1000)
    _, variances = standardised_moments(sample(slow, *SAMPLERS["sgld"]), regression)
    assert variances.mean() > 1.8  # towards NUM_ROWS / SIZE = 4, but for what it cancels over an epoch


def test_the_windows_of_an_epoch_have_no_row_in_common_and_epochs_have_orders_of_their_own(regression):
    windows = windows_on(regression)
    first, second = (np.concatenate([windows.rows(4 * epoch + i) for i in range(4)]) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(NUM_ROWS))
    assert (first == second).mean() < 0.01
    np.testing.assert_array_equal(windows.rows(2), first[2 * SIZE : 3 * SIZE])
    other_key = replace(windows, key=jax.random.key(4))
    assert (other_key.rows(0) == first[:SIZE]).mean() < 0.05


def test_rows_that_fill_no_window_sit_an_epoch_out(regression):
    windows = windows_on(regression, num_rows=NUM_ROWS - 1)
    rows = np.concatenate([windows.rows(i) for i in range(3)])
    assert np.unique(rows).size == 3 * SIZE
    assert windows.number_at(4 * 3) == 3


def test_blocks_of_a_window_share_its_rows_out(regression):
    windows = windows_on(regression, num_blocks=4)
    of_blocks = [windows.rows_of_blocks(5, [block]) for block in range(4)]
    np.testing.assert_array_equal(np.stack(of_blocks, 1).reshape(-1), windows.rows(5))
    np.testing.assert_array_equal(windows.rows_of_blocks(5, [1, 3]), np.concatenate([of_blocks[1], of_blocks[3]]))


def test_an_epoch_of_minibatches_lasts_as_long_as_a_window():
    for num_labelled, num_unlabelled, batch_size, num_blocks in ((6, 36, 8, 1), (6, 36, 8, 2), (0, 30, 7, 1)):
        labels = jnp.where(jnp.arange(num_labelled + num_unlabelled) < num_labelled, 0, -1)
        rows = jnp.arange(labels.size)
        data = in_blocks(Examples(rows[:, None].astype(float), labels, rows), num_blocks)
        draw = minibatch_of_blocks(labels, batch_size, num_blocks)
        steps = steps_of_epoch(num_labelled, num_unlabelled, batch_size, num_blocks)
        for epoch in (0, 3):
            batches = [draw(BatchKey(jax.random.key(0), epoch * steps + i), data) for i in range(steps)]
            drawn = np.concatenate([np.asarray(batch.examples.components) for batch in batches])
            unlabelled = drawn[drawn >= num_labelled]
            assert np.unique(unlabelled).size == unlabelled.size
            assert unlabelled.size > num_unlabelled - batch_size


def test_windows_change_with_the_step_however_the_chains_are_cut(regression):
    options = {"num_replicas": 1, "num_draws": 12, "num_burn_in": 5, "thinning": 7}
    runs = [sample(windows_on(regression), *SAMPLERS["sghmc"], chunk_size=size, **options) for size in (12, 5, 1)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.positions, runs[0].positions)
        np.testing.assert_array_equal(run.info.log_density, runs[0].info.log_density)
    other = sample(windows_on(regression, steps_each=5), *SAMPLERS["sghmc"], **options)
    assert (np.asarray(other.positions) != np.asarray(runs[0].positions)).any()


def test_a_divergence_counts_for_its_draw_when_the_window_changes_before_it(regression):
    sampler = sgld(linear_log_density)

    def step(key, state, batch, step_size):
        state, info = sampler.step(key, state, batch, step_size)
        return state, info._replace(is_divergent=jnp.abs(step_size - 2e-6) < 1e-9)

    diverging = sampler._replace(step=step)
    # One step of 35 is divergent: the first of the fourth draw, two windows before its end.
    run = sample_chains(
        diverging,
        start_chains(sampler, jnp.ones((1, 1, NUM_COEFFICIENTS)), jax.random.key(1)),
        key=jax.random.key(2),
        data=windows_on(regression),
        draw_batch=minibatch_of_blocks(NO_LABELS, BATCH_SIZE, 1),
        step_size=lambda step: jnp.where(step == 21, 2e-6, 1e-6),
        num_draws=5,
        thinning=7,
    )
    np.testing.assert_array_equal(run.info.is_divergent, [[False, False, False, True, False]])


def test_chains_go_on_in_the_middle_of_an_epoch_to_the_bit(regression, tmp_path):
    options = {"num_replicas": 1, "num_draws": 20, "num_burn_in": 5, "thinning": 7}
    expected = sample(windows_on(regression), *SAMPLERS["sghmc"], chunk_size=4, **options).positions
    template = jnp.zeros((1, NUM_COEFFICIENTS))
    create_draws(tmp_path / "draws", template, num_chains=NUM_CHAINS, num_draws=20, draws_per_chunk=4)
    options |= {"chunk_size": 4}
    for _ in range(6):
        store = open_draws(tmp_path / "draws", template)
        with ChainCheckpoints(tmp_path / "checkpoints", seconds_between=1e9) as checkpoints:

            def stop(report, checkpoints=checkpoints):
                checkpoints.stop()

            try:
                sample(
                    windows_on(regression),
                    *SAMPLERS["sghmc"],
                    sink=store,
                    checkpoints=checkpoints,
                    progress=stop,
                    **options,
                )
                break
            except PreemptedError:
                pass
    else:
        pytest.fail("the run did not end")
    np.testing.assert_array_equal(store.positions(), expected)
    checkpoints = ChainCheckpoints(tmp_path / "checkpoints")
    slower = windows_on(regression, steps_each=9)
    with checkpoints, pytest.raises(InputError, match="window_steps: found 4, expected 9"):
        sample(slower, *SAMPLERS["sghmc"], sink=store, checkpoints=checkpoints, **options)


def test_what_goes_wrong_while_a_window_is_read_stops_the_chains(regression):
    def fail(rows):
        raise InputError("data.npy", "inputs", "nothing", "rows", "Look.")

    with pytest.raises(InputError, match=r"data.npy: inputs"):
        sample(windows_on(regression, read=fail), *SAMPLERS["sgld"], num_draws=2, thinning=1)


def test_a_sample_has_all_labelled_rows_first_and_as_many_others_as_fit():
    labels = np.where(np.arange(1000) % 100 == 0, 1, -1)
    order = sample_of_rows(jax.random.key(0), labels, 205, num_blocks=2)
    assert order.size == np.unique(order).size == 10 + 194
    assert (labels[order[:10]] >= 0).all()
    assert (labels[order[10:]] < 0).all()
    np.testing.assert_array_equal(order, sample_of_rows(jax.random.key(0), labels, 205, num_blocks=2))
    other = sample_of_rows(jax.random.key(1), labels, 205, num_blocks=2)
    assert (np.sort(order) != np.sort(other)).any()


def test_labelled_rows_that_leave_no_room_are_refused():
    labels = np.where(np.arange(100) < 40, 1, -1)
    with pytest.raises(InputError, match="rows_in_memory: found 40, and 40 rows with a label"):
        sample_of_rows(jax.random.key(0), labels, 40)
