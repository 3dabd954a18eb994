"""Teachers that were not asked about some examples: what they teach, and what nobody does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax import centers
from mtbkd_jax.errors import InputError
from mtbkd_jax.function_prior import responsibilities, teacher_informed_prior
from mtbkd_jax.lessons import Lessons, prepare_lessons, with_components
from mtbkd_jax.settings import PosteriorSettings
from mtbkd_jax.students import mlp
from mtbkd_jax.weighting import (
    confidence_aware_weighting,
    entropy_weighting,
    fixed_weighting,
    uniform_weighting,
)

NUM_EXAMPLES = 6
RULES = {
    "uniform": uniform_weighting(),
    "entropy": entropy_weighting(),
    "confidence": confidence_aware_weighting(),
    "fixed": fixed_weighting([1.0, 2.0, 0.5]),
}
STUDENT = mlp(num_features=2, hidden=(3,), num_classes=4)
SETTINGS = PosteriorSettings(1.0, 5.0, 0.1, 1.0)
INPUTS = jax.random.normal(jax.random.key(0), (NUM_EXAMPLES, 2))
LABELS = np.array([0, 1, 2, -1, -1, -1], np.int32)
PROBS = jax.nn.softmax(2 * jax.random.normal(jax.random.key(1), (NUM_EXAMPLES, 3, 4)))
IS_ASKED = jnp.array(
    [
        [True, True, False],
        [False, True, True],
        [True, True, True],
        [True, False, False],
        [False] * 3,
        [True, True, False],
    ]
)
NOBODY = 4
"""The example that no teacher was asked about."""


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """The centers need not be good here."""
    monkeypatch.setattr(centers, "_NUM_STEPS", 3)


def lessons_with(rule, probs=PROBS, is_asked=IS_ASKED, labels=LABELS, inputs=INPUTS) -> Lessons:
    return prepare_lessons(
        jax.random.key(2),
        labels,
        np.ones(len(labels), bool),
        student=STUDENT,
        inputs=inputs,
        teacher_probs=probs,
        rule=rule,
        center_scale=1.0,
        is_asked=is_asked,
    )


@pytest.mark.parametrize("name", RULES)
def test_the_others_weigh_as_if_the_missing_teacher_did_not_exist(name):
    lessons = lessons_with(RULES[name])
    weights, asked = np.exp(np.asarray(lessons.log_weights)), np.asarray(IS_ASKED)
    np.testing.assert_array_equal(weights[:, 1:][~asked], 0)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    for example in np.delete(np.arange(NUM_EXAMPLES), NOBODY):
        kept = np.flatnonzero(asked[example])
        rule = fixed_weighting([[1.0, 2.0, 0.5][teacher] for teacher in kept]) if name == "fixed" else RULES[name]
        alone = rule(None, PROBS[example][None, kept], INPUTS[example][None], jnp.asarray(LABELS[example])[None])
        np.testing.assert_allclose(weights[example, 1 + kept], np.exp(alone)[0, 1:], rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_an_example_that_no_teacher_was_asked_about_is_not_taught(name):
    lessons = lessons_with(RULES[name])
    assert np.exp(np.asarray(lessons.log_weights[NOBODY])).tolist() == [1, 0, 0, 0]
    log_density = partial(teacher_informed_prior(), examples=with_components(lessons, SETTINGS))
    gradient = jax.grad(lambda logits: log_density(logits).sum())(jnp.ones((NUM_EXAMPLES, 4)).at[:, 0].set(3.0))
    np.testing.assert_allclose(gradient[NOBODY], 0, atol=1e-6)
    assert jnp.isfinite(gradient).all()


def test_a_teacher_has_no_responsibility_where_it_was_not_asked():
    examples = with_components(lessons_with(RULES["entropy"]), SETTINGS)
    shares = np.asarray(responsibilities(STUDENT.apply(STUDENT.init(jax.random.key(3)), INPUTS), examples.components))
    np.testing.assert_array_equal(shares[:, 1:][~np.asarray(IS_ASKED)], 0)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)


def test_what_stands_where_a_teacher_was_not_asked_plays_no_part():
    others = jnp.where(IS_ASKED[..., None], PROBS, jnp.array([0.97, 0.01, 0.01, 0.01]))
    for rule in RULES.values():
        one, other = lessons_with(rule), lessons_with(rule, others)
        np.testing.assert_array_equal(one.log_weights, other.log_weights)
        for leaf, same in zip(jax.tree.leaves(one.centers), jax.tree.leaves(other.centers), strict=True):
            np.testing.assert_array_equal(leaf, same)


def test_an_example_that_nobody_was_asked_about_plays_no_part_in_the_centers():
    one, other = (lessons_with(RULES["uniform"], inputs=INPUTS.at[NOBODY].set(value)) for value in (0.0, 5.0))
    for leaf, same in zip(jax.tree.leaves(one.centers), jax.tree.leaves(other.centers), strict=True):
        np.testing.assert_array_equal(leaf, same)


def test_with_everybody_asked_a_mask_changes_no_bit():
    for rule in RULES.values():
        one, other = lessons_with(rule, is_asked=None), lessons_with(rule, is_asked=jnp.ones_like(IS_ASKED))
        np.testing.assert_array_equal(one.log_weights, other.log_weights)


def test_a_rule_that_cannot_be_told_is_refused_only_where_a_teacher_is_missing():
    def my_rule(key, teacher_probs, inputs, labels):
        return RULES["uniform"](key, teacher_probs, inputs, labels)

    assert lessons_with(my_rule, is_asked=None).is_asked is None
    with pytest.raises(InputError, match=r"my_rule, which has no argument `is_asked`"):
        lessons_with(my_rule)


def test_the_scale_of_the_centers_is_chosen_without_what_was_not_said(monkeypatch):
    monkeypatch.setattr(centers, "CENTER_SCALES", (0.1, 1.0))
    others = jnp.where(IS_ASKED[..., None], PROBS, jnp.array([0.97, 0.01, 0.01, 0.01]))
    one, other = (
        centers.choose_center_scale(jax.random.key(4), STUDENT, INPUTS, probs, is_asked=IS_ASKED)
        for probs in (PROBS, others)
    )
    assert float(one) == float(other)
