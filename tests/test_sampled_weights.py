"""Weights that are sampled with the student: the model is the one that a user would write down in plain NumPyro."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.infer.util import log_density

from mtbkd_jax.centers import Centers
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.sampled_weights import (
    JointParams,
    joint_posterior,
    sample_with_weights,
    weights_of,
    with_weighable_components,
)
from mtbkd_jax.settings import PosteriorSettings
from mtbkd_jax.students import Student, mlp

STUDENT = mlp(num_features=2, hidden=(5,), num_classes=2)
NUM_LABELLED, NUM_EXAMPLES = 20, 60
SETTINGS = PosteriorSettings(power=0.7, concentration=4.0, center_scale=float("inf"), wide_scale=0.8)
ALPHA = 1.5

RNG = np.random.default_rng(0)
INPUTS = RNG.uniform(-3.0, 3.0, (NUM_EXAMPLES, 2)).astype(np.float32)
LABELS = RNG.binomial(1, 1.0 / (1.0 + np.exp(-2.0 * INPUTS[:NUM_LABELLED, 0])))
TEACHER_PROBS = RNG.dirichlet(np.ones(2), (NUM_EXAMPLES, 2)).astype(np.float32)
IS_ASKED = RNG.uniform(size=(NUM_EXAMPLES, 2)) < 0.7


def lessons(student=STUDENT, *, is_asked=None, teacher_probs=TEACHER_PROBS, labels=LABELS, inputs=INPUTS):
    num_teachers = teacher_probs.shape[1]
    centers = jax.tree.map(lambda leaf: jnp.zeros((1 + num_teachers, *leaf.shape)), student.init(jax.random.key(0)))
    padded = jnp.asarray(np.concatenate([labels, np.full(len(inputs) - len(labels), -1)]).astype(np.int32))
    return Lessons(
        Examples(jnp.asarray(inputs), padded),
        jnp.asarray(teacher_probs),
        jnp.zeros((len(inputs), 1 + num_teachers)),  # not used
        Centers(centers, jnp.full(1 + num_teachers, 1 / (1 + num_teachers))),
        is_asked=None if is_asked is None else jnp.asarray(is_asked),
    )


def plain_model(is_asked):
    shapes = {"bias_1": (5,), "kernel_1": (2, 5), "bias_2": (2,), "kernel_2": (5, 2)}
    of = {
        name: numpyro.sample(name, dist.Normal(0.0, SETTINGS.wide_scale).expand(shape).to_event(len(shape)))
        for name, shape in shapes.items()
    }
    hidden = jnp.maximum(INPUTS @ of["kernel_1"] + of["bias_1"], 0.0)
    logits = hidden @ of["kernel_2"] + of["bias_2"]
    numpyro.sample("labels", dist.Categorical(logits=logits[:NUM_LABELLED]), obs=LABELS)
    v = numpyro.sample("v", dist.Dirichlet(jnp.full(3, ALPHA)))
    q = jax.nn.softmax(logits)
    densities = [jnp.exp(dist.Dirichlet(jnp.ones(2)).log_prob(q))]
    densities += [
        jnp.exp(dist.Dirichlet(1.0 + SETTINGS.concentration * TEACHER_PROBS[:, g]).log_prob(q)) for g in (0, 1)
    ]
    say = np.concatenate([np.ones((NUM_EXAMPLES, 1)), is_asked], axis=1)
    mixture = (say * v * jnp.stack(densities, axis=1)).sum(1) / (say * v).sum(1)
    numpyro.factor("prior", SETTINGS.power * jnp.log(mixture).sum())


@pytest.mark.parametrize("is_asked", [None, IS_ASKED], ids=["all asked", "some not asked"])
def test_log_density_is_that_of_the_plain_model_and_the_jacobian(is_asked):
    taught = lessons(is_asked=is_asked)
    posterior = jax.jit(
        jax.value_and_grad(joint_posterior(STUDENT, taught.centers, SETTINGS, hyper_concentration=ALPHA))
    )
    batch = full_batch(None, with_weighable_components(taught, SETTINGS))
    say = np.ones((NUM_EXAMPLES, 2), bool) if is_asked is None else is_asked
    plain = jax.jit(lambda site: log_density(plain_model, (say,), {}, site)[0])
    differences = []
    for seed in range(5):
        student = jax.tree.map(lambda leaf: 2 * leaf, STUDENT.init(jax.random.key(seed)))
        stick_breaking = jax.random.normal(jax.random.key(100 + seed), (2,))
        v = weights_of(stick_breaking)
        site = {
            "bias_1": student["Dense_0"]["bias"],
            "kernel_1": student["Dense_0"]["kernel"],
            "bias_2": student["Dense_1"]["bias"],
            "kernel_2": student["Dense_1"]["kernel"],
            "v": v,
        }
        with jax.numpy_rank_promotion("allow"):
            theirs = plain(site)
        # The volume that a step of the coordinates has among the weights, without the last one, which is what is left.
        volume = np.linalg.slogdet(np.asarray(jax.jacobian(weights_of)(stick_breaking))[:2])[1]
        value, gradient = posterior(JointParams(student, stick_breaking), batch)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        differences.append(float(value - theirs - volume))
    np.testing.assert_allclose(differences, np.mean(differences), atol=1e-3)


def test_weights_of_a_student_that_is_held_fast_are_those_of_the_grid():
    """A student without a choice: what is left is a law of one weight, which a grid integrates."""
    fixed = Student(lambda key: {"unused": jnp.zeros(1)}, lambda params, inputs: inputs)
    logits = np.stack([np.zeros(40), np.linspace(-2.0, 3.0, 40)], axis=1).astype(np.float32)
    probs = np.tile(np.array([[[0.2, 0.8]]], np.float32), (40, 1, 1))
    taught = lessons(fixed, teacher_probs=probs, labels=np.zeros(0, np.int32), inputs=logits)
    draws = sample_with_weights(
        jax.random.key(0),
        fixed,
        taught,
        SETTINGS,
        hyper_concentration=ALPHA,
        num_chains=2,
        num_mode_steps=1,
        num_warm_up=200,
        num_draws=2000,
    )
    sampled = np.asarray(draws.weights, np.float64)[..., 1].ravel()

    q = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), dtype=np.float64)
    density = scipy.stats.beta(1 + 4 * 0.2, 1 + 4 * 0.8).pdf(q[:, 0])  # a Dirichlet of two classes; the flat one is 1
    grid = (np.arange(2000) + 0.5) / 2000
    log_law = (ALPHA - 1) * (np.log(grid) + np.log1p(-grid))
    log_law += SETTINGS.power * np.log(np.outer(1 - grid, np.ones(40)) + np.outer(grid, density)).sum(1)
    law = np.exp(log_law - log_law.max())
    law /= law.sum()
    mean = (law * grid).sum()
    deviation = np.sqrt((law * (grid - mean) ** 2).sum())
    assert abs(sampled.mean() - mean) < 0.1 * deviation
    assert abs(sampled.std() / deviation - 1) < 0.1


def test_a_teacher_that_says_what_the_labels_say_has_the_weight():
    right = np.where(INPUTS[:, :1] > 0, [[0.05, 0.95]], [[0.95, 0.05]])
    taught = lessons(
        teacher_probs=np.stack([right, right[:, ::-1]], axis=1).astype(np.float32),
        labels=(INPUTS[:, 0] > 0).astype(np.int32),
    )
    draws = sample_with_weights(
        jax.random.key(1), STUDENT, taught, SETTINGS, num_chains=2, num_mode_steps=300, num_warm_up=100, num_draws=50
    )
    _, first, second = np.asarray(draws.weights).mean((0, 1))
    assert first > 0.6 > 0.2 > second
    assert jax.tree.leaves(draws.students)[0].shape[:2] == (2, 50)


def test_a_hyper_prior_without_mass_is_refused():
    with pytest.raises(InputError, match="hyper_concentration"):
        joint_posterior(STUDENT, lessons().centers, SETTINGS, hyper_concentration=0.0)
