"""Baselines: students of the classical losses, which a multi-teacher Bayesian student is compared with.

A *loss* says how a student hears the teachers; ``distil_classically`` minimises it, and chooses its strength and weight
decay on the labels just as our own settings are chosen:

- ``pooled_loss``: classical distillation from the weighted mean of the teachers. The weights are those of any weighting
  rule: equal ones; by entropy, which is EBKD (Kwon et al. 2020) with weights that sum to one; by how well a teacher
  does on the label, which is CA-MKD (Zhang et al. 2022);
- ``gradient_space_loss``: AE-KD (Du et al. 2020), which looks for the direction that no teacher speaks against.

What such a student minimises is minus a log posterior, and ``approximations`` turns it into draws.

Cross-entropies are in nats and summed over examples, the labels' with weight one, the teachers' with the strength λ.
Authors who multiply the teachers' part by T² mean λ = T² here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax.approximations import Objective, climb
from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, minibatch_for
from mtbkd_jax.folds import deal_folds, held_out_labels
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import PerExampleTerm, log_posterior
from mtbkd_jax.selection import (
    PREDICTION_TEMPERATURES,
    Budget,
    Fold,
    Problem,
    correction_log_density,
    cross_validation,
    wide_scales_of,
)
from mtbkd_jax.settings import PosteriorSettings
from mtbkd_jax.students import Student
from mtbkd_jax.types import Key, MinibatchLogDensity, Params
from mtbkd_jax.weight_prior import gaussian_prior
from mtbkd_jax.weighting import WeightingRule, pooled_probs, uniform_weighting

STRENGTHS = (0.01, 0.05, 0.2, 1.0, 5.0, 20.0)
"""Candidates of λ: as many as of the weight decay, so that one compiled program serves both."""

GRADIENT_TOLERANCE = 0.6
"""The largest weight of a teacher in AE-KD, as its authors have it."""

_SWEEPS = 50


class DistillationLoss(NamedTuple):
    """How a student hears the teachers.

    Attributes:
      targets: ``(key, teacher_probs [N, G, C], inputs [N, ...], labels [N]) -> [N, ...]``, computed once; the examples
        carry them as their ``components``. An example whose targets are all zero adds nothing.
      term: ``(strength, temperature) -> per-example term``: minus the loss, in nats.
    """

    targets: Callable[
        [Key, Float[Array, "examples teachers classes"], Array, Int[Array, " examples"]],
        Float[Array, "examples ..."],
    ]
    term: Callable[[Any, float], PerExampleTerm]


def pooled_loss(rule: WeightingRule) -> DistillationLoss:
    """Classical distillation from the teachers' mean by the weights of ``rule``, which sum to one."""

    def targets(key, teacher_probs, inputs, labels):
        return pooled_probs(teacher_probs, rule(key, teacher_probs, inputs, labels))

    return DistillationLoss(
        targets, lambda strength, temperature: classical_distillation(strength=strength, temperature=temperature)
    )


def classical_distillation(*, strength: float | Float[Array, ""], temperature: float = 1.0) -> PerExampleTerm:
    """Classical multi-teacher knowledge distillation (the paper, equation 5), as minus the loss of each example.

        − strength · Σ_g w_i^g CE(p_i^g, q_i)

    in nats, with the weights as given (equal ones in the classical form) and without the factor T² that some authors
    multiply by. With the cross-entropy of the labels added, its minimum is the mode of the log-opinion pool of the
    single-teacher posteriors (theorem 4.2): it averages the teachers' opinions where the mixture prior chooses among
    them.

    Cross-entropy is linear in its first argument, so the examples carry the pooled targets Σ_g w_i^g p_i^g ``[examples,
    classes]`` as their ``components``.

    Args:
      strength: λ of equation 5, weight of the teachers against one label.
      temperature: τ, divides the student's logits; the teachers' are softened before.

    Raises:
      InputError: if ``strength`` is negative or ``temperature`` is not positive.
    """
    check_not_negative(strength=strength)
    check_positive(temperature=temperature)

    def log_density(logits, examples: Examples):
        log_probs = jax.nn.log_softmax(logits / temperature)
        return strength * jnp.sum(examples.components * log_probs, axis=-1)

    return log_density


