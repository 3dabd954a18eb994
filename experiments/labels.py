"""Few labels: which examples keep theirs."""

import numpy as np

from mtbkd_jax.errors import InputError


def label_subset(labels: np.ndarray, num_labels: int, seed: int) -> np.ndarray:
    """Keep ``num_labels`` labels, at random within each class, and set the others to −1.

    Each class keeps its share of the labels, rounded by largest remainder, but at least one where ``num_labels`` allows
    one for each: the student is to know that the class exists.

    Raises:
      InputError: if there are fewer labels than ``num_labels``, or ``num_labels`` is negative.
    """
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not 0 <= num_labels <= counts.sum():
        raise InputError(
            "label_subset", "num_labels", str(num_labels), f"0 to {counts.sum()}", "Give a number of labels to keep."
        )
    first = np.minimum(1, counts) if num_labels >= len(classes) else np.zeros_like(counts)
    share = (num_labels - first.sum()) * (counts - first) / max(1, (counts - first).sum())
    quota = first + np.floor(share).astype(int)
    by_remainder = np.argsort(-(share - np.floor(share)), kind="stable")
    quota[by_remainder[: num_labels - quota.sum()]] += 1

    rng = np.random.default_rng(seed)
    subset = np.full(len(labels), -1, np.int32)
    for label, number in zip(classes, quota, strict=True):
        kept = rng.permutation(np.flatnonzero(labels == label))[:number]
        subset[kept] = label
    return subset
