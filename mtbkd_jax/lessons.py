"""Lessons: what the teachers taught, given some labels."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtbkd_jax.centers import Centers, distil_centers
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples
from mtbkd_jax.folds import held_out_labels
from mtbkd_jax.function_prior import dirichlet_components
from mtbkd_jax.selection import Fold
from mtbkd_jax.settings import PosteriorSettings
from mtbkd_jax.students import Student
from mtbkd_jax.tails import KnownClasses
from mtbkd_jax.types import Key, Params, Scalar
from mtbkd_jax.weighting import (
    FittedRule,
    WeightingRule,
    among_asked,
    check_heeds_missing,
    check_weighs_new_rows,
    flat_alone,
)


class Lessons(NamedTuple):
    """What the teachers taught, given some labels.

    Attributes:
      examples: inputs and labels, those with a label first.
      teacher_probs: softened probabilities; flat where a teacher was not asked.
      log_weights: of the flat component and of each teacher.
      centers: the student's parameters distilled from the pool and from each teacher.
      fitted_rule: what the weighting rule has found, where the examples are a sample of the data and it has to weigh
        other rows; None where they are all of them.
      is_asked: whether each teacher was asked about each example; None where all were about all.
      known: of which classes teachers gave the probability, and what becomes of the others; None where they gave all.
    """

    examples: Examples
    teacher_probs: Float[Array, "examples teachers classes"]
    log_weights: Float[Array, "examples components"]
    centers: Centers
    fitted_rule: FittedRule | None = None
    is_asked: Bool[Array, "examples teachers"] | None = None
    known: KnownClasses | None = None


def with_components(lessons: Lessons, settings: PosteriorSettings) -> Examples:
    """The examples with the components of the function-space prior, at the concentration of the settings."""
    components = dirichlet_components(lessons.teacher_probs, lessons.log_weights, settings.concentration, lessons.known)
    return lessons.examples._replace(components=components)


NUM_CLIMB_STAGES = 2
"""Stages of a climb to the mode, see ``at_climb_stage``."""


def at_climb_stage(lessons: Lessons, settings: PosteriorSettings, stage: Int[Array, ""]) -> Examples:
    """The examples that a climb to the mode sees first, at a concentration of one or less, and then in earnest.

    At a high concentration every example belongs to the teacher that the student happens to agree with, and the
    posterior has a mode for each way to share them out. At a low one all teachers that are trusted have a say.
    """
    mild = jnp.minimum(settings.concentration, 1.0)
    concentration = jnp.where(stage == 0, mild, settings.concentration)
    return with_components(lessons, settings._replace(concentration=concentration))


def prepare_lessons(
    key: Key,
    labels: Int[np.ndarray, " examples"],
    is_taught: Bool[np.ndarray, " examples"],
    *,
    student: Student,
    inputs: Array,
    teacher_probs: Float[Array, "examples teachers classes"],
    rule: WeightingRule,
    center_scale: float | Scalar,
    given_centers: Mapping[int, Params] | None = None,
    stands_for: Float[Array, " examples"] | None = None,
    is_asked: Bool[Array, "examples teachers"] | None = None,
    known: KnownClasses | None = None,
) -> Lessons:
    """Weigh the teachers and distil the centers.

    Args:
      key: of both.
      labels: the only ones that are used.
      is_taught: False for examples that the teachers are silent about.
      student: the network.
      inputs: ``[examples, ...]``.
      teacher_probs: softened probabilities; flat where a teacher was not asked.
      rule: weighs the teachers.
      center_scale: holds the centers back, see ``distil_centers``.
      given_centers: parameters that stand for those distilled from teacher g, by g.
      stands_for: as in ``Examples``; with it the rule is a ``RuleForNewRows``.
      is_asked: as in ``Lessons``. A teacher has no weight on an example that it was not asked about, and one that no
        teacher was asked about is not taught.
      known: as in ``Lessons``.

    Raises:
      InputError: if the rule does not give a weight to the flat component and to each teacher, for each example, or
        cannot be told that a teacher was not asked.
    """
    weight_key, center_key = jax.random.split(key)
    known_labels = jnp.asarray(labels, jnp.int32)
    log_weights, fitted_rule = _apply(
        rule, weight_key, teacher_probs, inputs, known_labels, is_asked, is_sample=stands_for is not None
    )
    expected = teacher_probs.shape[0], 1 + teacher_probs.shape[1]
    if jnp.shape(log_weights) != expected:
        action = "Give -inf to the flat component, column 0, if the rule has none."
        raise InputError("weighting", "log_weights", f"shape {jnp.shape(log_weights)}", f"{expected}", action)
    plays_part = jnp.asarray(is_taught)
    if is_asked is not None:
        log_weights = among_asked(log_weights, is_asked)
        plays_part &= is_asked.any(axis=1)
    log_weights = jnp.where(is_taught[:, None], log_weights, flat_alone(log_weights.shape[1]))
    centers = distil_centers(
        center_key, student, inputs, teacher_probs, log_weights, center_scale, plays_part, stands_for
    )
    for teacher, given in (given_centers or {}).items():
        params = jax.tree.map(lambda leaf, own, row=1 + teacher: leaf.at[row].set(own), centers.params, given)
        centers = centers._replace(params=params)
    examples = Examples(inputs, known_labels, stands_for=stands_for)
    return Lessons(examples, teacher_probs, log_weights, centers, fitted_rule, is_asked, known)


def _apply(
    rule: WeightingRule,
    key: Key,
    teacher_probs: Array,
    inputs: Array,
    labels: Array,
    is_asked: Array | None,
    *,
    is_sample: bool,
) -> tuple[Array, FittedRule | None]:
    """The weights, and of a sample what weighs the rows that are not in it."""
    # Where all were asked, a rule need not know that some might not have been.
    given = (key, teacher_probs, inputs, labels) if is_asked is None else (key, teacher_probs, inputs, labels, is_asked)
    if is_asked is not None:
        check_heeds_missing(rule)
    return check_weighs_new_rows(rule).fit(*given) if is_sample else (rule(*given), None)


def held_out_folds(
    key: Key,
    lessons: Lessons,
    prepare: Callable[[Key, Int[np.ndarray, " examples"], Bool[np.ndarray, " examples"]], Lessons],
    fold_of_example: Int[np.ndarray, " examples"],
) -> list[Fold]:
    """Lessons without each fold of the labelled examples.

    A held-out example stands for one that no teacher was asked about, as those to predict will be, so its teachers are
    not heard either. Were they, the settings would be chosen for how closely the student can follow them there.

    Args:
      key: of the lessons.
      lessons: of all labels.
      prepare: ``(key, labels, is_taught) -> lessons``.
      fold_of_example: as ``folds.deal_folds`` gives it.
    """
    labels = np.asarray(lessons.examples.labels)
    num_labelled = int((labels >= 0).sum())
    return [
        Fold(
            prepare(jax.random.fold_in(key, index), kept, fold_of_example != index),
            lessons.examples.inputs[:num_labelled],
            jnp.asarray(held_out),
        )
        for index, (kept, held_out) in enumerate(held_out_labels(labels, fold_of_example))
    ]
