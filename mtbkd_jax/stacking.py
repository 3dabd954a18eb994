"""Stacking: weights of chains by how well they predict labels that they have not seen.

Chains that sit in modes of their own are no draws of one posterior, and counting them alike makes the result depend on
where they started. Stacking (Yao, Vehtari and Gelman, 2022) asks instead which mixture of them predicts best:

    max_w Σ_i n_i log Σ_k w_k p_k(y_i | y_{−i}) + Σ_k log w_k

The predictive probability without label i is that of Pareto-smoothed importance sampling from the chain's draws
(Vehtari, Gelman and Gabry, 2017), by ArviZ. The second sum, a Dirichlet(2) prior, is worth one label a chain: with few
labels no chain is left out for a stroke of bad luck, and a useless one keeps no more than a useless share.

A label counts for one, n_i = 1. What trusted teachers say of an example without a label can be heard as well: as every
class c of it, seen n_ic times.

Stacking leaves models that predict nearly alike nearly equal shares: a mixture hardly gains by losing one. Where those
that predict a little worse are to be left out, ``pseudo_bma_weights`` does it.
"""

import numpy as np
import scipy.special
from jaxtyping import Float

from mtbkd_jax.diagnostics import LOWEST_LOG_PROB, import_arviz

_NUM_ITERATIONS = 1000
_NUM_REPLICATES = 1000


def leave_one_out_log_scores(
    log_likelihood: Float[np.ndarray, "chains draws labelled"], *, temperature: float = 1.0
) -> Float[np.ndarray, "chains labelled"]:
    """log p_k(y_i | y_{−i}) of each chain k, in nats.

    Args:
      log_likelihood: log probability of each label under each draw; -inf, where float32 has no smaller number, counts
        as the smallest that it has.
      temperature: T of the density p^(1/T) that the chains have sampled, in which a label has had 1/T of a say.
    """
    arviz = import_arviz()
    scores = []
    for of_chain in np.maximum(np.asarray(log_likelihood, np.float64), LOWEST_LOG_PROB):
        by_label = of_chain.T
        without = -by_label / temperature
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratios, _ = arviz.psislw(without)
        # A label that all draws find equally probable has no tail that could be smoothed.
        is_constant = np.isnan(log_ratios).any(axis=1, keepdims=True)
        log_ratios = np.where(is_constant, scipy.special.log_softmax(without, axis=1), log_ratios)
        scores.append(scipy.special.logsumexp(log_ratios + by_label, axis=1))
    return np.stack(scores)


def stacking_weights(
    log_scores: Float[np.ndarray, "chains scored"], counts: Float[np.ndarray, " scored"] | None = None
) -> Float[np.ndarray, " chains"]:
    """The weights that predict best; they sum to one.

    The objective is concave, and is climbed by expectation maximisation.

    Args:
      log_scores: of labels, as ``leave_one_out_log_scores`` gives them, and perhaps of classes that teachers speak for;
        -inf for what a chain thinks impossible.
      counts: n, what each of them counts; one if not given.

    >>> sure_and_right, sure_and_wrong = np.log(np.full(98, 0.9)), np.log(np.full(98, 0.1))
    >>> print(stacking_weights(np.stack([sure_and_right, sure_and_wrong])).round(2))
    [0.99 0.01]
    """
    num_chains, num_scored = log_scores.shape
    counts = np.ones(num_scored) if counts is None else counts
    weights = np.full(num_chains, 1 / num_chains)
    for _ in range(_NUM_ITERATIONS):
        shares = scipy.special.softmax(np.log(weights)[:, None] + log_scores, axis=0)
        weights = (shares @ counts + 1) / (counts.sum() + num_chains)
    return weights


def pseudo_bma_weights(log_scores: Float[np.ndarray, "models scored"]) -> Float[np.ndarray, " models"]:
    """Pseudo-BMA+ (Yao, Vehtari, Simpson and Gelman, 2018, section 3.4): how probable each model is of predicting best.

        w_k = E_u[ exp(n Σ_i u_i s_ki) / Σ_j exp(n Σ_i u_i s_ji) ],    u ~ Dirichlet(1, …, 1)

    Each model counts by the likelihood that it gives the labels it has not seen; the Bayesian bootstrap u allows for
    how uncertain that is. The expectation is a mean over the same thousand replicates in every call.

    Args:
      log_scores: s, log predictive probabilities of the same labels, finite.

    Returns:
      The weights; they sum to one.

    >>> right, a_little_worse = np.full(100, -0.5), np.full(100, -0.55)
    >>> print(pseudo_bma_weights(np.stack([right, a_little_worse])).round(2))
    [0.99 0.01]
    >>> print(stacking_weights(np.stack([right, a_little_worse])).round(2))
    [0.84 0.16]
    """
    random = np.random.default_rng(0)
    num_scored = log_scores.shape[1]
    sums = np.empty((_NUM_REPLICATES, log_scores.shape[0]))
    for replicate in sums:
        shares = random.standard_exponential(size=(num_scored,))
        replicate[:] = log_scores @ (shares * num_scored / shares.sum())
    return scipy.special.softmax(sums, axis=1).mean(0)
