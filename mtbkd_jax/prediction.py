"""Predictions: log class probabilities of every draw on every input, in blocks that fit in memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbkd_jax.students import Student
from mtbkd_jax.types import Params

_BLOCK_VALUES = 1 << 24
"""Hidden and output values held at a time, about: 64 MiB in float32."""


def predictive_log_probs(
    student: Student, draws: Params, inputs: Array
) -> Float[np.ndarray, "draws examples classes"]:
    """log q_i^(s) for each draw s and example i, in nats.

    Args:
      student: the network.
      draws: parameters stacked over draws ``[draws, ...]``.
      inputs: ``[examples, ...]``.

    Returns:
      A host array: it may be larger than the device's memory.
    """
    num_draws = jax.tree.leaves(draws)[0].shape[0]
    per_example = sum(leaf.shape[-1] for leaf in jax.tree.leaves(draws)) * num_draws
    block = max(1, min(inputs.shape[0], _BLOCK_VALUES // max(per_example, 1)))
    blocks = [
        np.asarray(_log_probs(student, draws, jnp.asarray(inputs[start : start + block])))
        for start in range(0, inputs.shape[0], block)
    ]
    return np.concatenate(blocks, axis=1)


@partial(jax.jit, static_argnames="student")
def _log_probs(student: Student, draws: Params, inputs: Array) -> Array:
    return jax.vmap(lambda params: jax.nn.log_softmax(student.apply(params, inputs)))(draws)
