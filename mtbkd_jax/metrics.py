"""How good predicted probabilities are on labelled data.

``probs [examples, classes]`` are predictive probabilities (rows sum to one), ``labels [examples]`` are classes 0..C-1,
and examples with the label -1 are left out of everything. Metrics that scikit-learn has are scikit-learn's. A score of
uncertainty is any number for each example that is larger where one is less certain, such as the mean deviance.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtbkd_jax.errors import InputError

Probs = Float[np.ndarray | Array, "examples classes"]
Labels = Int[np.ndarray | Array, "examples"]
Scores = Float[np.ndarray | Array, "examples"]


class ReliabilityBins(NamedTuple):
    """Examples grouped by confidence (the probability of the predicted class); empty bins are left out."""

    confidence: Float[np.ndarray, "bins"]
    """Mean confidence in the bin."""
    accuracy: Float[np.ndarray, "bins"]
    """Share of the bin's predictions that are right."""
    num_examples: Int[np.ndarray, "bins"]
    """Number of examples in the bin."""


class RiskCoverageCurve(NamedTuple):
    """Error among the examples kept when only the most certain are answered."""

    coverage: Float[np.ndarray, "examples"]
    """Share of the examples kept: 1/n, 2/n, ..., 1."""
    risk: Float[np.ndarray, "examples"]
    """Share of the kept examples whose prediction is wrong."""


def mean_by_class(
    values: Float[np.ndarray, "examples columns"], labels: Labels, num_classes: int
) -> Float[np.ndarray, "classes columns"]:
    """Mean over the examples of each class, such as the trust in each teacher; NaN for a class without any.

    >>> mean_by_class(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0]), 2).tolist()
    [[0.75, 0.25], [nan, nan]]
    """
    is_class = np.arange(num_classes)[:, None] == np.asarray(labels)[None]
    counts = is_class.sum(1, keepdims=True)
    return np.where(counts > 0, is_class @ values / np.maximum(counts, 1), np.nan)


def accuracy(probs: Probs, labels: Labels) -> float:
    """Share of examples whose most probable class is the label.

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.

    Returns:
      The accuracy, from 0 to 1.

    Raises:
      InputError: if no example has a label.
    """
    return float(np.mean(_is_right(*_labelled("accuracy", probs, labels))))


def negative_log_likelihood(probs: Probs, labels: Labels) -> float:
    """Mean of -log of the label's probability, in nats.

    scikit-learn's ``log_loss``: a probability of zero counts as the smallest spacing of float64, and so costs 36 nats.

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.

    Returns:
      The negative log likelihood of one example, in nats.

    Raises:
      InputError: if no example has a label.
    """
    from sklearn.metrics import log_loss

    probs, labels = _labelled("negative_log_likelihood", probs, labels)
    return float(log_loss(labels, probs, labels=np.arange(probs.shape[1])))


def brier_score(probs: Probs, labels: Labels) -> float:
    """Mean over examples of Σ_c (q_c - 1{y = c})², from 0 to 2 (Brier, 1950).

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.

    Returns:
      The Brier score.

    Raises:
      InputError: if no example has a label.
    """
    from sklearn.metrics import brier_score_loss

    probs, labels = _labelled("brier_score", probs, labels)
    return float(brier_score_loss(labels, probs, labels=np.arange(probs.shape[1]), scale_by_half=False))


def ranked_probability_score(probs: Probs, labels: Labels) -> float:
    """Mean over examples of Σ_c (F_c - 1{y ≤ c})², F the cumulative probabilities of ordered classes (Epstein, 1969).

    Zero where the label is certain, and smaller for a neighbour of it than for a class far away; at most the number of
    classes less one.

    Args:
      probs: predictive probabilities, of the lowest class first.
      labels: classes, -1 where there is none.

    Returns:
      The score.

    Raises:
      InputError: if no example has a label.

    >>> near, far = np.array([[0.0, 1.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])
    >>> ranked_probability_score(near, np.array([0])), ranked_probability_score(far, np.array([0]))
    (1.0, 2.0)
    """
    probs, labels = _labelled("ranked_probability_score", probs, labels)
    is_at_most = labels[:, None] <= np.arange(probs.shape[1])[None]
    return float(np.square(probs.cumsum(axis=1) - is_at_most).sum(axis=1).mean())


