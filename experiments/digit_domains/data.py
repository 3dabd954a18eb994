"""Digits in several domains, in the manner of Digit-5: plain, on photographs, and printed.

============  ==========================================================================================
domain        images of 28 x 28 pixels in colour
============  ==========================================================================================
``plain``     handwritten digits, grey
``photo``     other handwritten digits, blended into patches of scikit-learn's two photographs: |patch − digit|
``printed``   digits of the DejaVu faces that Matplotlib ships, in random size, rotation, place and colours, with noise
============  ==========================================================================================

The handwritten digits are MNIST where it is at hand and scikit-learn's, of 8 x 8 pixels, enlarged, where it is not. No
digit is used twice: what teachers learn from, what the student gets and what is tested on share no handwritten digit
within a domain or across domains, and printed ones are drawn apart. (The patches of photographs may overlap.)
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from mtbkd_jax.checks import check_positive
from mtbkd_jax.data import read_npz
from mtbkd_jax.errors import InputError

MNIST_DIRECTORY = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "mnist"
SIZE = 28
"""Height and width of an image, in pixels."""

_NUM_CLASSES = 10
_FACES = tuple(
    f"DejaVu{face}.ttf"
    for face in (
        "Sans",
        "Sans-Bold",
        "Sans-Oblique",
        "Sans-BoldOblique",
        "SansMono",
        "SansMono-Bold",
        "SansMono-Oblique",
        "SansMono-BoldOblique",
        "Serif",
        "Serif-Bold",
        "Serif-Italic",
        "Serif-BoldItalic",
    )
)
_SMALLEST_FONT, _LARGEST_FONT = 18, 28  # pixels
_LARGEST_ROTATION = 20.0  # degrees
_LARGEST_OFFSET = 2.0  # pixels
_LEAST_CONTRAST = 60  # of the brightness of ink and paper, of 255
_LARGEST_NOISE = 25.0  # standard deviation, of 255


class Images(NamedTuple):
    """Images and their digits."""

    images: UInt8[np.ndarray, "images 28 28 3"]
    labels: Int[np.ndarray, " images"]


class Domain(NamedTuple):
    """The images of one domain that its teacher learns from, that the student gets, and that are tested on."""

    teacher: Images
    pool: Images
    test: Images


class Sizes(NamedTuple):
    """Images of each domain."""

    teacher: int
    pool: int
    test: int


@dataclass(frozen=True, eq=False)
class Handwriting:
    """Handwritten digits in grey, those to test on apart.

    Attributes:
      train_images: from 0 (paper) to 255 (ink), ``[N, 28, 28]``.
      train_labels: ``[N]``.
      test_images: as ``train_images``.
      test_labels: as ``train_labels``.
    """

    train_images: UInt8[np.ndarray, "train 28 28"]
    train_labels: Int[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test 28 28"]
    test_labels: Int[np.ndarray, " test"]


def read_mnist(directory: Path = MNIST_DIRECTORY) -> Handwriting:
    """Read ``train.npz`` and ``test.npz``, each with ``images`` and ``labels``."""
    train, test = (read_npz(directory / name, required=("images", "labels")) for name in ("train.npz", "test.npz"))
    return Handwriting(train["images"], train["labels"].astype(int), test["images"], test["labels"].astype(int))


def small_handwriting(num_test: int = 300) -> Handwriting:
    """scikit-learn's 1,797 digits, enlarged to 20 x 20 pixels with a border of 4, as MNIST has it."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    enlarged = [
        Image.fromarray((digit.reshape(8, 8) * (255 / 16)).astype(np.uint8)).resize((20, 20), Image.Resampling.BILINEAR)
        for digit in pixels
    ]
    images = np.pad(np.stack([np.asarray(image) for image in enlarged]), ((0, 0), (4, 4), (4, 4)))
    # The data set lists its writers one after the other: the test digits are of other writers than the rest.
    return Handwriting(images[:-num_test], labels[:-num_test], images[-num_test:], labels[-num_test:])


