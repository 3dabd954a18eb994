import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mtbkd_jax.baselines import (
    DistillationLoss,
    distil_classically,
    gradient_space_loss,
    gradient_space_weights,
    pooled_loss,
)
from mtbkd_jax.centers import Centers
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.students import mlp
from mtbkd_jax.weighting import confidence_aware_weighting, entropy_weighting, uniform_weighting

NUM_TEACHERS, NUM_EXAMPLES, NUM_LABELLED, NUM_CLASSES = 3, 60, 20, 3
LOSSES = {
    "equal": pooled_loss(uniform_weighting()),
    "entropy": pooled_loss(entropy_weighting()),
    "confidence-aware": pooled_loss(confidence_aware_weighting()),
    "gradient space": gradient_space_loss(),
}


def random_probs(seed, *shape):
    return jax.nn.softmax(2 * jax.random.normal(jax.random.key(seed), shape))


def shortest_mean(gradients, bound):
    """The weights by SciPy."""
    gram = gradients @ gradients.T
    num = len(gradients)
    return minimize(
        lambda weights: weights @ gram @ weights / 2,
        np.full(num, 1 / num),
        jac=lambda weights: gram @ weights,
        bounds=[(0, bound)] * num,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda _: np.ones(num)},
        method="SLSQP",
        options={"ftol": 1e-12},
    ).x


@pytest.mark.parametrize("tolerance", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("num_teachers", [2, 3, 6])
def test_gradient_space_weights_make_the_shortest_mean(num_teachers, tolerance):
    bound = max(tolerance, 1 / num_teachers)
    for seed in range(5):
        gradients = np.random.default_rng(seed).normal(size=(num_teachers, 8)) + 0.5
        weights = np.asarray(gradient_space_weights(jnp.asarray(gradients, jnp.float32), tolerance=tolerance))
        assert weights.min() >= 0
        assert weights.max() <= bound + 1e-6
        np.testing.assert_allclose(weights.sum(), 1, atol=1e-5)
        reached, least = (np.linalg.norm(w @ gradients) for w in (weights, shortest_mean(gradients, bound)))
        np.testing.assert_allclose(reached, least, rtol=1e-4, atol=1e-5)


def test_teachers_that_say_the_same_weigh_the_same():
    weights = gradient_space_weights(jnp.ones((4, 5)), tolerance=0.6)
    np.testing.assert_allclose(weights, 0.25)


def test_the_gradient_space_loss_of_one_teacher_is_the_classical_one():
    logits, probs = jax.random.normal(jax.random.key(0), (5, NUM_CLASSES)), random_probs(1, 5, 1, NUM_CLASSES)
    examples = Examples(jnp.zeros((5, 1)), jnp.zeros(5, jnp.int32))
    one = gradient_space_loss().term(0.7, 2.0)(logits, examples._replace(components=probs))
    classical = pooled_loss(uniform_weighting()).term(0.7, 2.0)(logits, examples._replace(components=probs[:, 0]))
    np.testing.assert_allclose(one, classical, rtol=1e-6)


def test_the_gradient_space_loss_descends_for_every_teacher():
    # Its property: where the weights are not bounded, no teacher's loss rises along the step.
    logits, probs = jax.random.normal(jax.random.key(2), (8, NUM_CLASSES)), random_probs(3, 8, 3, NUM_CLASSES)
    examples = Examples(jnp.zeros((8, 1)), jnp.zeros(8, jnp.int32), probs)
    ascent = jax.grad(lambda z: gradient_space_loss(tolerance=1.0).term(1.0, 1.0)(z, examples).sum())(logits)

    def loss_of(teacher, z):
        return -jnp.sum(probs[:, teacher] * jax.nn.log_softmax(z))

    changes = [float(jnp.vdot(jax.grad(loss_of, argnums=1)(g, logits), ascent)) for g in range(3)]
    assert max(changes) <= 1e-4 * float(jnp.vdot(ascent, ascent))


def test_weights_by_confidence_are_those_of_the_paper():
    # Two teachers that give the label .8 and .2: exp(CE) is 1.25 and 5, so the weights are 5 / 6.25 and 1.25 / 6.25.
    probs = jnp.array([[[0.8, 0.2], [0.2, 0.8]]] * 2)
    weights = confidence_aware_weighting()(jax.random.key(0), probs, jnp.zeros((2, 1)), jnp.array([0, -1]))
    np.testing.assert_allclose(jnp.exp(weights), [[0, 0.8, 0.2], [0, 0.5, 0.5]], rtol=1e-6)


def test_a_single_teacher_has_weight_one_however_wrong():
    probs = jnp.array([[[0.0, 1.0]]])
    weights = confidence_aware_weighting()(jax.random.key(0), probs, jnp.zeros((1, 1)), jnp.array([0]))
    np.testing.assert_allclose(jnp.exp(weights), [[0, 1]])


INPUTS = jax.random.normal(jax.random.key(4), (NUM_EXAMPLES, 2))
TRUTH = jnp.argmax(INPUTS @ jnp.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), axis=1).astype(jnp.int32)


def knowing_probs():
    return jnp.repeat(jax.nn.one_hot(TRUTH, NUM_CLASSES)[:, None], NUM_TEACHERS, axis=1)


