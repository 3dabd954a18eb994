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


def deal_folds(
    key: Key, labels: Int[np.ndarray, " examples"], num_folds: int, groups: np.ndarray | None = None
) -> Int[np.ndarray, " examples"]:
    """The fold that each example is held out with, from 0; -1 for one that never is.

    Where examples come in groups, a whole group is held out at a time, its examples without a label as well: what the
    teachers say of them would tell about the held-out labels what nobody tells about examples of a new group.

    Args:
      key: deals single examples out; groups are dealt out by size alone.
      labels: -1 where there is none.
      num_folds: at most; there are no more than groups with a label.
      groups: the group of each example; None where each stands for itself, and those without a label are never held
        out.

    >>> deal_folds(jax.random.key(1), np.array([0, 1, -1, -1]), 2).tolist()
    [0, 1, -1, -1]
    >>> deal_folds(jax.random.key(1), np.array([0, 1, -1, -1]), 2, np.array(["a", "b", "a", "c"])).tolist()
    [1, 0, 1, -1]
    """
    labelled = np.flatnonzero(labels >= 0)
    folds = np.full(labels.size, -1)
    if groups is None:
        folds[labelled] = stratified_folds(key, labels[labelled], num_folds)
        return folds
    from sklearn.model_selection import GroupKFold

    names, group_of_example = np.unique(groups, return_inverse=True)
    own = group_of_example[labelled]
    fold_of_group = np.full(names.size, -1)
    splits = GroupKFold(min(num_folds, np.unique(own).size)).split(labelled, groups=own)
    for fold, (_, held_out) in enumerate(splits):
        fold_of_group[own[held_out]] = fold
    return fold_of_group[group_of_example]


def held_out_labels(
    labels: Int[np.ndarray, " examples"], fold_of_example: Int[np.ndarray, " examples"]
) -> list[tuple[Int[np.ndarray, " examples"], Int[np.ndarray, " labelled"]]]:
    """For each fold, the labels without it, and its own labels among the labelled examples; -1 where there is none.

    Args:
      labels: those of the labelled examples first, then -1.
      fold_of_example: as ``deal_folds`` gives it.

    >>> labels = np.array([0, 1, -1])
    >>> [(kept.tolist(), held.tolist()) for kept, held in held_out_labels(labels, np.array([1, 0, -1]))]
    [([0, -1, -1], [-1, 1]), ([-1, 1, -1], [0, -1])]
    """
    num_labelled = int((labels >= 0).sum())
    return [
        (
            np.where(fold_of_example == fold, -1, labels).astype(np.int32),
            np.where(fold_of_example == fold, labels, -1)[:num_labelled].astype(np.int32),
        )
        for fold in range(fold_of_example.max() + 1)
    ]
