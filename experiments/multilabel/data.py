"""Proteins that may have several compartments, and teachers that are trained on the spot.

The 2,500 proteins of ``experiments.deeploc`` with one compartment and 1,000 more with several, in five homology
partitions. Of each fold one partition is the test set; the two after it train the teachers, one logistic regression for
each compartment and each teacher:

- *language model*, on both hidden states of UniRep-256;
- *composition*, on the composition features of the sequence.

The other two partitions are the student's: it sees the mean hidden state of UniRep-64, what both teachers say of each
compartment, and the compartments of a few proteins.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.deeploc.data import DEFAULT_DIRECTORY, NUM_COMPARTMENTS, proteins_with_any_compartments
from experiments.tasks import Task
from mtbkd_jax.composition import composition_features
from mtbkd_jax.data import Standardizer
from mtbkd_jax.metrics import out_of_distribution_auroc
from mtbkd_jax.multilabel import ask

TEACHER_NAMES = ("language model", "composition")
NUM_FOLDS = 5
STRENGTH = 0.01
"""Of the logistic regressions: the inverse of the weight of their penalty."""


class Proteins(NamedTuple):
    """All 3,500.

    Attributes:
      inputs: of the student, ``[proteins, 64]``.
      teacher_inputs: of each teacher.
      labels: whether a protein is found in a compartment.
      partition: homology partition, 0 to 4.
    """

    inputs: Float[np.ndarray, "proteins features"]
    teacher_inputs: tuple[np.ndarray, ...]
    labels: Int[np.ndarray, "proteins compartments"]
    partition: Int[np.ndarray, " proteins"]


def read_proteins(directory: Path = DEFAULT_DIRECTORY) -> Proteins:
    """Read them; raises as ``read_deeploc`` does where a file or a field is missing."""
    fields, sequences = proteins_with_any_compartments(directory)
    student_inputs = fields["unirep64"][:, :64].astype(np.float32)
    teacher_inputs = fields["unirep256"].astype(np.float32), composition_features(sequences)
    labels = fields["label_matrix"].astype(np.int32)
    return Proteins(student_inputs, teacher_inputs, labels, fields["partition"].astype(np.int32))


def task_of(proteins: Proteins, fold: int, num_labelled: int) -> Task:
    """The questions of a fold.

    Args:
      proteins: all.
      fold: the partition to test on.
      num_labelled: the student's proteins whose compartments are known, drawn at random.
    """
    test, train = (
        proteins.partition == fold,
        np.isin(proteins.partition, [(fold + 1) % NUM_FOLDS, (fold + 2) % NUM_FOLDS]),
    )
    own = np.flatnonzero(~test & ~train)
    is_labelled = np.isin(own, np.random.default_rng(fold).permutation(own)[:num_labelled])
    labels = np.where(is_labelled[:, None], proteins.labels[own], -1)
    logits = np.stack([teacher_logits(inputs, proteins.labels, train) for inputs in proteins.teacher_inputs], axis=1)
    standardize = Standardizer.fit(proteins.inputs[own])
    learned = ask(standardize(proteins.inputs[own]), labels, logits[own])
    test_labels = proteins.labels[test]
    tested = ask(standardize(proteins.inputs[test]), test_labels, logits[test])

    def further_metrics(probs: np.ndarray) -> dict[str, float]:
        return compartment_metrics(probs[:, 1].reshape(test_labels.shape), test_labels)

    return Task(
        inputs=learned.inputs,
        labels=learned.labels,
        teacher_names=TEACHER_NAMES,
        teacher_logits=learned.teacher_logits,
        test_inputs=tested.inputs,
        test_labels=tested.labels,
        test_teacher_logits=tested.teacher_logits,
        groups=learned.groups,
        further_metrics=further_metrics,
    )


def teacher_logits(
    inputs: Float[np.ndarray, "proteins features"],
    labels: Int[np.ndarray, "proteins compartments"],
    is_known: np.ndarray,
) -> Float[np.ndarray, "proteins compartments"]:
    """Logits of all proteins, by logistic regressions that were trained on those whose labels are known."""
    from sklearn.linear_model import LogisticRegression

    standard = Standardizer.fit(inputs[is_known])(inputs)
    columns = [
        LogisticRegression(C=STRENGTH, max_iter=1000).fit(standard[is_known], labels[is_known, compartment])
        for compartment in range(NUM_COMPARTMENTS)
    ]
    return np.stack([column.decision_function(standard) for column in columns], axis=1).astype(np.float32)


def compartment_metrics(
    probs: Float[np.ndarray, "proteins compartments"], labels: Int[np.ndarray, "proteins compartments"]
) -> dict[str, float]:
    """How well compartments are told apart, and proteins with several from the others.

    Args:
      probs: that a protein is found in a compartment.
      labels: whether it is.

    Returns:
      ``macro_auroc``, the mean over compartments of the area under the curve; and ``several_auroc``, that of the
      probability of two compartments or more, if they are independent given the input, for having that many.
    """
    by_compartment = [
        out_of_distribution_auroc(of[known == 0], of[known == 1]) for of, known in zip(probs.T, labels.T, strict=True)
    ]
    none = np.prod(1 - probs, axis=1)
    one = np.sum(none[:, None] * probs / np.maximum(1 - probs, np.finfo(np.float32).tiny), axis=1)
    has_several = labels.sum(1) > 1
    of_several = 1 - none - one
    return {
        "macro_auroc": float(np.mean(by_compartment)),
        "several_auroc": out_of_distribution_auroc(of_several[~has_several], of_several[has_several]),
    }