def draw_domains(handwriting: Handwriting, sizes: Sizes, *, seed: int) -> dict[str, Domain]:
    """Draw the three domains.

    Raises:
      InputError: if there are not digits enough for two domains of handwriting.
    """
    order_rng, photo_rng, print_rng = np.random.default_rng(seed).spawn(3)
    check_positive(**sizes._asdict())
    needed = {"train": 2 * (sizes.teacher + sizes.pool), "test": 2 * sizes.test}
    available = {"train": len(handwriting.train_labels), "test": len(handwriting.test_labels)}
    for part, number in needed.items():
        if number > available[part]:
            found, expected = f"{number} digits asked for", f"at most {available[part]}, which there are"
            raise InputError("draw_domains", part, found, expected, "Ask for fewer images of each domain.")
    train = order_rng.permutation(available["train"])[: needed["train"]]
    test = order_rng.permutation(available["test"])[: needed["test"]]
    cuts = [sizes.teacher, sizes.teacher + sizes.pool]

    def handwritten(which: int) -> Domain:
        train_rows, test_rows = np.array_split(train, 2)[which], np.array_split(test, 2)[which]
        images, labels = in_colour(handwriting.train_images[train_rows]), handwriting.train_labels[train_rows]
        parts = zip(np.split(images, cuts[:1]), np.split(labels, cuts[:1]), strict=True)
        tested = in_colour(handwriting.test_images[test_rows]), handwriting.test_labels[test_rows]
        return Domain(*(Images(*part) for part in parts), Images(*tested))

    plain, to_blend = handwritten(0), handwritten(1)
    return {
        "plain": plain,
        "photo": Domain(*(Images(on_photographs(part.images, photo_rng), part.labels) for part in to_blend)),
        "printed": Domain(*(print_digits(number, print_rng) for number in sizes)),
    }


def in_colour(grey: UInt8[np.ndarray, "images height width"]) -> UInt8[np.ndarray, "images height width 3"]:
    """Grey images, repeated to three colours."""
    return np.repeat(grey[..., None], 3, axis=-1)


def on_photographs(
    digits: UInt8[np.ndarray, "images 28 28 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "images 28 28 3"]:
    """The absolute difference of each digit and a random patch of a photograph (Ganin and Lempitsky, 2015)."""
    photographs = _photographs()
    _, height, width, _ = photographs.shape
    number = len(digits)
    which = rng.integers(len(photographs), size=number)[:, None, None]
    rows = rng.integers(height - SIZE + 1, size=number)[:, None, None] + np.arange(SIZE)[:, None]
    columns = rng.integers(width - SIZE + 1, size=number)[:, None, None] + np.arange(SIZE)
    return np.abs(photographs[which, rows, columns].astype(np.int16) - digits).astype(np.uint8)


@cache
def _photographs() -> UInt8[np.ndarray, "photographs height width 3"]:
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)


def print_digits(number: int, rng: np.random.Generator) -> Images:
    """Digits of fonts: each of random face, size, rotation, place, and colours of ink and paper, with noise."""
    labels = rng.integers(_NUM_CLASSES, size=number)
    cover = np.stack([_printed(str(label), rng) for label in labels])[..., None]
    ink, paper = _contrasting_colours(number, rng)
    images = paper[:, None, None] + cover * (ink - paper)[:, None, None]
    noise = rng.uniform(0.0, _LARGEST_NOISE, size=(number, 1, 1, 1)) * rng.standard_normal(images.shape)
    return Images(np.clip(images + noise, 0, 255).astype(np.uint8), labels)


def _printed(digit: str, rng: np.random.Generator) -> Float[np.ndarray, "28 28"]:
    """How much of each pixel the ink covers, from 0 to 1."""
    from PIL import Image, ImageDraw

    font = _font(str(rng.choice(_FACES)), int(rng.integers(_SMALLEST_FONT, _LARGEST_FONT + 1)))
    image = Image.new("L", (SIZE, SIZE))
    center = SIZE / 2 + rng.uniform(-_LARGEST_OFFSET, _LARGEST_OFFSET, size=2)
    ImageDraw.Draw(image).text(tuple(center), digit, fill=255, font=font, anchor="mm")
    angle = rng.uniform(-_LARGEST_ROTATION, _LARGEST_ROTATION)
    return np.asarray(image.rotate(angle, Image.Resampling.BILINEAR), np.float32) / 255


@cache
def _font(face: str, size: int):
    import matplotlib as mpl
    from PIL import ImageFont

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / face, size)


def _contrasting_colours(
    number: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "images 3"], Float[np.ndarray, "images 3"]]:
    """Colours of ink and paper, drawn again where they are about as bright as each other."""
    ink, paper = rng.uniform(0, 255, size=(2, number, 3))
    while (alike := np.abs((ink - paper).mean(-1)) < _LEAST_CONTRAST).any():
        ink[alike], paper[alike] = rng.uniform(0, 255, size=(2, alike.sum(), 3))
    return ink, paper
