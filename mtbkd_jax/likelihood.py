"""Likelihoods: per-example log-density terms ``(logits, examples) -> [examples]`` of the labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.examples import Examples


def categorical_log_likelihood(
    logits: Float[Array, "examples classes"], examples: Examples
) -> Float[Array, " examples"]:
    """log softmax(logits)[y] in nats; zero for an example without a label (the paper, equation 6).

    >>> logits = jnp.zeros((2, 4))
    >>> categorical_log_likelihood(logits, Examples(jnp.zeros((2, 1)), jnp.array([1, -1]))).tolist()
    [-1.3862943649291992, 0.0]
    """
    log_probs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probs, jnp.maximum(examples.labels, 0)[:, None], axis=1)[:, 0]
    return jnp.where(examples.labels >= 0, chosen, 0.0)
