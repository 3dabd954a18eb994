"""Tests of mtbkd_jax.alignment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.alignment import align_params, average_params, barrier, cnn_layers, mlp_layers
from mtbkd_jax.errors import InputError
from mtbkd_jax.posterior import find_mode
from mtbkd_jax.students import cnn, mlp
from mtbkd_jax.tree import named_leaves
from mtbkd_jax.weight_prior import gaussian_prior

MLP = mlp(num_features=5, hidden=(12, 9), num_classes=3), mlp_layers(2), (5,)
CNN = cnn(image_shape=(8, 8), channels=(6, 7), num_classes=3), cnn_layers(2), (8, 8)
STUDENTS = pytest.mark.parametrize(("student", "layers", "input_shape"), [MLP, CNN], ids=["mlp", "cnn"])


def random_params(student, seed):
    """Parameters with every entry random, biases and scales too."""
    shapes = jax.eval_shape(student.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


def permuted(params, layers, seed):
    rng = np.random.default_rng(seed)
    leaves = named_leaves(params)
    for layer in layers:
        name, axis = next(iter(layer.items()))
        order = rng.permutation(leaves[name].shape[axis])
        leaves |= {name: jnp.take(leaves[name], order, axis) for name, axis in layer.items()}
    return jax.tree.unflatten(jax.tree.structure(params), leaves.values())


def distance(a, b):
    gaps = jax.tree.map(lambda x, y: np.sum((np.asarray(x, np.float64) - np.asarray(y, np.float64)) ** 2), a, b)
    return np.sqrt(sum(jax.tree.leaves(gaps)))


@STUDENTS
def test_a_permutation_of_the_reference_is_undone_exactly(student, layers, input_shape):
    reference = random_params(student, 0)
    for seed in range(5):
        scrambled = permuted(reference, layers, seed)
        assert distance(scrambled, reference) > 1
        jax.tree.map(np.testing.assert_array_equal, align_params(scrambled, reference, layers), reference)


@STUDENTS
def test_a_fresh_student_is_recognised_though_its_biases_are_all_the_same(student, layers, input_shape):
    reference = student.init(jax.random.key(0))
    aligned = align_params(permuted(reference, layers, 1), reference, layers)
    jax.tree.map(np.testing.assert_array_equal, aligned, reference)


@STUDENTS
def test_the_mean_of_restarts_does_not_mind_the_order_of_their_units(student, layers, input_shape):
    reference = random_params(student, 0)
    noisy = [jax.tree.map(lambda leaf, sign=sign: leaf + sign * 0.01, reference) for sign in (-1, 1)]
    mean = average_params([reference, *(permuted(params, layers, 3) for params in noisy)], layers)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mean, reference)


def test_a_mean_of_no_restarts_is_refused():
    with pytest.raises(InputError, match="at least once"):
        average_params([], mlp_layers(1))


@STUDENTS
def test_the_aligned_student_computes_the_same_function(student, layers, input_shape):
    params, reference = random_params(student, 0), random_params(student, 1)
    aligned = align_params(params, reference, layers)
    assert distance(aligned, params) > 1
    inputs = jax.random.normal(jax.random.key(2), (20, *input_shape))
    logits = student.apply(params, inputs)
    # The same products in another order: rounding errors of float32, relative to the largest logit.
    np.testing.assert_allclose(student.apply(aligned, inputs), logits, atol=1e-5 * float(jnp.abs(logits).max()))


@STUDENTS
def test_the_distance_never_increases_and_a_second_alignment_changes_nothing(student, layers, input_shape):
    reference = random_params(student, 0)
    for seed in range(1, 11):
        params = random_params(student, seed)
        aligned = align_params(params, reference, layers)
        assert distance(aligned, reference) < distance(params, reference)
        jax.tree.map(np.testing.assert_array_equal, align_params(aligned, reference, layers), aligned)
        near = jax.tree.map(lambda a, b: a + 0.01 * b, reference, params)
        jax.tree.map(np.testing.assert_array_equal, align_params(near, reference, layers), near)


def test_one_hidden_layer_is_matched_optimally():
    student = mlp(num_features=2, hidden=(4,), num_classes=2)
    params, reference = random_params(student, 0), random_params(student, 1)
    aligned = align_params(params, reference, mlp_layers(1))
    # 200 random ones of the 24 orders.
    others = [distance(permuted(params, mlp_layers(1), seed), reference) for seed in range(200)]
    assert distance(aligned, reference) == pytest.approx(min(others), rel=1e-6)


def test_units_that_are_all_alike_leave_nothing_to_do():
    params = jax.tree.map(jnp.ones_like, random_params(MLP[0], 0))
    aligned = align_params(params, params, mlp_layers(2))
    jax.tree.map(np.testing.assert_array_equal, aligned, params)


def test_a_student_without_hidden_layers_stays_as_it_is():
    student = mlp(num_features=3, hidden=(), num_classes=2)
    params = random_params(student, 0)
    aligned = align_params(params, random_params(student, 1), mlp_layers(0))
    jax.tree.map(np.testing.assert_array_equal, aligned, params)


def test_alignment_brings_two_students_of_one_teacher_together():
    student = mlp(num_features=2, hidden=(32,), num_classes=2)
    inputs = jax.random.normal(jax.random.key(0), (200, 2))
    teacher = jax.nn.softmax(jnp.stack([2 * inputs[:, 0], inputs[:, 1] ** 2], axis=1))

    def log_density(params, inputs):
        scores = jnp.sum(teacher * jax.nn.log_softmax(student.apply(params, inputs)))
        return scores + gaussian_prior(1.0)(params)

    def distilled(seed):
        start = student.init(jax.random.key(seed))
        options = {"key": jax.random.key(0), "data": inputs, "draw_batch": lambda key, data: data, "num_steps": 500}
        return find_mode(log_density, start, **options).params

    def loss(params):
        return -log_density(params, inputs)

    params, reference = distilled(1), distilled(2)
    aligned = align_params(params, reference, mlp_layers(1))
    assert distance(aligned, reference) < 0.5 * distance(params, reference)
    assert float(barrier(loss, aligned, reference)) < 0.1 * float(barrier(loss, params, reference))


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda p: {"Dense_0": p["Dense_0"]}, r"params: Dense_1.bias: found no such leaf, expected float32 of shape"),
        (
            lambda p: {**p, "extra": jnp.zeros(2)},
            r"params: extra: found float32 of shape \(2,\), expected no such leaf",
        ),
        (lambda p: jax.tree.map(lambda x: x[:1], p), r"params: Dense_0.bias: found float32 of shape \(1,\)"),
        (lambda p: jax.tree.map(lambda x: x.astype(jnp.float16), p), r"params: Dense_0.bias: found float16 .* float32"),
        (lambda p: jax.tree.map(lambda x: x / 0, p), r"params: Dense_0.bias: found 12 of 12 numbers NaN or infinite"),
    ],
)
def test_parameters_that_are_not_the_references_are_refused(alter, message):
    student, layers, _ = MLP
    reference = random_params(student, 0)
    with pytest.raises(InputError, match=message):
        align_params(alter(reference), reference, layers)


def test_a_reference_that_is_not_finite_is_refused():
    student, layers, _ = MLP
    params = random_params(student, 0)
    with pytest.raises(InputError, match=r"reference: Dense_0.bias: found 12 of 12 numbers NaN"):
        align_params(params, jax.tree.map(lambda x: x * jnp.nan, params), layers)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (mlp_layers(3), r"layers\[2\]: Dense_3.kernel: found no such leaf"),
        ([{"Dense_0.bias": 1}], r"layers\[0\]: Dense_0.bias: found axis 1 of shape \(12,\)"),
        ([{"Dense_0.bias": 0, "Dense_0.kernel": 0}], r"layers\[0\]: units: .*'Dense_0.bias': 12, 'Dense_0.kernel': 5"),
    ],
)
def test_layers_that_the_student_does_not_have_are_refused(layers, message):
    params = random_params(MLP[0], 0)
    with pytest.raises(InputError, match=message):
        align_params(params, params, layers)


def test_there_is_no_barrier_on_a_convex_loss():
    def loss(params):
        return jnp.sum(params["w"] ** 2)

    a, b = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([0.3, 5.0])}
    assert float(barrier(loss, a, b)) == 0


def test_a_barrier_is_measured_above_the_line_between_the_ends():
    # A ridge of height 3 on a slope of 10.
    def loss(params):
        return 10 * params["w"] + 3 * jnp.sin(jnp.pi * params["w"])

    assert float(barrier(loss, {"w": jnp.array(0.0)}, {"w": jnp.array(1.0)}, num_points=5)) == pytest.approx(
        3, rel=1e-5
    )


def test_a_barrier_needs_a_point_between_the_ends():
    with pytest.raises(InputError, match="num_points: value: found 2, expected three or more"):
        barrier(lambda params: params["w"], {"w": jnp.array(0.0)}, {"w": jnp.array(1.0)}, num_points=2)
