"""Baselines: what a multi-teacher student is compared with. Each is a per-example term in the place of the prior."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.examples import Examples, minibatch_for
from mtbkd_jax.folds import held_out_labels
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import find_mode, log_posterior
from mtbkd_jax.selection import WIDE_SCALES, Fold, Problem, cross_validation
from mtbkd_jax.settings import PriorSettings
from mtbkd_jax.students import Student
from mtbkd_jax.types import Key, Params
from mtbkd_jax.weight_prior import gaussian_prior


def classical_distillation(
    *, strength: float | Float[Array, ""], temperature: float = 1.0
) -> Callable[[Array, Examples], Float[Array, " examples"]]:
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


class ClassicalStudent(NamedTuple):
    """A student of classical distillation.

    Attributes:
      params: one parameter vector, the minimum of the loss.
      strength: λ, chosen on the labels.
      scale: standard deviation of the Gaussian prior on the weights (weight decay), chosen on the labels.
    """

    params: Params
    strength: float
    scale: float


STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def distil_classically(key: Key, student: Student, lessons: Lessons, config: DistillationConfig) -> ClassicalStudent:
    """Classical distillation with equal weights, its strength and weight decay chosen as well as our own settings.

    The same folds of the same labels decide, by the same log score; the weight decay is searched first, at a strength
    of one.

    Args:
      key: of the folds, the initialisation and the minibatches.
      student: the network.
      lessons: whose inputs, labels and teachers are used; its weights and centers are not.
      config: gives the number of folds, the batch size and the steps to the mode.
    """
    fold_key, start_key, score_key, fit_key = jax.random.split(key, 4)
    examples = lessons.examples._replace(components=lessons.teacher_probs.mean(1))
    num_labelled = int((examples.labels >= 0).sum())
    folds = [
        Fold(examples._replace(labels=jnp.asarray(kept)), examples.inputs[:num_labelled], jnp.asarray(held_out))
        for kept, held_out in held_out_labels(fold_key, np.asarray(examples.labels), config.num_folds)
    ]

    def build(settings: PriorSettings, examples: Examples) -> Problem:
        terms = (categorical_log_likelihood, classical_distillation(strength=settings.power))
        posterior = log_posterior(student, per_example=terms, per_parameters=(gaussian_prior(settings.wide_scale),))
        return Problem(posterior, jax.tree.map(lambda leaf: leaf[None], student.init(start_key)), 1, (examples,))

    draw_batch = minibatch_for(examples.labels, config.sampling.batch_size)

    budget = config.budget._replace(num_steps=0)
    score = cross_validation(score_key, student, folds, build=build, draw_batch=draw_batch, budget=budget)

    def best_of(strengths, scales):
        candidates = PriorSettings(*np.broadcast_arrays(np.float32(strengths), 1.0, np.inf, np.float32(scales)))
        best = int(score(candidates).log_scores.sum(1).argmax())
        return float(candidates.power[best]), float(candidates.wide_scale[best])

    _, scale = best_of(np.ones(len(WIDE_SCALES)), WIDE_SCALES)
    strength, _ = best_of(STRENGTHS, np.full(len(STRENGTHS), scale))
    problem = build(PriorSettings(strength, 1.0, np.inf, scale), examples)

    @jax.jit
    def climb(start: Params, data: Examples) -> Params:
        return find_mode(
            problem.log_density,
            start,
            key=fit_key,
            data=data,
            draw_batch=draw_batch,
            num_steps=config.sampling.num_mode_steps,
        ).params

    return ClassicalStudent(climb(student.init(start_key), examples), strength, scale)
