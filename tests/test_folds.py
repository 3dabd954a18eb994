import jax
import numpy as np
import pytest

from mtbkd_jax.folds import deal_folds, stratified_folds

LABELS = np.repeat([0, 1, 2, 3], [23, 11, 2, 1])


@pytest.mark.parametrize("num_folds", [2, 5])
def test_every_class_and_the_whole_are_dealt_out_evenly(num_folds):
    folds = stratified_folds(jax.random.key(0), LABELS, num_folds)
    sizes = np.bincount(folds, minlength=num_folds)
    assert np.ptp(sizes) <= 1
    for label in range(4):
        assert np.ptp(np.bincount(folds[label == LABELS], minlength=num_folds)) <= 1


def test_the_key_decides():
    first, again, other = (stratified_folds(jax.random.key(seed), LABELS, 5) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_groups_are_held_out_as_a_whole_and_their_labels_dealt_out_evenly():
    groups = np.repeat(["a", "b", "c", "d", "e"], [10, 6, 5, 5, 4])
    labels = np.where(np.arange(30) % 2 == 0, 0, -1)
    labels[groups == "e"] = -1
    folds = deal_folds(jax.random.key(0), labels, 3, groups)
    for name in "abcd":
        assert np.unique(folds[groups == name]).size == 1
    assert (folds[groups == "e"] == -1).all()
    assert sorted(np.bincount(folds[labels >= 0])) == [3, 5, 5]
