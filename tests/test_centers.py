import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.centers import CENTER_SCALES, choose_center_scale, distil_centers
from mtbkd_jax.students import mlp

STUDENT = mlp(num_features=2, hidden=(32,), num_classes=2)
NUM_EXAMPLES = 300
EVERYONE = jnp.ones(NUM_EXAMPLES, bool)


@pytest.fixture(scope="module")
def problem():
    """Two teachers that say the opposite; each is trusted on its side of zero."""
    inputs = jax.random.normal(jax.random.key(0), (NUM_EXAMPLES, 2))
    first = jax.nn.sigmoid(3 * inputs[:, 1])
    probs = jnp.stack([jnp.stack([1 - first, first], 1), jnp.stack([first, 1 - first], 1)], axis=1)
    is_left = inputs[:, 0] < 0
    weights = jnp.where(is_left[:, None], jnp.array([[0.02, 0.96, 0.02]]), jnp.array([[0.02, 0.02, 0.96]]))
    return inputs, probs, jnp.log(weights), np.asarray(is_left)


@pytest.fixture(scope="module")
def centers(problem):
    inputs, probs, log_weights, _ = problem
    return distil_centers(jax.random.key(1), STUDENT, inputs, probs, log_weights, 3.0, EVERYONE)


def cross_entropy(params, inputs, targets):
    return -jnp.sum(targets * jax.nn.log_softmax(STUDENT.apply(params, inputs)), axis=-1)


def is_away_from_the_border(inputs):
    """Where one teacher takes over from its opposite, no student of so few parameters can follow both."""
    return np.abs(np.asarray(inputs[:, 0])) > 0.3


@pytest.mark.parametrize("teacher", [0, 1])
def test_a_center_follows_its_teacher_where_it_is_trusted(problem, centers, teacher):
    inputs, probs, _, is_left = problem
    rows = (is_left if teacher == 0 else ~is_left) & is_away_from_the_border(inputs)
    params = jax.tree.map(lambda leaf: leaf[1 + teacher], centers.params)
    losses = cross_entropy(params, inputs[rows], probs[rows, teacher])
    entropies = jnp.sum(jax.scipy.special.entr(probs[rows, teacher]), axis=-1)
    random = cross_entropy(STUDENT.init(jax.random.key(9)), inputs[rows], probs[rows, teacher])
    # Above the teacher's entropy, which no student can go below, at most a tenth of what a random one loses.
    assert float((losses - entropies).mean()) < 0.1 * float((random - entropies).mean())


@pytest.mark.parametrize("teacher", [0, 1])
def test_a_center_follows_the_pool_where_its_teacher_is_not_trusted(problem, centers, teacher):
    inputs, probs, _, is_left = problem
    rows = (~is_left if teacher == 0 else is_left) & is_away_from_the_border(inputs)
    predictions = STUDENT.apply(jax.tree.map(lambda leaf: leaf[1 + teacher], centers.params), inputs[rows])
    agrees = predictions.argmax(1) == probs[rows, 1 - teacher].argmax(1)
    assert float(agrees.mean()) > 0.9


def test_the_pool_follows_the_trusted_teacher_on_each_side(problem, centers):
    inputs, probs, log_weights, _ = problem
    params = jax.tree.map(lambda leaf: leaf[0], centers.params)
    trusted = jnp.where(log_weights[:, 1:2] > log_weights[:, 2:3], probs[:, 0], probs[:, 1])
    agrees = STUDENT.apply(params, inputs).argmax(1) == trusted.argmax(1)
    assert float(agrees.mean()) > 0.9


def test_mean_weights_are_the_teachers_weights_in_the_weight_space_prior(problem, centers):
    np.testing.assert_allclose(centers.mean_weights, np.exp(problem[2]).mean(0), rtol=1e-5)
    assert float(centers.mean_weights.sum()) == pytest.approx(1.0, rel=1e-5)


def test_a_small_scale_holds_the_centers_back(problem, centers):
    inputs, probs, log_weights, _ = problem
    held_back = distil_centers(jax.random.key(1), STUDENT, inputs, probs, log_weights, 0.05, EVERYONE)
    sizes = [sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(c.params)) for c in (held_back, centers)]
    assert sizes[0] < 0.1 * sizes[1]


def test_a_teacher_that_is_a_student_itself_asks_for_a_wide_scale():
    inputs = jax.random.normal(jax.random.key(2), (NUM_EXAMPLES, 2))
    teacher = jax.tree.map(lambda leaf: 3 * leaf, STUDENT.init(jax.random.key(3)))
    probs = jax.nn.softmax(STUDENT.apply(teacher, inputs))[:, None]
    scale = float(choose_center_scale(jax.random.key(4), STUDENT, inputs, probs))
    assert any(scale == pytest.approx(candidate) for candidate in CENTER_SCALES)
    assert scale > min(CENTER_SCALES)


def test_what_teachers_say_of_examples_that_are_not_taught_plays_no_part(problem):
    inputs, probs, log_weights, is_left = problem
    is_taught = jnp.asarray(is_left)
    altered = jnp.where(is_taught[:, None, None], probs, jnp.array([0.9, 0.1])[None, None])
    one, other = (
        distil_centers(jax.random.key(1), STUDENT, inputs, p, log_weights, 3.0, is_taught) for p in (probs, altered)
    )
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_an_example_that_stands_for_several_counts_as_often(problem):
    inputs, probs, log_weights, is_left = problem
    times = jnp.where(is_left, 0.0, jnp.arange(NUM_EXAMPLES) % 3 + 1.0)
    repeated = jnp.repeat(jnp.arange(NUM_EXAMPLES), times.astype(int))
    sample = distil_centers(jax.random.key(1), STUDENT, inputs, probs, log_weights, 3.0, EVERYONE, times)
    np.testing.assert_allclose(sample.mean_weights, jnp.exp(log_weights[repeated]).mean(0), rtol=1e-5)
    is_taught, ones = jnp.asarray(~is_left), jnp.ones(NUM_EXAMPLES)
    one, other = (
        distil_centers(jax.random.key(1), STUDENT, inputs, probs, log_weights, 3.0, taught, stands_for)
        for taught, stands_for in ((is_taught, ones), (EVERYONE, ones * is_taught))
    )
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
