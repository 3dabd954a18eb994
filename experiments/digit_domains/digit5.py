"""Digit-5, or any other digit domains that the user has: one NPZ file for each domain in one folder.

Each file, ``NAME.npz`` for the domain NAME, has two fields:

- ``images``: uint8, ``[N, H, W]`` in grey or ``[N, H, W, 3]`` in colour, with H and W from 8 to 512 pixels. They are
  scaled to 28 x 28;
- ``labels``: integers from 0 to 9, ``[N]``.

The images of a domain are shuffled by the seed and parted into those that its teacher learns from, those that the
student gets, and those to test on. What others wrote is not trusted until it has been checked.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from experiments.digit_domains.data import SIZE, Domain, Images, Sizes, in_colour
from mtbkd_jax.checks import check_labels, check_positive, check_same_number
from mtbkd_jax.data import read_npz
from mtbkd_jax.errors import InputError

_NUM_CLASSES = 10
_SMALLEST_SIDE, _LARGEST_SIDE = 8, 512


def read_digit5(directory: Path) -> dict[str, Images]:
    """Read every NPZ file of a folder as a domain, by name.

    Raises:
      InputError: if there are not two files or more, or one of them does not hold what it must.
      CorruptDataError: if one was truncated or altered.
    """
    files = sorted(directory.glob("*.npz"))
    if len(files) < 2:
        action = "Give a folder with one NPZ file for each domain."
        raise InputError(str(directory), "domains", f"{len(files)} NPZ files", "two or more", action)
    return {file.stem: _read_domain(file) for file in files}


def _read_domain(file: Path) -> Images:
    where = str(file)
    fields = read_npz(file, required=("images", "labels"))
    images = fields["images"]
    if images.dtype != np.uint8:
        action = "Scale the pixels to 0 to 255 and convert by `.astype('uint8')`."
        raise InputError(where, "images", f"elements of type {images.dtype}", "uint8", action)
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not is_image or not all(_SMALLEST_SIDE <= side <= _LARGEST_SIDE for side in images.shape[1:3]):
        expected = f"[N, H, W] or [N, H, W, 3], H and W from {_SMALLEST_SIDE} to {_LARGEST_SIDE}"
        action = "Put the images along the first axis and the colours along the last."
        raise InputError(where, "images", f"an array of shape {images.shape}", expected, action)
    labels = check_labels(fields["labels"], _NUM_CLASSES, where)
    check_same_number("labels", len(labels), len(images), "one for each image", where, "labels")
    if missing := int((labels < 0).sum()):
        action = "Leave out the images without one; which labels the student gets is drawn later."
        raise InputError(where, "labels", f"{missing} missing (-1)", "a digit for each image", action)
    return Images(resized(images if images.ndim == 4 else in_colour(images)), labels)


def resized(images: UInt8[np.ndarray, "images height width 3"]) -> UInt8[np.ndarray, "images 28 28 3"]:
    """Scaled to 28 x 28 pixels, each pixel the mean of what it covers."""
    from PIL import Image

    if images.shape[1:3] == (SIZE, SIZE):
        return images
    scaled = [Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image) for image in scaled])


def split_domains(domains: Mapping[str, Images], sizes: Sizes, *, seed: int, where: str) -> dict[str, Domain]:
    """Part each domain at random into the teacher's images, the student's and those to test on.

    Args:
      domains: by name.
      sizes: images of each part.
      seed: of the shuffling.
      where: the folder, for the message.

    Raises:
      InputError: if none are asked for, or a domain has fewer images than are asked for.
    """
    check_positive(**sizes._asdict())
    rng = np.random.default_rng(seed)
    parted = {}
    for name, (images, labels) in domains.items():
        if len(labels) < sum(sizes):
            expected = f"{sum(sizes)}: {sizes.teacher} for the teacher, {sizes.pool} and {sizes.test} to test on"
            action = "Add images, or ask for fewer of each part."
            raise InputError(f"{where}/{name}.npz", "images", f"{len(labels)} images", expected, action)
        rows = np.split(rng.permutation(len(labels))[: sum(sizes)], np.cumsum(sizes)[:-1])
        parted[name] = Domain(*(Images(images[part], labels[part]) for part in rows))
    return parted
