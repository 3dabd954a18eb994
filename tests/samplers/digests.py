"""Digests of short runs of the samplers on a small student; a script, so that devices can differ."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtbkd_jax.samplers import warm_up
from mtbkd_jax.sampling import ChainRun, sample_chains, start_chains
from mtbkd_jax.schedules import constant
from tests.samplers.table import SAMPLERS

NUM_CHAINS, NUM_FEATURES, NUM_HIDDEN, NUM_CLASSES = 4, 64, 32, 10


def log_density(params, batch):
    inputs, labels = batch
    logits = jax.nn.relu(inputs @ params["in"]) @ params["out"]
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return 500 * picked.mean() - 5 * sum(jnp.sum(leaf**2) for leaf in params.values())


def minibatch(key, data):
    rows = jax.random.randint(key.own, (32,), 0, 500)
    return jax.tree.map(lambda leaf: leaf[rows], data)


def whole(key, data):
    return data


def problem() -> tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array]]:
    """Starts of the chains, and data."""
    generator = np.random.default_rng(3)
    inputs = jnp.asarray(generator.normal(size=(500, NUM_FEATURES)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, NUM_CLASSES, 500), jnp.int32)
    positions = {
        "in": jnp.asarray(0.1 * generator.normal(size=(NUM_CHAINS, NUM_FEATURES, NUM_HIDDEN)), jnp.float32),
        "out": jnp.asarray(0.1 * generator.normal(size=(NUM_CHAINS, NUM_HIDDEN, NUM_CLASSES)), jnp.float32),
    }
    return positions, (inputs, labels)


def student_chains(name: str, chunk_size: int) -> ChainRun:
    positions, data = problem()
    start_key, key = jax.random.split(jax.random.key(3))
    sampler = SAMPLERS[name].build(log_density)
    return sample_chains(
        sampler,
        start_chains(sampler, positions, start_key),
        key=key,
        data=data,
        draw_batch=minibatch if name in ("sgld", "sghmc") else whole,
        step_size=constant(1e-3),
        num_burn_in=5,
        num_draws=6,
        thinning=2,
        chunk_size=chunk_size,
    )


def warmed_up(name: str) -> Any:
    """States and step sizes; fifty steps have a window of the mass matrix."""
    positions, data = problem()
    sampler = SAMPLERS[name].build(log_density)
    states = start_chains(sampler, positions, jax.random.key(0))
    return warm_up(sampler, states, key=jax.random.key(4), data=data, draw_batch=whole, num_steps=50)


def digest(run: ChainRun) -> str:
    return digest_of((run.positions, run.info, run.states))


def digest_of(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def digests() -> list[str]:
    # One sampler of each kind, with minibatches and with accept or reject: most of the time goes into compiling them.
    runs = [f"{name} {digest(student_chains(name, chunk_size=4))}" for name in ("sghmc", "nuts")]
    return [*runs, f"warm-up of chees {digest_of(warmed_up('chees'))}"]


if __name__ == "__main__":
    print(f"{jax.local_device_count()} devices", *digests(), sep="\n")
