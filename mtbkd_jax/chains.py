"""How chains, and the data that they see, are laid out over devices.

    axis "chain"    each device has chains of its own, which need nothing of each other
    axis "data"     devices that share a chain have blocks of the data each, and add up what their rows say
    axis "model"    devices that share a chain and its data have blocks of the parameters each

What comes out depends on the blocks that the data were cut into, and not on how many devices they lie on, but for the
order in which a sum is rounded; and so it is with the blocks of the parameters.

The first two axes are laid out by hand (``over_chains``). Along the third the compiler sees to what devices have to
tell each other: what is laid out here is where parameters lie, each cut along its longest axis that can be cut. Then of
two layers one after the other the wide side in the middle is cut, and what is exchanged is activations, of a batch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from mtbkd_jax.errors import InputError
from mtbkd_jax.noise import noise_key
from mtbkd_jax.types import Batch, Key

CHAIN_AXIS, DATA_AXIS, MODEL_AXIS = "chain", "data", "model"
EVERYWHERE = P()
LEAST_CUT = 1024
"""Entries of the smallest array of parameters that is cut into blocks; to exchange less costs more than to hold it."""


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


def chain_mesh(num_chains: int, num_blocks: int = 1, *, num_model_blocks: int = 1, is_global: bool = False) -> Mesh:
    """As many devices as share out chains, and blocks of data, evenly; chains come first, since they do not talk.

    Args:
      num_chains: chains.
      num_blocks: blocks that the data are cut into.
      num_model_blocks: blocks that the parameters of a chain are cut into, each for a device; all of a chain's lie with
        one process.
      is_global: whether the devices of all processes take part, and not those of this one alone.

    Raises:
      InputError: if the devices of a process cannot be shared out by the blocks of the parameters, or the devices of
        all processes are to take part, and those of one would be idle.
    """
    if (num_devices := jax.local_device_count()) % num_model_blocks:
        expected = f"a divisor of the number of devices of a process, {num_devices}"
        raise InputError("sampling", "num_model_blocks", f"{num_model_blocks}", expected, "Take another number.")
    devices = jax.devices() if is_global else jax.local_devices()
    chain, data = shape_of_mesh(num_chains, num_blocks, num_devices=len(devices) // num_model_blocks)
    chosen = devices[: chain * data * num_model_blocks]
    if is_global and len({device.process_index for device in chosen}) < jax.process_count():
        found = f"{num_chains} chains and {num_blocks} blocks of data for {len(devices)} devices"
        expected = f"numbers that share out over the devices of all {jax.process_count()} processes"
        raise InputError("sampling", "num_chains", found, expected, "Take a multiple of the number of devices.")
    shape = chain, data, num_model_blocks
    return Mesh(np.asarray(chosen).reshape(shape), (CHAIN_AXIS, DATA_AXIS, MODEL_AXIS))


def shape_of_mesh(num_chains: int, num_blocks: int, *, num_devices: int) -> tuple[int, int]:
    """Devices along the first two axes.

    >>> shape_of_mesh(4, 8, num_devices=8)
    (4, 2)
    """
    shapes = [
        (chain, data)
        for chain in range(1, num_devices + 1)
        for data in range(1, num_devices // chain + 1)
        if num_chains % chain == 0 and num_blocks % data == 0
    ]
    return max(shapes, key=lambda shape: (shape[0] * shape[1], shape[0]))


def over_chains(
    function: Callable[[Any, Any], Any], mesh: Mesh, *, of_shared: Any = EVERYWHERE
) -> Callable[[Any, Any], Any]:
    """Run ``function(chain, shared)`` for every chain: arrays of ``chain`` and of the result are stacked over chains.

    Everything in ``shared`` is given to every chain as a whole, but for what ``of_shared``, a tree of specifications
    like it, says lies in blocks along the data axis.
    """

    def on_device(chains, shared):
        return each_chain(lambda chain: function(chain, shared), chains, mesh)

    return over_devices(on_device, mesh, of_shared=of_shared)


def each_chain(function: Callable[[Any], Any], chains: Any, mesh: Mesh) -> Any:
    """``function(chain)`` of all chains of a device, which are stacked, as are the results.

    On a CPU they run one after the other, so that a chain is computed by the same matrix products, to the bit, however
    many others share its device; a batched product may sum in another order, and is no faster there. Accelerators need
    the batch to be busy.

    What still decides the bits of a long sum on a CPU is the number of threads that XLA has: the environment variable
    NPROC, or else the number of cores, and at least the number of devices. So more devices than cores agree with fewer
    only under one NPROC.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return jax.lax.map(function, chains) if on_cpu else jax.vmap(function)(chains)


def over_devices(
    function: Callable[[Any, Any], Any], mesh: Mesh, *, of_shared: Any = EVERYWHERE
) -> Callable[[Any, Any], Any]:
    """Run ``function(chains, shared)`` on every device, for the chains that it has; else as ``over_chains``."""
    # A program that the compiler lays out in part is another one: where there is nothing to lay out, all is by hand.
    by_hand = set(mesh.axis_names) if mesh.shape[MODEL_AXIS] == 1 else {CHAIN_AXIS, DATA_AXIS}
    of_chains = P(CHAIN_AXIS)
    return jax.shard_map(
        function, mesh=mesh, in_specs=(of_chains, of_shared), out_specs=of_chains, axis_names=by_hand, check_vma=False
    )


def of_all_chains(tree: Any) -> Any:
    """On a device: arrays that are stacked over its chains, stacked over those of all devices."""
    return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, CHAIN_AXIS, tiled=True), tree)


