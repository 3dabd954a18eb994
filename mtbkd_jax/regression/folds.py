"""Folds over known targets, each with low, middle and high ones."""

import numpy as np
from jaxtyping import Float, Int

from mtbkd_jax.folds import stratified_folds
from mtbkd_jax.types import Key


def folds_of_targets(key: Key, targets: Float[np.ndarray, " examples"], num_folds: int) -> Int[np.ndarray, " examples"]:
    """The fold of each known target, -1 where it is unknown; neighbours in order of size go to different folds.

    >>> import jax
    >>> folds_of_targets(jax.random.key(0), np.array([5.0, np.nan, 1.0]), 2).tolist()
    [0, -1, 1]
    """
    known = np.flatnonzero(~np.isnan(targets))
    ranks = np.argsort(np.argsort(targets[known], kind="stable"), kind="stable")
    folds = np.full(targets.size, -1)
    folds[known] = stratified_folds(key, ranks // num_folds, num_folds)
    return folds
