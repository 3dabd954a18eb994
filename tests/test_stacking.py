import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from mtbkd_jax.stacking import leave_one_out_log_scores, pseudo_bma_weights, stacking_weights


def test_weights_maximise_the_penalised_log_score():
    log_scores = np.log(np.random.default_rng(0).uniform(0.05, 0.95, (3, 25)))

    def loss(logits):
        log_weights = scipy.special.log_softmax(logits)
        return -scipy.special.logsumexp(log_weights[:, None] + log_scores, axis=0).sum() - log_weights.sum()

    best = scipy.special.softmax(scipy.optimize.minimize(loss, np.zeros(3), tol=1e-10).x)
    np.testing.assert_allclose(stacking_weights(log_scores), best, atol=1e-4)


def test_identical_chains_count_alike():
    log_scores = np.tile(np.log(np.random.default_rng(0).uniform(0.05, 0.95, 25)), (4, 1))
    np.testing.assert_allclose(stacking_weights(log_scores), 0.25)


def test_impossible_labels_cost_a_chain_its_weight():
    log_scores = np.zeros((2, 30))
    log_scores[1] = -np.inf
    np.testing.assert_allclose(stacking_weights(log_scores), [31 / 32, 1 / 32])


def test_leave_one_out_scores_are_those_of_a_conjugate_model():
    """A coin with a uniform prior: without label i the probability of heads is (heads elsewhere + 1) / (n + 1)."""
    labels = np.array([1] * 14 + [0] * 6)
    heads = scipy.stats.beta(1 + 14, 1 + 6).ppf((np.arange(4000) + 0.5) / 4000)
    heads = np.stack([np.random.default_rng(seed).permutation(heads) for seed in range(2)])[..., None]
    log_likelihood = np.log(np.where(labels == 1, heads, 1 - heads))
    others = np.where(labels == 1, 13 + 1, 6 - 1 + 1) / (19 + 2)
    np.testing.assert_allclose(leave_one_out_log_scores(log_likelihood), np.log([others, others]), atol=0.001)
    # With label i among the data the probabilities would be higher.
    assert np.log((14 + 1) / (20 + 2)) - np.log(others[0]) == pytest.approx(0.0225, abs=0.001)


def test_labels_that_all_draws_find_equally_probable():
    log_likelihood = np.zeros((1, 100, 3))
    log_likelihood[0, :, 1] = np.log(0.25)
    np.testing.assert_allclose(leave_one_out_log_scores(log_likelihood), [[0.0, np.log(0.25), 0.0]], atol=1e-12)


def test_a_count_is_worth_so_many_repetitions():
    log_scores = np.log(np.random.default_rng(0).uniform(0.05, 0.95, (3, 5)))
    counts = np.array([1, 4, 2, 7, 3])
    np.testing.assert_allclose(
        stacking_weights(log_scores, counts.astype(float)), stacking_weights(log_scores.repeat(counts, axis=1))
    )


def test_leave_one_out_scores_of_a_tempered_posterior_take_out_as_much_as_a_label_had_put_in():
    """At T = .5 every label of the coin counts twice: without label i, (2 heads elsewhere + 1) / (2 (n − 1) + 2)."""
    labels = np.array([1] * 14 + [0] * 6)
    heads = scipy.stats.beta(1 + 2 * 14, 1 + 2 * 6).ppf((np.arange(4000) + 0.5) / 4000)
    heads = np.random.default_rng(0).permutation(heads)[None, :, None]
    scores = leave_one_out_log_scores(np.log(np.where(labels == 1, heads, 1 - heads)), temperature=0.5)
    others = np.where(labels == 1, 2 * 13 + 1, 2 * 5 + 1) / (2 * 19 + 2)
    np.testing.assert_allclose(scores, np.log([others]), atol=0.002)


def test_pseudo_bma_weights_of_two_models_are_the_probability_that_a_logistic_noise_exceeds_their_difference():
    """Of n labels the bootstrapped difference is nearly normal, and the weight of the first E[1 / (1 + exp(−d))]."""
    gains = np.random.default_rng(0).normal(0.01, 0.1, 500)
    mean, spread = gains.sum(), np.sqrt(gains.size) * gains.std()
    differences = scipy.stats.norm(mean, spread).ppf((np.arange(10_000) + 0.5) / 10_000)
    weights = pseudo_bma_weights(np.stack([gains, np.zeros(500)]))
    assert weights[0] == pytest.approx(scipy.special.expit(differences).mean(), abs=0.02)
    assert weights.sum() == pytest.approx(1.0)


def test_pseudo_bma_weights_of_models_that_predict_alike_are_equal():
    scores = np.random.default_rng(0).normal(-1, 0.3, 50)
    np.testing.assert_allclose(pseudo_bma_weights(np.tile(scores, (3, 1))), 1 / 3)
