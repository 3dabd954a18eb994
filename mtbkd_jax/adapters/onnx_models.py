"""Teachers that are ONNX models, run by ONNX Runtime: of any framework, and without running anybody's code.

A model may keep its weights in files beside it; ONNX Runtime, in the version that the extra asks for, refuses those
that lie outside the model's directory, or are reached through a link that leads out of it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mtbkd_jax.adapters.base import Adapter, Inputs
from mtbkd_jax.checks import Kind
from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.errors import InputError

_TYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_REAL = ("tensor(float16)", "tensor(float)", "tensor(double)")


def read_onnx(path: str | Path, *, kind: Kind | None = None) -> Adapter:
    """Make an adapter of an ONNX file.

    Args:
      path: the file.
      kind: see ``from_onnx``.

    Raises:
      InputError: if there is no such file, it is no ONNX model or cannot be run, or see ``from_onnx``.
    """
    import onnxruntime

    digest = sha256_of_file(path)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except Exception as error:  # The runtime raises a class of its own for each status, with no base but this.
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            str(path), "content", f"something else ({reason})", "an ONNX model", "Export it again."
        ) from error
    return from_onnx(session, kind=kind, source=f"ONNX model {Path(path).name}, SHA-256 {digest}")


def from_onnx(session: Any, *, kind: Kind | None = None, source: str = "ONNX model") -> Adapter:
    """Make an adapter of a session of ONNX Runtime.

    Args:
      session: an ``onnxruntime.InferenceSession`` with one input ``[batch, ...]``, and among its outputs one of real
        numbers ``[batch, classes]``.
      kind: what that output is; classifiers exported from scikit-learn have probabilities.
      source: what the teacher is, in words.

    Raises:
      InputError: if the model has more than one input or such output, or none, or its input is of another type than
        the data's.
    """
    where = source.partition(",")[0]
    entries = {entry.name: entry.type for entry in session.get_inputs()}
    if len(entries) != 1 or not set(entries.values()) <= set(_TYPES):
        action = "Export a model with one input, a row for each example."
        raise InputError(where, "inputs", f"{entries}", f"one, of a type among {', '.join(_TYPES)}", action)
    ((entry, entry_type),) = entries.items()
    outputs = {output.name: f"{output.type} of rank {len(output.shape or ())}" for output in session.get_outputs()}
    usable = [name for name, described in outputs.items() if described in {f"{of} of rank 2" for of in _REAL}]
    if len(usable) != 1:
        action = "Export the logits or the probabilities alone; for scikit-learn, with the option `zipmap=False`."
        raise InputError(where, "outputs", f"{outputs}", "one of real numbers, [batch, classes]", action)

    def predict(inputs: Inputs) -> np.ndarray:
        converted = _converted(inputs, entry_type, where)
        return session.run(usable, {entry: converted})[0]

    return Adapter(predict, kind, source=source)


def _converted(inputs: Inputs, entry_type: str, where: str) -> np.ndarray:
    """Inputs in the type that a model takes, where that loses no more than precision."""
    dtype = np.dtype(_TYPES[entry_type])
    if (inputs.dtype.kind == "U") != (dtype == np.object_) or not np.can_cast(inputs.dtype, dtype, "same_kind"):
        action = "Convert the inputs, or export the model for this type."
        raise InputError(where, "inputs", f"elements of type {inputs.dtype}", f"a {entry_type}", action)
    return inputs.astype(dtype)
