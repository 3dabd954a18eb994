"""Noise: a generator of random bits that is cheap enough for a Langevin step, plugged in under ``jax.random``.

A step of SGLD or SGHMC asks for one normal per parameter. On a CPU JAX's own generator, Threefry, costs more for them
than the gradient of a small student does. Here the keys stay Threefry's: every chain and step has a key of its own,
made by ``split`` and ``fold_in`` as ever. Only what a key is expanded to is cheaper:

    bits_i = m( m(i φ + k₀) + k₁ + φ ),        i = 0, 1, ...;   φ = 2654435769, 2³² by the golden ratio

with the key's two words k₀ and k₁ and m the mixing of 32 bits by two multiplications and three shifts that Wellons
(2018) found by search to be nearly free of bias: flipping a bit of its input flips every bit of its output with a
probability of one half. Each entry depends on its index and the key alone, so that noise can be computed where the
parameters are, however these are laid out over devices.

For one key the map from i to bits is one to one: of 2³² entries no two are equal, where true randomness would repeat
some. ``normal`` keeps 23 of the 32 bits, so that nothing of this is left in float32 noise.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array

from mtbkd_jax.types import Key

_GOLDEN_RATIO = 0x9E3779B9


def noise_key(key: Key) -> Key:
    """The same key, for cheap noise: ``jax.random`` draws by this module's generator from it, and from its kin.

    >>> key = noise_key(jax.random.key(0))
    >>> float(jnp.std(jax.random.normal(key, (100_000,)))).__round__(2)
    1.0
    """
    # A key of JAX's other generators has two words more, which are Threefry's as well.
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl=_GENERATOR)


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    """Unsigned integers of ``bit_width`` bits; ``key`` are its two words."""
    size = math.prod(shape)
    if bit_width == 64:
        high, low = _words(key, 2 * size).astype(jnp.uint64).reshape(2, *shape)
        return high << 32 | low
    return _words(key, size).astype(f"uint{bit_width}").reshape(shape)


def _words(key: Array, count: int) -> Array:
    golden_ratio = jnp.uint32(_GOLDEN_RATIO)
    return _mix(_mix(jax.lax.iota(jnp.uint32, count) * golden_ratio + key[0]) + key[1] + golden_ratio)


def _mix(word: Array) -> Array:
    word = (word ^ word >> 16) * jnp.uint32(0x7FEB352D)
    word = (word ^ word >> 15) * jnp.uint32(0x846CA68B)
    return word ^ word >> 16


def _threefry(words: Array) -> Key:
    return jax.random.wrap_key_data(words, impl="threefry2x32")


_GENERATOR = define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
    split=lambda words, shape: jax.random.key_data(jax.random.split(_threefry(words), shape)),
    random_bits=_random_bits,
    fold_in=lambda words, data: jax.random.key_data(jax.random.fold_in(_threefry(words), data)),
    name="noise",
    tag="noise",
)
