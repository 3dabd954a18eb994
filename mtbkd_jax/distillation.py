"""Distillation, end to end: from arrays to a sampled posterior.

    teachers → weighting → centers → settings chosen on the labels → posterior → chains → draws

``learn`` goes as far as the choice of settings and ``sample_posterior`` takes it from there; ``distil`` is both. Every
step is a function of its own module and can be called alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from mtbkd_jax.centers import Centers, choose_center_scale, distil_centers
from mtbkd_jax.chains import chain_mesh, copy_to_all, copy_to_chains, over_chains
from mtbkd_jax.checks import check_finite, check_labels, check_positive
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, full_batch, labelled_first, minibatch_for
from mtbkd_jax.folds import are_enough, held_out_labels
from mtbkd_jax.function_prior import dirichlet_components
from mtbkd_jax.posterior import find_mode_in_stages
from mtbkd_jax.samplers import Sampler, hmc, nuts, sghmc, sgld, warm_up
from mtbkd_jax.sampling import ChainRun, DrawSink, Progress, sample_chains, start_chains
from mtbkd_jax.schedules import Schedule, constant, cyclical, polynomial
from mtbkd_jax.selection import (
    MOMENTUM_DECAY,
    STEP_FRACTION,
    Budget,
    Choice,
    Fold,
    GivenSettings,
    Problem,
    choose_settings,
    cross_validation,
)
from mtbkd_jax.settings import PriorSettings, distillation_posterior, no_teacher
from mtbkd_jax.step_size import hamiltonian_step_size, langevin_step_size, largest_curvature_around
from mtbkd_jax.students import Student
from mtbkd_jax.teachers import softened_probs
from mtbkd_jax.tree import tree_add_scaled, tree_random_normal, tree_where
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.types import Key, MinibatchLogDensity, Params, Scalar
from mtbkd_jax.weighting import WeightingRule, entropy_weighting

ADAPTED_SAMPLERS = ("hmc", "nuts")
"""Samplers whose step size is adapted; their draws use all of the data."""


@dataclass(frozen=True)
class SamplingConfig:
    """How the posterior is sampled.

    Attributes:
      sampler: SGHMC and SGLD step on minibatches; HMC and NUTS on all of the data, with adaptation, and are exact.
      num_chains: chains; they start at the teachers' centers in turn, and the last one at random.
      num_mode_steps: Adam steps of each of the two stages from a start to the mode nearby, before any sampling.
      num_burn_in: steps before the first draw (for HMC and NUTS, the steps of adaptation).
      num_draws: draws kept of each chain.
      thinning: steps from one draw to the next.
      batch_size: examples in a minibatch.
      step_fraction: step size as a fraction of the inverse square root (SGLD: of the inverse) of the largest
        curvature; the leapfrog is stable below 2.
      schedule: how the step size of SGHMC or SGLD goes on: constant, polynomial (from the first step on it falls as
        the 0.55th power of the steps, counted from ``num_burn_in``), or cyclical (draws come from the last fifth of
        each cycle). That of HMC and NUTS is adapted, and constant.
      num_cycles: of the cyclical schedule.
      momentum_decay: share of the momentum that SGHMC forgets in a step.
      num_leapfrog_steps: of HMC.
      temperature: of the posterior; 1 is Bayes.
    """

    sampler: Literal["sghmc", "sgld", "hmc", "nuts"] = "sghmc"
    num_chains: int = 4
    num_mode_steps: int = 1000
    num_burn_in: int = 2000
    num_draws: int = 100
    thinning: int = 50
    batch_size: int = 128
    step_fraction: float = STEP_FRACTION
    schedule: Literal["constant", "polynomial", "cyclical"] = "constant"
    num_cycles: int = 4
    momentum_decay: float = MOMENTUM_DECAY
    num_leapfrog_steps: int = 20
    temperature: float = 1.0


@dataclass(frozen=True)
class DistillationConfig:
    """How a student is distilled.

    Attributes:
      softening: τ, the temperature that softens the teachers' and the student's probabilities in the function-space
        prior.
      settings: the priors' settings; those left out are chosen on the labels.
      num_folds: folds of the labels, for trust and for the choice of settings.
      defensive_weight: prior weight of the wide component of the weight-space prior.
      budget: length of the chains that score a candidate.
      sampling: how the posterior is sampled.
    """

    softening: float = 1.0
    settings: GivenSettings = field(default_factory=GivenSettings)
    num_folds: int = 5
    defensive_weight: float = 0.05
    budget: Budget = field(default_factory=Budget)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


class Lessons(NamedTuple):
    """What the teachers taught, given some labels.

    Attributes:
      examples: inputs and labels, those with a label first.
      teacher_probs: softened probabilities.
      log_weights: of the flat component and of each teacher.
      centers: the student's parameters distilled from the pool and from each teacher.
    """

    examples: Examples
    teacher_probs: Float[Array, "examples teachers classes"]
    log_weights: Float[Array, "examples components"]
    centers: Centers


class Distillation(NamedTuple):
    """A distilled student.

    Attributes:
      student: the network.
      lessons: of all labels, in the order ``order`` of the user's rows.
      order: row of the user's arrays for each row of the lessons.
      choice: the settings, and how each candidate did.
      run: the chains.
    """

    student: Student
    lessons: Lessons
    order: Int[np.ndarray, " examples"]
    choice: Choice
    run: ChainRun


def distil(
    inputs: ArrayLike,
    labels: ArrayLike,
    teacher_logits: ArrayLike,
    student: Student,
    *,
    seed: int,
    teacher_softening: ArrayLike | None = None,
    weighting: WeightingRule | None = None,
    config: DistillationConfig = DistillationConfig(),
    sink: DrawSink | None = None,
    progress: Progress | None = None,
) -> Distillation:
    """Distil several teachers into one Bayesian student.

    Args:
      inputs: ``[examples, ...]``, standardised.
      labels: ``[examples]``, 0 to classes - 1, and -1 where there is none.
      teacher_logits: ``[examples, teachers, classes]``.
      student: the network, as ``mlp``, ``cnn``, ``from_linen`` or ``from_nnx`` make it.
      seed: the result depends on it, on the other arguments, and on nothing else.
      teacher_softening: the temperature that each teacher's logits were divided by already, ``[teachers]``;
        None means none was.
      weighting: how teachers are weighed; None learns trust where there are labels enough, and weighs by
        entropy otherwise.
      config: how.
      sink: where draws are streamed to; None keeps them in memory.
      progress: called after each chunk of draws.

    Raises:
      InputError: if an array is not what it should be, or settings are to be chosen and no label is there to choose by.
    """
    _check_sampling(config.sampling)  # before a minute of learning, and not after it
    learn_key, sample_key = jax.random.split(jax.random.key(seed))
    lessons, order, choice = learn(
        learn_key,
        inputs,
        labels,
        teacher_logits,
        student,
        teacher_softening=teacher_softening,
        weighting=weighting,
        config=config,
    )
    run = sample_posterior(sample_key, student, lessons, choice.settings, config=config, sink=sink, progress=progress)
    return Distillation(student, lessons, order, choice, run)


def learn(
    key: Key,
    inputs: ArrayLike,
    labels: ArrayLike,
    teacher_logits: ArrayLike,
    student: Student,
    *,
    teacher_softening: ArrayLike | None = None,
    weighting: WeightingRule | None = None,
    config: DistillationConfig = DistillationConfig(),
) -> tuple[Lessons, Int[np.ndarray, " examples"], Choice]:
    """Weigh the teachers, distil the centers, and choose the settings. Arguments and errors are those of ``distil``.

    Returns:
      The lessons, the order of their rows in the user's arrays, and the choice.
    """
    checked_inputs, checked_labels, logits = _checked(inputs, labels, teacher_logits)
    softening = jnp.ones(logits.shape[1]) if teacher_softening is None else jnp.asarray(teacher_softening)
    order = labelled_first(checked_labels)
    rows, row_labels = jnp.asarray(checked_inputs[order]), checked_labels[order]
    teacher_probs = softened_probs(jnp.asarray(logits[order]), config.softening, softening)
    num_labelled = int((row_labels >= 0).sum())
    rule = weighting or _default_weighting(num_labelled, config.num_folds)

    scale_key, lesson_key, choice_key = jax.random.split(key, 3)
    center_scale = choose_center_scale(scale_key, student, rows, teacher_probs)
    prepare = partial(
        prepare_lessons, student=student, inputs=rows, teacher_probs=teacher_probs, rule=rule, center_scale=center_scale
    )
    lessons = prepare(lesson_key, row_labels, np.ones(row_labels.shape, bool))
    choice = _choose(choice_key, student, lessons, prepare, config)
    return lessons, order, choice


def sample_posterior(
    key: Key,
    student: Student,
    lessons: Lessons,
    settings: PriorSettings,
    *,
    config: DistillationConfig = DistillationConfig(),
    sink: DrawSink | None = None,
    progress: Progress | None = None,
) -> ChainRun:
    """Sample the student's posterior under given settings.

    Every chain climbs to the mode near its start and goes on from there by the sampler. Where the weight-space prior
    has centers, the chains first take their offset to the one whose mode has the highest density; its lead over the
    others is usually hundreds of nats.
    """
    sampling = config.sampling
    _check_sampling(sampling)
    start_key, mode_key, curvature_key, init_key, warm_up_key, chain_key = jax.random.split(key, 6)
    climb_data = climb_stages(lessons, settings)
    examples = climb_data[-1]
    posterior = distillation_posterior(
        student,
        lessons.centers,
        settings,
        temperature=config.softening,
        defensive_weight=config.defensive_weight,
    )
    minibatch = minibatch_for(examples.labels, sampling.batch_size)
    starts = chain_starts(start_key, student, lessons, settings, sampling.num_chains)

    def climb(start_and_key, data):
        start, key = start_and_key
        mode = find_mode_in_stages(
            posterior, start, key=key, stages=data, draw_batch=minibatch, num_steps=sampling.num_mode_steps
        )
        batch = full_batch(key, data[-1])
        curvature = largest_curvature_around(posterior, mode, settings.weight_scale, batch, curvature_key)
        return mode, posterior(mode, batch), curvature

    def climb_all(starts):
        count = jax.tree.leaves(starts)[0].shape[0]
        mesh, keys = chain_mesh(count), jax.random.split(mode_key, count)
        return jax.jit(over_chains(climb, mesh))(copy_to_chains((starts, keys), mesh), copy_to_all(climb_data, mesh))

    if np.isfinite(settings.center_scale):
        # The components do not overlap in so many dimensions: a chain would stay in the one that it starts in, and all
        # but one of them have next to no probability.
        _, log_densities, _ = climb_all(lessons.centers.params)
        starts = _moved_to_center(starts, lessons, int(jnp.nanargmax(log_densities)))
    modes, _, curvatures = climb_all(starts)
    sampler, step_size = _sampler_and_step_size(posterior, sampling, float(jnp.max(curvatures)))
    states = start_chains(sampler, modes, init_key)
    draw_batch, num_burn_in = minibatch, sampling.num_burn_in
    if sampling.sampler in ADAPTED_SAMPLERS:
        draw_batch, num_burn_in = full_batch, 0
        states, step_sizes = warm_up(
            sampler,
            states,
            key=warm_up_key,
            data=examples,
            draw_batch=full_batch,
            num_steps=sampling.num_burn_in,
            initial_step_size=step_size,
        )
        schedule = constant(step_sizes)
    else:
        schedule = _schedule(sampling, step_size)
    return sample_chains(
        sampler,
        states,
        key=chain_key,
        data=examples,
        draw_batch=draw_batch,
        step_size=schedule,
        num_draws=sampling.num_draws,
        num_burn_in=num_burn_in,
        thinning=sampling.thinning,
        sink=sink,
        progress=progress,
    )


def chain_starts(key: Key, student: Student, lessons: Lessons, settings: PriorSettings, num_chains: int) -> Params:
    """Over-dispersed starts, stacked over chains: at each teacher's center in turn, and the last one elsewhere.

    Where the prior has centers, the last one is at the pool, and all lie around their center at twice the distance that
    the prior would put them. Where it has none, the last one is as the student is initialised; without teachers all
    are.
    """
    init_key, noise_key = jax.random.split(key)
    random = jax.vmap(student.init)(jax.random.split(init_key, num_chains))
    if not settings.uses_teachers:
        return random
    rows = _center_of_chain(lessons, num_chains)
    at_centers = jax.tree.map(lambda leaf: leaf[rows], lessons.centers.params)
    if np.isfinite(settings.center_scale):
        return tree_add_scaled(at_centers, 2 * settings.center_scale, tree_random_normal(noise_key, at_centers))
    return jax.tree.map(lambda center, scattered: jnp.concatenate([center[:-1], scattered[-1:]]), at_centers, random)


def _center_of_chain(lessons: Lessons, num_chains: int) -> Int[np.ndarray, " chains"]:
    """The row of the centers that each chain starts at: the teachers in turn, and the pool for the last one."""
    rows = 1 + np.arange(num_chains) % lessons.teacher_probs.shape[1]
    rows[-1] = 0
    return rows


def _moved_to_center(starts: Params, lessons: Lessons, row: int) -> Params:
    """Each chain's offset from the center that it starts at, around center ``row`` instead."""
    rows = _center_of_chain(lessons, jax.tree.leaves(starts)[0].shape[0])
    return jax.tree.map(
        lambda start, center: start + (center[row][None] - center[rows]), starts, lessons.centers.params
    )


