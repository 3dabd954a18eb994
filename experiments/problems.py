"""Problems that several studies share: real data, real teachers, and what a student is tested on."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from experiments.deeploc.data import folds, read_deeploc
from experiments.labels import label_subset
from mtbkd_jax.data import Standardizer
from mtbkd_jax.digits import digits_study

NUM_LABELS = 100


class Problem(NamedTuple):
    """What a student is distilled from and tested on.

    Attributes:
      inputs: ``[N, features]``, standardised.
      labels: -1 where there is none, ``[N]``.
      teacher_logits: ``[N, G, C]``.
      teacher_names: ``[G]``.
      hidden: widths of the student's hidden layers.
      test_inputs: standardised as the inputs are, ``[M, features]``.
      test_labels: ``[M]``.
    """

    inputs: np.ndarray
    labels: np.ndarray
    teacher_logits: np.ndarray
    teacher_names: tuple[str, ...]
    hidden: tuple[int, ...]
    test_inputs: np.ndarray
    test_labels: np.ndarray


def digits_problem(seed: int, num_labels: int = NUM_LABELS) -> Problem:
    """The main job: another split, other teachers and other labels for each seed."""
    study = digits_study(seed=seed, num_labels=num_labels)
    standardize = Standardizer.fit(study.pool_inputs)
    return Problem(
        inputs=standardize(study.pool_inputs),
        labels=study.pool_labels,
        teacher_logits=study.pool_teacher_logits,
        teacher_names=study.teacher_names,
        hidden=(32,),
        test_inputs=standardize(study.test_inputs),
        test_labels=study.test_labels,
    )


def deeploc_problem(fold: int, num_labels: int | None = None) -> Problem:
    """DeepLoc, tested on one homology partition; None keeps all labels of the others."""
    data = read_deeploc()
    train, test = list(folds(data.partition))[fold]
    labels = data.labels[train]
    standardize = Standardizer.fit(data.inputs[train])
    return Problem(
        inputs=standardize(data.inputs[train]),
        labels=labels if num_labels is None else label_subset(labels, num_labels, seed=fold),
        teacher_logits=data.teacher_logits[train],
        teacher_names=data.teacher_names,
        hidden=(128,),
        test_inputs=standardize(data.inputs[test]),
        test_labels=data.labels[test],
    )


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "digits": digits_problem,
    "DeepLoc, 100 labels": partial(deeploc_problem, num_labels=NUM_LABELS),
    "DeepLoc, all labels": deeploc_problem,
}
