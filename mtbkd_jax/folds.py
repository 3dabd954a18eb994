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


def are_enough(num_labelled: int, num_folds: int) -> bool:
    """Whether there are labels enough to learn from some folds and judge on another: two for each fold."""
    return num_labelled >= 2 * num_folds


def held_out_labels(
    key: Key, labels: Int[np.ndarray, " examples"], num_folds: int
) -> list[tuple[Int[np.ndarray, " examples"], Int[np.ndarray, " labelled"]]]:
    """For each fold, the labels without it, and its own labels among the labelled examples; -1 where there is none.

    Args:
      key: deals the labels out.
      labels: those of the labelled examples first, then -1.
      num_folds: folds.

    >>> labels = np.array([0, 1, -1])
    >>> [(kept.tolist(), held.tolist()) for kept, held in held_out_labels(jax.random.key(1), labels, 2)]
    [([-1, 1, -1], [0, -1]), ([0, -1, -1], [-1, 1])]
    """
    num_labelled = int((labels >= 0).sum())
    fold_of_label = stratified_folds(key, labels[:num_labelled], num_folds)
    fold_of_example = np.pad(fold_of_label, (0, labels.size - num_labelled), constant_values=-1)
    return [
        (
            np.where(fold_of_example == fold, -1, labels).astype(np.int32),
            np.where(fold_of_label == fold, labels[:num_labelled], -1).astype(np.int32),
        )
        for fold in range(num_folds)
    ]
