"""Diagnostics of chains whose behaviour is known."""

import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.diagnostics import diagnose, import_arviz, to_arviz
from mtbkd_jax.errors import InputError

CHAINS, DRAWS, PROBES, CLASSES = 4, 200, 12, 3


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def independent_run(seed=0, chains=CHAINS, draws=DRAWS, probes=PROBES):
    """Independent draws from one law: the ideal sampler."""
    generator = np.random.default_rng(seed)
    log_probs = log_softmax(generator.normal(size=(chains, draws, probes, CLASSES)))
    return log_probs.astype(np.float32), generator.normal(size=(chains, draws)).astype(np.float32)


def autoregressive(seed, shape, correlation):
    """A stationary AR(1) process of unit variance along axis 1, of effective size n (1 - ρ) / (1 + ρ)."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape)
    for t in range(1, shape[1]):
        values[:, t] = correlation * values[:, t - 1] + np.sqrt(1 - correlation**2) * values[:, t]
    return values


def test_values_are_arvizs():
    log_probs, log_density = independent_run()
    diagnostics = diagnose(log_probs, log_density)
    arviz = import_arviz()
    one = log_probs[:, :, 3, 1].astype(np.float64)
    assert diagnostics.predictions.r_hat[3, 1] == pytest.approx(float(arviz.rhat(one)), rel=1e-12)
    assert diagnostics.predictions.ess_bulk[3, 1] == pytest.approx(float(arviz.ess(one, method="bulk")), rel=1e-12)
    assert diagnostics.predictions.ess_tail[3, 1] == pytest.approx(float(arviz.ess(one, method="tail")), rel=1e-12)
    assert diagnostics.log_density.r_hat == pytest.approx(float(arviz.rhat(log_density.astype(np.float64))), rel=1e-12)


def test_independent_draws_have_mixed():
    diagnostics = diagnose(*independent_run(draws=500))
    assert diagnostics.has_mixed
    assert diagnostics.share_below(1.05) == 1
    # Every draw counts, up to the noise of the estimate over probes.
    assert np.median(diagnostics.predictions.ess_bulk) == pytest.approx(CHAINS * 500, rel=0.1)
    assert diagnostics.verdict.startswith("The chains have mixed in what they predict.")
    assert "can be used" in diagnostics.verdict


def test_the_effective_sample_size_of_an_autoregressive_chain_is_the_known_one():
    logits = autoregressive(1, (CHAINS, 2000, 60, 1), 0.8)
    log_probs = log_softmax(np.concatenate([logits, np.zeros_like(logits)], axis=-1))
    diagnostics = diagnose(log_probs, logits[:, :, 0, 0])
    expected = CHAINS * 2000 * 0.2 / 1.8
    assert np.median(diagnostics.predictions.ess_bulk) == pytest.approx(expected, rel=0.1)


def test_chains_that_predict_differently_have_not_mixed_and_the_verdict_says_what_to_do():
    log_probs, log_density = independent_run()
    shift = np.array([2.0, -2, 0])[None, None, :] * np.array([1, 1, -1, -1])[:, None, None]
    diagnostics = diagnose(log_softmax(log_probs + shift[:, None]), log_density)
    assert not diagnostics.has_mixed
    assert diagnostics.share_below(1.1) == 0
    assert diagnostics.verdict.startswith("The chains have not mixed.")
    assert "burn-in" in diagnostics.verdict


def test_nine_in_ten_probes_are_enough():
    log_probs, log_density = independent_run(draws=500, probes=20)
    for num_bad, expected in ((2, True), (3, False)):
        worse = log_probs.copy()
        worse[0, :, :num_bad] = log_softmax(worse[0, :, :num_bad] + np.array([3.0, 0, 0]))
        diagnostics = diagnose(worse, log_density)
        assert diagnostics.share_below(1.05) == pytest.approx(1 - num_bad / 20)
        assert diagnostics.has_mixed is expected


def test_few_effective_draws_are_said_to_be_few():
    logits = autoregressive(2, (CHAINS, 1200, PROBES, CLASSES), 0.9)  # worth 4,800 / 19 = 253 draws
    diagnostics = diagnose(log_softmax(logits), logits[:, :, 0, 0])
    assert diagnostics.has_mixed
    assert np.median(diagnostics.probe_ess) < 400
    assert "rough" in diagnostics.verdict


def test_chains_that_agree_only_roughly_are_said_to_have_nearly_mixed():
    logits = autoregressive(3, (CHAINS, 400, PROBES, CLASSES), 0.9)
    diagnostics = diagnose(log_softmax(logits), logits[:, :, 0, 0])
    assert not diagnostics.has_mixed
    assert diagnostics.share_below(1.1) >= 0.9
    assert diagnostics.verdict.startswith("The chains have nearly mixed.")


def test_different_log_densities_with_the_same_predictions_are_pointed_out():
    log_probs, log_density = independent_run()
    diagnostics = diagnose(log_probs, log_density + 10 * np.arange(CHAINS, dtype=np.float32)[:, None])
    assert diagnostics.has_mixed
    assert diagnostics.log_density.r_hat > 2
    assert "log density has not settled" in diagnostics.verdict


def test_a_probe_whose_prediction_never_changes_is_left_out_and_counted():
    log_probs, log_density = independent_run()
    log_probs[:, :, :3] = np.log([0.8, 0.1, 0.1])
    log_probs[:, :, 3] = np.array([0, -np.inf, -np.inf])
    diagnostics = diagnose(log_probs, log_density)
    assert np.isnan(diagnostics.predictions.r_hat[:4]).all()
    assert np.isnan(diagnostics.predictions.ess_bulk[:4]).all()
    assert np.isfinite(diagnostics.predictions.r_hat[4:]).all()
    assert diagnostics.share_constant == pytest.approx(4 / PROBES)
    assert diagnostics.share_below(1.1) == 1
    assert "33% of the probes" in diagnostics.verdict


def test_chains_that_do_not_move_have_not_mixed():
    log_probs, log_density = independent_run()
    still = np.broadcast_to(log_probs[:1, :1], log_probs.shape)
    for diagnostics in (diagnose(still, log_density), diagnose(log_probs, np.zeros_like(log_density))):
        assert not diagnostics.has_mixed
        assert diagnostics.verdict.startswith("The chains have not moved")
        json.dumps(diagnostics.to_json(), allow_nan=False)


def test_chains_stuck_each_at_its_own_place_have_an_infinite_r_hat():
    log_probs, log_density = independent_run()
    diagnostics = diagnose(np.broadcast_to(log_probs[:, :1], log_probs.shape), log_density)
    assert np.isposinf(diagnostics.predictions.r_hat).all()
    assert not diagnostics.has_mixed
    assert diagnostics.to_json()["largest_r_hat"] is None


def test_impossible_classes_in_some_draws_do_not_make_nan():
    log_probs, log_density = independent_run()
    log_probs[:, ::2, :, 0] = -np.inf  # more than half of the draws in some chains: the median itself is -inf
    log_probs[:2, 1, :, 0] = -np.inf
    diagnostics = diagnose(log_probs, log_density)
    assert np.isfinite(diagnostics.predictions.r_hat).all()
    assert np.isfinite(diagnostics.predictions.ess_tail).all()


def test_one_chain_is_compared_with_itself_and_the_verdict_says_so():
    log_probs, log_density = independent_run(chains=1, draws=1001)
    diagnostics = diagnose(log_probs, log_density)
    assert diagnostics.has_mixed
    assert "one chain only" in diagnostics.verdict
    drift = np.linspace(-2, 2, 1001)[None, :, None, None] * np.array([1.0, 0, -1])
    assert not diagnose(log_softmax(log_probs + drift), log_density).has_mixed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_failed_chains_are_refused_by_number(value):
    log_probs, log_density = independent_run()
    log_probs[2, 7, 0, 0] = value
    with pytest.raises(InputError, match=r"log_probs.*\[2\].*failed"):
        diagnose(log_probs, log_density)
    log_probs, log_density = independent_run()
    log_density[1, 3] = -value
    with pytest.raises(InputError, match=r"log_density.*\[1\].*failed"):
        diagnose(log_probs, log_density)


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="at least 8"):
        diagnose(*independent_run(draws=7))


def test_json_has_the_shares_and_the_verdict():
    diagnostics = diagnose(*independent_run())
    found = json.loads(json.dumps(diagnostics.to_json(), allow_nan=False))
    assert found["share_r_hat_below_1.05"] == diagnostics.share_below(1.05)
    assert found["num_probes"] == PROBES
    assert found["has_mixed"] is True
    assert found["verdict"] == diagnostics.verdict


def test_a_thousand_predictions_take_seconds():
    generator = np.random.default_rng(0)
    log_probs = log_softmax(generator.normal(size=(4, 120, 100, 10)))
    import_arviz()
    start = time.process_time()
    diagnose(log_probs, generator.normal(size=(4, 120)))
    assert time.process_time() - start < 10  # about 1.3 s


def test_arviz_groups_hold_the_run_with_names():
    log_probs, log_density = independent_run(probes=5)
    labels = np.array([0, -1, 2, 1, -1], np.int32)
    names, classes = [f"example {i}" for i in range(5)], ["cat", "dog", "bird"]
    run = to_arviz(log_probs, log_density, labels=labels, ids=names, class_names=classes, key=jax.random.key(0))
    assert run.posterior["log_prob"].dims == ("chain", "draw", "example", "class")
    np.testing.assert_array_equal(
        run.posterior["log_prob"].sel({"example": "example 3", "class": "dog"}), log_probs[:, :, 3, 1]
    )
    np.testing.assert_array_equal(run.sample_stats["lp"], log_density)
    np.testing.assert_array_equal(run.log_likelihood["label"].sel(labelled="example 2"), log_probs[:, :, 2, 2])
    assert list(run.posterior_predictive["labelled"].values) == ["example 0", "example 2", "example 3"]
    assert list(run.predictions["unlabelled"].values) == ["example 1", "example 4"]
    np.testing.assert_array_equal(run.observed_data["label"], [0, 2, 1])


def test_labels_drawn_for_arviz_follow_the_predictions():
    probs = np.array([0.7, 0.2, 0.1])
    log_probs = np.broadcast_to(np.log(probs), (CHAINS, 1000, 2, CLASSES)).astype(np.float32)
    labels = jnp.array([0, -1])
    log_density = np.zeros((CHAINS, 1000), np.float32)
    run = to_arviz(
        log_probs, log_density, labels=labels, ids=["a", "b"], class_names=["x", "y", "z"], key=jax.random.key(1)
    )
    for group in (run.posterior_predictive, run.predictions):
        shares = np.bincount(group["label"].values.ravel(), minlength=3) / (CHAINS * 1000)
        np.testing.assert_array_less(np.abs(shares - probs), 4 * np.sqrt(probs * (1 - probs) / (CHAINS * 1000)))


def test_arviz_can_cross_validate_what_it_gets():
    log_probs, log_density = independent_run(probes=30)
    labels = np.arange(30, dtype=np.int32) % CLASSES
    ids = [str(i) for i in range(30)]
    run = to_arviz(log_probs, log_density, labels=labels, ids=ids, class_names=["x", "y", "z"], key=jax.random.key(2))
    assert not hasattr(run, "predictions")
    result = import_arviz().loo(run, reff=1.0)
    assert result.n_data_points == 30
    assert np.isfinite(result.elpd_loo)


def test_importing_arviz_warns_of_nothing(tmp_path):
    # ArviZ warns once a day, and keeps the date in its cache directory: give it an empty one.
    code = "from mtbkd_jax.diagnostics import import_arviz; import_arviz()"
    subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
        check=True,
    )
