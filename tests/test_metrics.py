"""Metrics against cases worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.metrics import (
    accuracy,
    area_under_risk_coverage,
    brier_score,
    classification_metrics,
    error_detection_auroc,
    expected_calibration_error,
    mean_by_class,
    negative_log_likelihood,
    out_of_distribution_auroc,
    reliability_bins,
    risk_coverage_curve,
)

PROBS = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]], np.float32)
LABELS = np.array([0, 1, 2, 1], np.int32)
UNCERTAINTY = np.array([0.2, 0.9, 0.1, 0.5])


def two_classes(confidence):
    """Probabilities whose predicted class is 0, with these confidences."""
    confidence = np.asarray(confidence)
    return np.stack([confidence, 1 - confidence], axis=1)


def random_predictions(seed=0, examples=500, classes=6):
    generator = np.random.default_rng(seed)
    probs = generator.dirichlet(np.ones(classes), examples)
    labels = np.array([generator.choice(classes, p=row) for row in probs])
    return probs, labels


def test_accuracy_nll_and_brier_score_by_hand():
    assert accuracy(PROBS, LABELS) == 0.75
    assert negative_log_likelihood(PROBS, LABELS) == pytest.approx(-np.mean(np.log([0.7, 0.3, 0.8, 0.4])), rel=1e-6)
    by_hand = [0.09 + 0.04 + 0.01, 0.25 + 0.49 + 0.04, 0.01 + 0.01 + 0.04, 0.09 + 0.36 + 0.09]
    assert brier_score(PROBS, LABELS) == pytest.approx(np.mean(by_hand), rel=1e-6)


def test_the_brier_score_of_two_classes_is_the_sum_over_both():
    assert brier_score(two_classes([0.8]), np.array([0])) == pytest.approx(2 * 0.2**2)


def test_classes_that_no_label_has_are_no_problem():
    expected = -np.mean(np.log([0.7, 0.5, 0.1, 0.3]))
    assert negative_log_likelihood(PROBS, np.array([0, 0, 0, 0])) == pytest.approx(expected)


def test_an_impossible_label_has_a_large_but_finite_cost():
    assert negative_log_likelihood(two_classes([1.0]), np.array([1])) == pytest.approx(36.04, abs=0.01)


def test_jax_arrays_and_numpy_arrays_give_the_same_metrics():
    from_numpy = classification_metrics(PROBS, LABELS, UNCERTAINTY)
    from_jax = classification_metrics(jnp.array(PROBS), jnp.array(LABELS), jnp.array(UNCERTAINTY))
    assert from_jax == pytest.approx(from_numpy)
    assert all(type(value) is float for value in from_jax.values())


def test_fixed_bins_by_hand():
    # Bins of width 0.2; 0.6 and 0.8 are upper edges and belong to the bin below.
    probs = two_classes([0.55, 0.6, 0.65, 0.8, 0.95])
    labels = np.array([0, 1, 0, 0, 1])
    bins = reliability_bins(probs, labels, num_bins=5)
    np.testing.assert_array_equal(bins.num_examples, [2, 2, 1])
    np.testing.assert_allclose(bins.confidence, [0.575, 0.725, 0.95])
    np.testing.assert_allclose(bins.accuracy, [0.5, 1, 0])
    expected = 0.4 * 0.075 + 0.4 * 0.275 + 0.2 * 0.95
    assert expected_calibration_error(probs, labels, num_bins=5) == pytest.approx(expected)


def test_adaptive_bins_by_hand():
    probs = two_classes([0.97, 0.91, 0.92, 0.98, 0.55, 0.93])
    labels = np.array([0, 1, 0, 0, 1, 0])
    bins = reliability_bins(probs, labels, num_bins=3, adaptive=True)
    np.testing.assert_array_equal(bins.num_examples, [2, 2, 2])
    np.testing.assert_allclose(bins.confidence, [0.73, 0.925, 0.975])
    np.testing.assert_allclose(bins.accuracy, [0, 1, 1])
    expected = (0.73 + 0.075 + 0.025) / 3
    assert expected_calibration_error(probs, labels, num_bins=3, adaptive=True) == pytest.approx(expected)


def test_adaptive_bins_keep_ties_together_and_so_do_not_depend_on_the_order():
    probs = two_classes([0.9] * 5 + [0.6] * 5)
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 0, 1, 1])
    bins = reliability_bins(probs, labels, num_bins=4, adaptive=True)
    np.testing.assert_array_equal(bins.num_examples, [5, 5])
    assert expected_calibration_error(probs, labels, num_bins=4, adaptive=True) == pytest.approx((0.1 + 0.2) / 2)


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_bin_is_the_difference_between_accuracy_and_mean_confidence(adaptive):
    probs, labels = random_predictions()
    expected = abs(accuracy(probs, labels) - probs.max(axis=1).mean())
    assert expected_calibration_error(probs, labels, num_bins=1, adaptive=adaptive) == pytest.approx(expected)


@pytest.mark.parametrize("adaptive", [False, True])
def test_calibrated_predictions_have_a_calibration_error_within_sampling_noise(adaptive):
    probs, labels = random_predictions(1, examples=20_000)
    # A bin of n_b examples is off by sqrt(2 / π) sd on average, sd <= 1 / (2 sqrt(n_b)); Cauchy-Schwarz over 15 bins.
    # Doubled.
    noise = 2 * np.sqrt(2 / np.pi) * np.sqrt(15 / 20_000) / 2
    assert expected_calibration_error(probs, labels, adaptive=adaptive) < noise
    sharpened = probs**2 / (probs**2).sum(axis=1, keepdims=True)
    assert expected_calibration_error(sharpened, labels, adaptive=adaptive) > 5 * noise


def test_out_of_distribution_auroc_by_hand():
    # Pairs in which the outside example is the less certain one: (0.3, 0.5): 1 + 1; (0.3, 0.2): 0 + 1; a tie counts one
    # half.
    assert out_of_distribution_auroc(np.array([0.3, 0.1]), np.array([0.5, 0.2])) == 0.75
    assert out_of_distribution_auroc(np.array([0.3]), np.array([0.3])) == 0.5
    with pytest.raises(InputError, match="at least one of each"):
        out_of_distribution_auroc(np.array([]), np.array([0.3]))


def test_error_detection_auroc_by_hand_and_undefined_without_errors():
    assert error_detection_auroc(PROBS, LABELS, UNCERTAINTY) == 1  # the only error, example 1, is the least certain
    assert error_detection_auroc(PROBS, LABELS, -UNCERTAINTY) == 0
    assert np.isnan(error_detection_auroc(PROBS, PROBS.argmax(axis=1), UNCERTAINTY))


def test_risk_coverage_by_hand():
    curve = risk_coverage_curve(PROBS, LABELS, UNCERTAINTY)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 0, 0, 0.25])
    assert area_under_risk_coverage(PROBS, LABELS, UNCERTAINTY) == pytest.approx(0.25 / 4)
    assert area_under_risk_coverage(PROBS, LABELS, -UNCERTAINTY) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_risk_coverage_of_a_constant_score_is_the_error_rate_throughout():
    np.testing.assert_allclose(risk_coverage_curve(PROBS, LABELS, np.zeros(4)).risk, 0.25)


def test_risk_coverage_with_ties_is_the_mean_over_orders():
    probs, labels = random_predictions(2, examples=60)
    uncertainty = np.round(2 * (1 - probs.max(axis=1)))
    generator = np.random.default_rng(0)
    orders = 4000
    areas = [area_under_risk_coverage(probs, labels, uncertainty + 0.01 * generator.random(60)) for _ in range(orders)]
    standard_error = np.std(areas) / np.sqrt(orders)
    assert area_under_risk_coverage(probs, labels, uncertainty) == pytest.approx(np.mean(areas), abs=4 * standard_error)


def test_unlabelled_examples_are_left_out_of_every_metric():
    probs, labels = random_predictions(3)
    uncertainty = 1 - probs.max(axis=1)
    some = np.where(np.arange(500) < 100, labels, -1)
    found = classification_metrics(probs, some, uncertainty)
    assert found == pytest.approx(classification_metrics(probs[:100], labels[:100], uncertainty[:100]))


def test_no_label_at_all_is_an_error():
    with pytest.raises(InputError, match="no label"):
        classification_metrics(PROBS, np.full(4, -1), UNCERTAINTY)


def test_fewer_than_one_bin_is_an_error():
    with pytest.raises(InputError, match="num_bins"):
        expected_calibration_error(PROBS, LABELS, num_bins=0)


def test_means_by_class_leave_out_what_there_is_not():
    means = mean_by_class(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), np.array([0, 0, 2]), 3)
    np.testing.assert_allclose(means, [[0.75, 0.25], [np.nan, np.nan], [0.0, 1.0]])
