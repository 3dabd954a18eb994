"""Chains that go on from where they stand, as a process of its own: prints a digest of its draws at the end.

``python resumed_chains.py PATH NUM_CHAINS``, and for one of several processes the ``--processes.NAME`` of ``mtbkd``.
"""

import hashlib
import signal
import sys
import time
from pathlib import Path

from mtbkd_jax.processes import is_first, join_processes, processes_among, wait_for_all

join_processes(processes_among(sys.argv[3:]))  # before the first array

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from mtbkd_jax.checkpoints import ChainCheckpoints, PreemptedError  # noqa: E402
from mtbkd_jax.draws import create_draws, open_draws  # noqa: E402
from mtbkd_jax.samplers import sghmc  # noqa: E402
from mtbkd_jax.sampling import ChunkReport, sample_chains, start_chains  # noqa: E402
from mtbkd_jax.schedules import constant  # noqa: E402

NUM_DRAWS, CHUNK, SECONDS_PER_CHUNK = 80, 2, 0.1


def main(path: Path, num_chains: int) -> None:
    """Sample, or go on; two devices have a chain each, or share the blocks of one."""
    template = jnp.zeros(50)
    if is_first() and not (path / "draws").exists():
        create_draws(path / "draws", template, num_chains=num_chains, num_draws=NUM_DRAWS, draws_per_chunk=CHUNK)
    wait_for_all("created")
    store = open_draws(path / "draws", template)
    sampler = sghmc(lambda params, batch: -jnp.sum(params**2) / 2 + 0.0 * batch.sum(), friction=1.0)

    def progress(_: ChunkReport) -> None:
        print("sampling", flush=True)
        time.sleep(SECONDS_PER_CHUNK)

    with ChainCheckpoints(path / "checkpoints", seconds_between=0.0) as checkpoints:
        signal.signal(signal.SIGTERM, lambda *_: checkpoints.stop())
        try:
            sample_chains(
                sampler,
                start_chains(sampler, jnp.ones((num_chains, 50)), jax.random.key(1)),
                key=jax.random.key(2),
                data=jnp.zeros(2),
                num_blocks=2,
                draw_batch=lambda key, data: data,
                step_size=constant(0.2),
                num_draws=NUM_DRAWS,
                chunk_size=CHUNK,
                sink=store,
                checkpoints=checkpoints,
                progress=progress,
            )
        except PreemptedError:
            sys.exit(143)
    print(hashlib.sha256(np.asarray(store.positions()).tobytes()).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