def gradient_space_loss(*, tolerance: float = GRADIENT_TOLERANCE) -> DistillationLoss:
    """AE-KD: teachers weighed anew in each step, so that the step agrees with all of them (Du et al. 2020, equation 7).

        − strength · Σ_g α^g CE(p_i^g, q_i),    α = argmin ½ |Σ_g α^g v^g|²,    Σ_g α^g = 1,  0 ≤ α^g ≤ C

    v^g is the gradient of teacher g's cross-entropies by the student's logits, of all examples of the batch joined. The
    weights are taken as constants by the gradient. There is no function of the parameters alone that this descends, so
    it has a minimiser and no posterior.

    Args:
      tolerance: C. One over the number of teachers weighs them equally; where it is less, that is taken.

    Raises:
      InputError: if ``tolerance`` is not positive.
    """
    check_positive(tolerance=tolerance)

    def targets(key, teacher_probs, inputs, labels):
        del key, inputs, labels
        return teacher_probs

    def term(strength, temperature):
        def log_density(logits, examples: Examples):
            probs = jax.lax.stop_gradient(examples.components)
            log_probs = jax.nn.log_softmax(logits / temperature)
            # ∂ CE(p, softmax(z / τ)) / ∂z = (Σ_c p_c · q − p) / τ; τ is the same for all and drops out of α.
            totals = probs.sum(-1, keepdims=True)
            gradients = totals * jnp.exp(jax.lax.stop_gradient(log_probs))[:, None] - probs
            weights = gradient_space_weights(
                jnp.swapaxes(gradients, 0, 1).reshape(probs.shape[1], -1), tolerance=tolerance
            )
            return strength * jnp.einsum("g,egc,ec->e", weights, probs, log_probs)

        return log_density

    return DistillationLoss(targets, term)


def gradient_space_weights(
    gradients: Float[Array, "teachers values"], *, tolerance: float
) -> Float[Array, " teachers"]:
    """The weights of the shortest mean of some vectors, each at most ``tolerance``: argmin_α ½ |Σ_g α^g v^g|².

    Pairs of weights are improved in turn, each exactly, as sequential minimal optimisation does it (Platt 1998).

    >>> weights = gradient_space_weights(jnp.array([[1.0, 0.0], [-3.0, 0.0]]), tolerance=1.0)
    >>> [round(weight, 3) for weight in weights.tolist()]
    [0.75, 0.25]
    """
    gram = gradients @ gradients.T
    num_teachers = gram.shape[0]
    bound = max(tolerance, 1 / num_teachers)
    pairs = jnp.stack(jnp.triu_indices(num_teachers, 1), axis=1)
    least = 1e-12 * (1e-12 + jnp.trace(gram))  # of two equal gradients neither is to be preferred

    def improve(step, weights):
        one, other = pairs[step % len(pairs)]
        slope = jnp.dot(gram[one] - gram[other], weights)
        move = -slope / (gram[one, one] + gram[other, other] - 2 * gram[one, other] + least)
        low = jnp.maximum(-weights[one], weights[other] - bound)
        move = jnp.clip(move, low, jnp.minimum(bound - weights[one], weights[other]))
        return weights.at[one].add(move).at[other].add(-move)

    equal = jnp.full(num_teachers, 1 / num_teachers)
    return equal if num_teachers == 1 else jax.lax.fori_loop(0, _SWEEPS * len(pairs), improve, equal)


class ClassicalStudent(NamedTuple):
    """A student of classical distillation.

    Attributes:
      params: one parameter vector, the minimum of the loss.
      strength: λ, chosen on the labels.
      scale: standard deviation of the Gaussian prior on the weights (weight decay), chosen on the labels.
      prediction_temperature: what predictions divide the logits by (Guo et al. 2017), chosen on the labels.
      objective: what the parameters are the mode of, for the approximate posteriors.
    """

    params: Params
    strength: float
    scale: float
    prediction_temperature: float
    objective: Objective


