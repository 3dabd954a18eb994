"""Each rule for the classes that a teacher gave nothing of, against Dirichlet densities and integrals by SciPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mtbkd_jax.examples import Examples
from mtbkd_jax.function_prior import dirichlet_components, responsibilities, teacher_informed_prior
from mtbkd_jax.tails import RULES

CONCENTRATION = 4.0
PROBS = np.array([0.5, 0.3, 0.15, 0.05])
IS_KNOWN = np.array([True, False, True, False])
"""The teacher gave classes 0 and 2; of the others it is known that they have .35 together."""


def log_density(rule, logits, probs=PROBS, is_known=IS_KNOWN, concentration=CONCENTRATION):
    """Of one teacher alone, at each row of logits."""
    num_rows = logits.shape[0]
    teachers = jnp.broadcast_to(jnp.asarray(probs, jnp.float32), (num_rows, 1, probs.size))
    known = RULES[rule](jnp.broadcast_to(jnp.asarray(is_known), (num_rows, 1, probs.size)))
    alone = jnp.log(jnp.broadcast_to(jnp.array([0.0, 1.0]), (num_rows, 2)))
    components = dirichlet_components(teachers, alone, concentration, known)
    return teacher_informed_prior()(logits, Examples(jnp.zeros((num_rows, 1)), jnp.full(num_rows, -1), components))


def uniform_simplex(num_draws, seed=0, num_classes=4):
    return np.random.default_rng(seed).dirichlet(np.ones(num_classes), num_draws)


def logits_of(q):
    return jnp.log(jnp.asarray(q, jnp.float32))


def by_hand(rule, q):
    """Log densities of q by those of its parts, each a Dirichlet of SciPy's."""
    known, others = q[IS_KNOWN], q[~IS_KNOWN]
    p, tail, m = PROBS[IS_KNOWN], PROBS[~IS_KNOWN].sum(), int((~IS_KNOWN).sum())
    logpdf = scipy.stats.dirichlet.logpdf
    if rule == "drop":
        return logpdf(q, 1 + CONCENTRATION * np.where(IS_KNOWN, PROBS, 0))
    if rule == "renormalise":
        # q = (s r, (1 - s) u): proportions r and u, and s ~ Beta(k, m); the powers are of the change of variables.
        total, k = known.sum(), known.size
        return (
            logpdf(known / total, 1 + CONCENTRATION * p / p.sum())
            + scipy.stats.beta.logpdf(total, k, m)
            + logpdf(others / others.sum(), np.ones(m))
            - (k - 1) * np.log(total)
            - (m - 1) * np.log(1 - total)
        )
    bucket = others.sum()
    together = logpdf(np.append(known, bucket), np.append(1 + CONCENTRATION * p, m + CONCENTRATION * tail))
    return together + logpdf(others / bucket, np.ones(m)) - (m - 1) * np.log(bucket)


@pytest.mark.parametrize("rule", RULES)
def test_the_density_is_that_of_its_parts(rule):
    q = uniform_simplex(20)
    found = log_density(rule, logits_of(q))
    np.testing.assert_allclose(found, [by_hand(rule, row) for row in q], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_the_density_integrates_to_one(rule):
    q = uniform_simplex(20_000, seed=1)
    # The volume of the simplex is 1 / Γ(C).
    values = np.exp(np.asarray(log_density(rule, logits_of(q)), np.float64)) / scipy.special.gamma(4)
    assert values.mean() == pytest.approx(1, abs=4 * values.std() / np.sqrt(values.size))


@pytest.mark.parametrize("rule", RULES)
def test_a_teacher_that_gave_all_classes_has_its_dirichlet(rule):
    q = uniform_simplex(5)
    found = log_density(rule, logits_of(q), is_known=np.ones(4, bool))
    expected = [scipy.stats.dirichlet.logpdf(row, 1 + CONCENTRATION * PROBS) for row in q]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_a_teacher_of_no_strength_says_nothing(rule):
    found = log_density(rule, logits_of(uniform_simplex(5)), concentration=1e-6)
    np.testing.assert_allclose(found, scipy.special.gammaln(4), atol=1e-4)


def test_one_class_in_a_bucket_is_known_and_one_class_renormalised_says_nothing():
    q = logits_of(uniform_simplex(5))
    all_but_one, one_alone = np.array([True, True, True, False]), np.array([True, False, False, False])
    expected = log_density("bucket", q, is_known=np.ones(4, bool))
    np.testing.assert_allclose(log_density("bucket", q, is_known=all_but_one), expected, rtol=1e-4, atol=1e-4)
    nothing = log_density("renormalise", q, is_known=one_alone)
    np.testing.assert_allclose(nothing, scipy.special.gammaln(4), atol=1e-4)


def pull_by_hand(rule, q):
    """∂ log f / ∂ logits, by the pseudo-labels that a rule makes of the student's own proportions."""
    known = np.where(IS_KNOWN, PROBS, 0)
    if rule == "drop":
        return CONCENTRATION * (known - known.sum() * q)
    if rule == "renormalise":
        return CONCENTRATION * (known / known.sum() - np.where(IS_KNOWN, q, 0) / q[IS_KNOWN].sum())
    others = np.where(IS_KNOWN, 0, q)
    return CONCENTRATION * (known + (1 - known.sum()) * others / others.sum() - q)


@pytest.mark.parametrize("rule", RULES)
def test_the_pull_on_the_student_is_that_of_pseudo_labels(rule):
    q = uniform_simplex(3)
    found = jax.grad(lambda logits: log_density(rule, logits).sum())(logits_of(q))
    np.testing.assert_allclose(found, [pull_by_hand(rule, row) for row in q], atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_finite_wherever_the_student_is(rule):
    logits = jnp.array([[300.0, -300.0, 0.0, -300.0], [-300.0, 300.0, -300.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda logits: log_density(rule, logits).sum())(logits)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("rule", RULES)
def test_in_a_mixture_the_flat_component_keeps_its_density(rule):
    teachers, known = jnp.asarray(PROBS, jnp.float32)[None, None], RULES[rule](jnp.asarray(IS_KNOWN)[None, None])
    components = dirichlet_components(teachers, jnp.log(jnp.full((1, 2), 0.5)), CONCENTRATION, known)
    q = uniform_simplex(1)
    shares = responsibilities(logits_of(q), components)
    density = np.exp(by_hand(rule, q[0]))
    np.testing.assert_allclose(shares, [[6 / (6 + density), density / (6 + density)]], rtol=1e-4)


def test_rules_are_compiled_for_any_concentration():
    q = logits_of(uniform_simplex(2))
    for rule in RULES:
        compiled = jax.jit(partial(log_density, rule))
        np.testing.assert_allclose(compiled(q, concentration=2.0), log_density(rule, q, concentration=2.0), rtol=1e-4)
