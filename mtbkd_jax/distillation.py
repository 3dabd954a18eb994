"""Distillation, end to end: from arrays to a sampled posterior.

    teachers → weighting → centers → settings chosen on the labels → posterior → chains → draws

``learn`` goes as far as the choice of settings and ``sample_posterior`` takes it from there; ``distil`` is both. Every
step is a function of its own module and can be called alone.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from numpy.typing import ArrayLike

from mtbkd_jax.centers import Centers, choose_center_scale
from mtbkd_jax.chain_weights import check_labels_to_stack_by
from mtbkd_jax.checks import (
    Names,
    check_example_shape,
    check_finite,
    check_groups,
    check_labels,
    check_num_classes,
    check_num_examples,
    check_numbers,
    check_params,
    check_positive,
    check_same_number,
    check_seed,
    looks_like_probabilities,
)
from mtbkd_jax.configuration import DistillationConfig, check_configuration
from mtbkd_jax.draws import DrawStore
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, labelled_first, minibatch_for, noise_beyond_sample
from mtbkd_jax.folds import are_enough, deal_folds
from mtbkd_jax.lessons import NUM_CLIMB_STAGES, Lessons, at_climb_stage, held_out_folds, prepare_lessons
from mtbkd_jax.posterior_sampling import SampledPosterior, sample_posterior
from mtbkd_jax.prediction import Prediction, flatten_chains, predict
from mtbkd_jax.rows import Rows, check_finite_rows
from mtbkd_jax.sampling import Progress
from mtbkd_jax.selection import Choice, Problem, choose_settings, cross_validation, wide_scales_of
from mtbkd_jax.settings import PosteriorSettings, distillation_posterior, no_teacher
from mtbkd_jax.students import Student, check_student
from mtbkd_jax.teachers import softened_probs
from mtbkd_jax.tree import tree_root_mean_square, tree_rows, tree_where
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.types import Key, Params
from mtbkd_jax.unsaid import check_heard, check_heard_rows, heard
from mtbkd_jax.weighting import FittedRule, WeightingRule, check_weighs_new_rows, entropy_weighting
from mtbkd_jax.windows import UnlabelledRows, sample_of_rows


class Distillation(NamedTuple):
    """A distilled student.

    Attributes:
      student: the network.
      lessons: of all labels, in the order ``order`` of the user's rows.
      order: row of the user's arrays for each row of the lessons, which are a sample where not all fit in memory.
      choice: the settings, and how each candidate did.
      posterior: its draws.
    """

    student: Student
    lessons: Lessons
    order: Int[np.ndarray, " examples"]
    choice: Choice
    posterior: SampledPosterior

    def predict(self, inputs: Float[Array | np.ndarray, "inputs ..."], *, level: float = 0.95) -> Prediction:
        """Predict from all draws, each weighed as its chain is, at the temperature that was chosen for predictions.

        Args:
          inputs: ``[inputs, ...]``, standardised as the taught ones are.
          level: of the credible interval.

        Raises:
          InputError: if the inputs are not finite, or not of the shape of the taught ones.
        """
        inputs = check_finite(inputs, "predict", "inputs")
        check_example_shape(inputs, self.lessons.examples.inputs.shape[1:], "predict")
        positions = self.posterior.run.positions
        draws = flatten_chains(positions.positions() if isinstance(positions, DrawStore) else positions)
        weights, temperature = self.posterior.draw_weights, self.choice.settings.prediction_temperature
        return predict(self.student, draws, inputs, jnp.asarray(weights), temperature=temperature, level=level)


class Learned(NamedTuple):
    """What is learned before anything is sampled.

    Attributes:
      log_weights: of the flat component and of each teacher, ``[examples, components]``, those with a label first.
      centers: of the weight-space prior.
      choice: the settings, and how each candidate did.
      fitted_rule: as in ``Lessons``.
    """

    log_weights: Float[Array, "examples components"]
    centers: Centers
    choice: Choice
    fitted_rule: FittedRule | None = None


@runtime_checkable
class LearnedStore(Protocol):
    """Keeps what was learned, so that it is learned once; ``unfinished.LearnedFiles`` keeps it in a directory."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been kept yet."""

    def read(self, template: PyTree) -> Learned | None:
        """What is kept, or None; ``template`` is the student's parameters, or their shapes."""

    def write(self, learned: Learned) -> None:
        """Keep it."""