def with_components(lessons: Lessons, settings: PriorSettings) -> Examples:
    """The examples with the components of the function-space prior, at the concentration of the settings."""
    components = dirichlet_components(lessons.teacher_probs, lessons.log_weights, settings.concentration)
    return lessons.examples._replace(components=components)


def climb_stages(lessons: Lessons, settings: PriorSettings) -> tuple[Examples, Examples]:
    """The examples that a climb to the mode sees first, at a concentration of one or less, and then in earnest.

    At a high concentration every example belongs to the teacher that the student happens to agree with, and the
    posterior has a mode for each way to share them out. At a low one all teachers that are trusted have a say.
    """
    mild = settings._replace(concentration=jnp.minimum(settings.concentration, 1.0))
    return with_components(lessons, mild), with_components(lessons, settings)


def prepare_lessons(
    key: Key,
    labels: Int[np.ndarray, " examples"],
    is_taught: Bool[np.ndarray, " examples"],
    *,
    student: Student,
    inputs: Array,
    teacher_probs: Float[Array, "examples teachers classes"],
    rule: WeightingRule,
    center_scale: float | Scalar,
) -> Lessons:
    """Weigh the teachers and distil the centers.

    Args:
      key: of both.
      labels: the only ones that are used.
      is_taught: False for examples that the teachers are silent about.
      student: the network.
      inputs: ``[examples, ...]``.
      teacher_probs: softened probabilities.
      rule: weighs the teachers.
      center_scale: holds the centers back, see ``distil_centers``.
    """
    weight_key, center_key = jax.random.split(key)
    known = jnp.asarray(labels, jnp.int32)
    log_weights = rule(weight_key, teacher_probs, inputs, known)
    # All weight on the flat component: such an example adds nothing to the function-space prior.
    flat_alone = jnp.where(jnp.arange(log_weights.shape[1]) == 0, 0.0, -jnp.inf)
    log_weights = jnp.where(is_taught[:, None], log_weights, flat_alone[None])
    centers = distil_centers(
        center_key, student, inputs, teacher_probs, log_weights, center_scale, jnp.asarray(is_taught)
    )
    return Lessons(Examples(inputs, known), teacher_probs, log_weights, centers)


