"""CIFAR-10 as the study reads it: JPEG files of a student's images, and the outputs of three teachers.

The images are a lossy copy: they were compressed by JPEG at quality 75 with halved colour resolution.
"""

import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from mtbkd_jax.checks import check_finite, check_labels, check_same_number
from mtbkd_jax.data import read_npz
from mtbkd_jax.errors import CorruptDataError, InputError

DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "cifar10"
TEACHER_NAMES = ("generalist", "vehicles", "animals")
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, eq=False, kw_only=True)
class Cifar10:
    """The student's images, those to test on, and those of classes that CIFAR-10 does not have.

    Attributes:
      train_images: no teacher was trained on them.
      train_labels: of ``CLASS_NAMES``.
      train_teacher_logits: in the order of ``TEACHER_NAMES``.
      test_images: the part of the test set that development may use.
      test_labels: as ``train_labels``.
      test_teacher_logits: as ``train_teacher_logits``.
      outside_images: of Tiny ImageNet.
    """

    train_images: UInt8[np.ndarray, "train 32 32 3"]
    train_labels: Int[np.ndarray, " train"]
    train_teacher_logits: Float[np.ndarray, "train teachers 10"]
    test_images: UInt8[np.ndarray, "test 32 32 3"]
    test_labels: Int[np.ndarray, " test"]
    test_teacher_logits: Float[np.ndarray, "test teachers 10"]
    outside_images: UInt8[np.ndarray, "outside 32 32 3"]


def read_cifar10(directory: Path = DEFAULT_DIRECTORY) -> Cifar10:
    """Read ``student_train.npz``, ``dev_test.npz``, ``ood_dev.npz`` and ``teacher_logits.npz``.

    Raises:
      InputError: if a file, a field or an image is not there or not what it must be.
      CorruptDataError: if one was truncated or altered.
    """
    logits = read_npz(
        directory / "teacher_logits.npz",
        required=[f"{name}_{part}" for part in ("train", "dev_test") for name in TEACHER_NAMES],
    )

    def part(file: str, of_teachers: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        where = str(directory / file)
        fields = read_npz(where, required=("jpeg", "offsets", "labels"))
        images = decode_images(fields["jpeg"], fields["offsets"], where)
        labels = check_labels(fields["labels"], len(CLASS_NAMES), where)
        outputs = np.stack([logits[f"{name}_{of_teachers}"] for name in TEACHER_NAMES], axis=1)
        outputs = check_finite(outputs, str(directory / "teacher_logits.npz"), of_teachers)
        check_same_number("labels", len(labels), len(images), "one for each image", where, "labels")
        check_same_number("outputs", len(outputs), len(images), f"as {file} has images", where, of_teachers)
        return images, labels, outputs

    train, test = part("student_train.npz", "train"), part("dev_test.npz", "dev_test")
    outside = read_npz(directory / "ood_dev.npz", required=("jpeg", "offsets"))
    return Cifar10(
        train_images=train[0],
        train_labels=train[1],
        train_teacher_logits=train[2],
        test_images=test[0],
        test_labels=test[1],
        test_teacher_logits=test[2],
        outside_images=decode_images(outside["jpeg"], outside["offsets"], str(directory / "ood_dev.npz")),
    )


def decode_images(
    jpeg: UInt8[np.ndarray, " bytes"], offsets: Int[np.ndarray, " ends"], where: str
) -> UInt8[np.ndarray, "images 32 32 3"]:
    """Decode JPEG files that lie end to end: image i is ``jpeg[offsets[i]:offsets[i + 1]]``.

    Raises:
      CorruptDataError: if one is no JPEG file of 32 by 32 pixels in colour.
    """
    from PIL import Image, UnidentifiedImageError

    if (np.diff(offsets) <= 0).any() or offsets[0] != 0 or offsets[-1] != jpeg.size:
        found = f"numbers from {offsets[0]} to {offsets[-1]}, not all rising"
        raise InputError(where, "offsets", found, f"rising numbers from 0 to {jpeg.size}", "Write the file again.")
    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    content = memoryview(np.ascontiguousarray(jpeg))
    for number, (start, end) in enumerate(itertools.pairwise(offsets)):
        field = f"jpeg, image {number}"
        try:
            with Image.open(io.BytesIO(content[start:end]), formats=("JPEG",)) as image:
                if (image.size, image.mode) != ((32, 32), "RGB"):
                    found = f"{image.mode} of {image.size[0]} x {image.size[1]} pixels"
                    raise CorruptDataError(where, field, found, "RGB of 32 x 32 pixels", "Write the file again.")
                images[number] = image
        except (UnidentifiedImageError, OSError) as error:
            raise CorruptDataError(where, field, str(error), "a JPEG file", "Copy the file again.") from error
    return images
