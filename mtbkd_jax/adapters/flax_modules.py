"""Teachers that are Flax modules, linen or nnx."""

from typing import Any

import jax
from jaxtyping import PyTree

from mtbkd_jax.adapters.base import Adapter
from mtbkd_jax.checks import Kind


def from_linen(
    module: Any, variables: PyTree, *, kind: Kind = "logits", source: str = "Flax linen module", **options: Any
) -> Adapter:
    """Make an adapter of a Flax linen module.

    Args:
      module: maps inputs ``[batch, ...]`` to outputs ``[batch, classes]``.
      variables: its parameters, and whatever other collections it has.
      kind: what the outputs are.
      source: what the teacher is, in words.
      options: for ``module.apply``, such as ``train=False``; nothing is drawn at random and no variable changes.
    """
    apply = jax.jit(lambda variables, inputs: module.apply(variables, inputs, **options))
    return Adapter(lambda inputs: apply(variables, inputs), kind, source=source)


def from_nnx(module: Any, *, kind: Kind = "logits", source: str = "Flax nnx module") -> Adapter:
    """Make an adapter of a Flax nnx module as it is now, in evaluation mode; the module itself is left as it is.

    Args:
      module: an ``nnx.Module`` that maps inputs ``[batch, ...]`` to outputs ``[batch, classes]``.
      kind: what the outputs are.
      source: what the teacher is, in words.
    """
    from flax import nnx

    evaluated = nnx.clone(module)
    evaluated.eval()
    graph, state = nnx.split(evaluated)
    apply = jax.jit(lambda state, inputs: nnx.merge(graph, state)(inputs))
    return Adapter(lambda inputs: apply(state, inputs), kind, source=source)