def held_out_folds(
    fold_key: Key,
    lesson_key: Key,
    lessons: Lessons,
    prepare: Callable[[Key, Int[np.ndarray, " examples"], Bool[np.ndarray, " examples"]], Lessons],
    num_folds: int,
) -> list[Fold]:
    """Lessons without each fold of the labelled examples.

    A held-out example stands for one that no teacher was asked about, as those to predict will be, so its teachers are
    not heard either. Were they, the settings would be chosen for how closely the student can follow them there.

    Args:
      fold_key: deals the labels out.
      lesson_key: of the lessons.
      lessons: of all labels.
      prepare: ``(key, labels, is_taught) -> lessons``.
      num_folds: folds.
    """
    labels = np.asarray(lessons.examples.labels)
    num_labelled = int((labels >= 0).sum())
    return [
        Fold(
            prepare(jax.random.fold_in(lesson_key, index), kept, kept == labels),
            lessons.examples.inputs[:num_labelled],
            jnp.asarray(held_out),
        )
        for index, (kept, held_out) in enumerate(held_out_labels(fold_key, labels, num_folds))
    ]


def _choose(key: Key, student, lessons: Lessons, prepare, config: DistillationConfig) -> Choice:
    given = config.settings
    if not (
        given.power is None or given.concentration is None or given.center_scale is None or given.wide_scale is None
    ):
        settings = PriorSettings(given.power, given.concentration, given.center_scale, given.wide_scale)
        return Choice(settings, no_teacher(given.wide_scale), ())
    num_labelled = int((lessons.examples.labels >= 0).sum())
    if not are_enough(num_labelled, config.num_folds):
        raise InputError(
            "distil",
            "labels",
            f"{num_labelled} labelled examples",
            f"at least {2 * config.num_folds}, two for each of {config.num_folds} folds, to choose settings by",
            "Label more examples, or give power, concentration, center_scale and wide_scale.",
        )
    fold_key, lesson_key, start_key, chain_key = jax.random.split(key, 4)
    folds = held_out_folds(fold_key, lesson_key, lessons, prepare, config.num_folds)

    def build(settings: PriorSettings, fold_lessons: Lessons) -> Problem:
        pool = jax.tree.map(lambda leaf: leaf[0], fold_lessons.centers.params)
        start = tree_where(jnp.isfinite(settings.center_scale), pool, student.init(start_key))
        posterior = distillation_posterior(
            student,
            fold_lessons.centers,
            settings,
            temperature=config.softening,
            defensive_weight=config.defensive_weight,
        )
        return Problem(posterior, start, climb_stages(fold_lessons, settings))

    score = cross_validation(
        chain_key,
        student,
        folds,
        build=build,
        draw_batch=minibatch_for(lessons.examples.labels, config.sampling.batch_size),
        budget=config.budget,
    )
    pool = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], lessons.centers.params))[0]
    return choose_settings(score, given, pool_size=float(jnp.sqrt(jnp.mean(jnp.square(pool)))))


