import numpy as np
import pytest

from experiments.labels import label_subset
from mtbkd_jax.errors import InputError


@pytest.mark.parametrize("num_labels", [0, 3, 4, 50, 333, 1_000])
def test_label_subset_keeps_the_number_and_the_labels(num_labels):
    labels = np.repeat(np.arange(4, dtype=np.int32), [600, 300, 90, 10])
    subset = label_subset(labels, num_labels, seed=1)
    kept = subset >= 0
    assert kept.sum() == num_labels
    np.testing.assert_array_equal(subset[kept], labels[kept])
    counts = np.bincount(subset[kept], minlength=4)
    if num_labels >= 4:
        assert counts.min() >= 1
        # Largest remainder is within one of the share; the label that each class gets first adds at most one more.
        assert np.abs(counts - num_labels * np.array([0.6, 0.3, 0.09, 0.01])).max() <= 3


def test_label_subset_depends_on_the_seed_alone_and_leaves_missing_labels_missing():
    labels = np.tile(np.array([0, 1, -1], np.int32), 100)
    first, again, other = (label_subset(labels, 20, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[labels < 0] == -1).all()


@pytest.mark.parametrize("num_labels", [-1, 7])
def test_label_subset_refuses_more_labels_than_there_are(num_labels):
    with pytest.raises(InputError, match="num_labels"):
        label_subset(np.zeros(6, np.int32), num_labels, seed=0)
