"""Uncertainty of predictions, from posterior draws of the class probabilities.

Everything here is a pure function of ``log_probs [draws, examples, classes]``, the log class probabilities log q_ic^(s)
of example i under posterior draw s, and of the weights v_s of the draws (equal unless given; non-negative, sum to one).
All can be compiled with ``jax.jit``. A class of probability exactly zero (a log probability of -inf) adds nothing to
any of them. Entropies and deviances are in nats.

The *deviance* of a label y under draw s is D = -2 log q_iy^(s). Its law, with s drawn by v and y drawn from q_i^(s),
gives the mean deviance, the credible interval and the coverage of the paper (arXiv 2605.27967, equations 11 to 13;
"Bayesian Knowledge Distillation", ICML 2024, equation 17). The split of the entropy is that of Depeweg et al. (2018):

    H(q̄_i)  =  Σ_s v_s H(q_i^(s))  +  Σ_s v_s KL(q_i^(s) || q̄_i),        q̄_i = Σ_s v_s q_i^(s)
     total       aleatoric              epistemic: the mutual information of label and parameters
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import entr, xlog1py
from jaxtyping import Array, Float, Int

from mtbkd_jax.errors import InputError

LogProbs = Float[Array, "draws examples classes"]
DrawWeights = Float[Array, "draws"]
COVERAGE_LEVELS = (0.85, 0.90, 0.95)
"""The levels at which coverage is reported."""


def predictive_mean(log_probs: LogProbs, draw_weights: DrawWeights | None = None) -> Float[Array, "examples classes"]:
    """Posterior predictive probabilities q̄_ic = Σ_s v_s q_ic^(s).

    Args:
      log_probs: log class probabilities, in nats.
      draw_weights: v, non-negative and summing to one; equal if not given.

    Returns:
      The probabilities; each row sums to one.

    >>> print(predictive_mean(jnp.log(jnp.array([[[0.5, 0.5]], [[0.75, 0.25]]]))))
    [[0.625 0.375]]
    """
    return _average_over_draws(jnp.exp(log_probs), draw_weights)


def mean_deviance(log_probs: LogProbs, draw_weights: DrawWeights | None = None) -> Float[Array, "examples"]:
    """Posterior mean of the deviance (equation 11): -2 Σ_s v_s Σ_c q_ic^(s) log q_ic^(s).

    It is twice the aleatoric entropy, so it says how uncertain the draws are themselves, and not how much they
    disagree.

    Args:
      log_probs: log class probabilities, in nats.
      draw_weights: v, non-negative and summing to one; equal if not given.

    Returns:
      The mean deviance of each example, in nats, from 0 to 2 log C.
    """
    return 2 * aleatoric_entropy(log_probs, draw_weights)


def credible_upper(
    log_probs: LogProbs, draw_weights: DrawWeights | None = None, *, level: float
) -> Float[Array, "examples"]:
    """Upper end of the credible interval [0, u_i] of the deviance (equation 12).

        u_i = min { u : Σ_s v_s Σ_c q_ic^(s) 1{-2 log q_ic^(s) ≤ u} ≥ level }

    This is the quantile of the deviances -2 log q_ic^(s) under the weights v_s q_ic^(s), found exactly by one sort. A
    sum that falls short of ``level`` by no more than the rounding of floats counts as reaching it.

    Args:
      log_probs: log class probabilities, in nats.
      draw_weights: v, non-negative and summing to one; equal if not given.
      level: probability of the interval, strictly between 0 and 1 (a static argument under ``jax.jit``).

    Returns:
      u, in nats; always the deviance of a class that has positive probability in some draw.

    Raises:
      InputError: if ``level`` is not between 0 and 1.

    >>> one_draw = jnp.log(jnp.array([[[0.7, 0.2, 0.1]]]))
    >>> [round(float(jnp.exp(-credible_upper(one_draw, level=level)[0] / 2)), 3) for level in (0.6, 0.85, 0.95)]
    [0.7, 0.2, 0.1]
    """
    if not 0 < level < 1:
        raise InputError(
            "credible_upper", "level", f"{level}", "a number strictly between 0 and 1", "Use 0.9 for a 90 % interval."
        )
    num_draws, num_examples, num_classes = log_probs.shape
    masses = jnp.exp(log_probs) * _weights(log_probs, draw_weights)[:, None, None]
    deviances = jnp.where(masses > 0, -2 * log_probs, jnp.inf)  # what has no mass goes to the end
    deviances, masses = (
        jnp.moveaxis(array, 1, 0).reshape(num_examples, num_draws * num_classes) for array in (deviances, masses)
    )
    deviances, masses = jax.lax.sort((deviances, masses), num_keys=1)
    cumulative = jnp.cumsum(masses, axis=1)
    # Relative to the sum as computed, so that the end of the list reaches every level.
    tolerance = 8 * jnp.finfo(masses.dtype).eps
    index = jnp.argmax(cumulative >= (level - tolerance) * cumulative[:, -1:], axis=1)
    return jnp.take_along_axis(deviances, index[:, None], axis=1)[:, 0]


def coverage(
    log_probs: LogProbs, labels: Int[Array, "examples"], draw_weights: DrawWeights | None = None, *, level: float
) -> Float[Array, ""]:
    """Coverage of the credible intervals of the deviance on labelled data (equation 13).

        (1/n) Σ_i Σ_s v_s 1{-2 log q_{i,y_i}^(s) ≤ u_i}

    The label is nature's, not the draw's, so this is the nominal level plus the overshoot of a discrete law (u_i is the
    deviance of a whole class) minus what the draws disagree by: for labels drawn from q̄_i it differs from the mass
    inside [0, u_i] by at most the mean total variation distance between q_i^(s) and q̄_i.

    Args:
      log_probs: log class probabilities, in nats.
      labels: classes 0..C-1; examples with -1 are left out.
      draw_weights: v, non-negative and summing to one; equal if not given.
      level: nominal probability of the intervals, strictly between 0 and 1 (a static argument under ``jax.jit``).

    Returns:
      The share of covered labels; NaN if there is no label.

    Raises:
      InputError: if ``level`` is not between 0 and 1.
    """
    is_labelled = labels >= 0
    covered = label_coverage(log_probs, labels, draw_weights, level=level)
    return jnp.sum(covered * is_labelled) / jnp.sum(is_labelled)


def label_coverage(
    log_probs: LogProbs, labels: Int[Array, "examples"], draw_weights: DrawWeights | None = None, *, level: float
) -> Float[Array, "examples"]:
    """What each label adds to the coverage: Σ_s v_s 1{-2 log q_{i,y_i}^(s) ≤ u_i}.

    Args:
      log_probs: log class probabilities, in nats.
      labels: classes 0..C-1; what comes out for an example with -1 says nothing.
      draw_weights: v, non-negative and summing to one; equal if not given.
      level: nominal probability of the intervals, strictly between 0 and 1 (a static argument under ``jax.jit``).

    Returns:
      The weight of the draws under which each label is covered, from 0 to 1.
    """
    upper = credible_upper(log_probs, draw_weights, level=level)
    label_log_probs = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[None, :, None], axis=2)[:, :, 0]
    return _average_over_draws((-2 * label_log_probs <= upper[None]).astype(log_probs.dtype), draw_weights)


def predictive_entropy(log_probs: LogProbs, draw_weights: DrawWeights | None = None) -> Float[Array, "examples"]:
    """Total uncertainty: the entropy H(q̄_i) of the posterior predictive, in nats.

    Args:
      log_probs: log class probabilities, in nats.
      draw_weights: v, non-negative and summing to one; equal if not given.

    Returns:
      The entropy of each example, from 0 to log C.
    """
    return jnp.sum(entr(predictive_mean(log_probs, draw_weights)), axis=-1)


def aleatoric_entropy(log_probs: LogProbs, draw_weights: DrawWeights | None = None) -> Float[Array, "examples"]:
    """The part of the entropy that would stay if the parameters were known: Σ_s v_s H(q_i^(s)), in nats.

    Args:
      log_probs: log class probabilities, in nats.
      draw_weights: v, non-negative and summing to one; equal if not given.

    Returns:
      The mean entropy of the draws for each example, from 0 to log C.
    """
    finite_log_probs = jnp.where(jnp.isneginf(log_probs), 0, log_probs)  # 0 log 0 = 0
    return _average_over_draws(-jnp.sum(jnp.exp(log_probs) * finite_log_probs, axis=-1), draw_weights)


def epistemic(log_probs: LogProbs, draw_weights: DrawWeights | None = None) -> Float[Array, "examples"]:
    """The part of the entropy that comes from not knowing the parameters: Σ_s v_s KL(q_i^(s) || q̄_i), in nats.

    The mutual information of label and parameters. Computed as a sum of terms none of which is negative, with
    r = q_ic^(s) / q̄_ic - 1, so that small values are not lost in the difference of two entropies:

        KL(q || q̄) = Σ_c q̄_c [ (1 + r_c) log(1 + r_c) - r_c ]

    Args:
      log_probs: log class probabilities, in nats.
      draw_weights: v, non-negative and summing to one; equal if not given.

    Returns:
      The mutual information for each example, from 0 (all draws agree) to log C.
    """
    probs = jnp.exp(log_probs)
    mean = predictive_mean(log_probs, draw_weights)[None]
    relative_excess = (probs - mean) / jnp.where(mean > 0, mean, 1)
    divergence = jnp.sum(mean * (xlog1py(1 + relative_excess, relative_excess) - relative_excess), axis=-1)
    return jnp.maximum(_average_over_draws(divergence, draw_weights), 0)


def _weights(values: Float[Array, "draws *rest"], draw_weights: DrawWeights | None) -> DrawWeights:
    num_draws = values.shape[0]
    return jnp.full(num_draws, 1 / num_draws, values.dtype) if draw_weights is None else draw_weights


def _average_over_draws(values: Float[Array, "draws *rest"], draw_weights: DrawWeights | None) -> Float[Array, "*rest"]:
    # A sum and not a matrix product, which accelerators round to few digits by default.
    weights = _weights(values, draw_weights)
    return jnp.sum(values * weights.reshape(-1, *[1] * (values.ndim - 1)), axis=0)