def _sampler_and_step_size(
    posterior: MinibatchLogDensity, sampling: SamplingConfig, curvature: float
) -> tuple[Sampler, float]:
    """The sampler that was asked for, and a step size for it at this curvature."""
    temperature = sampling.temperature
    if sampling.sampler == "sgld":
        langevin = langevin_step_size(curvature, fraction=sampling.step_fraction)
        return sgld(posterior, temperature=temperature), float(langevin)
    step_size = float(hamiltonian_step_size(curvature, fraction=sampling.step_fraction))
    if sampling.sampler == "hmc":
        return hmc(posterior, num_leapfrog_steps=sampling.num_leapfrog_steps, temperature=temperature), step_size
    if sampling.sampler == "nuts":
        return nuts(posterior, temperature=temperature), step_size
    return sghmc(posterior, friction=sampling.momentum_decay / step_size, temperature=temperature), step_size


def _check_sampling(sampling: SamplingConfig) -> None:
    check_positive(num_chains=sampling.num_chains, step_fraction=sampling.step_fraction, num_cycles=sampling.num_cycles)
    if sampling.sampler in ADAPTED_SAMPLERS and sampling.schedule != "constant":
        raise InputError(
            "sampling",
            "schedule",
            f"{sampling.schedule} with {sampling.sampler}",
            "constant: the step size is adapted",
            "Leave the schedule out, or sample by sghmc or sgld.",
        )