def distil(
    inputs: ArrayLike | Rows,
    labels: ArrayLike,
    teacher_logits: ArrayLike | Rows,
    student: Student,
    *,
    seed: int,
    teacher_softening: ArrayLike | None = None,
    weighting: WeightingRule | None = None,
    given_centers: Mapping[int, Params] | None = None,
    groups: Names | None = None,
    config: DistillationConfig = DistillationConfig(),
    sink: DrawStore | None = None,
    progress: Progress | None = None,
) -> Distillation:
    """Distil several teachers into one Bayesian student.

    Args:
      inputs: ``[examples, ...]``, standardised; where ``config.rows_in_memory`` says that not all fit in memory,
        ``Rows`` that are read when they are needed will do, such as those of ``open_rows``.
      labels: ``[examples]``, 0 to classes - 1, and -1 where there is none.
      teacher_logits: ``[examples, teachers, classes]``, or ``Rows`` like the inputs; NaN for all classes where a
        teacher was not asked about an example, which ``config.missing_teachers`` has to allow. Of a teacher that gave
        its most probable classes alone, their log probabilities, and NaN for the others: ``config.tail`` has to say
        what becomes of them.
      student: the network, as ``mlp``, ``cnn``, ``from_linen`` or ``from_nnx`` make it.
      seed: the result depends on it, on the other arguments, and on nothing else.
      teacher_softening: the temperature that each teacher's logits were divided by already, ``[teachers]``;
        None means none was.
      weighting: how teachers are weighed; None learns trust where there are labels enough, and weighs by
        entropy otherwise. Where a teacher was not asked, the rule is told so.
      given_centers: parameters of the student's own architecture that stand for those distilled from teacher g, by g;
        the order of their hidden units does not matter, since the components are sampled apart.
      groups: the group of each example, ``[examples]``, text or integers, where some resemble each other (the same
        patient, homologous proteins): settings are then judged on groups that were held out as a whole. None where each
        stands for itself.
      config: how.
      sink: where draws are streamed to; None keeps them in memory.
      progress: called after each chunk of draws.

    Raises:
      InputError: if an array or an option is not what it should be, teachers' logits look like probabilities, or
        settings are to be chosen, or chains stacked, and there are too few labels for it.
    """
    check_seed(seed, "distil")
    if not is_streamed(labels, config):
        _refuse_probabilities(teacher_logits)
    learn_key, sample_key = jax.random.split(jax.random.key(seed))
    lessons, order, choice = learn(
        learn_key,
        inputs,
        labels,
        teacher_logits,
        student,
        teacher_softening=teacher_softening,
        weighting=weighting,
        given_centers=given_centers,
        groups=groups,
        config=config,
    )
    posterior = sample_posterior(
        sample_key,
        student,
        lessons,
        choice.settings,
        powers=choice.powers,
        config=config,
        unlabelled=unlabelled_rows(
            inputs, labels, teacher_logits, teacher_softening=teacher_softening, weighting=weighting, config=config
        ),
        sink=sink,
        progress=progress,
    )
    return Distillation(student, lessons, order, choice, posterior)


