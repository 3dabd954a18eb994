"""Weighting rules: how far each teacher deserves trust on each example.

A rule is a function ``(key, teacher_probs [N, G, C], inputs [N, ...], labels [N]) -> log_weights [N, 1 + G]``. Column 0
is the flat component, "nobody knows" (-inf where a rule has none); each row sums to one in probability. A rule is free
to ignore what it does not need, so that a new one can be added without touching a caller. The default, trust learned
from the labels, is in ``trust``.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float, Int

from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key

WeightingRule = Callable[
    [Key, Float[Array, "examples teachers classes"], Array, Int[Array, " examples"]],
    Float[Array, "examples components"],
]


def uniform_weighting() -> WeightingRule:
    """Every teacher weighs the same on every example."""

    def rule(key, teacher_probs, inputs, labels):
        del key, inputs, labels
        return _without_flat(jnp.ones(teacher_probs.shape[:2], teacher_probs.dtype))

    return rule


def entropy_weighting() -> WeightingRule:
    """The paper's rule: a teacher weighs more the lower its entropy (equation 10).

        w_i^g = ξ(H_i^g) / Σ_g ξ(H_i^g),    ξ(H_i^g) = 1 − H_i^g / Σ_g H_i^g

    with the ξ of the authors' script. A single teacher gets weight one; where every entropy is zero the weights are
    equal. A confident teacher outside its domain is preferred by this rule; where there are labels, learned trust knows
    better.
    """

    def rule(key, teacher_probs, inputs, labels):
        del key, inputs, labels
        entropies = entr(teacher_probs).sum(-1)
        total = entropies.sum(-1, keepdims=True)
        share = jnp.where(total > 0, entropies / jnp.where(total > 0, total, 1.0), 0.0)
        # One teacher would get 1 − H / H = 0: its weight is one whatever its entropy.
        return _without_flat(1.0 - share if teacher_probs.shape[1] > 1 else jnp.ones_like(share))

    return rule


def confidence_aware_weighting() -> WeightingRule:
    """The rule of CA-MKD (Zhang et al. 2022, equation 2): a teacher weighs more the better it does on the label.

        w_i^g = (1 − exp(CE_i^g) / Σ_j exp(CE_i^j)) / (G − 1),    CE_i^g = −log p_i^g[y_i]

    The weights sum to one (the authors' script divides them by G once more). An example without a label, of which the
    rule knows nothing, weighs its teachers equally; a single teacher gets weight one.
    """

    def rule(key, teacher_probs, inputs, labels):
        del key, inputs
        num_teachers = teacher_probs.shape[1]
        of_label = jnp.take_along_axis(teacher_probs, jnp.maximum(labels, 0)[:, None, None], axis=2)[..., 0]
        # exp(CE) = 1 / p; a probability that was rounded to zero is no reason for NaN.
        shares = jax.nn.softmax(-jnp.log(jnp.maximum(of_label, jnp.finfo(of_label.dtype).tiny)), axis=1)
        is_known = (labels >= 0)[:, None] & (num_teachers > 1)
        return _without_flat(jnp.where(is_known, 1.0 - shares, 1.0))

    return rule


def fixed_weighting(weights: Sequence[float]) -> WeightingRule:
    """The same given weights on every example.

    Args:
      weights: one for each teacher, non-negative, not all zero; normalised here.

    Raises:
      InputError: if a weight is negative or not finite, if all are zero, or (when applied) if their number is not that
        of the teachers.
    """
    values = np.asarray(weights, np.float32)
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise InputError(
            "fixed_weighting",
            "weights",
            str(list(weights)),
            "one non-negative number a teacher, not all zero",
            "Give the relative weights of the teachers, for example 1 2 1.",
        )

    def rule(key, teacher_probs, inputs, labels):
        del key, inputs, labels
        if values.size != teacher_probs.shape[1]:
            raise InputError(
                "fixed_weighting",
                "weights",
                f"{values.size} weights",
                f"{teacher_probs.shape[1]}, one for each teacher",
                "Give the weights in the order of the teachers.",
            )
        return _without_flat(jnp.broadcast_to(values, teacher_probs.shape[:2]))

    return rule


def pooled_probs(
    teacher_probs: Float[Array, "examples teachers classes"], log_weights: Float[Array, "examples components"]
) -> Float[Array, "examples classes"]:
    """The weighted mean of all components, the flat one included: Σ_g w_i^g p_i^g."""
    uniform = jnp.full_like(teacher_probs[:, :1], 1.0 / teacher_probs.shape[-1])
    return jnp.einsum("eg,egc->ec", jnp.exp(log_weights), jnp.concatenate([uniform, teacher_probs], axis=1))


def _without_flat(weights: Float[Array, "examples teachers"]) -> Float[Array, "examples components"]:
    normalised = weights / weights.sum(-1, keepdims=True)
    return jnp.log(jnp.pad(normalised, ((0, 0), (1, 0))))
