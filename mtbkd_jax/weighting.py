"""Weighting rules: how far each teacher deserves trust on each example.

A rule is a function ``(key, teacher_probs [N, G, C], inputs [N, ...], labels [N]) -> log_weights [N, 1 + G]``. Column 0
is the flat component, "nobody knows" (-inf where a rule has none); each row sums to one in probability. A rule is free
to ignore what it does not need, so that a new one can be added without touching a caller. The default, trust learned
from the labels, is in ``trust``.

A rule that is a ``RuleForNewRows`` can also weigh rows that were not there when it was applied, as streaming needs it
to (``windows``). A plain function cannot.

Where teachers were not asked about some examples, a rule is given ``is_asked [N, G]`` as well, and has to learn nothing
of a teacher where it is false: the flat distribution stands there. Whatever weight the rule gives it there is taken
away afterwards (``among_asked``), so that the ratios of the others are all that it has to get right.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Bool, Float, Int

from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key

WeightingRule = Callable[
    [Key, Float[Array, "examples teachers classes"], Array, Int[Array, " examples"]],
    Float[Array, "examples components"],
]

RuleForMissingTeachers = Callable[
    [
        Key,
        Float[Array, "examples teachers classes"],
        Array,
        Int[Array, " examples"],
        Bool[Array, "examples teachers"] | None,
    ],
    Float[Array, "examples components"],
]
"""A rule that can be given ``is_asked``."""

FittedRule = Mapping[str, Array]
"""What a rule has found, by name."""


@runtime_checkable
class RuleForNewRows(Protocol):
    """A rule that can weigh rows without a label that it has not seen, by what it found on others."""

    def __call__(
        self,
        key: Key,
        teacher_probs: Float[Array, "examples teachers classes"],
        inputs: Array,
        labels: Int[Array, " examples"],
        is_asked: Bool[Array, "examples teachers"] | None = None,
    ) -> Float[Array, "examples components"]:
        """Weigh the teachers, as any rule does."""

    def fit(
        self,
        key: Key,
        teacher_probs: Float[Array, "examples teachers classes"],
        inputs: Array,
        labels: Int[Array, " examples"],
        is_asked: Bool[Array, "examples teachers"] | None = None,
    ) -> tuple[Float[Array, "examples components"], FittedRule]:
        """What the call gives, and what ``weigh`` needs."""

    def weigh(
        self,
        fitted: FittedRule,
        teacher_probs: Float[Array, "rows teachers classes"],
        inputs: Array,
        is_asked: Bool[Array, "rows teachers"] | None = None,
    ) -> Float[Array, "rows components"]:
        """Weigh the teachers on new rows, none of which has a label; can be traced."""


def check_weighs_new_rows(rule: WeightingRule) -> RuleForNewRows:
    """The rule, if it can weigh rows that it has not seen.

    Raises:
      InputError: if it cannot.
    """
    if isinstance(rule, RuleForNewRows):
        return rule
    found = f"{getattr(rule, '__name__', type(rule).__name__)}, which weighs no rows but those it is given"
    expected = "a rule with `fit` and `weigh` (`weighting.RuleForNewRows`), where not all rows fit in memory"
    action = "Give the rule these two methods, or leave rows_in_memory out."
    raise InputError("distil", "weighting", found, expected, action)


def check_heeds_missing(rule: WeightingRule) -> RuleForMissingTeachers:
    """The rule, if it can be told which teachers were asked about which example.

    Raises:
      InputError: if it cannot.
    """
    if "is_asked" in inspect.signature(rule).parameters:
        return cast(RuleForMissingTeachers, rule)
    found = f"{getattr(rule, '__name__', type(rule).__name__)}, which has no argument `is_asked`"
    expected = "a rule that can be told, where teachers were not asked about some examples"
    action = "Give the rule this argument, as its fifth (`weighting` says what it means), or leave these examples out."
    raise InputError("distil", "weighting", found, expected, action)


def asked_components(is_asked: Bool[Array, "examples teachers"]) -> Bool[Array, "examples components"]:
    """The same with the flat component, which has a say everywhere."""
    return jnp.pad(is_asked, ((0, 0), (1, 0)), constant_values=True)


def flat_alone(num_components: int) -> Float[Array, "1 components"]:
    """Log weights of an example on which nobody is heard: it adds nothing to the function-space prior."""
    return jnp.where(jnp.arange(num_components) == 0, 0.0, -jnp.inf)[None]


def among_asked(
    log_weights: Float[Array, "examples components"], is_asked: Bool[Array, "examples teachers"]
) -> Float[Array, "examples components"]:
    """The weights of those who were asked, and of the flat component, renormalised; -inf for the others.

    Where nobody is left who has a weight, the flat component has all of it. Rows on which all teachers were asked stay
    as they are.

    >>> even = jnp.log(jnp.array([[0.0, 0.5, 0.5]]))
    >>> jnp.exp(among_asked(even, jnp.array([[True, False]]))).tolist()
    [[0.0, 1.0, 0.0]]
    >>> jnp.exp(among_asked(even, jnp.array([[False, False]]))).tolist()
    [[1.0, 0.0, 0.0]]
    """
    kept = jnp.where(asked_components(is_asked), log_weights, -jnp.inf)
    total = jax.nn.logsumexp(kept, axis=1, keepdims=True)
    is_left = jnp.isfinite(total)
    renormalised = jnp.where(is_left, kept - jnp.where(is_left, total, 0.0), flat_alone(log_weights.shape[1]))
    return jnp.where(is_asked.all(axis=1, keepdims=True), log_weights, renormalised)


@dataclass(frozen=True)
class _RowByRow:
    """A rule that needs nothing of other rows, ``(teacher_probs, labels, is_asked) -> log_weights``."""

    of_rows: Callable[
        [Float[Array, "rows teachers classes"], Int[Array, " rows"], Bool[Array, "rows teachers"] | None],
        Float[Array, "rows components"],
    ]

    def __call__(self, key, teacher_probs, inputs, labels, is_asked=None):
        del key, inputs
        return self.of_rows(teacher_probs, labels, is_asked)

    def fit(self, key, teacher_probs, inputs, labels, is_asked=None):
        return self(key, teacher_probs, inputs, labels, is_asked), {}

    def weigh(self, fitted, teacher_probs, inputs, is_asked=None):
        del fitted, inputs
        return self.of_rows(teacher_probs, jnp.full(teacher_probs.shape[0], -1, jnp.int32), is_asked)


def uniform_weighting() -> RuleForNewRows:
    """Every teacher weighs the same on every example."""

    def of_rows(teacher_probs, labels, is_asked):
        del labels, is_asked
        return _without_flat(jnp.ones(teacher_probs.shape[:2], teacher_probs.dtype))

    return _RowByRow(of_rows)


def entropy_weighting() -> RuleForNewRows:
    """The paper's rule: a teacher weighs more the lower its entropy (equation 10).

        w_i^g = ξ(H_i^g) / Σ_g ξ(H_i^g),    ξ(H_i^g) = 1 − H_i^g / Σ_g H_i^g

    with the ξ of the authors' script, over the teachers that were asked. A single one gets weight one; where every
    entropy is zero the weights are equal. A confident teacher outside its domain is preferred by this rule; where there
    are labels, learned trust knows better.
    """

    def of_rows(teacher_probs, labels, is_asked):
        del labels
        entropies = entr(teacher_probs).sum(-1)
        if is_asked is not None:
            entropies = jnp.where(is_asked, entropies, 0.0)
        total = entropies.sum(-1, keepdims=True)
        share = jnp.where(total > 0, entropies / jnp.where(total > 0, total, 1.0), 0.0)
        # One teacher would get 1 − H / H = 0: its weight is one whatever its entropy.
        if is_asked is not None:
            share = jnp.where(is_asked.sum(-1, keepdims=True) > 1, share, 0.0)
        return _without_flat(1.0 - share if teacher_probs.shape[1] > 1 else jnp.ones_like(share))

    return _RowByRow(of_rows)


def confidence_aware_weighting() -> RuleForNewRows:
    """The rule of CA-MKD (Zhang et al. 2022, equation 2): a teacher weighs more the better it does on the label.

        w_i^g = (1 − exp(CE_i^g) / Σ_j exp(CE_i^j)) / (G − 1),    CE_i^g = −log p_i^g[y_i]

    over the teachers that were asked. The weights sum to one (the authors' script divides them by G once more). An
    example without a label, of which the rule knows nothing, weighs its teachers equally; a single teacher gets weight
    one.
    """

    def of_rows(teacher_probs, labels, is_asked):
        num_asked = teacher_probs.shape[1] if is_asked is None else is_asked.sum(-1, keepdims=True)
        of_label = jnp.take_along_axis(teacher_probs, jnp.maximum(labels, 0)[:, None, None], axis=2)[..., 0]
        # exp(CE) = 1 / p; a probability that was rounded to zero is no reason for NaN.
        losses = -jnp.log(jnp.maximum(of_label, jnp.finfo(of_label.dtype).tiny))
        if is_asked is not None:
            losses = jnp.where(is_asked, losses, jnp.finfo(losses.dtype).min)
        shares = jax.nn.softmax(losses, axis=1)
        is_known = (labels >= 0)[:, None] & (num_asked > 1)
        return _without_flat(jnp.where(is_known, 1.0 - shares, 1.0))

    return _RowByRow(of_rows)


@dataclass(frozen=True)
class _AccuracyByClass:
    """The rule of ``accuracy_by_class_weighting``."""

    def __call__(self, key, teacher_probs, inputs, labels, is_asked=None):
        return self.fit(key, teacher_probs, inputs, labels, is_asked)[0]

    def fit(self, key, teacher_probs, inputs, labels, is_asked=None):
        del key, inputs
        says = teacher_probs.argmax(-1)
        counts = jnp.broadcast_to((labels >= 0)[:, None], says.shape)
        if is_asked is not None:
            counts &= is_asked
        own_said = counts.astype(teacher_probs.dtype)
        own_right = jnp.where(says == labels[:, None], own_said, 0.0)
        teachers = jnp.arange(says.shape[1])
        zeros = jnp.zeros(teacher_probs.shape[1:], teacher_probs.dtype)
        said = zeros.at[teachers, says].add(own_said)
        right = zeros.at[teachers, says].add(own_right)
        # No label has a say in the weights of its own example.
        accuracies = _shrunk(right[teachers, says] - own_right, said[teachers, says] - own_said, zeros.shape[1])
        return _beside_a_guess(accuracies, zeros.shape[1]), {"accuracies": _shrunk(right, said, zeros.shape[1])}

    def weigh(self, fitted, teacher_probs, inputs, is_asked=None):
        del inputs, is_asked
        accuracies = fitted["accuracies"][jnp.arange(teacher_probs.shape[1]), teacher_probs.argmax(-1)]
        return _beside_a_guess(accuracies, teacher_probs.shape[2])


def _beside_a_guess(accuracies: Float[Array, "rows teachers"], num_classes: int) -> Float[Array, "rows components"]:
    """Log weights in proportion to accuracies, the flat component's being that of a guess."""
    weights = jnp.pad(accuracies, ((0, 0), (1, 0)), constant_values=1 / num_classes)
    return jnp.log(weights / weights.sum(-1, keepdims=True))


def _shrunk(right: Float[Array, "..."], said: Float[Array, "..."], num_classes: int) -> Float[Array, "..."]:
    """Towards chance, which takes as many examples as there are classes to overcome."""
    return (right + 1) / (said + num_classes)


def accuracy_by_class_weighting() -> RuleForNewRows:
    """A teacher weighs as much as it is right, on labelled examples, when it says the class that it says here.

        w_i^g ∝ A_g[c_i^g],    c_i^g = argmax_c p_i^g[c],    A_g[c] = (1 + r_g[c]) / (C + n_g[c]),    w_i^0 ∝ 1 / C

    where the teacher has said c on n_g[c] labelled examples and been right on r_g[c] of them. A is the posterior mean
    of its accuracy under a Beta(1, C − 1) prior, whose mean is that of a guess; a guess is also what the flat component
    is worth. An example's own label is left out of its A. As for learned trust, labels that the teachers were trained
    on flatter them. A teacher that is asked about other inputs than those that the labels are of is weighed by the
    wrong ones: the rule knows classes and no places, of which learned trust knows as well.
    """
    return _AccuracyByClass()


def fixed_weighting(weights: Sequence[float]) -> RuleForNewRows:
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

    def of_rows(teacher_probs, labels, is_asked):
        del labels, is_asked
        if values.size != teacher_probs.shape[1]:
            raise InputError(
                "fixed_weighting",
                "weights",
                f"{values.size} weights",
                f"{teacher_probs.shape[1]}, one for each teacher",
                "Give the weights in the order of the teachers.",
            )
        return _without_flat(jnp.broadcast_to(values, teacher_probs.shape[:2]))

    return _RowByRow(of_rows)


def pooled_probs(
    teacher_probs: Float[Array, "examples teachers classes"], log_weights: Float[Array, "examples components"]
) -> Float[Array, "examples classes"]:
    """The weighted mean of all components, the flat one included: Σ_g w_i^g p_i^g."""
    uniform = jnp.full_like(teacher_probs[:, :1], 1.0 / teacher_probs.shape[-1])
    return jnp.einsum("eg,egc->ec", jnp.exp(log_weights), jnp.concatenate([uniform, teacher_probs], axis=1))


def _without_flat(weights: Float[Array, "examples teachers"]) -> Float[Array, "examples components"]:
    normalised = weights / weights.sum(-1, keepdims=True)
    return jnp.log(jnp.pad(normalised, ((0, 0), (1, 0))))
