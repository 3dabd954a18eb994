import numpy as np
import pytest

from mtbkd_jax.chain_weights import Advice, ChainPredictions, weights_of_chains
from mtbkd_jax.evidence import ComponentWeights
from mtbkd_jax.posterior_sampling import SampledPosterior
from mtbkd_jax.samplers import SamplerInfo
from mtbkd_jax.sampling import ChainRun

NO_ADVICE = Advice(np.zeros((0, 2)), np.zeros((3, 0, 2)))


def predictions_of(log_probs, labels, advice=lambda: NO_ADVICE):
    return ChainPredictions(labels, log_probs, labels.size, advice, temperature=1.0)


def nobody_asks():
    raise AssertionError("chains that have mixed are not stacked")


def test_chains_of_a_component_share_its_weight():
    info = SamplerInfo(np.zeros((3, 5)), np.ones((3, 5)), np.zeros((3, 5), bool))
    run = ChainRun(None, info, np.array([-1, 7, -1, -1]), None)
    weights = ComponentWeights(np.array([0.2, 0.5, 0.3]), np.zeros(3), "bridge")
    components = np.array([0, 1, 1])
    nothing = predictions_of(np.zeros((3, 5, 0, 2)), np.zeros(0, int))
    chain_weights, is_stacked = weights_of_chains(weights.weights, components, np.zeros((3, 5)), nothing)
    assert not is_stacked
    posterior = SampledPosterior(
        run, components, weights, np.zeros(weights.weights.size, bool), chain_weights, is_stacked
    )
    np.testing.assert_allclose(posterior.chain_weights, np.array([0.2, 0.25, 0.25]) / 0.7)
    np.testing.assert_allclose(posterior.draw_weights.reshape(3, 5).sum(1), posterior.chain_weights)
    assert posterior.main_component == 1


def test_what_teachers_say_tells_chains_apart_that_labels_cannot():
    rng = np.random.default_rng(0)
    alike = np.log(np.full((3, 50, 10, 2), 0.5)) + 0.5 * np.arange(3)[:, None, None, None] * np.array([1, -1])
    log_probs = alike - np.logaddexp.reduce(alike, axis=-1, keepdims=True) + 1e-3 * rng.normal(size=alike.shape)
    labels = np.arange(10) % 2
    advised = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]]))[:, None] * np.ones((3, 20, 1))
    for advice in ([0.0, 5.0], [5.0, 0.0]):
        said = Advice(np.tile(advice, (20, 1)), advised)
        predictions = predictions_of(log_probs, labels, lambda said=said: said)
        weights, is_stacked = weights_of_chains(np.ones(1), np.zeros(3, int), rng.normal(size=(3, 50)), predictions)
        assert is_stacked
        assert weights[2 if advice[1] else 1] > 0.9


@pytest.mark.parametrize("has_mixed", [True, False])
def test_chains_of_a_component_that_have_not_mixed_are_stacked(has_mixed):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    right = np.where(np.arange(2) == labels[:, None], 0.8, 0.2)
    of_chain = np.stack([right, right, right if has_mixed else 1 - right])[:, None] * np.ones((3, 50, 1, 1))
    log_probs = np.log(of_chain) + 0.05 * rng.normal(size=of_chain.shape)
    weights, is_stacked = weights_of_chains(
        np.ones(1),
        np.zeros(3, int),
        rng.normal(size=(3, 50)),
        predictions_of(log_probs, labels, nobody_asks if has_mixed else lambda: NO_ADVICE),
    )
    assert is_stacked != has_mixed
    if has_mixed:
        np.testing.assert_allclose(weights, 1 / 3)
    else:
        assert weights[2] < 0.05
        np.testing.assert_allclose(weights[:2].sum() + weights[2], 1.0)
