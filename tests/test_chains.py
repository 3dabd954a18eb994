import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.chains import chain_mesh, copy_to_chains, keys_of_step, over_chains
from tests.samplers.digests import student_chains


def test_chains_are_run_with_what_they_share():
    rows = over_chains(lambda chain, shared: chain + shared.sum(), chain_mesh(3))(jnp.arange(3.0), jnp.ones(2))
    np.testing.assert_array_equal(rows, [2.0, 3.0, 4.0])


def test_keys_differ_between_steps_chains_and_uses():
    chain_keys = [jax.random.fold_in(jax.random.key(0), chain) for chain in range(3)]
    pairs = [keys_of_step(chain_key, step) for chain_key in chain_keys for step in range(4)]
    keys = [key for batch_key, sampler_key in pairs for key in (batch_key.own, sampler_key)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3 * 4 * 2


def test_a_copy_that_is_donated_leaves_the_original():
    original = jnp.arange(4.0)
    copy = copy_to_chains(original, chain_mesh(4))
    jax.jit(lambda x: x + 1, donate_argnums=0)(copy)
    assert copy.is_deleted()
    np.testing.assert_array_equal(original, np.arange(4.0))


@pytest.mark.parametrize("name", ["sghmc", "nuts"])
def test_the_batched_form_for_accelerators_computes_the_same_chains(name, monkeypatch):
    one_by_one = student_chains(name, chunk_size=100)
    monkeypatch.setattr(jax.lax, "map", lambda function, chains: jax.vmap(function)(chains))
    batched = student_chains(name, chunk_size=100)
    # A batched product may sum in another order: 17 steps of float32 apart, and not the same to the bit.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one_by_one.positions, batched.positions
    )
