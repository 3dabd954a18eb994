"""Lessons in regression: the examples with what the teachers taught, given all labels or all but those of a fold."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax.examples import Examples, WeightedExamples
from mtbkd_jax.regression.folds import folds_of_targets
from mtbkd_jax.regression.function_prior import gaussian_components
from mtbkd_jax.regression.teachers import GaussianTeachers, broad_component
from mtbkd_jax.regression.trust import GaussianRule
from mtbkd_jax.types import Key


def taught_examples(
    key: Key,
    inputs: Array,
    targets: Float[Array, " examples"],
    teachers: GaussianTeachers,
    *,
    rule: GaussianRule,
    concentration: float = 1.0,
) -> Examples:
    """Weigh the teachers, and put the components of the function-space prior beside inputs and targets.

    Args:
      key: of the rule.
      inputs: ``[examples, ...]``.
      targets: NaN where unknown.
      teachers: what they say.
      rule: weighs them.
      concentration: λ.
    """
    trust = rule(key, teachers, inputs, targets)
    components = gaussian_components(
        teachers.means, trust.sds, trust.log_weights, broad_component(targets), concentration
    )
    return Examples(inputs, targets, components)


class HeldOut(NamedTuple):
    """Lessons without each fold of the labels.

    Attributes:
      lessons: stacked over folds. The examples of a fold weigh nothing in its own lesson: they stand for those to
        predict, of which neither the label nor what teachers say is known.
      fold_of_example: the fold that an example's label is held out in, -1 where there is no label.
    """

    lessons: WeightedExamples
    fold_of_example: Int[np.ndarray, " examples"]


def held_out_lessons(
    key: Key,
    inputs: Array,
    targets: Float[Array, " examples"],
    teachers: GaussianTeachers,
    *,
    rule: GaussianRule,
    concentration: float = 1.0,
    num_folds: int = 5,
) -> HeldOut:
    """Deal the labels out over folds and learn again without each; arguments are those of ``taught_examples``."""
    fold_key, *keys = jax.random.split(key, 1 + num_folds)
    folds = folds_of_targets(fold_key, np.asarray(targets), num_folds)
    lessons = []
    for fold, lesson_key in enumerate(keys):
        kept = jnp.where(folds == fold, jnp.nan, targets)
        examples = taught_examples(lesson_key, inputs, kept, teachers, rule=rule, concentration=concentration)
        lessons.append(WeightedExamples(examples, jnp.asarray(folds != fold, jnp.float32)))
    return HeldOut(stack_lessons(lessons), folds)


def stack_lessons(lessons: list[WeightedExamples]) -> WeightedExamples:
    """One after the other along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *lessons)
