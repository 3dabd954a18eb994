import numpy as np
import pytest

from experiments.study import METRICS, rows_of
from experiments.tasks import Task, digits_task
from experiments.wrong_teacher.__main__ import ENTROPY, WITH, WITHOUT, accuracy_difference, compare, wrong_teacher
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.students import mlp

QUICK = DistillationConfig(
    settings=GivenSettings(1.0, 5.0, float("inf"), 1.0, temperature=1.0, prediction_temperature=1.0),
    sampling=SamplingConfig(num_chains=2, num_mode_steps=300, num_burn_in=100, num_draws=20, thinning=5),
)


@pytest.fixture(scope="module")
def task():
    """Three blobs, 30 labels of 120, and one teacher that is right and not very sure."""
    rng = np.random.default_rng(0)
    labels = np.arange(240, dtype=np.int32) % 3
    inputs = (2.0 * np.eye(3)[labels] + 0.6 * rng.standard_normal((240, 3))).astype(np.float32)
    logits = (2.0 * np.eye(3)[labels])[:, None].astype(np.float32)
    known = np.where(np.arange(120) < 30, labels[:120], -1)
    return Task(inputs[:120], known, ("good",), logits[:120], inputs[120:], labels[120:], logits[120:])


def test_the_wrong_teacher_is_sure_of_another_class():
    logits = np.array([[[3.0, 0.0, 1.0]]])
    assert wrong_teacher(logits).argmax(-1) == 1
    assert wrong_teacher(logits).max() == 15.0


def test_entropy_follows_the_wrong_teacher_and_learned_trust_does_not(task):
    without, with_wrong, entropy = compare(task, mlp(num_features=3, hidden=(4,), num_classes=3), 0, QUICK)
    assert [run["method"] for run in (without, with_wrong, entropy)] == [WITHOUT, WITH, ENTROPY]
    assert with_wrong["mean_weights"]["wrong"] < 0.1 < 0.3 < entropy["mean_weights"]["wrong"]
    assert entropy["accuracy"] < with_wrong["accuracy"] - 0.05
    assert with_wrong["accuracy"] > without["accuracy"] - 0.03


def test_differences_are_taken_seed_by_seed():
    accuracies = {WITHOUT: [0.9, 0.8], WITH: [0.85, 0.8], ENTROPY: [0.5, 0.3]}
    runs = [
        {"method": f"toy: {name}", **dict.fromkeys(METRICS, 0.0), "accuracy": value}
        for name, values in accuracies.items()
        for value in values
    ]
    learned, entropy = accuracy_difference(rows_of(runs, tuple(METRICS)), "toy").values()
    np.testing.assert_allclose(learned, [-0.05, 0.0])
    np.testing.assert_allclose(entropy, [-0.4, -0.5])


def test_the_digits_keep_a_hundred_labels():
    task = digits_task(0)
    assert (task.labels >= 0).sum() == 100
    assert task.inputs.shape == (600, 64)
    np.testing.assert_allclose(task.inputs.mean(0), 0.0, atol=1e-4)
