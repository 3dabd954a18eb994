"""Noise: normals that are cheap enough for a Langevin step, from random bits that are plugged in under ``jax.random``.

A step of SGLD or SGHMC asks for one normal per parameter. On a CPU JAX's own generator, Threefry, costs more for them
than the gradient of a small student does. Here the keys stay Threefry's: every chain and step has a key of its own,
made by ``split`` and ``fold_in`` as ever. Only what a key is expanded to is cheaper:

    bits_i = m( m(i φ + k₀) + k₁ + φ ),        i = 0, 1, ...;   φ = 2654435769, 2³² by the golden ratio

with the key's two words k₀ and k₁ and m the mixing of 32 bits by two multiplications and three shifts that Wellons
(2018) found by search to be nearly free of bias: flipping a bit of its input flips every bit of its output with a
probability of one half. Each entry depends on its index and the key alone, so that noise can be computed where the
parameters are, however these are laid out over devices.

For one key the map from i to bits is one to one: of 2³² entries no two are equal, where true randomness would repeat
some. A normal keeps 23 of the 32 bits, so that nothing of this is left in float32 noise.

On a CPU four fifths of a normal's time is then the inverse of the distribution function: two polynomials, and a
logarithm that is exact to the last bit. ``standard_normals`` does with one polynomial and a simpler logarithm.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mtbkd_jax.types import Key, Params

_GOLDEN_RATIO = 0x9E3779B9

# Least largest error of z for w up to 15.3, and of the logarithm around one, found by linear programming.
_SHIFT, _SCALE, _OFFSET = 2.5, 0.7581886865398677, -2.198801572818715
_NORMAL = (
    *(3.208116292953491, 2.1737751960754395, -0.06168472766876221, -0.0944925844669342, 0.16272763907909393),
    *(-0.11096712201833725, -0.013422942720353603, 0.07493577152490616, -0.02776392363011837, -0.01793883554637432),
    0.010685528628528118,
)
_LOGARITHM = (
    *(1.0000029802322388, -0.5000212788581848, 0.33305197954177856, -0.2487521469593048, 0.2057252824306488),
    *(-0.18950757384300232, 0.12001293897628784),
)
_BITS_OF_SQUARE_ROOT_OF_HALF, _MANTISSA_BITS = 0x3F3504F3, 23


def noise_key(key: Key) -> Key:
    """The same key, for cheap noise: ``jax.random`` draws by this module's generator from it, and from its kin.

    >>> key = noise_key(jax.random.key(0))
    >>> float(jnp.std(jax.random.normal(key, (100_000,)))).__round__(2)
    1.0
    """
    # A key of JAX's other generators has two words more, which are Threefry's as well.
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl=_GENERATOR)


def noise_like(key: Key, like: Params) -> Params:
    """Independent standard normals in the shapes and dtypes of ``like``; float32 ones are ``standard_normals``.

    All are drawn at once: every call of the generator in a program takes the compiler a third of a second.
    """
    flat, unravel = ravel_pytree(like)
    if flat.dtype != jnp.float32:
        return unravel(jax.random.normal(key, flat.shape, flat.dtype))
    return unravel(standard_normals(key, flat.size))


def standard_normals(key: Key, count: int) -> Float[Array, " count"]:
    """Standard normals by inversion, in float32, to within five millionths.

        z = √2 erf⁻¹(u) = u P(√(w + 5/2)),    w = −log(1 − u²),    u = (2k + 1 − 2²³) / 2²³

    with k the 23 highest bits of a random word, so that z is symmetric, never infinite, and at most 5.2 as that of
    ``jax.random.normal`` is. As in Giles (2010) the work is a polynomial in w; the root makes one of degree ten do for
    the whole range. Its error is that of the value of a normal, not of its law: a Kolmogorov-Smirnov test would need
    10¹¹ of them to see it.

    >>> z = standard_normals(noise_key(jax.random.key(0)), 100_000)
    >>> float(z.std()).__round__(2), float((z**4).mean()).__round__(1)
    (1.0, 3.0)
    """
    highest = (jax.random.bits(key, (count,)) >> 9).astype(jnp.int32)
    u = (2 * highest + 1 - (1 << 23)).astype(jnp.float32) * jnp.float32(2**-23)
    w = -_log((1 - u) * (1 + u))
    return u * _polynomial(_NORMAL, _SCALE * jnp.sqrt(w + _SHIFT) + _OFFSET)


def _log(x: Float[Array, " count"]) -> Float[Array, " count"]:
    """log x of normal positive numbers to within 2e-7 and the rounding: 2^e m with m from √½ to √2, by a polynomial."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    exponent = (bits - _BITS_OF_SQUARE_ROOT_OF_HALF) >> _MANTISSA_BITS
    beyond_one = jax.lax.bitcast_convert_type(bits - (exponent << _MANTISSA_BITS), jnp.float32) - 1
    return beyond_one * _polynomial(_LOGARITHM, beyond_one) + exponent.astype(jnp.float32) * jnp.float32(math.log(2))


def _polynomial(coefficients: Sequence[float], x: Float[Array, " count"]) -> Float[Array, " count"]:
    """By Horner's rule, from the constant coefficient up."""
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


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