def learn(
    key: Key,
    inputs: ArrayLike | Rows,
    labels: ArrayLike,
    teacher_logits: ArrayLike | Rows,
    student: Student,
    *,
    teacher_softening: ArrayLike | None = None,
    weighting: WeightingRule | None = None,
    given_centers: Mapping[int, Params] | None = None,
    groups: Names | None = None,
    config: DistillationConfig = DistillationConfig(),
    store: LearnedStore | None = None,
) -> tuple[Lessons, Int[np.ndarray, " examples"], Choice]:
    """Weigh the teachers, distil the centers, and choose the settings. Arguments and errors are those of ``distil``.

    A ``store`` that has what was learned already, from the same arguments, spares learning it; otherwise it gets it.

    Returns:
      The lessons, the order of their rows in the user's arrays, and the choice.
    """
    check_configuration(config)
    if is_streamed(labels, config):
        sample_key, key = jax.random.split(key)
        seen = _sampled(sample_key, inputs, labels, teacher_logits, config, is_new=store is None or store.is_empty)
    else:
        seen = _all_rows(inputs, labels, teacher_logits, config)
    order, row_labels, stands_for = seen.order, seen.labels, seen.stands_for
    num_teachers, num_classes = seen.logits.shape[1:]
    check_student(student, seen.inputs.shape[1:], num_classes, "distil")
    _check_given_centers(given_centers or {}, student, num_teachers)
    softening = _checked_softening(teacher_softening, num_teachers)
    rows = jnp.asarray(seen.inputs)
    said = heard(seen.logits, config.tail)
    teacher_probs = softened_probs(jnp.asarray(said.logits), config.softening, softening)
    is_asked, known = jax.tree.map(jnp.asarray, (said.is_asked, said.known))
    if store is not None and (learned := store.read(jax.eval_shape(student.init, key))) is not None:
        examples = Examples(rows, jnp.asarray(row_labels, jnp.int32), stands_for=stands_for)
        lessons = Lessons(
            examples, teacher_probs, learned.log_weights, learned.centers, learned.fitted_rule, is_asked, known
        )
        return lessons, order, learned.choice
    num_labelled = int((row_labels >= 0).sum())
    group_of_row = None if groups is None else _checked_groups(groups, np.size(labels))[order]
    _check_labels_suffice(row_labels, group_of_row, config)
    minibatch_for(jnp.asarray(row_labels), config.sampling.batch_size)  # refuses one that is too small at once
    rule = weighting or _default_weighting(num_labelled, config.num_folds)

    scale_key, lesson_key, choice_key = jax.random.split(key, 3)
    center_scale = choose_center_scale(scale_key, student, rows, teacher_probs, stands_for, is_asked)
    prepare = partial(
        prepare_lessons,
        student=student,
        inputs=rows,
        teacher_probs=teacher_probs,
        rule=rule,
        center_scale=center_scale,
        given_centers=given_centers,
        stands_for=stands_for,
        is_asked=is_asked,
        known=known,
    )
    lessons = prepare(lesson_key, row_labels, np.ones(row_labels.shape, bool))
    choice = _choose(choice_key, student, lessons, prepare, group_of_row, config)
    if store is not None:
        store.write(Learned(lessons.log_weights, lessons.centers, choice, lessons.fitted_rule))
    return lessons, order, choice


def is_streamed(labels: ArrayLike, config: DistillationConfig) -> bool:
    """Whether there are more rows than fit in memory, so that a sample is learned from, and the others are streamed."""
    return config.rows_in_memory is not None and np.size(labels) > config.rows_in_memory


def unlabelled_rows(
    inputs: ArrayLike | Rows,
    labels: ArrayLike,
    teacher_logits: ArrayLike | Rows,
    *,
    teacher_softening: ArrayLike | None = None,
    weighting: WeightingRule | None = None,
    config: DistillationConfig = DistillationConfig(),
) -> UnlabelledRows | None:
    """What ``sample_posterior`` streams after ``learn``, whose arguments these are; None where all rows fit in memory.

    Nothing is read: ``learn`` has looked at every row.

    Raises:
      InputError: if the weighting rule cannot weigh rows that it has not seen.
    """
    if not is_streamed(labels, config):
        return None
    known = np.asarray(labels)
    rule = weighting or _default_weighting(int((known >= 0).sum()), config.num_folds)
    logits = _as_rows(teacher_logits)
    softening = _checked_softening(teacher_softening, logits.shape[1])
    return UnlabelledRows(
        _as_rows(inputs),
        logits,
        np.flatnonzero(known < 0),
        config.softening,
        softening,
        check_weighs_new_rows(rule),
        config.tail,
    )


class _Seen(NamedTuple):
    """What learning sees: all rows, or a sample of them; those with a label first. Logits may have rows of NaN."""

    order: Int[np.ndarray, " seen"]
    inputs: Float[np.ndarray, "seen ..."]
    labels: Int[np.ndarray, " seen"]
    logits: Float[np.ndarray, "seen teachers classes"]
    stands_for: Float[Array, " seen"] | None