def reliability_bins(probs: Probs, labels: Labels, *, num_bins: int = 15, adaptive: bool = False) -> ReliabilityBins:
    """Group the examples by confidence.

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.
      num_bins: number of bins, the empty ones included.
      adaptive: bins that hold equally many examples (as nearly as ties allow: equal confidences share a bin) instead of
        bins of equal width (k / num_bins, (k + 1) / num_bins].

    Returns:
      Mean confidence, accuracy and count of each bin that is not empty, in order of confidence.

    Raises:
      InputError: if no example has a label or ``num_bins`` is below one.
    """
    if num_bins < 1:
        raise InputError("reliability_bins", "num_bins", f"{num_bins}", "at least 1", "Fifteen bins are customary.")
    probs, labels = _labelled("reliability_bins", probs, labels)
    confidence, is_right = probs.max(axis=1), _is_right(probs, labels)
    shares = np.linspace(0, 1, num_bins + 1)
    # An upper edge belongs to its bin. For adaptive bins the edges are order statistics, so that they equal a
    # confidence exactly.
    inner_edges = (np.quantile(confidence, shares, method="inverted_cdf") if adaptive else shares)[1:-1]
    bin_of = np.searchsorted(inner_edges, confidence, side="left")
    count = np.bincount(bin_of, minlength=num_bins)
    is_used = count > 0
    count = count[is_used]
    return ReliabilityBins(
        confidence=np.bincount(bin_of, confidence, minlength=num_bins)[is_used] / count,
        accuracy=np.bincount(bin_of, is_right, minlength=num_bins)[is_used] / count,
        num_examples=count,
    )


def expected_calibration_error(probs: Probs, labels: Labels, *, num_bins: int = 15, adaptive: bool = False) -> float:
    """Expected calibration error Σ_b (n_b / n) |accuracy_b - confidence_b| (Guo et al., 2017).

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.
      num_bins: number of bins, the empty ones included.
      adaptive: bins of equally many examples (Nguyen and O'Connor, 2015) instead of equal width; see
        `reliability_bins`.

    Returns:
      The calibration error, from 0 to 1.

    Raises:
      InputError: if no example has a label or ``num_bins`` is below one.

    >>> probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    >>> round(expected_calibration_error(probs, np.array([0, 0, 1, 0]), num_bins=10), 3)
    0.1
    """
    bins = reliability_bins(probs, labels, num_bins=num_bins, adaptive=adaptive)
    return float(np.average(np.abs(bins.accuracy - bins.confidence), weights=bins.num_examples))


def out_of_distribution_auroc(
    uncertainty: Float[np.ndarray | Array, "examples"], outside_uncertainty: Float[np.ndarray | Array, "outside"]
) -> float:
    """Probability that an example from outside gets a higher uncertainty than one from inside (ties count one half).

    Args:
      uncertainty: score of the examples from the distribution that was learned.
      outside_uncertainty: score of the examples from another one.

    Returns:
      The area under the receiver operating characteristic; 0.5 is chance.

    Raises:
      InputError: if either set is empty.
    """
    from sklearn.metrics import roc_auc_score

    uncertainty, outside_uncertainty = np.asarray(uncertainty), np.asarray(outside_uncertainty)
    if not (uncertainty.size and outside_uncertainty.size):
        raise InputError(
            "out_of_distribution_auroc",
            "uncertainty, outside_uncertainty",
            f"{uncertainty.size} and {outside_uncertainty.size} examples",
            "at least one of each",
            "Give examples from inside and from outside.",
        )
    is_outside = np.repeat([False, True], [uncertainty.size, outside_uncertainty.size])
    return float(roc_auc_score(is_outside, np.concatenate([uncertainty, outside_uncertainty])))


