import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.function_prior import dirichlet_components
from mtbkd_jax.multilabel import (
    answer_of,
    ask,
    distil_multilabel,
    multilabel_log_probs,
    predict_multilabel,
)
from mtbkd_jax.selection import Budget, GivenSettings
from mtbkd_jax.settings import PosteriorSettings, distillation_likelihood
from mtbkd_jax.students import mlp
from mtbkd_jax.teachers import softened_probs

STUDENT = mlp(num_features=3, hidden=(4,), num_classes=2)


def problem(num_examples=120, num_labelled=40):
    """Two labels by two features; one teacher knows the first and is wrong about the other, one the other way round."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(num_examples, 3)).astype(np.float32)
    truth = (inputs[:, :2] > 0).astype(int)
    labels = np.where(np.arange(num_examples)[:, None] < num_labelled, truth, -1)
    known = 6 * inputs[:, :2]
    teachers = np.stack([known * [1, -1], known * [-1, 1]], axis=1)
    return inputs, truth, labels, teachers


def test_the_density_is_that_of_bernoullis_and_mixtures_of_betas():
    inputs, _, labels, teachers = problem(num_examples=12, num_labelled=5)
    questions = ask(inputs, labels, teachers)
    params = STUDENT.init(jax.random.key(1))
    weights = np.array([0.2, 0.5, 0.3])
    settings = PosteriorSettings(0.7, 4.0, float("inf"), 1.0)
    probs = softened_probs(jnp.asarray(questions.teacher_logits), 1.0, jnp.ones(2))
    log_weights = jnp.broadcast_to(jnp.log(jnp.asarray(weights, jnp.float32)), (24, 3))
    components = dirichlet_components(probs, log_weights, settings.concentration)
    examples = Examples(jnp.asarray(questions.inputs), jnp.asarray(questions.labels), components)
    density = distillation_likelihood(answer_of(STUDENT, (3,)), settings)
    found = density(params, full_batch(None, examples))

    logits = np.asarray(STUDENT.apply(params, jnp.asarray(inputs)), np.float64)
    is_known = labels >= 0
    of_labels = np.sum(np.where(labels == 1, logits, 0)[is_known] - np.logaddexp(0, logits)[is_known])
    p, q = scipy.special.expit(teachers.astype(np.float64)), scipy.special.expit(logits)
    betas = [scipy.stats.beta.pdf(q, 1 + 4 * p[:, g], 1 + 4 * (1 - p[:, g])) for g in range(2)]
    mixture = weights[0] + weights[1] * betas[0] + weights[2] * betas[1]
    assert float(found) == pytest.approx(of_labels + 0.7 * np.log(mixture).sum(), rel=1e-5)


def test_trust_is_learned_label_by_label_and_unknown_answers_are_learned_from_teachers():
    inputs, truth, labels, teachers = problem()
    labels[::3, 1] = -1
    config = DistillationConfig(
        settings=GivenSettings(1.0, 2.0, float("inf"), 1.0, 1.0, 1.0),
        budget=Budget(num_mode_steps=10, num_steps=0),
        sampling=SamplingConfig(num_chains=2, num_mode_steps=300, num_burn_in=100, num_draws=10, thinning=5),
    )
    result = distil_multilabel(inputs, labels, teachers, STUDENT, seed=0, config=config)
    lessons = result.questions.lessons
    asked = np.asarray(lessons.examples.inputs[:, 3:]).argmax(1)
    trust = np.exp(np.asarray(lessons.log_weights))
    assert trust[asked == 0, 1].mean() > 0.6 > 0.4 > trust[asked == 0, 2].mean()
    assert trust[asked == 1, 2].mean() > 0.6 > 0.4 > trust[asked == 1, 1].mean()

    prediction = predict_multilabel(result, inputs)
    assert ((prediction.probs > 0.5) == truth).mean() > 0.9
    log_probs = multilabel_log_probs(result, inputs)
    weights = result.questions.posterior.draw_weights
    np.testing.assert_allclose(
        np.einsum("s,sq->q", weights, np.exp(log_probs[..., 1])), prediction.probs.reshape(-1), rtol=1e-4
    )


def test_a_question_that_a_teacher_was_not_asked_is_masked_where_that_is_meant():
    inputs, _, labels, teachers = problem(num_examples=6, num_labelled=3)
    teachers[2, 1, 0] = np.nan
    questions = ask(inputs, labels, teachers, missing="mask")
    assert np.argwhere(np.isnan(questions.teacher_logits)).tolist() == [[4, 1, 0], [4, 1, 1]]
    with pytest.raises(InputError, match="NaN in row 2"):
        ask(inputs, labels, teachers)


def test_images_are_asked_about_as_images():
    pictures = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    student = mlp(num_features=6, hidden=(4,), num_classes=2)
    questions = ask(pictures, np.zeros((5, 2), int), np.full((5, 1, 2), -3.0))
    params = student.init(jax.random.key(0))
    asked = answer_of(student, (2, 3)).apply(params, jnp.asarray(questions.inputs))
    np.testing.assert_allclose(asked[:, 1].reshape(5, 2), student.apply(params, jnp.asarray(pictures)), rtol=1e-5)


def test_rows_of_an_example_are_of_one_group():
    inputs, _, labels, teachers = problem(num_examples=3)
    assert ask(inputs, labels, teachers).groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert ask(inputs, labels, teachers, ["a", "b", "a"]).groups.tolist() == ["a", "a", "b", "b", "a", "a"]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"labels": np.zeros(120, int)}, "labels.*shape.*one class of many"),
        ({"labels": np.full((120, 2), 2)}, "labels.*2 in row 0, column 0"),
        ({"labels": np.zeros((120, 2))}, "labels.*type float64"),
        ({"labels": np.zeros((119, 2), int)}, "labels.*119"),
        ({"teacher_logits": np.full((120, 1, 2), 0.5)}, "teacher 0.*probabilities"),
        ({"teacher_logits": np.full((120, 1, 3), -2.0)}, "teacher_logits.*shape"),
        ({"teacher_logits": np.full((120, 1, 2), np.nan)}, "teacher_logits.*NaN"),
        ({"inputs": np.full((120, 3), np.inf)}, "inputs.*infinite"),
        ({"groups": ["a"]}, "groups.*1"),
    ],
)
def test_what_is_wrong_is_named(changed, match):
    inputs, _, labels, teachers = problem()
    arguments = {"inputs": inputs, "labels": labels, "teacher_logits": teachers} | changed
    groups = arguments.pop("groups", None)
    with pytest.raises(InputError, match=f"(?s){match}"):
        distil_multilabel(*arguments.values(), STUDENT, seed=0, groups=groups)


def test_a_student_for_another_number_of_labels_is_refused():
    inputs, _, labels, teachers = problem()
    with pytest.raises(InputError, match="student"):
        distil_multilabel(inputs, labels, teachers, mlp(num_features=3, hidden=(), num_classes=3), seed=0)
