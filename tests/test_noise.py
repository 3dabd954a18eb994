"""The generator of noise against what random numbers are known to do; ``benchmarks.noise`` asks for more of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from mtbkd_jax.chains import keys_of_step
from mtbkd_jax.noise import noise_key, noise_like, standard_normals

NUM_KEYS, NUM_ENTRIES = 64, 20_000
SMALLEST_P = 1e-4


@pytest.fixture(scope="module", params=["of steps", "of chains", "of small seeds"])
def keys(request):
    """Keys that a run uses side by side, and keys that are as alike as they can be."""
    numbers = jnp.arange(NUM_KEYS)
    if request.param == "of steps":
        return jax.vmap(lambda step: keys_of_step(jax.random.key(0), step)[1])(numbers)
    if request.param == "of chains":
        chain_keys = jax.vmap(lambda chain: jax.random.fold_in(jax.random.key(0), chain))(numbers)
        return jax.vmap(lambda key: keys_of_step(key, 7)[1])(chain_keys)
    return jax.vmap(lambda seed: noise_key(jax.random.key(seed)))(numbers)


@pytest.fixture(scope="module")
def bits(keys):
    return np.asarray(jax.vmap(lambda key: jax.random.bits(key, (NUM_ENTRIES,)))(keys))


@pytest.fixture(scope="module")
def normals(keys):
    return np.asarray(jax.vmap(lambda key: standard_normals(key, NUM_ENTRIES))(keys), np.float64)


def test_normals_are_the_inverse_of_the_distribution_function():
    key, count = noise_key(jax.random.key(4)), 1_000_000
    highest = np.asarray(jax.random.bits(key, (count,)) >> 9, np.float64)
    exact = np.sqrt(2) * special.erfinv((2 * highest + 1) / 2**23 - 1)
    assert np.abs(exact).max() > 4.5
    np.testing.assert_allclose(standard_normals(key, count), exact, rtol=0, atol=5e-6)


@pytest.mark.parametrize("highest", [0, 1, 2**22 - 1, 2**22, 2**23 - 1])
def test_normals_at_the_ends_and_in_the_middle(highest, monkeypatch):
    monkeypatch.setattr(jax.random, "bits", lambda key, shape: jnp.full(shape, highest << 9, jnp.uint32))
    exact = np.sqrt(2) * special.erfinv((2 * highest + 1) / 2**23 - 1)
    np.testing.assert_allclose(standard_normals(jax.random.key(0), 1), exact, rtol=0, atol=5e-6)


def test_noise_has_the_shapes_and_types_asked_for_and_are_independent():
    like = {"a": jnp.zeros((200, 100)), "b": jnp.zeros((200, 100)), "c": jnp.zeros(3, jnp.bfloat16)}
    normals = noise_like(jax.random.key(0), like)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), normals) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), like
    )
    a, b = (np.asarray(normals[name], np.float64).ravel() for name in "ab")
    error = a.size**-0.5
    assert abs(a.mean()) < 4.5 * error
    assert abs(a.std() - 1) < 4.5 * error / np.sqrt(2)
    assert abs((a * b).mean()) < 4.5 * error


def test_noise_in_double_precision_is_exact():
    with jax.enable_x64(True):
        noise = noise_like(jax.random.key(0), jnp.zeros(3, jnp.float64))
        np.testing.assert_array_equal(noise, jax.random.normal(jax.random.key(0), (3,), jnp.float64))


def test_normals_are_normal(normals):
    assert stats.kstest(normals.ravel(), "norm").pvalue > SMALLEST_P
    by_key = [stats.kstest(row, "norm").pvalue for row in normals]
    assert stats.kstest(by_key, "uniform").pvalue > SMALLEST_P


def test_squared_lengths_are_chi_square(normals):
    """A Langevin step is as long as its noise; short or long ones would heat or cool the chain."""
    lengths = np.square(normals.reshape(-1, 50)).sum(1)
    assert stats.kstest(lengths, stats.chi2(50).cdf).pvalue > SMALLEST_P


@pytest.mark.parametrize("first", [0, 8, 16, 24])
def test_every_byte_takes_every_value_alike(bits, first):
    counts = np.bincount(((bits >> first) & 255).ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > SMALLEST_P


def test_neighbouring_entries_fill_the_square_evenly(bits):
    """The six highest bits of an entry and of the next, as in a serial test of pairs."""
    high = (bits >> 26).reshape(-1, 2)
    assert stats.chisquare(np.bincount(high[:, 0] * 64 + high[:, 1], minlength=4096)).pvalue > SMALLEST_P


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 128, 10_000])
def test_entries_of_a_key_are_uncorrelated(normals, lag):
    products = normals[:, lag:] * normals[:, :-lag]
    assert abs(products.mean()) < 4 / np.sqrt(products.size)


def test_keys_are_uncorrelated(normals):
    correlations = np.corrcoef(normals)[np.triu_indices(NUM_KEYS, 1)]
    scaled = correlations * np.sqrt(NUM_ENTRIES)
    assert stats.kstest(scaled, "norm").pvalue > SMALLEST_P
    assert np.abs(scaled).max() < 5


@pytest.mark.parametrize("word", [0, 1])
@pytest.mark.parametrize("bit", [0, 15, 31])
def test_one_bit_of_a_key_flips_half_of_all_bits(word, bit):
    words = jax.random.key_data(jax.random.key(3))
    flipped = words.at[word].set(words[word] ^ jnp.uint32(1 << bit))
    before, after = (
        jax.random.bits(noise_key(jax.random.wrap_key_data(data, impl="threefry2x32")), (NUM_ENTRIES,))
        for data in (words, flipped)
    )
    flips = np.unpackbits(np.asarray(before ^ after).view(np.uint8)).reshape(NUM_ENTRIES, 32).mean(0)
    np.testing.assert_allclose(flips, 0.5, atol=5 * 0.5 / np.sqrt(NUM_ENTRIES))


def test_an_entry_depends_on_its_index_and_the_key_alone():
    key = noise_key(jax.random.key(1))
    few, many = jax.random.bits(key, (10,)), jax.random.bits(key, (40, 5))
    np.testing.assert_array_equal(few, many.ravel()[:10])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_bits_of_every_width_are_even(dtype):
    with jax.enable_x64(True):
        values = jax.random.bits(noise_key(jax.random.key(2)), (8000,), dtype)
    shares = np.unpackbits(np.asarray(values).view(np.uint8)).reshape(8000, -1).mean(0)
    assert shares.size == 8 * np.dtype(dtype).itemsize
    np.testing.assert_allclose(shares, 0.5, atol=5 * 0.5 / np.sqrt(8000))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_key_of_any_generator_will_do(impl):
    key = jax.random.fold_in(jax.random.key(0, impl=impl), 1)
    assert np.isfinite(jax.random.normal(noise_key(key), (5,))).all()


def test_it_lowers_for_accelerators():
    def noise(words):
        return standard_normals(noise_key(jax.random.wrap_key_data(words, impl="threefry2x32")), 1000)

    words = jax.random.key_data(jax.random.key(0))
    exported = jax.export.export(jax.jit(noise), platforms=("cpu", "cuda", "tpu"))(words)
    np.testing.assert_allclose(exported.call(words), noise(words), atol=1e-6)