def error_detection_auroc(probs: Probs, labels: Labels, uncertainty: Scores) -> float:
    """Probability that a wrong prediction gets a higher uncertainty than a right one (ties count one half).

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.
      uncertainty: score of each example.

    Returns:
      The area under the receiver operating characteristic; 0.5 is chance, NaN if all predictions are right or all are
      wrong.

    Raises:
      InputError: if no example has a label.
    """
    from sklearn.metrics import roc_auc_score

    is_wrong, uncertainty = _errors_and_uncertainty("error_detection_auroc", probs, labels, uncertainty)
    if is_wrong.all() or not is_wrong.any():
        return float("nan")
    return float(roc_auc_score(is_wrong, uncertainty))


def risk_coverage_curve(probs: Probs, labels: Labels, uncertainty: Scores) -> RiskCoverageCurve:
    """Error rate among the k most certain examples, for k = 1..n (El-Yaniv and Wiener, 2010).

    Examples with the same uncertainty have no order: each counts as their mean error, the expectation over all orders.

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.
      uncertainty: score of each example.

    Returns:
      Coverage and risk, from the most certain example alone to all of them.

    Raises:
      InputError: if no example has a label.
    """
    is_wrong, uncertainty = _errors_and_uncertainty("risk_coverage_curve", probs, labels, uncertainty)
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    mean_error = np.bincount(group, is_wrong) / size
    kept = np.arange(1, is_wrong.size + 1)
    return RiskCoverageCurve(coverage=kept / is_wrong.size, risk=np.cumsum(np.repeat(mean_error, size)) / kept)


def area_under_risk_coverage(probs: Probs, labels: Labels, uncertainty: Scores) -> float:
    """Mean over k of the error rate among the k most certain examples (Geifman, Uziel and El-Yaniv, 2019).

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.
      uncertainty: score of each example.

    Returns:
      The area, from 0 (no errors) to 1; lower is better.

    Raises:
      InputError: if no example has a label.
    """
    return float(np.mean(risk_coverage_curve(probs, labels, uncertainty).risk))


def classification_metrics(probs: Probs, labels: Labels, uncertainty: Scores) -> dict[str, float]:
    """Every metric of labelled data in this module, by name.

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none.
      uncertainty: score of each example, larger where one is less certain.

    Returns:
      Accuracy, negative log likelihood, Brier score, both calibration errors, and how well the uncertainty finds the
      errors.

    Raises:
      InputError: if no example has a label.
    """
    return {
        "accuracy": accuracy(probs, labels),
        "negative_log_likelihood": negative_log_likelihood(probs, labels),
        "brier_score": brier_score(probs, labels),
        "expected_calibration_error": expected_calibration_error(probs, labels),
        "expected_calibration_error_adaptive": expected_calibration_error(probs, labels, adaptive=True),
        "error_detection_auroc": error_detection_auroc(probs, labels, uncertainty),
        "area_under_risk_coverage": area_under_risk_coverage(probs, labels, uncertainty),
    }


def _labelled(
    where: str, probs: Probs, labels: Labels
) -> tuple[Float[np.ndarray, "labelled classes"], Int[np.ndarray, "labelled"]]:
    """The labelled examples, with rows that sum to one in float64 (float32 rows do so to seven digits only)."""
    is_labelled = _is_labelled(where, labels)
    kept = np.asarray(probs, dtype=np.float64)[is_labelled]
    return kept / kept.sum(axis=1, keepdims=True), np.asarray(labels)[is_labelled]


def _errors_and_uncertainty(
    where: str, probs: Probs, labels: Labels, uncertainty: Scores
) -> tuple[Bool[np.ndarray, "labelled"], Float[np.ndarray, "labelled"]]:
    return ~_is_right(*_labelled(where, probs, labels)), np.asarray(uncertainty)[_is_labelled(where, labels)]


def _is_labelled(where: str, labels: Labels) -> Bool[np.ndarray, "examples"]:
    is_labelled = np.asarray(labels) >= 0
    if not is_labelled.any():
        raise InputError(where, "labels", "no label (all are -1)", "at least one", "Give examples with labels.")
    return is_labelled


def _is_right(
    probs: Float[np.ndarray, "labelled classes"], labels: Int[np.ndarray, "labelled"]
) -> Bool[np.ndarray, "labelled"]:
    return probs.argmax(axis=1) == labels
