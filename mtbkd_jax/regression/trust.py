"""Whom to trust in regression: weights of the teachers on each example, and how far off each of them is.

A rule is a function ``(key, teachers, inputs, targets) -> GaussianTrust``, with NaN for an unknown target.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbkd_jax.errors import InputError
from mtbkd_jax.folds import are_enough
from mtbkd_jax.regression.folds import folds_of_targets
from mtbkd_jax.regression.teachers import (
    GaussianTeachers,
    broad_component,
    log_scores,
    scales_alone,
    scales_together,
)
from mtbkd_jax.trust import fit_stacking, projected_features, random_fourier_features
from mtbkd_jax.types import Key


class GaussianTrust(NamedTuple):
    """How far each teacher is trusted.

    Attributes:
      log_weights: log w_i^g; column 0 is the broad component, -inf where there is none. Rows sum to one.
      sds: s_i^g = c_g d_i^g, in the unit of the targets.
    """

    log_weights: Float[Array, "examples components"]
    sds: Float[Array, "examples teachers"]


GaussianRule = Callable[[Key, GaussianTeachers, Array, Float[Array, " examples"]], GaussianTrust]


def learned_gaussian_trust(*, num_features: int = 60, num_folds: int = 5) -> GaussianRule:
    """Build the rule that learns weights from the labels, by the stacking model of ``trust``.

        w_i^g = softmax_g(a_g + φ(x_i)·β_g + ψ(m_i)·γ_g),    fitted to Σ_i log Σ_g w_i^g Normal(y_i; m_i^g, (s_i^g)²)

    with the broad component as g = 0. The factors c_g of s_i^g = c_g d_i^g are those of ``scales_together``: those in
    the score of a label are estimated without its fold, those that come out are of all labels.

    Args:
      num_features: of φ, and at most as many of ψ.
      num_folds: folds over the labelled examples, for cross-fitting and for the choice of the slopes' scales.

    Raises:
      InputError: (when applied) if there are fewer known targets than two for each fold.
    """

    def rule(key, teachers, inputs, targets):
        num_known = int(jnp.isfinite(targets).sum())
        if not are_enough(num_known, num_folds):
            raise InputError(
                "learned_gaussian_trust",
                "targets",
                f"{num_known} known targets",
                f"at least {2 * num_folds}, two for each of {num_folds} folds",
                "Give more targets, or choose equal weights.",
            )
        place_key, speech_key, fold_key, fit_key = jax.random.split(key, 4)
        folds = folds_of_targets(fold_key, np.asarray(targets), num_folds)
        broad = broad_component(targets)
        scales = scales_together(teachers, targets, broad)
        without_fold = [
            scales_together(teachers, jnp.where(folds == fold, jnp.nan, targets), broad) for fold in range(num_folds)
        ]
        # Examples without a label have fold -1, and their score does not count.
        scores = log_scores(teachers, targets, jnp.stack([*without_fold, scales])[folds], broad)
        says = jnp.concatenate([teachers.means, jnp.log(teachers.sds)], axis=1)
        fit = fit_stacking(
            fit_key,
            random_fourier_features(place_key, inputs, num_features),
            projected_features(speech_key, says, num_features),
            scores,
            folds,
        )
        return GaussianTrust(fit.log_weights, scales[None] * teachers.sds)

    return rule


def equal_gaussian_trust() -> GaussianRule:
    """Build the rule that trusts all teachers alike and has no broad component; c_g is that of ``scales_alone``."""

    def rule(key, teachers, inputs, targets):
        del key, inputs
        num_examples, num_teachers = teachers.means.shape
        weights = jnp.pad(jnp.full((num_examples, num_teachers), 1 / num_teachers), ((0, 0), (1, 0)))
        scales = scales_alone(teachers, targets, broad_component(targets))
        return GaussianTrust(jnp.log(weights), scales[None] * teachers.sds)

    return rule
