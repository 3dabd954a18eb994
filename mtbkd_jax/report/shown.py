"""Examples that a report can show: those that a run was not trained on, and those that it was.

Where the inputs are images they are shown, and so are the images or texts that a data file has besides its inputs.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from mtbkd_jax.checks import check_finite, check_labels, check_same_number
from mtbkd_jax.data import make_dataset, sha256_of_file
from mtbkd_jax.digits import digits_split
from mtbkd_jax.errors import InputError
from mtbkd_jax.npz_files import read_npz
from mtbkd_jax.report.facts import RunFacts

Images = Float[np.ndarray, "examples height width colours"]

STUDY_TEST = "the study's test images"
"""What the images of the digits study are called that its table of methods is about."""

_DIGITS_SHAPE = (8, 8)
_COLOURS = (1, 3)


class ShownExamples(NamedTuple):
    """Examples and what a reader sees of them.

    Attributes:
      source: what they are, in words.
      ids: text, each once.
      inputs: as the run takes them.
      labels: −1 where there is none.
      images: from 0 to 1, of one colour or three; None where the examples are no images.
      texts: None where they are no texts.
    """

    source: str
    ids: Shaped[np.ndarray, " examples"]
    inputs: Float[np.ndarray, "examples ..."]
    labels: Int[np.ndarray, " examples"]
    images: Images | None
    texts: Shaped[np.ndarray, " examples"] | None


def held_out_examples(facts: RunFacts, data: Path | None) -> ShownExamples | None:
    """Examples that the run was not trained on, if there are any to be had.

    Args:
      facts: of the run.
      data: an NPZ file with such examples; without one, the digits study has its test images.

    Raises:
      InputError: if the file is not what it must be, or names other classes.
      CorruptDataError: if it was truncated or altered.
    """
    if data is not None:
        return _read_examples(facts, data, str(data))
    if not facts.is_digits:
        return None
    split = digits_split(seed=facts.config["seed"], num_labels=facts.config["num_labels"])
    return _digits(STUDY_TEST, split.test_ids, split.test_inputs, split.test_labels)


def training_examples(facts: RunFacts) -> ShownExamples | None:
    """Examples that the run was trained on; None where their file is gone or is not the same."""
    if facts.is_digits:
        split = digits_split(seed=facts.config["seed"], num_labels=facts.config["num_labels"])
        return _digits("the student's images", split.pool_ids, split.pool_inputs, split.pool_labels)
    path = Path(facts.config["data"])
    if not path.is_file() or sha256_of_file(path) != facts.input_digests.get(str(path)):
        return None
    return _read_examples(facts, path, str(path))


def _digits(
    source: str, ids: Shaped[np.ndarray, " n"], inputs: Float[np.ndarray, "n 64"], labels: Int[np.ndarray, " n"]
) -> ShownExamples:
    images = _in_unit_range(inputs.reshape(-1, *_DIGITS_SHAPE, 1))
    return ShownExamples(source, ids, inputs, labels, images, None)


def _read_examples(facts: RunFacts, path: Path, source: str) -> ShownExamples:
    where = str(path)
    optional = ("ids", "class_names", "images", "texts")
    fields = read_npz(path, required=("inputs", "labels"), optional=optional)
    given = {name: fields.get(name) for name in ("ids", "class_names")}
    dataset = make_dataset(fields["inputs"], fields["labels"], **given, where=where)
    if dataset.class_names not in (None, facts.run.class_names):
        action = "Number the labels in the order of the run's classes."
        raise InputError(where, "class_names", f"{dataset.class_names}", f"{facts.run.class_names}", action)
    labels = check_labels(dataset.labels, len(facts.run.class_names), where)
    facts.run.standardize(dataset.inputs[:1])  # refuses inputs of another shape
    for name in ("images", "texts"):
        if name in fields:
            check_same_number("rows", len(fields[name]), len(labels), "as the inputs have", where, name)
    texts = np.array([str(text) for text in fields["texts"]]) if "texts" in fields else None
    if "images" in fields:
        images = _as_images(check_finite(fields["images"], where, "images"))
        if images is None:
            found, expected = f"an array of shape {fields['images'].shape}", "[examples, height, width] or with colours"
            raise InputError(where, "images", found, expected, "Give grey images or red, green and blue.")
    else:
        images = _as_images(dataset.inputs) if texts is None else None
    return ShownExamples(source, dataset.ids, dataset.inputs, labels, images, texts)


def _as_images(values: Float[np.ndarray, "examples ..."]) -> Images | None:
    """The values as images, if they have the shape of some."""
    if values.ndim == 3:
        return _in_unit_range(values[..., None])
    if values.ndim == 4 and values.shape[3] in _COLOURS:
        return _in_unit_range(values)
    return None


def _in_unit_range(images: Images) -> Images:
    """The darkest value of all as 0 and the brightest as 1."""
    low, high = images.min(), images.max()
    return (images - low) / (high - low) if high > low else np.zeros_like(images)
