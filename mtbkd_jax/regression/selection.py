"""Selection in regression: power and weight scale by cross-validated negative log likelihood, *no teacher* among them.

Trust is learned again without each fold of the labels, every candidate's posterior is sampled by a short chain without
the fold's examples, and the fold's labels are scored under the chain's predictive distribution.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.regression.lessons import HeldOut
from mtbkd_jax.regression.posterior import RegressionSettings
from mtbkd_jax.regression.prediction import gaussian_log_score, predict_gaussian
from mtbkd_jax.regression.sampling import ChainPlan, OwnData, sample_regression
from mtbkd_jax.regression.students import NoisePrior
from mtbkd_jax.students import Student
from mtbkd_jax.types import Key


@dataclass(frozen=True)
class ScoredSettings:
    """A candidate and how it did.

    Attributes:
      power: of the function-space prior.
      weight_scale: standard deviation of the network's weights.
      nll: mean negative log likelihood of the held-out labels, nats.
      standard_error: of that mean, over the held-out labels.
    """

    power: float
    weight_scale: float
    nll: float
    standard_error: float


def candidates_on_folds(powers: Sequence[float], weight_scales: Sequence[float], num_folds: int) -> OwnData:
    """What the chain of each candidate on each fold has to itself: folds of a candidate one after the other.

    Raises:
      InputError: if a power is negative or a weight scale is not positive.
    """
    check_not_negative(powers=np.asarray(powers))
    check_positive(weight_scales=np.asarray(weight_scales))
    grid = np.repeat(np.array(list(itertools.product(powers, weight_scales)), np.float32), num_folds, axis=0)
    folds = np.tile(np.arange(num_folds), len(grid) // num_folds)
    return OwnData(RegressionSettings(jnp.asarray(grid[:, 0]), jnp.asarray(grid[:, 1])), jnp.asarray(folds))


def score_settings(
    key: Key,
    student: Student,
    held_out: HeldOut,
    targets: Float[Array, " examples"],
    *,
    powers: Sequence[float],
    weight_scales: Sequence[float],
    noise: NoisePrior,
    plan: ChainPlan,
) -> list[ScoredSettings]:
    """Score every power at every weight scale, best first.

    Args:
      key: of the chains.
      student: made by ``with_noise``.
      held_out: the lessons without each fold.
      targets: all of them, NaN where unknown.
      powers: candidates.
      weight_scales: candidates.
      noise: prior of σ.
      plan: of a candidate's chain.
    """
    folds = held_out.fold_of_example
    own = candidates_on_folds(powers, weight_scales, int(folds.max()) + 1)
    run = sample_regression(key, student, held_out.lessons, own, noise=noise, plan=plan)
    labelled = np.flatnonzero(folds >= 0)
    inputs, known = held_out.lessons.examples.inputs[0][labelled], targets[labelled]

    def of_chain(positions):
        return gaussian_log_score(predict_gaussian(student, positions, inputs), known)

    scores = np.asarray(jax.lax.map(of_chain, run.positions)).reshape(-1, int(folds.max()) + 1, labelled.size)
    held_out_scores = -scores[:, folds[labelled], np.arange(labelled.size)]
    candidates = [
        ScoredSettings(power, scale, float(nll.mean()), float(nll.std(ddof=1) / np.sqrt(nll.size)))
        for (power, scale), nll in zip(itertools.product(powers, weight_scales), held_out_scores, strict=True)
    ]
    return sorted(candidates, key=lambda candidate: candidate.nll)
