"""Digests of short runs of every sampler on a small student; a script, so that devices can differ."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

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
    rows = jax.random.randint(key, (32,), 0, 500)
    return jax.tree.map(lambda leaf: leaf[rows], data)


def whole(key, data):
    return data


def student_chains(name: str, chunk_size: int) -> ChainRun:
    keys = jax.random.split(jax.random.key(3), 6)
    inputs = jax.random.normal(keys[0], (500, NUM_FEATURES))
    labels = jax.random.randint(keys[1], (500,), 0, NUM_CLASSES)
    positions = {
        "in": 0.1 * jax.random.normal(keys[2], (NUM_CHAINS, NUM_FEATURES, NUM_HIDDEN)),
        "out": 0.1 * jax.random.normal(keys[3], (NUM_CHAINS, NUM_HIDDEN, NUM_CLASSES)),
    }
    sampler = SAMPLERS[name].build(log_density)
    return sample_chains(
        sampler,
        start_chains(sampler, positions, keys[4]),
        key=keys[5],
        data=(inputs, labels),
        draw_batch=minibatch if name in ("sgld", "sghmc") else whole,
        step_size=constant(1e-3),
        num_burn_in=5,
        num_draws=6,
        thinning=2,
        chunk_size=chunk_size,
    )


def digest(run: ChainRun) -> str:
    leaves = jax.tree.leaves((run.positions, run.info, run.states))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def digests() -> list[str]:
    return [f"{name} {digest(student_chains(name, chunk_size=4))}" for name in SAMPLERS]


if __name__ == "__main__":
    print(f"{jax.local_device_count()} devices", *digests(), sep="\n")
