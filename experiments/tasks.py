"""Tasks: what students are distilled from and tested on; and those that several studies share."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.deeploc.data import folds, read_deeploc
from experiments.labels import label_subset
from mtbkd_jax.data import Standardizer
from mtbkd_jax.digits import digits_study

NUM_LABELS = 100


class Task(NamedTuple):
    """What students are distilled from and tested on.

    Attributes:
      inputs: ``[N, ...]``, standardised.
      labels: -1 where there is none, ``[N]``.
      teacher_names: ``[G]``.
      teacher_logits: ``[N, G, C]``.
      test_inputs: standardised as the inputs are, ``[M, ...]``.
      test_labels: ``[M]``.
      test_teacher_logits: ``[M, G, C]``.
      outside_inputs: of no class that there is, to be told from the test inputs, ``[O, ...]``; None without such.
      groups: the group of each example, ``[N]``, that settings are judged on as a whole; None where each stands alone.
      further_metrics: of the predictive mean on the test set, ``[M, C]``, by name; None without such.
    """

    inputs: np.ndarray
    labels: np.ndarray
    teacher_names: tuple[str, ...]
    teacher_logits: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    test_teacher_logits: np.ndarray
    outside_inputs: np.ndarray | None = None
    groups: np.ndarray | None = None
    further_metrics: Callable[[np.ndarray], dict[str, float]] | None = None


def digits_task(seed: int, num_labels: int = NUM_LABELS) -> Task:
    """The main job: another split, other teachers and other labels for each seed."""
    study = digits_study(seed=seed, num_labels=num_labels)
    standardize = Standardizer.fit(study.pool_inputs)
    return Task(
        inputs=standardize(study.pool_inputs),
        labels=study.pool_labels,
        teacher_logits=study.pool_teacher_logits,
        teacher_names=study.teacher_names,
        test_inputs=standardize(study.test_inputs),
        test_labels=study.test_labels,
        test_teacher_logits=study.test_teacher_logits,
    )


def deeploc_task(fold: int, num_labels: int | None = None) -> Task:
    """DeepLoc, tested on one homology partition; None keeps all labels of the others."""
    data = read_deeploc()
    train, test = list(folds(data.partition))[fold]
    labels = data.labels[train]
    standardize = Standardizer.fit(data.inputs[train])
    return Task(
        inputs=standardize(data.inputs[train]),
        labels=labels if num_labels is None else label_subset(labels, num_labels, seed=fold),
        teacher_logits=data.teacher_logits[train],
        teacher_names=data.teacher_names,
        test_inputs=standardize(data.inputs[test]),
        test_labels=data.labels[test],
        test_teacher_logits=data.teacher_logits[test],
    )
