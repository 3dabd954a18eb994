"""What a chain has to itself: a component of the weight-space prior, and where on the path of powers it begins."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.chains import BatchKey, DrawBatch
from mtbkd_jax.examples import Examples, WeightedExamples
from mtbkd_jax.settings import Component, ComponentBatch


class Own(NamedTuple):
    """What a chain has to itself: a component, and the phase at which it begins to visit the powers."""

    component: Component
    phase: Float[Array, "*chains"]


def phases(num_chains: int) -> Float[Array, " chains"]:
    """Where on the path of powers each chain begins: as far apart as they can."""
    return jnp.arange(num_chains) / num_chains


def with_component(draw_batch: DrawBatch, power_at: Callable[[Any, Array], Any]) -> DrawBatch:
    """``draw_batch`` for a chain that has a component to itself, and visits powers, ``(step, phase) -> power``."""

    def draw(key: BatchKey, data: tuple[Examples | WeightedExamples, Own]) -> ComponentBatch:
        examples, own = data
        power = jnp.asarray(power_at(key.step, own.phase), jnp.float32)
        return ComponentBatch(draw_batch(key, examples), own.component, power)

    return draw
