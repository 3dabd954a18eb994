"""Predictions: log class probabilities of every draw on every input, in blocks that fit in memory."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbkd_jax.students import Student
from mtbkd_jax.types import Params
from mtbkd_jax.uncertainty import DrawWeights, credible_upper, epistemic, mean_deviance, predictive_mean

_BLOCK_VALUES = 1 << 24
"""Hidden and output values held at a time, about: 64 MiB in float32."""

_SUMMARISED_VALUES = 1 << 21
"""Log class probabilities that are summarised at a time, about; to sort them takes several times their memory."""


def predictive_log_probs(
    student: Student, draws: Params, inputs: Array | np.ndarray, *, temperature: float = 1.0
) -> Float[np.ndarray, "draws examples classes"]:
    """log q_i^(s) for each draw s and example i, in nats.

    Args:
      student: the network.
      draws: parameters stacked over draws ``[draws, ...]``.
      inputs: ``[examples, ...]``.
      temperature: what the logits are divided by.

    Returns:
      A host array: it may be larger than the device's memory.
    """
    return np.concatenate([np.asarray(block) for block in _in_blocks(student, draws, inputs, temperature)], axis=1)


def _in_blocks(student: Student, draws: Params, inputs: Array | np.ndarray, temperature: float) -> Iterator[Array]:
    """Log class probabilities of every draw for a block of the inputs after the other, each small enough to hold."""
    num_draws = jax.tree.leaves(draws)[0].shape[0]
    per_example = sum(leaf.shape[-1] for leaf in jax.tree.leaves(draws)) * num_draws
    block = max(1, min(inputs.shape[0], _BLOCK_VALUES // max(per_example, 1)))
    for start in range(0, inputs.shape[0], block):
        yield _log_probs(student, draws, jnp.asarray(inputs[start : start + block]), jnp.float32(temperature))


@partial(jax.jit, static_argnames="student")
def _log_probs(student: Student, draws: Params, inputs: Array, temperature: Array) -> Array:
    def of_draw(params: Params) -> Array:
        return jax.nn.log_softmax(student.apply(params, inputs) / temperature)

    # A CPU is faster with one draw's matrix product after the other than with a batch of them, and much faster with its
    # convolutions; an accelerator needs the batch to be busy.
    return jax.lax.platform_dependent(draws, cpu=partial(jax.lax.map, of_draw), default=jax.vmap(of_draw))


class Prediction(NamedTuple):
    """What the posterior says of each input.

    Attributes:
      probs: predictive mean, ``[examples, classes]``.
      mean_deviance: ``[examples]``, nats.
      credible_upper: upper end of the deviance's credible interval, ``[examples]``, nats.
      epistemic: mutual information between label and parameters, ``[examples]``, nats.
    """

    probs: Float[np.ndarray, "examples classes"]
    mean_deviance: Float[np.ndarray, " examples"]
    credible_upper: Float[np.ndarray, " examples"]
    epistemic: Float[np.ndarray, " examples"]


def predict(
    student: Student,
    draws: Params,
    inputs: Array | np.ndarray,
    draw_weights: DrawWeights | None = None,
    *,
    temperature: float = 1.0,
    level: float = 0.95,
) -> Prediction:
    """Predict from all draws, a block of the inputs at a time.

    Args:
      student: the network.
      draws: parameters stacked over draws ``[draws, ...]``; chains are flattened into draws.
      inputs: ``[examples, ...]``, standardised as the training inputs were.
      draw_weights: non-negative and summing to one; equal if not given.
      temperature: what the logits are divided by.
      level: of the credible interval.
    """
    return predict_from(_in_blocks(student, draws, inputs, temperature), draw_weights, level=level)


def predict_from(
    blocks: Iterable[Array | np.ndarray], draw_weights: DrawWeights | None = None, *, level: float = 0.95
) -> Prediction:
    """Predict from log class probabilities ``[draws, examples, classes]`` of one block of examples after the other."""
    predictions = [
        Prediction(
            np.asarray(predictive_mean(log_probs, draw_weights)),
            np.asarray(mean_deviance(log_probs, draw_weights)),
            np.asarray(credible_upper(log_probs, draw_weights, level=level)),
            np.asarray(epistemic(log_probs, draw_weights)),
        )
        for log_probs in map(jnp.asarray, blocks)
    ]
    return Prediction(*(np.concatenate(parts) for parts in zip(*predictions, strict=True)))


def example_blocks(num_examples: int, num_draws: int, num_classes: int) -> list[slice]:
    """Slices of the examples whose log class probabilities by every draw can be held."""
    length = max(1, _SUMMARISED_VALUES // max(num_draws * num_classes, 1))
    return [slice(start, start + length) for start in range(0, num_examples, length)]


def flatten_chains(positions: Params) -> Params:
    """Parameters ``[chains, draws, ...]`` as ``[chains * draws, ...]``."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), positions)


def flatten_weights(chain_weights: Float[np.ndarray, " chains"], num_draws: int) -> Float[np.ndarray, " draws"]:
    """The weight of every draw, in the order of ``flatten_chains``: those of a chain share its weight equally."""
    return np.repeat(chain_weights / num_draws, num_draws)
