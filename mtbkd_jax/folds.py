"""Folds: a stratified partition of labelled examples, for cross-fitting and cross-validation."""

import jax
import numpy as np
from jaxtyping import Int

from mtbkd_jax.types import Key


def stratified_folds(key: Key, labels: Int[np.ndarray, " labelled"], num_folds: int) -> Int[np.ndarray, " labelled"]:
    """Deal the examples of each class out over the folds in turn, in random order; fold sizes differ by one at most.

    Unlike scikit-learn's splitter it takes classes with fewer examples than folds without a warning: they are the rule,
    not the exception, where labels are few.

    >>> sorted(stratified_folds(jax.random.key(0), np.array([0, 0, 0, 1, 1, 2]), 3).tolist())
    [0, 0, 1, 1, 2, 2]
    """
    shuffled = np.asarray(jax.random.permutation(key, labels.size))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = np.empty(labels.size, np.int64)
    folds[by_class] = np.arange(labels.size) % num_folds
    return folds
