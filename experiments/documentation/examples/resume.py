import jax
import jax.numpy as jnp
import numpy as np

import mtbkd_jax as mt

NUM_CHAINS, NUM_DRAWS, CHUNK = 2, 40, 10
sampler = mt.sghmc(lambda params, batch: -jnp.sum(params**2) / 2, friction=1.0)
like = jnp.zeros(3)


def sample(store, checkpoints=None, progress=None):
    return mt.sample_chains(
        sampler,
        mt.start_chains(sampler, jnp.ones((NUM_CHAINS, 3)), jax.random.key(1)),
        key=jax.random.key(2),
        data=(),
        draw_batch=lambda key, data: data,
        step_size=mt.constant(0.2),
        num_draws=NUM_DRAWS,
        thinning=5,
        chunk_size=CHUNK,
        sink=store,
        checkpoints=checkpoints,
        progress=progress,
    )


def new_store(path):
    return mt.create_draws(path, like, num_chains=NUM_CHAINS, num_draws=NUM_DRAWS, draws_per_chunk=CHUNK)


def lights_out(report):
    if report.num_draws == 20:
        raise KeyboardInterrupt


whole = sample(new_store("whole"))
new_store("interrupted")
for attempt, progress in enumerate((lights_out, None)):
    # A checkpoint after every chunk; every half minute unless told otherwise.
    with mt.ChainCheckpoints("checkpoints", seconds_between=0.0) as checkpoints:
        try:
            run = sample(mt.open_draws("interrupted", like), checkpoints, progress)
            print(f"attempt {attempt}: finished with {run.info.log_density.shape[1]} draws of each chain")
        except KeyboardInterrupt:
            print(f"attempt {attempt}: interrupted")

same = np.array_equal(whole.positions.positions(), run.positions.positions())
print("the same draws to the bit:", same)
