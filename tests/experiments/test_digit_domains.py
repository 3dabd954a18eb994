"""Digit domains made small: scikit-learn's digits, small teachers, and chains too short to say anything."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.digit_domains.__main__ import STUDENT, Study, figure_of, halved, run_seed
from experiments.digit_domains.data import (
    MNIST_DIRECTORY,
    Images,
    Sizes,
    draw_domains,
    in_colour,
    print_digits,
    read_mnist,
    small_handwriting,
)
from experiments.digit_domains.digit5 import read_digit5, split_domains
from experiments.digit_domains.networks import PatchCNN, blocks, overlapping_patches
from experiments.digit_domains.teachers import TEACHER
from experiments.methods import KD, KD_BY_TRUST, METRICS, MTBKD, NO_TEACHER
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.errors import InputError
from mtbkd_jax.selection import Budget, GivenSettings
from mtbkd_jax.students import from_linen, num_parameters

SIZES = Sizes(teacher=200, pool=60, test=40)
QUICK = DistillationConfig(
    num_folds=2,
    budget=Budget(num_mode_steps=20),
    settings=GivenSettings(1.0, 5.0, float("inf"), 0.5, temperature=1.0, prediction_temperature=1.0),
    sampling=SamplingConfig(num_chains=2, num_mode_steps=100, num_burn_in=20, num_draws=10, thinning=2),
)
STUDY = Study(
    sizes=SIZES,
    num_labels=40,
    num_epochs=60,
    teacher=from_linen(PatchCNN(channels=(8, 16), hidden=32), (28, 28, 3)),
    student=from_linen(PatchCNN(channels=(4, 8), hidden=16), (14, 14, 3)),
    distillation=QUICK,
)


@pytest.fixture(scope="module")
def handwriting():
    return small_handwriting()


@pytest.fixture(scope="module")
def domains(handwriting):
    return draw_domains(handwriting, SIZES, seed=0)


@pytest.fixture(scope="module")
def result(domains):
    return run_seed(domains, 0, STUDY)


def test_every_method_has_every_metric(result):
    rows = {row["method"]: row for row in result[1].rows}
    teachers = [f"teacher: {name}" for name in ("plain", "photo", "printed")]
    assert list(rows) == [*teachers, NO_TEACHER, KD, KD_BY_TRUST, MTBKD]
    for method, row in rows.items():
        is_missing = {name for name in METRICS if row[name] is None}
        assert is_missing == ({name for name in METRICS if "coverage" in name} if method in teachers else set())
    assert rows[MTBKD]["accuracy"] > 0.2  # twice as good as chance


def test_a_teacher_is_the_expert_of_its_own_domain(result):
    # That of plain digits; the others take more than 200 images to learn theirs.
    task = result[0].task
    right = task.test_teacher_logits[:, 0].argmax(-1) == task.test_labels
    plain, photo, printed = right.reshape(3, SIZES.test).mean(1)
    assert plain > 0.7
    assert max(photo, printed) < plain - 0.2


def test_the_figure_names_the_surest_and_the_least_sure(result):
    prepared, comparison = result
    figure = figure_of(prepared, STUDY.student, comparison.draws)
    captions = [axes.get_xlabel() for axes in figure.axes]
    deviances = [float(caption.split("\n")[1]) for caption in captions]
    assert len(captions) == 20
    assert max(deviances[:10]) < min(deviances[10:])


def test_the_student_is_small_and_the_teachers_are_not():
    assert num_parameters(STUDENT) <= 100_000
    assert num_parameters(TEACHER) == pytest.approx(2e6, rel=0.1)
    assert num_parameters(TEACHER) > 20 * num_parameters(STUDENT)


def test_no_handwritten_digit_is_used_twice(handwriting):
    # Every digit its own number: what comes out is who got which.
    numbers = np.arange(1497, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    marked = handwriting.train_images.copy()
    marked[:, 0, :2] = numbers
    domain = draw_domains(dataclasses.replace(handwriting, train_images=marked), SIZES, seed=3)
    plain = [part.images[:, 0, :2, 0].copy().view(np.uint16)[:, 0] for part in domain["plain"][:2]]
    assert len(set(np.concatenate(plain).tolist())) == SIZES.teacher + SIZES.pool
    assert len(domain["photo"].test.labels) == SIZES.test


def test_domains_depend_on_the_seed_alone(handwriting, domains):
    again, other = (draw_domains(handwriting, SIZES, seed=seed) for seed in (0, 1))
    for name in domains:
        np.testing.assert_array_equal(domains[name].pool.images, again[name].pool.images)
        assert (domains[name].pool.images != other[name].pool.images).any()


def test_printed_digits_are_seen_in_every_image():
    images, labels = print_digits(200, np.random.default_rng(0))
    assert images.shape == (200, 28, 28, 3)
    assert set(labels.tolist()) == set(range(10))
    assert (images.reshape(200, -1).std(1) > 5).all()


def test_more_digits_than_there_are_are_refused(handwriting):
    with pytest.raises(InputError, match="at most 1497"):
        draw_domains(handwriting, Sizes(teacher=700, pool=60, test=40), seed=0)


def test_patches_times_weights_are_a_convolution():
    images = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 5))
    expected = jax.lax.conv_general_dilated(images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(overlapping_patches(images) @ kernel.reshape(-1, 5), expected, atol=1e-4)
    kernel = kernel[:2, :2]
    expected = jax.lax.conv_general_dilated(images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(blocks(images) @ kernel.reshape(-1, 5), expected, atol=1e-4)
    assert blocks(images[:, :5, :7]).shape == (2, 3, 4, 12)


def test_halved_images_are_means_of_four_pixels():
    images = np.zeros((1, 28, 28, 3), np.uint8)
    images[0, 2:4, 4:6, 1] = [[4, 8], [0, 0]]
    assert halved(images)[0, 1, 2].tolist() == [0.0, 3.0, 0.0]
    assert halved(images).sum() == 3.0


@pytest.fixture
def folder(tmp_path):
    """Two domains of Digit-5: one grey, one in colour and larger."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 10
    np.savez(tmp_path / "usps.npz", images=rng.integers(256, size=(30, 28, 28), dtype=np.uint8), labels=labels)
    np.savez(tmp_path / "svhn.npz", images=np.full((30, 56, 56, 3), 7, np.uint8), labels=labels.astype(np.uint8))
    return tmp_path


