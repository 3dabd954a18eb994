"""Teachers that are PyTorch modules."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mtbkd_jax.adapters.base import Adapter, Inputs
from mtbkd_jax.checks import Kind
from mtbkd_jax.errors import InputError


def from_torch(module: Any, *, kind: Kind = "logits", source: str = "PyTorch module") -> Adapter:
    """Make an adapter of a PyTorch module, which is asked on the device that it is on.

    Args:
      module: a ``torch.nn.Module`` in evaluation mode that maps a tensor ``[batch, ...]`` to a tensor ``[batch,
        classes]``; real inputs are given to it in the type of its parameters.
      kind: what the outputs are.
      source: what the teacher is, in words.

    Raises:
      InputError: if a part of the module is in training mode, or its output is no tensor.
    """
    import torch

    check_evaluation_mode(module)
    parameter = next(module.parameters(), torch.zeros(()))

    def predict(inputs: Inputs) -> Float[np.ndarray, "batch classes"]:
        tensor = torch.tensor(inputs, device=parameter.device)
        if tensor.is_floating_point():
            tensor = tensor.to(parameter.dtype)
        with torch.inference_mode():
            outputs = module(tensor)
        if not isinstance(outputs, torch.Tensor):
            action = "Wrap the module in one that returns the logits alone."
            raise InputError(type(module).__name__, "output", f"a {type(outputs).__name__}", "a tensor", action)
        return as_array(outputs)

    return Adapter(predict, kind, source=source)


def check_evaluation_mode(module: Any) -> None:
    """Check that no part of a module is in training mode, where dropout and batch statistics make outputs random."""
    if parts := [name or "the module" for name, part in module.named_modules() if part.training]:
        found = f"training mode in {parts[0]}, and in {len(parts)} parts in all"
        raise InputError(type(module).__name__, "mode", found, "evaluation mode", "Call `.eval()` on it first.")


def as_array(tensor: Any) -> Float[np.ndarray, "..."]:
    """A tensor of any real type on any device as a float32 array."""
    return tensor.detach().float().cpu().numpy()
