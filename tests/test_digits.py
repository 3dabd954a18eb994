"""The digits study: what is split how, what the teachers know, and that a seed decides it all."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mtbkd_jax.digits import TEACHER_DOMAINS, DigitsStudy, digits_split, digits_study
from mtbkd_jax.errors import InputError


@pytest.fixture(scope="module")
def study() -> DigitsStudy:
    return digits_study(seed=0)


def digest(study: DigitsStudy) -> str:
    """Changes with any bit of any field."""
    sha = hashlib.sha256()
    for field in dataclasses.fields(study):
        value = getattr(study, field.name)
        sha.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return sha.hexdigest()


def without_network(study: DigitsStudy) -> DigitsStudy:
    """The study without its third teacher, whose convolutions may round by the number of threads."""
    two = {name: getattr(study, name)[:, :2] for name in ("pool_teacher_logits", "test_teacher_logits")}
    return dataclasses.replace(study, **two)


def rows_of(ids):
    return np.array([int(name.removeprefix("digit-")) for name in ids])


def test_pool_and_test_are_disjoint_and_an_id_names_its_image(study):
    images, digits = load_digits(return_X_y=True)
    pool, test = rows_of(study.pool_ids), rows_of(study.test_ids)
    assert (len(pool), len(test)) == (600, 547)
    assert len(set(pool) | set(test)) == 1147
    np.testing.assert_array_equal(study.pool_inputs, images[pool])
    np.testing.assert_array_equal(study.test_inputs, images[test])
    np.testing.assert_array_equal(study.pool_true_labels, digits[pool])
    np.testing.assert_array_equal(study.test_labels, digits[test])


def test_the_split_is_that_of_the_study(study):
    for name, value in vars(digits_split(seed=0)).items():
        np.testing.assert_array_equal(value, getattr(study, name))


def test_teachers_see_no_image_of_the_student(monkeypatch):
    seen = []

    def only_look(pixels, labels, asked, seed):
        seen.append(pixels)
        return np.zeros((len(asked), 10), np.float32), 1

    for name in ("_teach_svm", "_teach_forest", "_teach_cnn"):
        monkeypatch.setattr(f"mtbkd_jax.digits.{name}", only_look)
    study = digits_study(seed=0)
    taught = {row.tobytes() for pixels in seen for row in pixels}
    asked = {(row / np.float32(16)).tobytes() for row in (*study.pool_inputs, *study.test_inputs)}
    assert [len(pixels) for pixels in seen] == pytest.approx([280, 218, 216], abs=5)
    assert not taught & asked


def test_the_parts_hold_each_class_in_proportion(study):
    shares = np.bincount(load_digits().target) / 1797
    for labels in (study.pool_true_labels, study.test_labels):
        np.testing.assert_allclose(np.bincount(labels), shares * len(labels), atol=2)


@pytest.mark.parametrize("num_labels", [0, 10, 100, 600])
def test_labels_are_kept_evenly_and_more_of_them_change_nothing_else(study, num_labels, monkeypatch):
    for name in ("_teach_svm", "_teach_forest", "_teach_cnn"):
        monkeypatch.setattr(
            f"mtbkd_jax.digits.{name}", lambda p, y, asked, s: (np.zeros((len(asked), 10), np.float32), 1)
        )
    other = digits_study(seed=0, num_labels=num_labels)
    kept = other.pool_labels >= 0
    np.testing.assert_array_equal(other.pool_ids, study.pool_ids)
    np.testing.assert_array_equal(other.pool_labels[kept], study.pool_true_labels[kept])
    assert kept.sum() == num_labels
    np.testing.assert_allclose(np.bincount(other.pool_labels[kept], minlength=10), num_labels / 10, atol=2)
    smaller, larger = sorted([kept, study.pool_labels >= 0], key=np.sum)
    assert np.all(larger[smaller])


def test_labelled_images_lie_anywhere_in_the_pool(study):
    # Of 100 out of 600 at random, 50 ± 4.6 lie in the first half; five standard errors.
    assert abs(np.sum(study.pool_labels[:300] >= 0) - 50) < 23


def test_each_teacher_is_an_expert_at_home_and_confidently_wrong_elsewhere(study):
    logits, labels = study.test_teacher_logits, study.test_labels
    probs = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    for g, domain in enumerate(TEACHER_DOMAINS.values()):
        right = probs[:, g].argmax(-1) == labels
        at_home = np.isin(labels, domain)
        assert right[at_home].mean() > 0.9
        assert right[~at_home].mean() < 0.8
        assert probs[~at_home & ~right, g].max(-1).mean() > 0.6


def test_pool_and_test_logits_belong_to_their_images(study):
    for logits, labels in (
        (study.pool_teacher_logits, study.pool_true_labels),
        (study.test_teacher_logits, study.test_labels),
    ):
        expert = np.array([[digit in domain for domain in TEACHER_DOMAINS.values()] for digit in labels]).argmax(1)
        answers = logits[np.arange(len(labels)), expert].argmax(-1)
        assert np.mean(answers == labels) > 0.93


def test_logits_are_finite_and_log_probabilities_are_clipped_where_stated(study):
    assert study.teacher_names == ("svm", "forest", "cnn")
    for logits in (study.pool_teacher_logits, study.test_teacher_logits):
        assert np.all(np.isfinite(logits))
        svm_and_forest = np.exp(logits[:, :2].astype(np.float64))
        assert svm_and_forest.min() >= 1e-6 * (1 - 1e-5)
        np.testing.assert_allclose(svm_and_forest.sum(-1), 1, atol=1.1e-5)


def test_parameter_counts_follow_the_stated_rules(study):
    svm, forest, cnn = study.teacher_parameter_counts
    # 64 pixels and 9 dual coefficients for each support vector, 45 intercepts and a temperature.
    num_support_vectors, rest = divmod(svm - 46, 64 + 9)
    assert rest == 0
    assert 100 < num_support_vectors <= 285
    # A binary tree of m splits has m + 1 leaves, so 600 trees and ten starting scores hold 3 m + 600 + 10 numbers.
    num_splits, rest = divmod(forest - 610, 3)
    assert rest == 0
    assert 600 < num_splits <= 600 * 7
    assert cnn == (9 * 16 + 16) + (9 * 16 * 32 + 32) + (16 * 32 * 288 + 288) + (288 * 10 + 10)
    assert cnn >= 150_000


def test_seeds_differ(study):
    assert digest(study) != digest(digits_study(seed=1))


def test_all_but_the_network_does_not_depend_on_the_number_of_threads(study):
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("the operating system cannot tie a process to one core")
    program = (
        "import os, runpy; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        f"here = runpy.run_path({__file__!r})\n"
        "print(here['digest'](here['without_network'](here['digits_study'](seed=0))))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == digest(without_network(study))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"seed": -1}, "seed: found -1"),
    ({"seed": 0, "num_labels": -1}, "num_labels: found -1"),
    ({"seed": 0, "num_labels": 601}, "num_labels: found 601, expected 0 to 600"),
])  # fmt: skip
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        digits_study(**arguments)
