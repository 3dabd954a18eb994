"""Chains whose data and parameters lie in blocks, as a process of its own, so that its devices may be others.

Writes their draws. Prints the devices along each axis of the mesh, the collectives of the compiled program that
advances the chains with the devices that talk, for which platforms and how many devices it could be exported, and what
a device holds of the largest array of parameters of a draw. With the arguments ``--processes.NAME`` of ``mtbkd`` it is
one of several.

    python -m tests.chains_in_blocks FILE BLOCKS_OF_PARAMETERS [--processes.NAME=VALUE ...]
"""

import re
import sys
from functools import partial
from pathlib import Path

from mtbkd_jax.processes import join_processes, processes_among

if __name__ == "__main__":
    join_processes(processes_among(sys.argv[3:]))

# Not before: some libraries make an array when they are imported.
import jax
import jax.numpy as jnp
import numpy as np

from mtbkd_jax import sampling
from mtbkd_jax.chains import chain_mesh, on_this_host, own_chains, rows_of_own_chains
from mtbkd_jax.examples import Examples, all_blocks, in_blocks, minibatch_of_blocks
from mtbkd_jax.function_prior import dirichlet_components, teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.samplers import hmc, sghmc, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.students import mlp
from mtbkd_jax.weight_prior import gaussian_prior

NUM_CHAINS, NUM_BLOCKS, NUM_EXAMPLES, NUM_LABELLED, BATCH_SIZE = 2, 4, 150, 30, 24
STUDENT = mlp(num_features=6, hidden=(256, 8), num_classes=3)


def examples() -> Examples:
    """Random ones, with two teachers."""
    keys = jax.random.split(jax.random.key(0), 3)
    rows = jnp.arange(NUM_EXAMPLES)
    labels = jnp.where(rows < NUM_LABELLED, jax.random.randint(keys[0], (NUM_EXAMPLES,), 0, 3), -1)
    probs = jax.nn.softmax(jax.random.normal(keys[1], (NUM_EXAMPLES, 2, 3)))
    log_weights = jnp.full((NUM_EXAMPLES, 3), -jnp.log(3.0))
    inputs = jax.random.normal(keys[2], (NUM_EXAMPLES, 6))
    return Examples(inputs, labels.astype(jnp.int32), dirichlet_components(probs, log_weights, 5.0))


def main(path: Path, num_model_blocks: int) -> None:
    """Sample by minibatches and by whole gradients."""
    log_density = log_posterior(
        STUDENT,
        per_example=(categorical_log_likelihood, teacher_informed_prior(power=0.3)),
        per_parameters=(gaussian_prior(0.5),),
        over_devices=True,
    )
    data = in_blocks(examples(), NUM_BLOCKS)
    starts = jax.vmap(STUDENT.init)(jax.random.split(jax.random.key(1), NUM_CHAINS))
    shared = {"key": jax.random.key(2), "data": data, "num_blocks": NUM_BLOCKS}
    shared |= {"num_model_blocks": num_model_blocks}
    mesh = chain_mesh(NUM_CHAINS, NUM_BLOCKS, num_model_blocks=num_model_blocks, is_global=True)
    print(dict(mesh.shape))

    minibatch = minibatch_of_blocks(examples().labels, BATCH_SIZE, NUM_BLOCKS)
    sampler = sghmc(log_density, friction=10.0)
    states = start_chains(sampler, starts, jax.random.key(3))
    options = {"step_size": constant(5e-3), "num_draws": 5, "thinning": 4}
    advance = sampling._advance_chains

    def described(*arguments, **static):
        compiled = advance.lower(*arguments, **static).compile().as_text()
        print(re.findall(r"= \S+ (all-\w+|reduce-scatter|collective-\w+)\(.*replica_groups=(\S+),", compiled))
        program = jax.jit(partial(advance, **static))
        exported = jax.export.export(program, platforms=("cpu", "cuda", "tpu"))(*arguments)
        print(exported.platforms, exported.nr_devices)
        result = advance(*arguments, **static)
        largest = result[1].positions["Dense_1"]["kernel"]
        print(largest.shape, largest.addressable_shards[0].data.shape)
        own = rows_of_own_chains(largest)
        np.testing.assert_array_equal(own, on_this_host(largest)[own_chains(result[0].number)])
        return result

    sampling._advance_chains = described
    by_minibatch = sample_chains(sampler, states, draw_batch=minibatch, **shared, **options)
    sampling._advance_chains = advance

    sampler = hmc(log_density, num_leapfrog_steps=3)
    states = start_chains(sampler, starts, jax.random.key(3))
    shared |= {"draw_batch": all_blocks}
    states, step_sizes = warm_up(sampler, states, num_steps=3, **shared)
    whole = sample_chains(sampler, states, step_size=constant(step_sizes), num_draws=5, **shared)
    leaves = jax.tree.leaves((by_minibatch.positions, by_minibatch.info.log_density, whole.positions))
    np.savez(path, *[np.asarray(leaf) for leaf in leaves])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
