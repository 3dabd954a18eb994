"""Predictions that are kept instead of draws, against those of the same draws."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.checkpoints import ChainCheckpoints
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.judging import log_probs_by_chain
from mtbkd_jax.kept_predictions import (
    Judged,
    MomentStore,
    Probing,
    create_kept_predictions,
    open_kept_predictions,
)
from mtbkd_jax.prediction import flatten_chains, predict
from mtbkd_jax.samplers import sgld
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.students import mlp

STUDENT = mlp(num_features=3, hidden=(4,), num_classes=2)
KINDS = ["predictions", "moments"]
NUM_CHAINS, NUM_DRAWS = 2, 7
ALIVE = np.array([-1, -1])
EXAMPLES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
PROBING = Probing(
    STUDENT,
    probes=np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32),
    temperature=2.0,
    judged=Judged(EXAMPLES, np.array([1, 2, 5, 8, 9]), every=3),
)


@pytest.fixture(scope="module")
def positions():
    return jax.vmap(jax.vmap(STUDENT.init))(jax.random.split(jax.random.key(0), (NUM_CHAINS, NUM_DRAWS)))


@pytest.fixture(autouse=True)
def chunks_of_two(monkeypatch):
    """The last of the seven draws is a chunk by itself."""
    monkeypatch.setattr("mtbkd_jax.kept_predictions.fitting_chunk", lambda *_: 2)


def new_store(kind, path):
    return create_kept_predictions(kind, path, PROBING, num_chains=NUM_CHAINS, num_draws=NUM_DRAWS)


def append(store, positions, *, stop=NUM_DRAWS, failed_at=ALIVE):
    for start in range(store.num_draws, stop, 2):
        chunk = jax.tree.map(lambda leaf: np.asarray(leaf[:, start : min(start + 2, stop)]), positions)  # noqa: B023
        log_density = np.arange(start, min(start + 2, stop), dtype=np.float32) * np.ones((NUM_CHAINS, 1), np.float32)
        store.append(chunk, log_density, failed_at)
    return store


def content_of(store, chain_weights=(0.5, 0.5)):
    weights = np.array(chain_weights)
    kept = store.moments(weights) if isinstance(store, MomentStore) else store.prediction(weights)
    return [*kept, store.judged_log_probs(PROBING.judged.rows), np.asarray(store.log_density())]


@pytest.mark.parametrize("values", [1, 1 << 21])
def test_kept_predictions_are_those_of_the_draws(tmp_path, monkeypatch, positions, values):
    monkeypatch.setattr("mtbkd_jax.prediction._SUMMARISED_VALUES", values)
    append(new_store("predictions", tmp_path / "draws"), positions)
    store = open_kept_predictions(tmp_path / "draws")
    log_probs = log_probs_by_chain(STUDENT, positions, PROBING.probes, temperature=2.0)
    np.testing.assert_allclose(store.log_probs(), log_probs, rtol=1e-5)
    np.testing.assert_allclose(store.log_probs(slice(2, 4)), log_probs[:, :, 2:4], rtol=1e-5)
    weights = jnp.repeat(jnp.array([0.3, 0.7]) / NUM_DRAWS, NUM_DRAWS)
    expected = predict(STUDENT, flatten_chains(positions), PROBING.probes, weights, temperature=2.0, level=0.8)
    for kept, of_draws in zip(store.prediction(np.array([0.3, 0.7]), level=0.8), expected, strict=True):
        np.testing.assert_allclose(kept, of_draws, rtol=1e-4, atol=1e-6)


def test_moments_are_those_of_the_draws(tmp_path, positions):
    append(new_store("moments", tmp_path / "draws"), positions)
    chain_weights = np.array([0.3, 0.7])
    moments = open_kept_predictions(tmp_path / "draws").moments(chain_weights)
    weights = jnp.repeat(jnp.asarray(chain_weights) / NUM_DRAWS, NUM_DRAWS)
    expected = predict(STUDENT, flatten_chains(positions), PROBING.probes, weights, temperature=2.0)
    for name in ("probs", "mean_deviance", "epistemic"):
        np.testing.assert_allclose(getattr(moments, name), getattr(expected, name), rtol=1e-4, atol=1e-6)
    probs = np.exp(log_probs_by_chain(STUDENT, positions, PROBING.probes, temperature=2.0)).reshape(-1, 6, 2)
    variance = np.average(np.square(probs - expected.probs), axis=0, weights=np.asarray(weights))
    np.testing.assert_allclose(moments.standard_deviation, np.sqrt(variance), rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_so_many_draws_are_kept_to_judge_the_run_by(tmp_path, positions, kind):
    store = append(new_store(kind, tmp_path / "draws"), positions)
    log_probs = log_probs_by_chain(STUDENT, positions, EXAMPLES, every=3)
    np.testing.assert_allclose(store.judged_log_probs(PROBING.judged.rows), log_probs, rtol=1e-5)
    np.testing.assert_allclose(store.judged_log_probs(np.array([9, 2])), log_probs[:, :, [4, 1]], rtol=1e-5)
    with pytest.raises(InputError, match="nothing is kept"):
        store.judged_log_probs(np.array([2, 3]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_that_failed_is_not_read(tmp_path, positions, kind):
    whole = append(new_store(kind, tmp_path / "whole"), positions)
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), positions)
    failed = append(new_store(kind, tmp_path / "failed"), broken, failed_at=np.array([4, -1]))
    *of_probes, judged, log_density = content_of(failed, (1.0,))
    *expected_of_probes, expected_judged, expected_log_density = content_of(whole, (0.0, 1.0))
    np.testing.assert_array_equal(judged, expected_judged[1:])
    np.testing.assert_array_equal(log_density, expected_log_density[1:])
    for kept, expected in zip(of_probes, expected_of_probes, strict=True):
        np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_is_taken_up_again_ends_with_the_same_bits(tmp_path, positions, kind):
    whole = append(new_store(kind, tmp_path / "whole"), positions)
    begun = append(new_store(kind, tmp_path / "killed"), positions, stop=2)
    state = begun.state()
    append(begun, jax.tree.map(lambda leaf: 0 * leaf, positions), stop=6)  # will come again
    resumed = open_kept_predictions(tmp_path / "killed", PROBING)
    resumed.truncate(2, state)
    assert resumed.num_draws == 2
    for kept, expected in zip(content_of(append(resumed, positions)), content_of(whole), strict=True):
        np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(tmp_path, kind):
    starts = jax.vmap(STUDENT.init)(jax.random.split(jax.random.key(0), NUM_CHAINS))
    sampler = sgld(lambda params, batch: -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)) + batch)

    def sample(store, checkpoints, progress=None):
        sample_chains(
            sampler,
            start_chains(sampler, starts, jax.random.key(1)),
            key=jax.random.key(2),
            data=jnp.zeros(()),
            draw_batch=lambda key, data: data,
            step_size=constant(0.1),
            num_draws=NUM_DRAWS,
            chunk_size=store.draws_per_chunk,
            sink=store,
            checkpoints=checkpoints,
            progress=progress,
        )

    whole = new_store(kind, tmp_path / "whole")
    with ChainCheckpoints(tmp_path / "whole_checkpoints", seconds_between=0.0) as checkpoints:
        sample(whole, checkpoints)

    def stop(report):
        if report.steps_done == 4:
            raise KeyboardInterrupt

    killed = new_store(kind, tmp_path / "killed")
    with (
        pytest.raises(KeyboardInterrupt),
        ChainCheckpoints(tmp_path / "checkpoints", seconds_between=0.0) as checkpoints,
    ):
        sample(killed, checkpoints, stop)
    resumed = open_kept_predictions(tmp_path / "killed", PROBING)
    assert resumed.num_draws == 4
    with ChainCheckpoints(tmp_path / "checkpoints", seconds_between=0.0) as checkpoints:
        sample(resumed, checkpoints)
    for kept, expected in zip(content_of(resumed), content_of(whole), strict=True):
        np.testing.assert_array_equal(kept, expected)


def test_moments_of_a_run_that_goes_on_are_not_told(tmp_path, positions):
    store = append(new_store("moments", tmp_path / "draws"), positions, stop=4)
    with pytest.raises(InputError, match="all 7"):
        store.moments(np.array([0.5, 0.5]))
    with pytest.raises(InputError, match="Go on from the checkpoints"):
        append(open_kept_predictions(tmp_path / "draws", PROBING), positions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_noticed_when_it_is_read(tmp_path, positions, kind):
    store = append(new_store(kind, tmp_path / "draws"), positions)
    name = {"predictions": "log_probs", "moments": "squared_probs"}[kind]
    files = sorted(path for path in (store.path / name).rglob("*") if path.is_file() and path.name != "zarr.json")
    files[0].write_bytes(files[0].read_bytes()[:-5])
    with pytest.raises(CorruptDataError):
        content_of(open_kept_predictions(store.path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_was_opened_to_read_takes_nothing(tmp_path, positions, kind):
    new_store(kind, tmp_path / "draws")
    with pytest.raises(InputError, match="to append to"):
        append(open_kept_predictions(tmp_path / "draws"), positions)


def test_other_probes_are_refused(tmp_path):
    new_store("moments", tmp_path / "draws")
    with pytest.raises(InputError, match="sha256_of_probes"):
        open_kept_predictions(tmp_path / "draws", PROBING._replace(probes=PROBING.probes + 1))
    with pytest.raises(InputError, match="temperature"):
        open_kept_predictions(tmp_path / "draws", PROBING._replace(temperature=1.0))


def test_moments_take_the_same_space_however_many_draws_there_are(tmp_path, positions):
    def size(path):
        return sum(file.stat().st_size for file in path.rglob("*") if file.parent.name in MomentStore._SUMS)

    append(new_store("moments", tmp_path / "few"), positions)
    many = create_kept_predictions("moments", tmp_path / "many", PROBING, num_chains=2, num_draws=14)
    append(many, jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], axis=1), positions), stop=14)
    assert size(tmp_path / "few") == size(tmp_path / "many")
    assert json.loads((tmp_path / "many" / "manifest.json").read_text())["num_complete"] == 14
