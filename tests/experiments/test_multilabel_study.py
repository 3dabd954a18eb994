import numpy as np
import pytest

from experiments.multilabel.__main__ import COLUMNS, run_fold
from experiments.multilabel.data import TEACHER_NAMES, Proteins, compartment_metrics, task_of
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.selection import Budget, GivenSettings

SMALL = DistillationConfig(
    num_folds=2,
    budget=Budget(num_mode_steps=5, num_steps=0),
    settings=GivenSettings(1.0, 2.0, float("inf"), 0.5, temperature=1.0, prediction_temperature=1.0),
    sampling=SamplingConfig(num_chains=2, num_mode_steps=20, num_burn_in=10, num_draws=4, thinning=2),
)


@pytest.fixture(scope="module")
def proteins():
    """Ten compartments, each by a feature of the student's and of both teachers'."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(150, 12)).astype(np.float32)
    labels = (inputs[:, :10] + 0.3 * rng.normal(size=(150, 10)) > 0.8).astype(np.int32)
    partition = (np.arange(150) % 5).astype(np.int32)
    return Proteins(inputs, (inputs[:, :10], inputs), labels, partition)


def test_a_fold_keeps_its_partitions_apart(proteins):
    task = task_of(proteins, 3, num_labelled=20)
    # Partition 3 is tested on, 4 and 0 train the teachers, and 1 and 2 are the student's.
    assert len(task.test_labels) == 30 * 10
    assert len(task.labels) == 60 * 10
    assert (task.labels >= 0).sum() == 20 * 10
    np.testing.assert_array_equal(task.test_labels.reshape(30, 10), proteins.labels[3::5])
    # The teachers have seen neither the student's proteins nor those of the test.
    changed = proteins.labels.copy()
    changed[np.isin(proteins.partition, [1, 2, 3])] = 0
    unchanged = task_of(proteins._replace(labels=changed), 3, num_labelled=20)
    np.testing.assert_array_equal(unchanged.test_teacher_logits, task.test_teacher_logits)


def test_metrics_of_compartments():
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    probs = np.array([[0.9, 0.2], [0.3, 0.8], [0.7, 0.6], [0.4, 0.7]])
    found = compartment_metrics(probs, labels)
    # Of the pairs in the second compartment one of four is in the wrong order.
    assert found["macro_auroc"] == pytest.approx((1 + 3 / 4) / 2)
    # Two compartments have the probability of the product: .18, .24, .42 and .28.
    assert found["several_auroc"] == 1.0


def test_the_study_in_small(proteins):
    rows = run_fold(proteins, 0, 20, SMALL)
    assert [row["method"] for row in rows[:2]] == [f"teacher: {name}" for name in TEACHER_NAMES]
    assert rows[-1]["method"] == "MT-BKD"
    for row in rows:
        assert set(COLUMNS) <= set(row)
        assert 0 <= row["macro_auroc"] <= 1
