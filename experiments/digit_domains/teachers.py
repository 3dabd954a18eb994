"""The teachers of digit domains: a large network trained on one domain alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from experiments.digit_domains.networks import PatchCNN
from mtbkd_jax.students import Student, from_linen
from mtbkd_jax.types import Key, Params

IMAGE_SHAPE = (28, 28, 3)
TEACHER = from_linen(PatchCNN(channels=(32, 64), hidden=600), IMAGE_SHAPE)
"""1,898,034 parameters."""

_BATCH = 100
_LEARNING_RATE = 1e-3
_ASKED_AT_ONCE = 500


def teach(
    key: Key,
    images: UInt8[np.ndarray, "images 28 28 3"],
    labels: Int[np.ndarray, " images"],
    *,
    num_epochs: int,
    network: Student = TEACHER,
) -> Params:
    """Train by Adam with a cosine decay.

    Args:
      key: of the initialisation and the minibatches.
      images: pixels from 0 to 255.
      labels: 0 to 9.
      num_epochs: passes over the images, in minibatches drawn with replacement.
      network: what is trained.
    """
    num_steps = num_epochs * -(-len(images) // _BATCH)
    return _train(key, jnp.asarray(images), jnp.asarray(labels), network=network, num_steps=num_steps)


@partial(jax.jit, static_argnames=("network", "num_steps"))
def _train(key: Key, images: Array, labels: Array, *, network: Student, num_steps: int) -> Params:
    init_key, batch_key = jax.random.split(key)
    params = network.init(init_key)
    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))

    def loss(params: Params, rows: Array) -> Array:
        logits = network.apply(params, _scaled(images[rows]))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]))

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (_BATCH,), 0, len(images))
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(batch_key, num_steps))[0][0]


def ask(
    params: Params, images: UInt8[np.ndarray, "images 28 28 3"], network: Student = TEACHER
) -> Float[np.ndarray, "images classes"]:
    """The logits of a trained network, some hundred images at a time."""
    blocks = np.split(images, range(_ASKED_AT_ONCE, len(images), _ASKED_AT_ONCE))
    return np.concatenate([np.asarray(_logits(params, jnp.asarray(block), network=network)) for block in blocks])


@partial(jax.jit, static_argnames="network")
def _logits(params: Params, images: Array, *, network: Student) -> Array:
    return network.apply(params, _scaled(images))


def _scaled(images: Array) -> Array:
    """Pixels from -1 to 1."""
    return images.astype(jnp.float32) / 127.5 - 1.0