def lessons(teacher_probs):
    labels = jnp.where(jnp.arange(NUM_EXAMPLES) < NUM_LABELLED, TRUTH, -1)
    nothing = Centers({"w": jnp.zeros((1 + NUM_TEACHERS, 1))}, jnp.ones(1 + NUM_TEACHERS))
    return Lessons(Examples(INPUTS, labels), teacher_probs, jnp.zeros((NUM_EXAMPLES, 1 + NUM_TEACHERS)), nothing)


CONFIG = DistillationConfig(num_folds=2, sampling=SamplingConfig(num_mode_steps=1000, batch_size=32))
STUDENT = mlp(num_features=2, hidden=(), num_classes=NUM_CLASSES)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_distils_a_student(name):
    taught = lessons(knowing_probs())
    student = distil_classically(jax.random.key(6), STUDENT, taught, CONFIG, loss=LOSSES[name], strengths=(0.1, 10.0))
    assert student.strength == 10.0
    answers = jnp.argmax(STUDENT.apply(student.params, taught.examples.inputs), axis=1)
    unlabelled = answers[NUM_LABELLED:] == jnp.argmax(knowing_probs()[NUM_LABELLED:, 0], axis=1)
    assert unlabelled.mean() > 0.8  # a third by chance


def test_teachers_that_know_the_labels_are_believed_and_ignorant_ones_are_not():
    strengths = [
        distil_classically(jax.random.key(8), STUDENT, lessons(probs), CONFIG).strength
        for probs in (knowing_probs(), jnp.roll(knowing_probs(), 1, axis=2))
    ]
    assert strengths[0] >= 1.0
    assert strengths[1] <= 0.03


def test_a_student_that_is_too_unsure_gets_a_temperature_below_one_and_one_that_is_too_sure_above():
    unsure = 0.4 * knowing_probs() + 0.6 / NUM_CLASSES
    taught = lessons(unsure), lessons(knowing_probs())
    # Teachers who hardly say what they know; and teachers who are sure where a label in three is another.
    is_other = jnp.arange(NUM_EXAMPLES) % 3 == 0
    labels = jnp.where(
        is_other & (taught[1].examples.labels >= 0), (TRUTH + 1) % NUM_CLASSES, taught[1].examples.labels
    )
    taught = taught[0], taught[1]._replace(examples=taught[1].examples._replace(labels=labels))
    temperatures = [
        distil_classically(jax.random.key(8), STUDENT, one, CONFIG, strengths=(100.0,)).prediction_temperature
        for one in taught
    ]
    assert temperatures[0] < 1 < temperatures[1]


def test_what_is_believed_of_the_temperature_counts_beside_the_labels(monkeypatch):
    unsure = lessons(0.4 * knowing_probs() + 0.6 / NUM_CLASSES)
    monkeypatch.setattr("mtbkd_jax.baselines.correction_log_density", lambda temperature: -1e6 * (temperature != 1.0))
    student = distil_classically(jax.random.key(8), STUDENT, unsure, CONFIG, strengths=(100.0,))
    assert student.prediction_temperature == 1.0  # below one by the labels, as above


def test_without_distillation_what_teachers_say_does_not_matter():
    params = [
        distil_classically(
            jax.random.key(9),
            STUDENT,
            lessons(random_probs(seed, NUM_EXAMPLES, NUM_TEACHERS, NUM_CLASSES)),
            CONFIG,
            strengths=(0.0,),
        ).params
        for seed in (0, 1)
    ]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_a_teacher_that_was_not_asked_about_some_examples_is_refused():
    is_asked = jnp.ones((NUM_EXAMPLES, NUM_TEACHERS), bool).at[3, 0].set(False)
    with pytest.raises(InputError, match="1 examples that a teacher was not asked about"):
        distil_classically(jax.random.key(0), STUDENT, lessons(knowing_probs())._replace(is_asked=is_asked), CONFIG)


def test_a_held_out_example_hears_no_teacher():
    # Targets of the held-out examples are zero, so that a loss can be asked what it was given.
    seen = []

    def term(strength, temperature):
        def log_density(logits, examples):
            jax.debug.callback(lambda *rows: seen.append(rows), examples.components, examples.labels)
            return strength * examples.components[:, 0] * jax.nn.log_softmax(logits)[:, 0]

        return log_density

    loss = DistillationLoss(lambda key, probs, inputs, labels: jnp.ones((NUM_EXAMPLES, NUM_CLASSES)), term)
    config = DistillationConfig(num_folds=2, sampling=SamplingConfig(num_mode_steps=1, batch_size=1000))
    taught = lessons(random_probs(5, NUM_EXAMPLES, NUM_TEACHERS, NUM_CLASSES))
    distil_classically(jax.random.key(0), STUDENT, taught, config, loss=loss, strengths=(1.0,))
    jax.effects_barrier()
    folds = [rows for rows in seen if (rows[1] < 0).sum() > NUM_EXAMPLES - NUM_LABELLED]
    assert folds
    for targets, labels in folds:
        withheld = (labels < 0) & (np.arange(NUM_EXAMPLES) < NUM_LABELLED)
        assert (targets[withheld] == 0).all()
        assert (targets[~withheld] == 1).all()
