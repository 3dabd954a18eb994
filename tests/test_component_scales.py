from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mtbkd_jax.chains import BatchKey
from mtbkd_jax.component_scales import curvature_scales, fisher_diagonal, trajectory_scales
from mtbkd_jax.errors import InputError
from mtbkd_jax.students import cnn, mlp, num_parameters
from mtbkd_jax.weight_prior import WeightMixture

STUDENT = mlp(num_features=3, hidden=(5,), num_classes=4)
LINEAR = mlp(num_features=3, hidden=(), num_classes=4)
NUM_EXAMPLES = 23
INPUTS = jax.random.normal(jax.random.key(0), (NUM_EXAMPLES, 3))
WEIGHTS = jax.random.uniform(jax.random.key(1), (NUM_EXAMPLES,), maxval=3.0)
CENTERS = jax.vmap(STUDENT.init)(jax.random.split(jax.random.key(2), 3))


def row(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


# ---- the Fisher information


@pytest.mark.parametrize("chunk_size", [4, 100])
@pytest.mark.parametrize(
    ("student", "inputs"),
    [
        (STUDENT, INPUTS),
        (cnn(image_shape=(4, 4), channels=(2,), num_classes=3), jax.random.normal(jax.random.key(3), (23, 4, 4))),
    ],
    ids=["mlp", "cnn"],
)
def test_the_fisher_diagonal_is_that_of_the_dense_matrix(student, inputs, chunk_size):
    params = student.init(jax.random.key(4))
    flat_params, unravel = ravel_pytree(params)
    jacobian = np.asarray(jax.jacobian(lambda flat: student.apply(unravel(flat), inputs))(flat_params), np.float64)
    probs = np.asarray(jax.nn.softmax(student.apply(params, inputs)), np.float64)
    of_logits = np.einsum("ic,cd->icd", probs, np.eye(probs.shape[1])) - np.einsum("ic,id->icd", probs, probs)
    dense = np.einsum("i,ica,icd,idb->ab", WEIGHTS, jacobian, of_logits, jacobian, optimize=True)
    found = fisher_diagonal(student, params, inputs, WEIGHTS, chunk_size=chunk_size)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    np.testing.assert_allclose(flat(found), np.diag(dense), rtol=1e-4, atol=1e-6 * np.diag(dense).max())


def test_of_a_linear_student_it_has_a_closed_form():
    params = LINEAR.init(jax.random.key(5))
    probs = np.asarray(jax.nn.softmax(LINEAR.apply(params, INPUTS)))
    found = fisher_diagonal(LINEAR, params, INPUTS, WEIGHTS)["Dense_0"]
    of_bias = np.asarray(WEIGHTS)[:, None] * probs * (1 - probs)
    np.testing.assert_allclose(found["bias"], of_bias.sum(0), rtol=1e-5)
    np.testing.assert_allclose(found["kernel"], np.square(INPUTS).T @ of_bias, rtol=1e-5)


def test_of_a_linear_student_it_is_the_objectives_curvature_whatever_the_teacher_says():
    params, unravel = ravel_pytree(LINEAR.init(jax.random.key(5)))
    targets = jax.random.dirichlet(jax.random.key(6), jnp.ones(4), (NUM_EXAMPLES,))

    def objective(flat):
        scores = jnp.sum(targets * jax.nn.log_softmax(LINEAR.apply(unravel(flat), INPUTS)), axis=-1)
        return jnp.sum(WEIGHTS * scores)

    found = flat(fisher_diagonal(LINEAR, unravel(params), INPUTS, WEIGHTS))
    np.testing.assert_allclose(found, -jnp.diag(jax.hessian(objective)(params)), rtol=1e-4)


def test_memory_is_a_few_times_the_chunk_and_does_not_grow_with_the_examples():
    student = mlp(num_features=40, hidden=(50,), num_classes=30)
    params = jax.eval_shape(student.init, jax.random.key(0))
    chunk_size = 8

    def temporary(num_examples):
        of_shapes = partial(fisher_diagonal, student, chunk_size=chunk_size)
        arguments = (
            params,
            jax.ShapeDtypeStruct((num_examples, 40), float),
            jax.ShapeDtypeStruct((num_examples,), float),
        )
        return jax.jit(of_shapes).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    of_chunk = 4 * chunk_size * num_parameters(student)
    assert temporary(800) < 6 * of_chunk  # all classes at once would be 30 of them, all examples 100
    assert temporary(8000) - temporary(800) < of_chunk


# ---- scales from the curvature


def test_the_scale_is_that_of_curvature_and_damping_added():
    params = row(CENTERS, 0)
    found = curvature_scales(STUDENT, params, INPUTS, WEIGHTS, 0.5)
    curvature = flat(fisher_diagonal(STUDENT, params, INPUTS, WEIGHTS))
    np.testing.assert_allclose(flat(found.scale), 1 / np.sqrt(curvature + 4.0), rtol=1e-5)
    assert float(found.share_damped) == pytest.approx(np.mean(curvature < 4.0))
    assert 0 < float(found.share_damped) < 1


def test_what_the_examples_say_nothing_of_keeps_the_width_of_the_gaussian():
    # The first hidden unit is never on: nothing that leads to it or away from it matters.
    params = row(CENTERS, 0)
    dead = {**params, "Dense_0": {**params["Dense_0"], "bias": params["Dense_0"]["bias"].at[0].set(-1e3)}}
    found = curvature_scales(STUDENT, dead, INPUTS, WEIGHTS, 2.0).scale
    of_dead = [found["Dense_0"]["kernel"][:, 0], found["Dense_0"]["bias"][0], found["Dense_1"]["kernel"][0]]
    for scales in of_dead:
        np.testing.assert_allclose(scales, 2.0, rtol=1e-6)
    assert (flat(found) < 1.999).sum() > 0

    unweighted = curvature_scales(STUDENT, params, INPUTS, jnp.zeros(NUM_EXAMPLES), 2.0)
    np.testing.assert_allclose(flat(unweighted.scale), 2.0, rtol=1e-6)
    assert float(unweighted.share_damped) == 1.0


def test_components_can_be_vmapped_and_traced_and_make_a_mixture():
    weights = jnp.stack([WEIGHTS, WEIGHTS[::-1], jnp.ones(NUM_EXAMPLES)])

    @jax.jit
    def of_all(centers, weights, scale):
        return jax.vmap(lambda center, own: curvature_scales(STUDENT, center, INPUTS, own, scale))(centers, weights)

    found = of_all(CENTERS, weights, jnp.array(0.7))
    for index in range(3):
        alone = curvature_scales(STUDENT, row(CENTERS, index), INPUTS, weights[index], 0.7)
        np.testing.assert_allclose(flat(row(found, index).scale), flat(alone.scale), rtol=1e-5)
        assert float(found.share_damped[index]) == pytest.approx(float(alone.share_damped))

    stack = jax.vmap(lambda tree: ravel_pytree(tree)[0])
    mixture = WeightMixture(stack(CENTERS), stack(found.scale), jnp.log(jnp.full(3, 1 / 3)))
    assert mixture.scales.shape == (3, num_parameters(STUDENT))
    assert jnp.isfinite(mixture.log_prob(mixture.sample(jax.random.key(7)))).all()


@pytest.mark.parametrize(
    "wrong",
    [{"scale": 0.0}, {"scale": float("inf")}, {"weights": -WEIGHTS}, {"weights": WEIGHTS * jnp.nan}, {"chunk_size": 0}],
    ids=str,
)
def test_curvature_refuses(wrong):
    arguments = {"weights": WEIGHTS, "scale": 1.0, **wrong}
    with pytest.raises(InputError, match=next(iter(wrong))):
        curvature_scales(STUDENT, row(CENTERS, 0), INPUTS, **arguments)


# ---- scales from a trajectory

CURVATURES = jnp.array([0.5, 1.0, 4.0])
NOISE = jnp.array([2.0, 1.0, 0.5])
COPIES = 200


def noisy_quadratic(params, batch):
    """-a (θ - center)² / 2, and a gradient noise of known standard deviation; many independent copies of each."""
    center, noise = batch
    distance = params["w"] - center
    return jnp.sum(-0.5 * CURVATURES[:, None] * distance**2 + NOISE[:, None] * noise * params["w"])


def draw_noise(key, center):
    return center, jax.random.normal(key.own, center.shape)


def run(center, *, num_steps=4000, learning_rate=0.1, floor=1e-4, key=0):
    return trajectory_scales(
        noisy_quadratic,
        {"w": center},
        key=jax.random.key(key),
        data=center,
        draw_batch=draw_noise,
        num_steps=num_steps,
        learning_rate=learning_rate,
        floor=floor,
    )


@pytest.mark.parametrize("place", [0.0, 300.0], ids=["at zero", "far from zero"])
def test_the_spread_is_the_stationary_one_of_sgd_on_a_quadratic(place):
    # A step is θ ← φ θ + η σ ξ with φ = 1 − η a, whose stationary variance is η σ² / (a (2 − η a)). Far from zero the
    # square of the place is 9e4, whose spacing in float32 is 0.008.
    learning_rate, num_steps = 0.1, 4000
    found = run(jnp.full((3, COPIES), place), num_steps=num_steps, learning_rate=learning_rate)
    curvatures, noise = np.asarray(CURVATURES), np.asarray(NOISE)
    exact = learning_rate * noise**2 / (curvatures * (2 - learning_rate * curvatures))
    phi = 1 - learning_rate * curvatures
    # The variance of a run is short by that of its mean and by its way from the center, both of order 1 / steps.
    bias = ((1 + phi) / (1 - phi) + 1 / (1 - phi**2)) / num_steps
    of_runs = np.square(found.scale["w"]).mean(1)
    # The relative variance of a variance estimated from an autoregressive run, over the copies.
    error = np.sqrt(2 * (1 + phi**2) / (1 - phi**2) / num_steps / COPIES)
    assert (np.abs(of_runs / exact - 1 + bias) < 4 * error + 0.1 * bias).all()
    assert float(found.share_damped) == 0.0


def test_what_does_not_move_gets_the_floor():
    def log_density(params, batch):
        return jnp.sum(batch * params["moving"]) - jnp.sum(jnp.square(params["still"]))

    center = {"moving": jnp.zeros(3), "still": jnp.zeros(5)}
    found = trajectory_scales(
        log_density,
        center,
        key=jax.random.key(0),
        data=(),
        draw_batch=lambda key, data: jax.random.normal(key.own, (3,)),
        num_steps=50,
        learning_rate=0.1,
        floor=0.01,
    )
    np.testing.assert_allclose(found.scale["still"], 0.01, rtol=1e-6)
    assert (found.scale["moving"] > 0.01).all()
    assert float(found.share_damped) == pytest.approx(5 / 8)


def test_the_moments_are_those_of_the_steps():
    center, num_steps, learning_rate = jnp.full((3, 1), 2.0), 20, 0.3
    params, steps = {"w": center}, []
    for step in range(num_steps):
        batch = draw_noise(BatchKey(jax.random.key(0), step), center)
        gradient = jax.grad(noisy_quadratic)(params, batch)
        params = {"w": params["w"] + learning_rate * gradient["w"]}
        steps.append(params["w"])
    found = run(center, num_steps=num_steps, learning_rate=learning_rate)
    np.testing.assert_allclose(found.scale["w"], np.std(steps, axis=0), rtol=1e-4)


def test_runs_can_be_vmapped_over_components_and_traced():
    centers = jnp.stack([jnp.zeros((3, 2)), jnp.ones((3, 2)), jnp.full((3, 2), -5.0)])
    found = jax.jit(jax.vmap(partial(run, num_steps=30)))(centers)
    assert found.share_damped.shape == (3,)
    for index in range(3):
        alone = run(centers[index], num_steps=30)
        np.testing.assert_allclose(found.scale["w"][index], alone.scale["w"], rtol=1e-4)


def test_a_run_that_diverges_is_refused_by_the_mixture():
    found = run(jnp.zeros((3, 1)), learning_rate=3.0, num_steps=300)
    scales = found.scale["w"].reshape(1, 3)
    assert not jnp.isfinite(scales).all()
    with pytest.raises(InputError, match="scales: found"):
        WeightMixture(jnp.zeros((1, 3)), scales, jnp.zeros(1))


@pytest.mark.parametrize("name", ["num_steps", "learning_rate", "floor"])
def test_a_trajectory_refuses(name):
    with pytest.raises(InputError, match=name):
        run(jnp.zeros((3, 1)), **{name: 0 if name == "num_steps" else 0.0})
