import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtbkd_jax.errors import InputError
from mtbkd_jax.students import check_student, cnn, from_linen, from_nnx, mlp, num_parameters, ordinal

INPUTS = jax.random.normal(jax.random.key(7), (5, 3))


class NNXNet(nnx.Module):
    def __init__(self, rngs, extra=None):
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.extra = None if extra is None else extra(rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, inputs):
        values = nnx.relu(self.hidden(inputs))
        return self.head(values if self.extra is None else self.extra(values))


class LinenBatchNorm(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=False)(inputs))


def test_a_linen_student_is_its_module():
    module = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
    student = from_linen(module, (3,))
    params = student.init(jax.random.key(0))
    expected = module.apply(module.init(jax.random.key(0), INPUTS), INPUTS)
    np.testing.assert_allclose(student.apply(params, INPUTS), expected, rtol=1e-6)


def test_an_nnx_student_is_its_module():
    student = from_nnx(NNXNet)
    expected = NNXNet(nnx.Rngs(jax.random.key(0)))(INPUTS)
    np.testing.assert_allclose(student.apply(student.init(jax.random.key(0)), INPUTS), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "student", [from_nnx(NNXNet), from_linen(nn.Dense(2), (3,)), mlp(num_features=3, hidden=(4,), num_classes=2)]
)
def test_the_output_depends_on_the_parameters_given(student):
    first, other = student.init(jax.random.key(0)), student.init(jax.random.key(1))
    logits = jax.jit(student.apply)(first, INPUTS)
    assert logits.shape == (5, 2)
    assert not np.allclose(logits, student.apply(other, INPUTS))
    zeros = student.apply(jax.tree.map(jnp.zeros_like, first), INPUTS)
    assert (zeros == 0).all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: from_linen(LinenBatchNorm(), (3,)),
        lambda: from_nnx(lambda rngs: NNXNet(rngs, lambda r: nnx.BatchNorm(4, rngs=r))),
        lambda: from_nnx(lambda rngs: NNXNet(rngs, lambda r: nnx.Dropout(0.5, rngs=r))),
    ],
    ids=["linen batch norm", "nnx batch norm", "nnx dropout"],
)
def test_running_state_is_refused(build):
    with pytest.raises(InputError, match="besides parameters"):
        build()


def test_parameters_are_counted():
    assert num_parameters(mlp(num_features=2, hidden=(5,), num_classes=2)) == 2 * 5 + 5 + 5 * 2 + 2
    assert num_parameters(from_nnx(NNXNet)) == 3 * 4 + 4 + 4 * 2 + 2


@pytest.mark.parametrize("image_shape", [(8, 8), (8, 8, 3)])
def test_an_image_is_classified_apart_from_its_batch(image_shape):
    student = cnn(image_shape=image_shape, channels=(4,), num_classes=3)
    params = student.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, *image_shape))
    apply = jax.jit(student.apply)
    together = apply(params, images)
    alone = apply(params, images[1:2])
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: mlp(num_features=0, hidden=(4,), num_classes=2),
        lambda: mlp(num_features=2, hidden=(4, 0), num_classes=2),
        lambda: mlp(num_features=2, hidden=(4,), num_classes=0),
        lambda: cnn(image_shape=(8, 8), channels=(-1,), num_classes=2),
    ],
    ids=["no feature", "no unit", "no class", "a negative width"],
)
def test_a_layer_without_units_is_refused(build):
    with pytest.raises(InputError, match="expected a whole number, 1 or above"):
        build()


def test_an_ordinal_student_is_a_cumulative_link_model():
    student = ordinal(mlp(num_features=3, hidden=(4,), num_classes=1), num_classes=4)
    params = student.init(jax.random.key(0))._replace(cutpoints=jnp.array([0.3, -0.5, 1.2]))
    location = np.asarray(mlp(num_features=3, hidden=(4,), num_classes=1).apply(params.network, INPUTS), np.float64)
    beyond = np.cumsum([0.0, np.log1p(np.exp(-0.5)), np.log1p(np.exp(1.2))])
    cutpoints = 0.3 + beyond - beyond.mean()
    cumulative = 1 / (1 + np.exp(location - cutpoints))
    expected = np.diff(np.concatenate([np.zeros((5, 1)), cumulative, np.ones((5, 1))], axis=1), axis=1)
    np.testing.assert_allclose(np.exp(student.apply(params, INPUTS)), expected, rtol=1e-5)


def test_an_ordinal_student_far_from_all_cutpoints_has_finite_logits_and_gradients():
    student = ordinal(mlp(num_features=3, hidden=(), num_classes=1), num_classes=3)
    params, inputs = student.init(jax.random.key(0)), 1e4 * INPUTS
    gradient = jax.grad(lambda params: student.apply(params, inputs).sum())(params)
    assert np.isfinite(student.apply(params, inputs)).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_one_class_is_not_ordered():
    with pytest.raises(InputError, match="a whole number, 2 or above"):
        ordinal(mlp(num_features=3, hidden=(), num_classes=1), num_classes=1)


def test_no_hidden_layer_is_a_linear_student():
    assert num_parameters(mlp(num_features=2, hidden=(), num_classes=3)) == 2 * 3 + 3


@pytest.mark.parametrize("student", [mlp(num_features=3, hidden=(4,), num_classes=2), from_nnx(NNXNet)])
def test_a_student_of_other_inputs_or_classes_is_refused(student):
    check_student(student, (3,), 2, "PLACE")
    with pytest.raises(InputError, match=r"PLACE: inputs: found examples of shape \(4,\)"):
        check_student(student, (4,), 2, "PLACE")
    with pytest.raises(InputError, match=r"PLACE: student: found logits of shape \(2, 2\) .*, expected \(2, 3\)"):
        check_student(student, (3,), 3, "PLACE")
