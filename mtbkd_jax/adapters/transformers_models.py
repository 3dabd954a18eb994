"""Teachers that are classifiers of Hugging Face ``transformers``, for texts and for images.

They are read from a directory as ``save_pretrained`` writes it. Nothing is fetched, no code of a model's own is run,
and only safetensors are read, never pickled weights.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mtbkd_jax.adapters.base import Adapter, Inputs, check_texts
from mtbkd_jax.adapters.torch_modules import as_array, check_evaluation_mode
from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.errors import InputError

_NOT_TRUSTED: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def read_sequence_classifier(path: str | Path, *, device: str = "cpu") -> Adapter:
    """Make an adapter of the directory of a model ``AutoModelForSequenceClassification`` with its tokenizer.

    Args:
      path: the directory.
      device: what PyTorch calls the device to compute on.

    Raises:
      InputError: if it is no such directory, or lacks weights.
    """
    import transformers

    model = read_model(path, transformers.AutoModelForSequenceClassification, device=device)
    tokenizer = read_processor(path, transformers.AutoTokenizer)
    return from_sequence_classifier(model, tokenizer, source=describe_directory(path))


def read_image_classifier(path: str | Path, *, device: str = "cpu") -> Adapter:
    """Make an adapter of the directory of a model ``AutoModelForImageClassification`` with its image processor.

    For arguments and errors see ``read_sequence_classifier``.
    """
    import transformers

    model = read_model(path, transformers.AutoModelForImageClassification, device=device)
    processor = read_processor(path, transformers.AutoImageProcessor)
    return from_image_classifier(model, processor, source=describe_directory(path))


def from_sequence_classifier(model: Any, tokenizer: Any, *, source: str | None = None) -> Adapter:
    """Make an adapter of a text classifier; its inputs are texts, cut where the tokenizer's maximal length is reached.

    Args:
      model: a ``PreTrainedModel`` for sequence classification, in evaluation mode.
      tokenizer: its tokenizer.
      source: what the teacher is, in words; None is the name that the model was loaded by.

    Raises:
      InputError: if the model is no classifier with one label for each text, is in training mode, or has no padding.
    """
    _check_classifier(model)
    where = _name(model, source)
    if tokenizer.pad_token is None or model.config.pad_token_id is None:
        action = "Set `tokenizer.pad_token` and `model.config.pad_token_id`."
        raise InputError(where, "pad_token", "none", "one, so that texts of different lengths fit together", action)

    def encode(inputs: Inputs) -> Any:
        check_texts(inputs, where)
        return tokenizer(inputs.tolist(), padding=True, truncation=True, return_tensors="pt")

    return _adapter(model, encode, where)


def from_image_classifier(model: Any, processor: Any, *, source: str | None = None) -> Adapter:
    """Make an adapter of an image classifier; its inputs are images ``[batch, height, width, channels]``.

    Args:
      model: a ``PreTrainedModel`` for image classification, in evaluation mode.
      processor: its image processor, which resizes and scales.
      source: what the teacher is, in words; None is the name that the model was loaded by.

    Raises:
      InputError: if the model is no classifier with one label for each image, or is in training mode.
    """
    _check_classifier(model)
    where = _name(model, source)

    def encode(inputs: Inputs) -> Any:
        if inputs.ndim != 4:
            expected = "[examples, height, width, channels]"
            raise InputError(where, "inputs", f"an array of shape {inputs.shape}", expected, "Give images.")
        return processor(images=list(inputs), return_tensors="pt", input_data_format="channels_last")

    return _adapter(model, encode, where)


def read_model(path: str | Path, loader: Any, *, device: str) -> Any:
    """Read a model by a class of ``transformers``, in evaluation mode, if all of its weights are there.

    Raises:
      InputError: if they are not, or the directory holds something else.
    """
    _check_directory(path)
    try:
        model, report = loader.from_pretrained(
            str(path), use_safetensors=True, output_loading_info=True, **_NOT_TRUSTED
        )
    except Exception as error:  # Configurations, safetensors and the file system each complain in their own way.
        raise _unreadable(path, "model", error) from error
    if missing := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        found = f"no weights for {len(missing)} of its parameters, {missing[0]} among them"
        action = "Save the model that was trained for this task: what is missing would be drawn at random."
        raise InputError(str(path), "weights", found, "all weights", action)
    return model.eval().to(device)


def read_processor(path: str | Path, loader: Any) -> Any:
    """Read a tokenizer or an image processor by a class of ``transformers``.

    Raises:
      InputError: if the directory holds something else.
    """
    try:
        return loader.from_pretrained(str(path), **_NOT_TRUSTED)
    except Exception as error:  # As above.
        raise _unreadable(path, "tokenizer or image processor", error) from error


def describe_directory(path: str | Path) -> str:
    """The name of a model's directory, and a digest of all that is in it."""
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(path).iterdir() if path.is_file()):
        digest.update(f"{file.name} {sha256_of_file(file)}\n".encode())
    return f"transformers model {Path(path).absolute().name}, SHA-256 {digest.hexdigest()}"


def _check_directory(path: str | Path) -> None:
    if not (Path(path) / "config.json").is_file():
        action = "Give the directory of a model, as `save_pretrained` writes it; models are not fetched from elsewhere."
        raise InputError(str(path), "config.json", "no such file", "the configuration of a model", action)


def _unreadable(path: str | Path, what: str, error: Exception) -> InputError:
    reason = str(error).strip().partition("\n")[0]
    found, expected = f"none that can be read ({reason})", "one in files that run no code: JSON and safetensors"
    return InputError(str(path), what, found, expected, "Save it again by `save_pretrained`.")


def _check_classifier(model: Any) -> None:
    check_evaluation_mode(model)
    problem, num_labels = model.config.problem_type, model.config.num_labels
    if problem not in (None, "single_label_classification") or num_labels < 2:
        found, expected = f"{num_labels} labels, problem_type {problem}", "one label of several for each example"
        action = "Make an adapter by `from_callable`, and say what its probabilities are."
        raise InputError(type(model).__name__, "config", found, expected, action)


def _adapter(model: Any, encode: Any, source: str) -> Adapter:
    import torch

    def predict(inputs: Inputs) -> Float[np.ndarray, "batch classes"]:
        encoded = encode(inputs).to(model.device)
        with torch.inference_mode():
            return as_array(model(**encoded).logits)

    return Adapter(predict, "logits", _class_names(model), source)


def _class_names(model: Any) -> tuple[str, ...] | None:
    """The labels of the configuration, where somebody has named them."""
    labels = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    return None if labels == [f"LABEL_{index}" for index in range(len(labels))] else tuple(labels)


def _name(model: Any, source: str | None) -> str:
    return source or f"transformers model {model.config.name_or_path or type(model).__name__}"
