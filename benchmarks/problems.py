"""The posterior that the benchmarks of the step are about: random examples and teachers, both priors."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mtbkd_jax.chains import DrawBatch
from mtbkd_jax.examples import Examples, minibatch_for
from mtbkd_jax.function_prior import dirichlet_components, teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.students import Student, mlp
from mtbkd_jax.types import MinibatchLogDensity, Params
from mtbkd_jax.weight_prior import WeightMixture, weight_space_prior

STUDENT = mlp(num_features=256, hidden=(128,), num_classes=10)
BATCH_SIZE, NUM_FEATURES, NUM_CLASSES, CONCENTRATION, CENTER_SCALE = 64, 256, 10, 5.0, 0.05


class Problem(NamedTuple):
    """Data, how minibatches of them are drawn, the log posterior of one, and the centers of its weight-space prior."""

    student: Student
    examples: Examples
    draw_batch: DrawBatch
    log_density: MinibatchLogDensity
    centers: Sequence[Params]


def problem(
    num_examples: int = 2000, num_teachers: int = 2, *, student: Student = STUDENT, batch_size: int = BATCH_SIZE
) -> Problem:
    """All examples labelled; a center for each teacher, and one for their pool, beside the wide component."""
    input_key, label_key, teacher_key, center_key = jax.random.split(jax.random.key(0), 4)
    probs = jax.nn.softmax(jax.random.normal(teacher_key, (num_examples, num_teachers, NUM_CLASSES)))
    log_weights = jnp.full((num_examples, num_teachers + 1), -jnp.log(num_teachers + 1.0))
    examples = Examples(
        jax.random.normal(input_key, (num_examples, NUM_FEATURES)),
        jax.random.randint(label_key, (num_examples,), 0, NUM_CLASSES),
        dirichlet_components(probs, log_weights, CONCENTRATION),
    )
    num_components = num_teachers + 2
    keys = jax.random.split(center_key, num_components)
    centers = [student.init(key) for key in keys]
    mixture = WeightMixture(
        jnp.stack([ravel_pytree(center)[0] for center in centers]),
        jnp.full(num_components, CENTER_SCALE),
        jnp.full(num_components, -jnp.log(num_components)),
    )
    terms = categorical_log_likelihood, teacher_informed_prior()
    density = log_posterior(student, per_example=terms, per_parameters=(weight_space_prior(mixture),))
    return Problem(student, examples, minibatch_for(examples.labels, batch_size), density, centers)