def _all_rows(inputs: Any, labels: ArrayLike, teacher_logits: Any, config: DistillationConfig) -> _Seen:
    checked_inputs, checked_labels, logits = _checked(inputs, labels, teacher_logits, config)
    order = labelled_first(checked_labels)
    return _Seen(order, checked_inputs[order], checked_labels[order], logits[order], None)


def _sampled(
    key: Key, inputs: Any, labels: ArrayLike, teacher_logits: Any, config: DistillationConfig, *, is_new: bool
) -> _Seen:
    """A sample of rows; where nothing has been learned yet, all of them are looked at, a block at a time."""
    assert config.rows_in_memory is not None  # else nothing is streamed
    all_inputs, all_logits = _as_rows(inputs), _as_rows(teacher_logits)
    _check_shapes(all_inputs, all_logits)
    known = _checked_labels(labels, all_inputs.shape[0], all_logits.shape[2])
    num_blocks = config.sampling.num_data_blocks
    order = sample_of_rows(key, known, config.rows_in_memory, num_blocks=num_blocks)
    num_unlabelled, num_sampled = int((known < 0).sum()), int((known[order] < 0).sum())
    # Refused at once, and not where the chains start.
    noise_beyond_sample(len(order) - num_sampled, num_sampled, num_unlabelled, config.sampling.batch_size)
    if is_new:
        check_finite_rows(all_inputs, "distil", "inputs")
        check_heard_rows(all_logits, config.missing_teachers, config.tail, "distil")
    logits = check_heard(all_logits[order], config.missing_teachers, config.tail, "distil")
    _refuse_probabilities(logits)
    counts = np.where(known[order] < 0, num_unlabelled / num_sampled, 1.0)
    sampled_inputs = check_finite(all_inputs[order], "distil", "inputs")
    return _Seen(order, sampled_inputs, known[order], logits, jnp.asarray(counts, jnp.float32))


def _as_rows(values: Any) -> Rows:
    return values if isinstance(values, Rows) else np.asarray(values)


def _check_labels_suffice(
    labels: Int[np.ndarray, " examples"], groups: np.ndarray | None, config: DistillationConfig
) -> None:
    num_labelled = int((labels >= 0).sum())
    check_labels_to_stack_by(config.sampling, num_labelled)
    if None not in dataclasses.astuple(config.settings):
        return
    if not are_enough(num_labelled, config.num_folds):
        raise InputError(
            "distil",
            "labels",
            f"{num_labelled} labelled examples",
            f"at least {2 * config.num_folds}, two for each of {config.num_folds} folds, to choose settings by",
            "Label more examples, or give power, concentration, center_scale, wide_scale and both temperatures.",
        )
    if groups is not None and (count := np.unique(groups[labels >= 0]).size) < 2:
        expected, action = "two or more, to choose settings by", "Label examples of other groups, or leave groups out."
        raise InputError("distil", "groups", f"{count} with a label", expected, action)


def _check_given_centers(given_centers: Mapping[int, Params], student: Student, num_teachers: int) -> None:
    template = jax.eval_shape(student.init, jax.random.key(0))
    for teacher, params in given_centers.items():
        if not 0 <= teacher < num_teachers:
            raise InputError(
                "distil", "given_centers", f"teacher {teacher}", f"0 to {num_teachers - 1}", "Number them from 0."
            )
        check_params(params, template, f"given_centers[{teacher}]")


