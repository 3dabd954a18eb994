"""Several labels at once: of every example, each label is a question that is answered yes or no.

With L labels the student gives a logit f_l(x) for each, and its posterior is

    log p(θ | data) = Σ_il log Bernoulli(y_il; σ(f_l(x_i)))
                    + power · Σ_il log Σ_g w_il^g Beta(σ(f_l(x_i)); 1 + λ p_il^g, 1 + λ (1 − p_il^g))
                    + log p(θ)

A Bernoulli is a categorical of two classes, and a Beta a Dirichlet of two. So an example is taken as L rows, one for
each question, whose input is that of the example beside a one at the question's place, and all that is known of rows
with a class holds: trust is learned question by question and place by place, settings are chosen by cross-validation
(in which the rows of an example are held out together), and an unknown answer is a row without a label.

What it costs is that a step computes all L logits for each row and uses one. Predictions compute them once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from mtbkd_jax.checks import Names, check_finite, check_numbers, check_same_number
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.distillation import Distillation, distil
from mtbkd_jax.errors import InputError
from mtbkd_jax.prediction import Prediction, flatten_chains, predict, predictive_log_probs
from mtbkd_jax.students import Student, check_student
from mtbkd_jax.types import Params
from mtbkd_jax.unsaid import MissingTeachers
from mtbkd_jax.weighting import WeightingRule

_WHERE = "distil_multilabel"


class Questions(NamedTuple):
    """Examples with several labels, as rows with a class: the L questions of an example follow each other.

    Attributes:
      inputs: of the example, flattened, and the question: a one at its place and zeros elsewhere.
      labels: 1 for yes, 0 for no, and −1 where nobody knows.
      teacher_logits: of no, which are zero, and of yes.
      groups: the example of each row, or its group.
    """

    inputs: Float[np.ndarray, "rows features"]
    labels: Int[np.ndarray, " rows"]
    teacher_logits: Float[np.ndarray, "rows teachers 2"]
    groups: np.ndarray


class MultilabelDistillation(NamedTuple):
    """What ``distil_multilabel`` gives.

    Attributes:
      student: the network, with a logit for each label.
      questions: the distillation of the rows of ``Questions``: trust, choice, and draws of the student's parameters.
    """

    student: Student
    questions: Distillation


class MultilabelPrediction(NamedTuple):
    """What the posterior says of each label of each input.

    Attributes:
      probs: predictive probability that it applies.
      mean_deviance: of the answer, nats.
      credible_upper: upper end of the deviance's credible interval, nats.
      epistemic: mutual information between the answer and the parameters, nats.
    """

    probs: Float[np.ndarray, "examples labels"]
    mean_deviance: Float[np.ndarray, "examples labels"]
    credible_upper: Float[np.ndarray, "examples labels"]
    epistemic: Float[np.ndarray, "examples labels"]


def distil_multilabel(
    inputs: ArrayLike,
    labels: ArrayLike,
    teacher_logits: ArrayLike,
    student: Student,
    *,
    seed: int,
    weighting: WeightingRule | None = None,
    groups: Names | None = None,
    config: DistillationConfig = DistillationConfig(),
) -> MultilabelDistillation:
    """Distil several teachers into one Bayesian student where an example may have several labels, or none.

    Args:
      inputs: ``[examples, ...]``, standardised.
      labels: ``[examples, labels]``, 1 where a label applies, 0 where it does not, and -1 where nobody knows.
      teacher_logits: ``[examples, teachers, labels]``, log(p / (1 − p)) of the probability p that a label applies; NaN
        where a teacher was not asked that question, which ``config.missing_teachers`` has to allow.
      student: the network, with a logit for each label.
      seed: the result depends on it, on the other arguments, and on nothing else.
      weighting: how teachers are weighed, as in ``distil``, whose rows are here questions.
      groups: the group of each example, ``[examples]``, as in ``distil``; None where each stands for itself.
      config: how.

    Raises:
      InputError: if an array or an option is not what it should be, a teacher's logits look like probabilities, or
        settings are to be chosen and there are too few labels for it.
    """
    questions = ask(inputs, labels, teacher_logits, groups, missing=config.missing_teachers)
    input_shape, num_labels = np.shape(inputs)[1:], np.shape(labels)[1]
    check_student(student, input_shape, num_labels, _WHERE)
    distillation = distil(
        questions.inputs,
        questions.labels,
        questions.teacher_logits,
        answer_of(student, input_shape),
        seed=seed,
        weighting=weighting,
        groups=questions.groups,
        config=config,
    )
    return MultilabelDistillation(student, distillation)


def ask(
    inputs: ArrayLike,
    labels: ArrayLike,
    teacher_logits: ArrayLike,
    groups: Names | None = None,
    *,
    missing: MissingTeachers = "refuse",
) -> Questions:
    """Take the arguments of ``distil_multilabel`` apart into questions.

    Raises:
      InputError: if one of them is not what it should be.

    >>> questions = ask([[5.0]], [[1, -1]], [[[0.3, -2.0]]])
    >>> print(questions.inputs, questions.labels)
    [[5. 1. 0.]
     [5. 0. 1.]] [ 1 -1]
    >>> print(questions.teacher_logits[:, 0])
    [[ 0.   0.3]
     [ 0.  -2. ]]
    """
    checked_inputs = check_finite(inputs, _WHERE, "inputs")
    answers = _check_answers(labels)
    num_examples, num_labels = answers.shape
    check_same_number("rows", num_examples, len(checked_inputs), "as the inputs have", _WHERE, "labels")
    logits = _check_teachers(teacher_logits, answers.shape, missing)
    flat = checked_inputs.reshape(num_examples, -1)
    places = np.tile(np.eye(num_labels, dtype=np.float32), (num_examples, 1))
    of_yes = np.moveaxis(logits, 2, 1).reshape(num_examples * num_labels, -1)
    names = np.arange(num_examples) if groups is None else np.asarray(groups)
    check_same_number("rows", len(names), num_examples, "as the inputs have", _WHERE, "groups")
    return Questions(
        np.concatenate([np.repeat(flat, num_labels, axis=0), places], axis=1),
        answers.reshape(-1),
        np.stack([np.where(np.isnan(of_yes), of_yes, np.float32(0)), of_yes], axis=-1),
        np.repeat(names, num_labels),
    )


def answer_of(student: Student, input_shape: Sequence[int]) -> Student:
    """The student of ``Questions``: of its logits the one that is asked for, as a class of two."""
    size = math.prod(input_shape)

    def apply(params: Params, rows: Float[Array, "rows features"]) -> Float[Array, "rows 2"]:
        logits = student.apply(params, rows[:, :size].reshape(-1, *input_shape))
        return _of_no_and_yes(jnp.sum(logits * rows[:, size:], axis=-1))

    return Student(student.init, apply)


def predict_multilabel(
    result: MultilabelDistillation, inputs: Array | np.ndarray, *, level: float = 0.95
) -> MultilabelPrediction:
    """Predict every label of some inputs, from all draws.

    Args:
      result: what was distilled.
      inputs: ``[examples, ...]``, standardised as the training inputs were.
      level: of the credible intervals.
    """
    student, draws, weights, temperature = _answers(result)
    found: Prediction = predict(student, draws, inputs, weights, temperature=temperature, level=level)
    parts = found.probs[:, 1], found.mean_deviance, found.credible_upper, found.epistemic
    return MultilabelPrediction(*(part.reshape(len(inputs), -1) for part in parts))


def multilabel_log_probs(
    result: MultilabelDistillation, inputs: Array | np.ndarray
) -> Float[np.ndarray, "draws questions 2"]:
    """Log probabilities of no and yes by every draw, one example's questions after another's, for ``all_metrics``.

    Its labels are then ``labels.reshape(-1)``, and its weights of draws ``result.questions.posterior.draw_weights``.
    """
    student, draws, _, temperature = _answers(result)
    return predictive_log_probs(student, draws, inputs, temperature=temperature)


def _answers(result: MultilabelDistillation) -> tuple[Student, Params, Array, float]:
    """A student that answers all questions of an input at once, its draws and their weights, and the temperature."""

    def apply(params: Params, inputs: Array) -> Float[Array, "questions 2"]:
        return _of_no_and_yes(result.student.apply(params, inputs).reshape(-1))

    posterior = result.questions.posterior
    draws, weights = flatten_chains(posterior.run.positions), jnp.asarray(posterior.draw_weights)
    temperature = float(result.questions.choice.settings.prediction_temperature)
    return Student(result.student.init, apply), draws, weights, temperature


def _of_no_and_yes(logits: Float[Array, " rows"]) -> Float[Array, "rows 2"]:
    return jnp.stack([jnp.zeros_like(logits), logits], axis=-1)


def _check_answers(labels: ArrayLike) -> Int[np.ndarray, "examples labels"]:
    array = np.asarray(labels)
    if array.ndim != 2 or 0 in array.shape:
        action = "Give a column for each label; for one class of many take `distil`."
        raise InputError(_WHERE, "labels", f"an array of shape {array.shape}", "[examples, labels]", action)
    if not np.issubdtype(array.dtype, np.integer):
        action = "Code yes as 1, no as 0 and unknown as -1, and convert by `.astype(int)`."
        raise InputError(_WHERE, "labels", f"elements of type {array.dtype}", "integers", action)
    if (outside := np.argwhere((array < -1) | (array > 1))).size:
        row, column = outside[0]
        found = f"{array[row, column]} in row {row}, column {column}"
        raise InputError(_WHERE, "labels", found, "1, 0, or -1 where nobody knows", "Give a column for each label.")
    return array.astype(np.int32)


def _check_teachers(
    teacher_logits: ArrayLike, shape: tuple[int, int], missing: MissingTeachers
) -> Float[np.ndarray, "examples teachers labels"]:
    logits = check_numbers(teacher_logits, _WHERE, "teacher_logits")
    is_asked = ~np.isnan(logits) if missing == "mask" else np.ones(logits.shape, bool)
    check_finite(np.where(is_asked, logits, np.float32(0)), _WHERE, "teacher_logits")
    num_examples, num_labels = shape
    if logits.ndim != 3 or logits.shape[1] == 0 or (logits.shape[0], logits.shape[2]) != shape:
        expected = f"({num_examples}, teachers, {num_labels}) with one teacher or more"
        action = "Stack the teachers along axis 1, rows and columns in the order of the labels."
        raise InputError(_WHERE, "teacher_logits", f"shape {logits.shape}", expected, action)
    for teacher in range(logits.shape[1]):
        if ((of := logits[:, teacher][is_asked[:, teacher]]) >= 0).all() and (of <= 1).all() and of.size:
            action = "Give log(p / (1 - p)) of each."
            raise InputError(
                _WHERE,
                f"teacher_logits of teacher {teacher}",
                "numbers from 0 to 1, as probabilities",
                "logits",
                action,
            )
    return logits
