import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.regression.teachers import gaussian_teachers
from mtbkd_jax.regression.trust import equal_gaussian_trust, learned_gaussian_trust

NUM_EXAMPLES, NUM_KNOWN = 400, 100


@pytest.fixture(scope="module")
def two_domains():
    """Teacher 0 errs by 0.1 where x < 0 and by 2 elsewhere; teacher 1 the reverse."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (NUM_EXAMPLES, 2)).astype(np.float32)
    truth = rng.normal(0, 1, NUM_EXAMPLES)
    at_home = np.stack([x[:, 0] < 0, x[:, 0] >= 0], axis=1)
    teachers = gaussian_teachers(truth[:, None] + np.where(at_home, 0.1, 2.0) * rng.normal(size=(NUM_EXAMPLES, 2)))
    targets = np.where(np.arange(NUM_EXAMPLES) % 4 == 3, truth, np.nan)
    return jnp.asarray(x), teachers, jnp.asarray(targets, jnp.float32), at_home


@pytest.fixture(scope="module")
def trust(two_domains):
    inputs, teachers, targets, _ = two_domains
    return learned_gaussian_trust()(jax.random.key(0), teachers, inputs, targets)


def test_trust_goes_to_the_teacher_that_is_right_there(two_domains, trust):
    weights = np.exp(np.asarray(trust.log_weights))
    assert weights[:, 1:][two_domains[3]].mean() > 0.8
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)


def test_a_teacher_is_as_far_off_as_at_home(trust):
    assert float(trust.sds.max()) < 0.3


def test_equal_trust_has_no_broad_component_and_counts_all_errors(two_domains):
    inputs, teachers, targets, _ = two_domains
    equal = equal_gaussian_trust()(jax.random.key(0), teachers, inputs, targets)
    np.testing.assert_allclose(np.exp(equal.log_weights), np.tile([0, 0.5, 0.5], (NUM_EXAMPLES, 1)), rtol=1e-6)
    assert float(equal.sds.min()) > 1


def test_too_few_targets_say_how_many_are_needed(two_domains):
    inputs, teachers, targets, _ = two_domains
    with pytest.raises(InputError, match="at least 10"):
        learned_gaussian_trust()(jax.random.key(0), teachers, inputs, targets.at[30:].set(jnp.nan))