def _choose(
    key: Key, student, lessons: Lessons, prepare, groups: np.ndarray | None, config: DistillationConfig
) -> Choice:
    given = config.settings
    if None not in dataclasses.astuple(given):
        settings = PosteriorSettings(*dataclasses.astuple(given))
        plain = no_teacher(settings.wide_scale, settings.temperature, settings.prediction_temperature)
        return Choice(settings, plain, ())
    fold_key, lesson_key, chain_key = jax.random.split(key, 3)
    fold_of_example = deal_folds(fold_key, np.asarray(lessons.examples.labels), config.num_folds, groups)
    folds = held_out_folds(lesson_key, lessons, prepare, fold_of_example)

    def build(key: Key, settings: PosteriorSettings, fold_lessons: Lessons) -> Problem:
        # Around centers the posterior is that of whichever component has the evidence, mostly a teacher's and not the
        # pool's, so all are tried. Their scales are equal, and the density at the mode tells them apart well enough.
        centers = fold_lessons.centers.params
        has_centers = jnp.isfinite(settings.center_scale)
        starts = tree_where(
            has_centers,
            centers,
            jax.tree.map(lambda leaf, of: jnp.broadcast_to(leaf, of.shape), student.init(key), centers),
        )
        num_starts = jnp.where(has_centers, jax.tree.leaves(centers)[0].shape[0], 1)
        posterior = distillation_posterior(
            student,
            fold_lessons.centers,
            settings,
            softening=config.softening,
            defensive_weight=config.defensive_weight,
        )
        return Problem(posterior, starts, num_starts, partial(at_climb_stage, fold_lessons, settings), NUM_CLIMB_STAGES)

    score = cross_validation(
        chain_key,
        student,
        folds,
        build=build,
        draw_batch=minibatch_for(lessons.examples.labels, config.sampling.batch_size),
        budget=config.budget,
    )
    pool_size = float(tree_root_mean_square(tree_rows(lessons.centers.params, 0)))
    return choose_settings(score, given, wide_scales=wide_scales_of(student), pool_size=pool_size)


def _default_weighting(num_labelled: int, num_folds: int) -> WeightingRule:
    return learned_trust(num_folds=num_folds) if are_enough(num_labelled, num_folds) else entropy_weighting()


def _checked(inputs: ArrayLike, labels: ArrayLike, teacher_logits: ArrayLike, config: DistillationConfig):
    inputs = check_finite(inputs, "distil", "inputs")
    check_num_examples(len(inputs), "distil", "inputs")
    _check_shapes(inputs, np.asarray(teacher_logits))
    checked_logits = check_heard(teacher_logits, config.missing_teachers, config.tail, "distil")
    return inputs, _checked_labels(labels, len(inputs), checked_logits.shape[2]), checked_logits


def _check_shapes(inputs: Rows, teacher_logits: Rows) -> None:
    shape = teacher_logits.shape
    if len(shape) != 3 or shape[0] != inputs.shape[0] or shape[1] == 0:
        raise InputError(
            "distil",
            "teacher_logits",
            f"shape {shape}",
            f"({inputs.shape[0]}, teachers, classes) with one teacher or more",
            "Stack the teachers along axis 1, rows in the order of the inputs.",
        )
    check_num_classes(shape[2], "distil", "teacher_logits")


def _checked_labels(labels: ArrayLike, num_examples: int, num_classes: int) -> Int[np.ndarray, " examples"]:
    checked = check_labels(labels, num_classes, "distil")
    if checked.shape[0] != num_examples:
        raise InputError(
            "distil",
            "labels",
            f"{checked.shape[0]}",
            f"{num_examples}, one for each input",
            "Give -1 to an example without a label.",
        )
    return checked


def _checked_groups(groups: Names, num_examples: int) -> np.ndarray:
    checked = check_groups(groups, "distil")
    check_same_number("rows", len(checked), num_examples, "as the inputs have", "distil", "groups")
    return checked


def _checked_softening(softening: ArrayLike | None, num_teachers: int) -> Float[Array, " teachers"]:
    if softening is None:
        return jnp.ones(num_teachers)
    values = jnp.asarray(softening)
    if values.shape != (num_teachers,):
        action = "Give 1 to a teacher whose logits are as they were."
        expected = f"({num_teachers},), one for each teacher"
        raise InputError("distil", "teacher_softening", f"shape {values.shape}", expected, action)
    check_positive(teacher_softening=values)
    return values


def _refuse_probabilities(teacher_logits: Any) -> None:
    logits = check_numbers(teacher_logits, "distil", "teacher_logits")
    for teacher in range(logits.shape[1] if logits.ndim == 3 else 0):
        said = logits[:, teacher]
        if looks_like_probabilities(said[~np.isnan(said).all(axis=1)]):
            found = f"rows of teacher {teacher} that are non-negative and sum to one, as probabilities do"
            action = (
                "Take their logarithm; of what really are logits, subtract the largest of each row: it says nothing."
            )
            raise InputError("distil", "teacher_logits", found, "logits", action)