def with_own(data: Any, own: Any) -> Any:
    """What a chain's batches are drawn from: the data that all share, and its own where it has some."""
    return data if own is None else (data, own)


def keys_of_step(chain_key: Key, step: Any) -> tuple[BatchKey, Key]:
    """Keys for the batch and for the sampler's noise: they depend on the chain and the step, and on nothing else."""
    batch_key, sampler_key = jax.random.split(chain_key)
    return BatchKey(batch_key, step), noise_key(jax.random.fold_in(sampler_key, step))


def copy_to_chains(tree: Any, mesh: Mesh) -> Any:
    """A copy of ``tree``, stacked over chains, with each device holding its own part; the copy may be donated."""
    return jax.tree.map(lambda leaf: _copy(leaf, _sharding_of_chains(leaf, mesh)), tree)


def like_chains(tree: Any, mesh: Mesh) -> Any:
    """Shapes of ``copy_to_chains``."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_sharding_of_chains(leaf, mesh)), tree
    )


def copy_to_all(tree: Any, mesh: Mesh) -> Any:
    """``tree`` on every device of the mesh."""
    return _copy(tree, NamedSharding(mesh, EVERYWHERE))


def specs_with_data(num_blocks: int) -> tuple[P, P]:
    """Of ``(data, what else is shared)``: rows in blocks along the data axis, or everywhere if there is one block."""
    return P(DATA_AXIS) if num_blocks > 1 else EVERYWHERE, EVERYWHERE


def copy_data(data: Any, mesh: Mesh, num_blocks: int) -> Any:
    """``data``, whose leading axes run over the rows of all blocks, with each device holding its own blocks."""
    return _copy(data, NamedSharding(mesh, specs_with_data(num_blocks)[0]))


def own_blocks(mesh: Mesh, num_blocks: int) -> list[int]:
    """Numbers of the blocks of data that devices of this process hold."""
    if num_blocks == 1:
        return [0]
    by_device = np.arange(num_blocks).reshape(mesh.shape[DATA_AXIS], -1)
    is_own = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    return np.unique(by_device[np.nonzero(np.reshape(is_own, mesh.devices.shape))[1]]).tolist()


def copy_own_blocks(data: Any, mesh: Mesh, num_blocks: int) -> Any:
    """``copy_data`` where each process has the rows of ``own_blocks`` alone, one block after the other."""
    sharding = NamedSharding(mesh, specs_with_data(num_blocks)[0])
    if sharding.is_fully_addressable:
        return copy_data(data, mesh, num_blocks)
    blocks = own_blocks(mesh, num_blocks)

    def copy(leaf: Any) -> Any:
        own = np.asarray(leaf).reshape(len(blocks), -1, *leaf.shape[1:])
        length = own.shape[1]

        def of_device(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(num_blocks * length)
            rows = own[blocks.index(first // length) : blocks.index((last - 1) // length) + 1]
            return rows.reshape(-1, *leaf.shape[1:])

        return jax.make_array_from_callback((num_blocks * length, *leaf.shape[1:]), sharding, of_device)

    return jax.tree.map(copy, data)


def own_chains(stacked: Array) -> Int[np.ndarray, " own"]:
    """Numbers of the chains that this process has to write, of an array that is stacked over chains."""
    numbers = np.arange(stacked.shape[0])
    return np.concatenate([numbers[:0], *(numbers[slice(*chains)] for chains in _own_shards(stacked))])


def rows_of_own_chains(tree: Any) -> Any:
    """The rows of ``own_chains`` of arrays that are stacked over chains, as NumPy arrays; nothing is gathered."""

    def rows(stacked: Array) -> np.ndarray:
        own = [np.empty((0, *stacked.shape[1:]), stacked.dtype)]
        for shards in _own_shards(stacked).values():
            whole = np.empty((shards[0].data.shape[0], *stacked.shape[1:]), stacked.dtype)
            for shard in shards:
                whole[:, *shard.index[1:]] = shard.data
            own.append(whole)
        return np.concatenate(own)

    return jax.tree.map(rows, tree)


def _own_shards(stacked: Array) -> dict[tuple[int, int], list[Any]]:
    """Those of this process, by their first chain and the one after their last, in order.

    Of those that several devices have there is the first one's.
    """
    by_chains: dict[tuple[int, int], list[Any]] = {}
    for shard in stacked.addressable_shards:
        if shard.replica_id == 0:
            first, end, _ = shard.index[0].indices(stacked.shape[0])
            by_chains.setdefault((first, end), []).append(shard)
    return dict(sorted(by_chains.items()))


def on_this_host(tree: Any) -> Any:
    """``tree`` as NumPy arrays; every process gets all of them."""
    is_here = all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
    return jax.tree.map(np.asarray, tree) if is_here else multihost_utils.process_allgather(tree, tiled=True)


def _copy(tree: Any, sharding: NamedSharding) -> Any:
    """A copy of ``tree``; where it lies with several processes, which all have it, each copies its own part."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding, may_alias=False)

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(copy(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jnp.copy(jax.device_put(leaf, sharding))
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(copy, tree)


def _sharding_of_chains(leaf: Any, mesh: Mesh) -> NamedSharding:
    """Of an array that is stacked over chains."""
    num_blocks, shape = mesh.shape[MODEL_AXIS], np.shape(leaf)
    axes = [axis for axis in range(1, len(shape)) if shape[axis] % num_blocks == 0]
    if num_blocks == 1 or math.prod(shape[1:]) < LEAST_CUT or not axes:
        return NamedSharding(mesh, P(CHAIN_AXIS))
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, P(CHAIN_AXIS, *[None] * (longest - 1), MODEL_AXIS))