def _schedule(sampling: SamplingConfig, step_size: float) -> Schedule:
    """The schedule that was asked for, beginning at ``step_size``."""
    if sampling.schedule == "polynomial":
        offset, power = float(max(sampling.num_burn_in, 1)), 0.55
        return polynomial(step_size * offset**power, offset=offset, power=power)
    if sampling.schedule == "cyclical":
        # A fifth of every cycle is sampled.
        draws_of_cycle = -(-sampling.num_draws // sampling.num_cycles)
        return cyclical(step_size, cycle_length=5 * draws_of_cycle * sampling.thinning)
    return constant(step_size)


def _default_weighting(num_labelled: int, num_folds: int) -> WeightingRule:
    return learned_trust(num_folds=num_folds) if are_enough(num_labelled, num_folds) else entropy_weighting()


def _checked(inputs: ArrayLike, labels: ArrayLike, teacher_logits: ArrayLike):
    inputs = check_finite(inputs, "distil", "inputs")
    teacher_logits = check_finite(teacher_logits, "distil", "teacher_logits")
    if teacher_logits.ndim != 3 or teacher_logits.shape[0] != inputs.shape[0] or teacher_logits.shape[1] == 0:
        raise InputError(
            "distil",
            "teacher_logits",
            f"shape {teacher_logits.shape}",
            f"({inputs.shape[0]}, teachers, classes) with one teacher or more",
            "Stack the teachers along axis 1, rows in the order of the inputs.",
        )
    labels = check_labels(labels, teacher_logits.shape[2], "distil")
    if labels.shape[0] != inputs.shape[0]:
        raise InputError(
            "distil",
            "labels",
            f"{labels.shape[0]}",
            f"{inputs.shape[0]}, one for each input",
            "Give -1 to an example without a label.",
        )
    return inputs, labels, teacher_logits