def test_files_of_digit5_become_domains(folder):
    domains = read_digit5(folder)
    assert list(domains) == ["svhn", "usps"]
    assert (domains["svhn"].images == 7).all()
    assert domains["svhn"].images.shape == (30, 28, 28, 3)
    parted = split_domains(domains, Sizes(15, 10, 5), seed=0, where=str(folder))["usps"]
    assert [len(part.labels) for part in parted] == [15, 10, 5]
    shared = {image.tobytes() for image in parted.teacher.images} & {image.tobytes() for image in parted.pool.images}
    assert not shared
    by_image = {image.tobytes(): label for image, label in zip(*domains["usps"], strict=True)}
    assert all(by_image[image.tobytes()] == label for image, label in zip(*parted.test, strict=True))


IMAGES, LABELS = np.zeros((4, 28, 28), np.uint8), np.zeros(4, int)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": IMAGES}, "labels: found only the fields images"),
        ({"images": IMAGES / 255, "labels": LABELS}, "images: found elements of type float64, expected uint8"),
        ({"images": IMAGES.reshape(4, -1), "labels": LABELS}, r"images: found an array of shape \(4, 784\)"),
        ({"images": IMAGES[..., None], "labels": LABELS}, r"images: found an array of shape \(4, 28, 28, 1\)"),
        ({"images": IMAGES[:, :4], "labels": LABELS}, "H and W from 8 to 512"),
        ({"images": IMAGES, "labels": LABELS + 10}, "labels: found 10 in row 0"),
        ({"images": IMAGES, "labels": LABELS - 1}, r"labels: found 4 missing \(-1\)"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "labels: found 3 labels, expected 4"),
        ({"images": IMAGES, "labels": LABELS.astype(object)}, "labels: found Python objects"),
    ],
)
def test_a_file_that_is_not_what_it_must_be_is_refused(folder, fields, message):
    np.savez(folder / "zz.npz", **fields)
    with pytest.raises(InputError, match=message) as error:
        read_digit5(folder)
    assert error.value.where == str(folder / "zz.npz")


def test_a_damaged_or_missing_file_is_refused(folder, tmp_path):
    content = (folder / "usps.npz").read_bytes()
    (folder / "usps.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"usps\.npz: archive: found damage"):
        read_digit5(folder)
    with pytest.raises(InputError, match="found 0 NPZ files"):
        read_digit5(tmp_path / "nowhere")


def test_too_few_images_are_refused():
    few = {"usps": Images(in_colour(IMAGES), LABELS)}
    with pytest.raises(InputError, match=r"DIR/usps\.npz: images: found 4 images, expected 6"):
        split_domains(few, Sizes(3, 2, 1), seed=0, where="DIR")


@pytest.mark.skipif(not MNIST_DIRECTORY.parent.is_dir(), reason=f"the development data are not at {MNIST_DIRECTORY}")
def test_mnist_is_what_is_described():
    handwriting = read_mnist()
    assert handwriting.train_images.shape == (60_000, 28, 28)
    assert handwriting.test_images.shape == (10_000, 28, 28)
    assert set(handwriting.train_labels.tolist()) == set(range(10))
