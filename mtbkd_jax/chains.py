"""How chains are laid out over the devices of a machine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from mtbkd_jax.noise import noise_key
from mtbkd_jax.types import Batch, Key


class BatchKey(NamedTuple):
    """Which batch is asked for. Batches of one stream may know of each other, such as those of an epoch.

    Attributes:
      stream: key of all batches of a chain, or of a climb.
      step: which of them, from 0.
    """

    stream: Key
    step: int | Int[Array, ""]

    @property
    def own(self) -> Key:
        """A key for this batch alone."""
        return jax.random.fold_in(self.stream, self.step)


DrawBatch = Callable[[BatchKey, Any], Batch]
"""``(key, data) -> batch``."""


def chain_mesh(num_chains: int) -> Mesh:
    """One axis named "chain" over as many local devices as share the chains out evenly."""
    devices = jax.local_devices()
    count = max(d for d in range(1, len(devices) + 1) if num_chains % d == 0)
    return Mesh(np.asarray(devices[:count]), ("chain",))


def over_chains(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """Run ``function(chain, shared)`` for every chain: arrays of ``chain`` and of the result are stacked over chains.

    On a CPU the chains of a device run one after the other, so that a chain is computed by the same matrix products, to
    the bit, however many others share its device; a batched product may sum in another order, and is no faster there.
    Accelerators need the batch to be busy.

    What still decides the bits of a long sum on a CPU is the number of threads that XLA has: the environment variable
    NPROC, or else the number of cores, and at least the number of devices. So more devices than cores agree with fewer
    only under one NPROC.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def on_device(chains, shared):
        def one(chain):
            return function(chain, shared)

        return jax.lax.map(one, chains) if on_cpu else jax.vmap(one)(chains)

    return jax.shard_map(on_device, mesh=mesh, in_specs=(P("chain"), P()), out_specs=P("chain"), check_vma=False)


def with_own(data: Any, own: Any) -> Any:
    """What a chain's batches are drawn from: the data that all share, and its own where it has some."""
    return data if own is None else (data, own)


def keys_of_step(chain_key: Key, step: Any) -> tuple[BatchKey, Key]:
    """Keys for the batch and for the sampler's noise: they depend on the chain and the step, and on nothing else."""
    batch_key, sampler_key = jax.random.split(chain_key)
    return BatchKey(batch_key, step), noise_key(jax.random.fold_in(sampler_key, step))


def copy_to_chains(tree: Any, mesh: Mesh) -> Any:
    """A copy of ``tree``, stacked over chains, with each device holding its own chains; the copy may be donated."""
    return jax.device_put(tree, NamedSharding(mesh, P("chain")), may_alias=False)


def copy_to_all(tree: Any, mesh: Mesh) -> Any:
    """``tree`` on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))
