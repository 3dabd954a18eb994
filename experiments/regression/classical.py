"""Classical distillation: squared error to the labels and to the mean of the teachers, by weight decay held in.

    min_θ Σ_labelled (y_i − f_i)² / (2 s²) + strength · Σ_i (m̄_i − f_i)² / (2 s²) + |θ|² / (2 weight_scale²)

This is the mode of the posterior with one teacher, the mean of all, that has all the weight and the labels' own
standard deviation s. Strength and weight decay are those of the least cross-validated squared error; predictions have
the standard deviation of the held-out errors.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.regression.problems import Problem
from mtbkd_jax.examples import WeightedExamples
from mtbkd_jax.regression import GaussianPrediction, RegressionConfig, gaussian_teachers, predict_gaussian, with_noise
from mtbkd_jax.regression.distillation import in_unit_of
from mtbkd_jax.regression.lessons import held_out_lessons, stack_lessons, taught_examples
from mtbkd_jax.regression.sampling import climb_to_modes
from mtbkd_jax.regression.selection import candidates_on_folds
from mtbkd_jax.regression.teachers import broad_component
from mtbkd_jax.regression.trust import GaussianTrust
from mtbkd_jax.students import Student
from mtbkd_jax.tree import tree_rows


def distil_classically(seed: int, problem: Problem, network: Student, config: RegressionConfig) -> GaussianPrediction:
    """Predict the test targets; strengths are the candidates of the power."""
    targets, inputs = jnp.asarray(problem.targets, jnp.float32), jnp.asarray(problem.inputs)
    broad = broad_component(targets)
    known = (targets - broad.mean) / broad.sd
    teachers = gaussian_teachers((problem.teacher_means.mean(1, keepdims=True) - broad.mean) / broad.sd)

    def all_the_weight(key, teachers, inputs, targets):
        del key, inputs, targets
        log_weights = jnp.broadcast_to(jnp.array([-jnp.inf, 0.0]), (teachers.means.shape[0], 2))
        return GaussianTrust(log_weights, config.noise.median * teachers.sds)

    student = with_noise(network, initial_noise=config.noise.median)
    fold_key, candidate_key, key = jax.random.split(jax.random.key(seed), 3)
    num_folds, climb = config.num_folds, {"noise": config.noise, "num_steps": config.candidate_plan.num_mode_steps}
    held_out = held_out_lessons(fold_key, inputs, known, teachers, rule=all_the_weight, num_folds=num_folds)
    own = candidates_on_folds(config.powers, config.weight_scales, num_folds)
    modes = climb_to_modes(candidate_key, student, held_out.lessons, own, **climb)

    labelled = np.flatnonzero(held_out.fold_of_example >= 0)
    means = np.asarray(predict_gaussian(student, modes, inputs[labelled]).means).reshape(-1, num_folds, labelled.size)
    errors = means[:, held_out.fold_of_example[labelled], np.arange(labelled.size)] - np.asarray(known)[labelled]
    held_out_rmse = np.sqrt((errors**2).mean(1))
    best = int(held_out_rmse.argmin())

    examples = taught_examples(key, inputs, known, teachers, rule=all_the_weight)
    lesson = stack_lessons([WeightedExamples(examples, jnp.ones(known.shape))])
    own = tree_rows(own, np.array([best * num_folds]))._replace(lesson=jnp.zeros(1, jnp.int32))
    mode = climb_to_modes(key, student, lesson, own, **climb)
    means = predict_gaussian(student, mode, jnp.asarray(problem.test_inputs)).means
    return in_unit_of(broad, GaussianPrediction(means, jnp.full_like(means, held_out_rmse[best])))
