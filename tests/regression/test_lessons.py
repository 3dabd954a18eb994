import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.regression.folds import folds_of_targets
from mtbkd_jax.regression.lessons import held_out_lessons
from mtbkd_jax.regression.teachers import gaussian_teachers
from mtbkd_jax.regression.trust import equal_gaussian_trust

TARGETS = jnp.where(jnp.arange(20) < 12, jnp.linspace(0, 1, 20), jnp.nan)


@pytest.mark.parametrize("seed", range(3))
def test_every_fold_has_a_target_of_each_third(seed):
    folds = folds_of_targets(jax.random.key(seed), np.asarray(TARGETS), 4)
    assert (folds[12:] == -1).all()
    for third in range(3):
        assert sorted(folds[4 * third : 4 * third + 4]) == [0, 1, 2, 3]


def test_a_lesson_knows_neither_targets_nor_teachers_of_its_fold():
    teachers = gaussian_teachers(np.linspace(0, 1, 20)[:, None])
    arguments = jnp.zeros((20, 1)), TARGETS, teachers
    held_out = held_out_lessons(jax.random.key(0), *arguments, rule=equal_gaussian_trust(), num_folds=3)
    for fold in range(3):
        is_held = held_out.fold_of_example == fold
        np.testing.assert_array_equal(held_out.lessons.weights[fold], np.where(is_held, 0.0, 1.0))
        np.testing.assert_array_equal(np.isnan(held_out.lessons.examples.labels[fold]), is_held | np.isnan(TARGETS))