def distil_classically(
    key: Key,
    student: Student,
    lessons: Lessons,
    config: DistillationConfig,
    *,
    loss: DistillationLoss | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> ClassicalStudent:
    """Distil by a loss, its strength and weight decay chosen just as our own settings are.

    The same number of folds of the same labels decide, by the same log score; a held-out label's example hears no
    teacher. The weight decay is searched first, at the strength nearest to one, and the temperature of the predictions
    last, under the belief that it is near one (``selection.correction_log_density``).

    Args:
      key: of the folds, the targets, the initialisation and the minibatches.
      student: the network.
      lessons: whose inputs, labels and teachers are used; its weights and centers are not.
      config: gives the softening, the number of folds, the batch size and the steps to the mode.
      loss: how the student hears the teachers; classical distillation with equal weights if not given.
      strengths: candidates of λ; zero alone is the student without distillation.

    Raises:
      InputError: if a teacher was not asked about some examples.
    """
    if lessons.is_asked is not None:
        found = f"{int((~lessons.is_asked).any(axis=1).sum())} examples that a teacher was not asked about"
        expected, action = "the outputs of every teacher for every example", "Leave these examples or teachers out."
        raise InputError("distil_classically", "lessons", found, expected, action)
    loss = loss or pooled_loss(uniform_weighting())
    fold_key, target_key, start_key, score_key, fit_key = jax.random.split(key, 5)
    inputs, labels = lessons.examples.inputs, lessons.examples.labels

    def examples_with(kept: Int[Array, " examples"]) -> Examples:
        targets = loss.targets(target_key, lessons.teacher_probs, inputs, kept)
        is_taught = (kept == labels).reshape(-1, *[1] * (targets.ndim - 1))
        return lessons.examples._replace(labels=kept, components=jnp.where(is_taught, targets, 0.0))

    def objective_of(settings: PosteriorSettings) -> MinibatchLogDensity:
        terms = (categorical_log_likelihood, loss.term(settings.power, config.softening))
        return log_posterior(student, per_example=terms, per_parameters=(gaussian_prior(settings.wide_scale),))

    def build(_: Key, settings: PosteriorSettings, examples: Examples) -> Problem:
        starts = jax.tree.map(lambda leaf: leaf[None], student.init(start_key))
        return Problem(objective_of(settings), starts, 1, lambda _: examples, 1)

    known = np.asarray(labels)
    held_out = held_out_labels(known, deal_folds(fold_key, known, config.num_folds))
    folds = [Fold(examples_with(jnp.asarray(kept)), inputs[: own.size], jnp.asarray(own)) for kept, own in held_out]
    draw_batch = minibatch_for(labels, config.sampling.batch_size)
    # A candidate is one mode, found by as many steps as the student that is taken in the end.
    budget = Budget(num_chains=1, num_mode_steps=config.sampling.num_mode_steps, num_steps=0)
    score = cross_validation(score_key, student, folds, build=build, draw_batch=draw_batch, budget=budget)

    def best_of(candidates: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], float]:
        """The strength and scale whose predictions are best as they are, and the temperature that suits them."""
        settings = [PosteriorSettings(strength, 1.0, np.inf, scale) for strength, scale in candidates]
        stacked = PosteriorSettings(*(np.array(values, np.float32) for values in zip(*settings, strict=True)))
        totals = score(stacked, PREDICTION_TEMPERATURES, in_earnest=False).log_scores.sum(2)
        best = int(totals[:, PREDICTION_TEMPERATURES.index(1.0)].argmax())
        believed = np.array([correction_log_density(value) for value in PREDICTION_TEMPERATURES])
        return candidates[best], PREDICTION_TEMPERATURES[int((totals[best] + believed).argmax())]

    middle = min(strengths, key=lambda strength: abs(strength - 1.0))
    (_, scale), _ = best_of([(middle, scale) for scale in wide_scales_of(student)])
    (strength, _), temperature = best_of([(strength, scale) for strength in strengths])
    chosen = PosteriorSettings(strength, 1.0, np.inf, scale)
    objective = Objective(objective_of(chosen), examples_with(labels), draw_batch)
    params = climb(fit_key, objective, student.init(start_key), num_steps=config.sampling.num_mode_steps)
    return ClassicalStudent(params, strength, scale, temperature, objective)
