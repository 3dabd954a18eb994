"""What an adapter is: a teacher of any framework as a function of a batch of inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike

from mtbkd_jax.checks import Kind, Names, check_class_names, check_one_of
from mtbkd_jax.errors import InputError

Inputs = Shaped[np.ndarray, "batch *features"]
"""Numbers or text, a row for each example."""


class Adapter(NamedTuple):
    """A teacher as a function.

    The outputs of an example must not depend on the others in its batch, nor on how often the function was called.

    Attributes:
      predict: ``inputs [batch, ...] -> outputs [batch, classes]``.
      kind: what the outputs are; None means logits that nobody vouched for, and outputs that look like probabilities
        are refused.
      class_names: in the order of the outputs; None where they have no names.
      source: what the teacher is, in words. It must differ where the outputs do (the digest of a file, a revision), or
        an interrupted directory cannot tell that the teacher has changed.
      cost: says in words what the teacher has cost so far; None where it costs nothing but time.
    """

    predict: Callable[[Inputs], ArrayLike]
    kind: Kind | None
    class_names: tuple[str, ...] | None = None
    source: str = ""
    cost: Callable[[], str] | None = None


def from_callable(
    function: Callable[[Inputs], Any], *, kind: Kind | None = None, class_names: Names | None = None, source: str = ""
) -> Adapter:
    """Make an adapter of any function.

    Args:
      function: ``inputs [batch, ...] -> outputs [batch, classes]``, as anything that NumPy can make an array of.
      kind: what the outputs are.
      class_names: in the order of the outputs.
      source: what the teacher is, in words.

    Raises:
      InputError: if the kind is not known, or a class name is there twice.

    >>> from_callable(lambda inputs: inputs @ np.eye(2), source="identity").predict(np.array([[1.0, 2.0]]))
    array([[1., 2.]])
    """
    if kind is not None:
        check_one_of(("logits", "probabilities"), "from_callable", "kind", kind)
    names = None if class_names is None else check_class_names(class_names, "from_callable")
    return Adapter(function, kind, names, source)


def check_texts(inputs: Inputs, where: str) -> None:
    """Check that inputs are texts, for teachers that read."""
    if inputs.dtype.kind != "U":
        found, action = f"elements of type {inputs.dtype}", "Give a text for each example, as `inputs.astype(str)`."
        raise InputError(where, "inputs", found, "text", action)
