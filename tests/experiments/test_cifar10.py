"""CIFAR-10 made small: few images, few filters, and chains too short to say anything."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from experiments.cifar10.__main__ import Study, run_seed
from experiments.cifar10.data import CLASS_NAMES, DEFAULT_DIRECTORY, decode_images, read_cifar10
from experiments.cifar10.features import fit_features
from experiments.methods import KD, KD_BY_TRUST, METRICS, MTBKD, NO_TEACHER
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.errors import InputError
from mtbkd_jax.selection import Budget, GivenSettings
from mtbkd_jax.students import mlp, num_parameters

QUICK = DistillationConfig(
    num_folds=2,
    budget=Budget(num_mode_steps=20),
    settings=GivenSettings(1.0, 5.0, float("inf"), 0.1, temperature=1.0, prediction_temperature=1.0),
    sampling=SamplingConfig(num_chains=2, num_mode_steps=100, num_burn_in=20, num_draws=10, thinning=2),
)
STUDY = Study(num_images=400, num_labels=60, num_features=32, hidden=16, distillation=QUICK)

needs_data = pytest.mark.skipif(
    not DEFAULT_DIRECTORY.parent.is_dir(), reason=f"the development data are not at {DEFAULT_DIRECTORY}"
)


@pytest.fixture(scope="module")
def data():
    return read_cifar10()


@needs_data
def test_real_data_hold_the_images_and_teachers_that_are_described(data):
    assert data.train_images.shape == (25_000, 32, 32, 3)
    assert data.test_images.shape == (5_000, 32, 32, 3)
    assert data.outside_images.shape == (1_000, 32, 32, 3)
    accuracy = (data.train_teacher_logits.argmax(-1) == data.train_labels[:, None]).mean(0)
    np.testing.assert_allclose(accuracy, [0.826, 0.623, 0.704], atol=5e-4)


@needs_data
def test_every_method_has_every_metric(data):
    few = dataclasses.replace(
        data,
        test_images=data.test_images[:300],
        test_labels=data.test_labels[:300],
        test_teacher_logits=data.test_teacher_logits[:300],
        outside_images=data.outside_images[:100],
    )
    rows = {row["method"]: row for row in run_seed(few, 0, STUDY)}
    teachers = [f"teacher: {name}" for name in ("generalist", "vehicles", "animals")]
    assert list(rows) == [*teachers, NO_TEACHER, KD, KD_BY_TRUST, MTBKD]
    for method in (NO_TEACHER, KD, KD_BY_TRUST, MTBKD):
        assert all(rows[method][name] is not None for name in (*METRICS, "ood_auroc"))
    assert rows["teacher: generalist"]["accuracy"] > 0.7
    assert rows[MTBKD]["accuracy"] > 0.2  # twice as good as chance


def test_the_student_is_small():
    study = Study()
    student = mlp(num_features=study.num_features, hidden=(study.hidden,), num_classes=len(CLASS_NAMES))
    assert num_parameters(student) == 34_186


@pytest.fixture(scope="module")
def stripes():
    """Images of stripes, upright or level, and of random contrast."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.arange(32)[None] / 1.5 + rng.uniform(0, 6, (60, 1)))
    upright = np.broadcast_to(waves[:, None, :], (60, 32, 32)).copy()
    upright[::2] = upright[::2].swapaxes(1, 2)
    grey = 128 + rng.uniform(20, 100, (60, 1, 1)) * upright
    return np.repeat(np.clip(grey + rng.normal(0, 3, grey.shape), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def test_features_tell_textures_apart_and_are_those_of_the_map(stripes):
    features, pool = fit_features(stripes, seed=0, num_filters=16, num_features=8)
    np.testing.assert_allclose(features(stripes), pool, atol=1e-3)
    np.testing.assert_allclose(pool.mean(0), 0.0, atol=1e-4)
    is_level = np.arange(60) % 2 == 0
    first = pool[:, 0] > 0
    assert (first == is_level).all() or (first != is_level).all()


def test_features_depend_on_the_seed_alone(stripes):
    first, again, other = (fit_features(stripes, seed=seed, num_filters=16, num_features=8)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def joined(*images):
    """JPEG files end to end, and where they end."""
    files = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "JPEG")
        files.append(stream.getvalue())
    return np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *map(len, files)])


def test_images_are_decoded_in_order():
    jpeg, offsets = joined(*(Image.new("RGB", (32, 32), (level,) * 3) for level in (10, 200)))
    images = decode_images(jpeg, offsets, "a.npz")
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(images.mean((1, 2, 3)), [10, 200], atol=2)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (16, 32)), "image 1: found RGB of 16 x 32 pixels"),
        (Image.new("L", (32, 32)), "image 1: found L of 32 x 32 pixels"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(InputError, match=message):
        decode_images(*joined(Image.new("RGB", (32, 32)), image), "a.npz")


def test_damage_is_named():
    jpeg, offsets = joined(*[Image.new("RGB", (32, 32))] * 2)
    broken = jpeg.copy()
    broken[offsets[1] :] = 0
    with pytest.raises(InputError, match=r"a\.npz: jpeg, image 1: found cannot identify"):
        decode_images(broken, offsets, "a.npz")
    with pytest.raises(InputError, match="offsets: found numbers from 0 to"):
        decode_images(jpeg, offsets[:2], "a.npz")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"teacher_logits\.npz"):
        read_cifar10(tmp_path)
