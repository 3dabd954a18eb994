"""What the draws of each chain count: by the component that it sampled, and by stacking where chains have not mixed.

Chains of one component count alike if they have mixed. Those that have not sit in modes of the function-space prior,
and are weighed by how well they predict labels, and the classes that the trust-weighted teachers give to examples
without one.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from mtbkd_jax.configuration import SamplingConfig
from mtbkd_jax.diagnostics import LEAST_DRAWS, diagnose
from mtbkd_jax.errors import InputError
from mtbkd_jax.judging import NUM_PROBES, judged_log_density, judged_log_probs, rows_to_weigh_by
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.sampling import ChainRun
from mtbkd_jax.settings import PosteriorSettings
from mtbkd_jax.stacking import leave_one_out_log_scores, stacking_weights
from mtbkd_jax.students import Student
from mtbkd_jax.weighting import pooled_probs


class Advice(NamedTuple):
    """What the teachers say of some examples without a label, and what the chains do.

    Attributes:
      pseudo_labels: of each class.
      log_probs: predictions by every chain, in nats.
    """

    pseudo_labels: Float[np.ndarray, "advised classes"]
    log_probs: Float[np.ndarray, "chains advised classes"]


class ChainPredictions(NamedTuple):
    """What tells whether chains have mixed, and what those that have not are weighed by.

    Attributes:
      labels: of labelled examples.
      log_probs: predictions of them by every draw, in nats.
      num_labels: that those stand for.
      advice: gives the advice; asked for only where chains have not mixed.
      temperature: of the posterior that was sampled.
    """

    labels: Int[np.ndarray, " labelled"]
    log_probs: Float[np.ndarray, "chains draws labelled classes"]
    num_labels: int
    advice: Callable[[], Advice]
    temperature: float


def weights_of_chains(
    component_weights: Float[np.ndarray, " components"],
    component_of_chain: Int[np.ndarray, " chains"],
    log_density: Float[np.ndarray, "chains draws"],
    predictions: ChainPredictions,
) -> tuple[Float[np.ndarray, " chains"], bool]:
    """What each chain counts: its component's weight, shared equally where chains have mixed and by stacking elsewhere.

    Args:
      component_weights: of all components.
      component_of_chain: what each chain has sampled.
      log_density: of the draws.
      predictions: of the same chains; with fewer labels than there are chains, all chains of a component count alike.

    Returns:
      The weights, which sum to one, and whether stacking had a part in them.
    """
    chain_weights, is_stacked = np.zeros(component_of_chain.size), False
    for component in np.unique(component_of_chain):
        chains = np.flatnonzero(component_of_chain == component)
        shares = np.full(chains.size, 1 / chains.size)
        if chains.size > 1 and predictions.labels.size >= chains.size and log_density.shape[1] >= LEAST_DRAWS:
            diagnostics = diagnose(predictions.log_probs[chains, :, :NUM_PROBES], log_density[chains])
            if diagnostics.has_moved and not diagnostics.has_mixed:
                shares, is_stacked = stacked_weights(predictions, chains), True
        chain_weights[chains] = component_weights[component] * shares
    return chain_weights / chain_weights.sum(), is_stacked


def check_labels_to_stack_by(sampling: SamplingConfig, num_labelled: int) -> None:
    """Refuse to stack chains where there is no label."""
    if sampling.chain_weighting == "stacking" and num_labelled == 0:
        action = "Weigh the chains by evidence, or label some examples."
        raise InputError("sampling", "chain_weighting", "stacking, and no label", "labels to stack by", action)


def stacked_weights(
    predictions: ChainPredictions, chains: Int[np.ndarray, " stacked"]
) -> Float[np.ndarray, " stacked"]:
    """Weights of some of the chains by stacking."""
    labels, advice = predictions.labels, predictions.advice()
    log_likelihood = np.take_along_axis(predictions.log_probs[chains], labels[None, None, :, None], axis=3)[..., 0]
    of_labels = leave_one_out_log_scores(log_likelihood, temperature=predictions.temperature)
    of_advice = advice.log_probs[chains].reshape(chains.size, -1)
    of_label = np.full(labels.size, predictions.num_labels / labels.size)
    counts = np.concatenate([of_label, advice.pseudo_labels.reshape(-1)])
    return stacking_weights(np.concatenate([of_labels, of_advice], axis=1), counts)


def chain_predictions(
    student: Student, run: ChainRun, lessons: Lessons, settings: PosteriorSettings
) -> ChainPredictions:
    """Predictions of no more examples than stacking needs, which stand for all.

    An example's advice counts for power · λ labels: λ pseudo-labels, each worth what the power says.
    """
    labels, stands_for = np.asarray(lessons.examples.labels), lessons.examples.stands_for
    num_unlabelled = (labels < 0).sum() if stands_for is None else np.asarray(stands_for)[labels < 0].sum()
    labelled, advised = rows_to_weigh_by(labels, run.info.log_density.shape[1])

    def by_draw(rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "chains draws rows classes"]:
        if rows.size == 0:  # not every network takes no example at all
            return np.zeros((*judged_log_density(run).shape, 0, lessons.teacher_probs.shape[2]))
        return judged_log_probs(student, run, lessons, rows)

    @cache
    def advice() -> Advice:
        worth = float(settings.power * settings.concentration) * num_unlabelled / max(advised.size, 1)
        pool = np.asarray(pooled_probs(lessons.teacher_probs[advised], lessons.log_weights[advised]))
        if lessons.is_asked is not None:  # where no teacher was asked, there is no advice
            pool = np.where(np.asarray(lessons.is_asked)[advised].any(axis=1)[:, None], pool, np.float32(0))
        log_probs = by_draw(advised)
        return Advice(worth * pool, scipy.special.logsumexp(log_probs, axis=1) - np.log(log_probs.shape[1]))

    num_labels = int((labels >= 0).sum())
    return ChainPredictions(labels[labelled], by_draw(labelled), num_labels, advice, float(settings.temperature))
