"""Chunks of draws on disk: what all stores of draws have in common.

    manifest.json    what is kept; an identity; chains; draws planned and complete; where chains failed
    NAME/            [chains, draws, ...]; one array for each thing that is kept, or for every so many draws one row
    log_density/     [chains, draws], nats

A chunk of the arrays is one chain's share of one ``append``, with a checksum, and the manifest is replaced after the
chunks are on the disk. So an interrupted run leaves the draws that its manifest counts. A run that goes on from a
checkpoint may write a chunk that was there already again, with the same draws in it.

Of several processes that sample together each writes the chunks of its own chains, into the directory that all of them
see, and the first one the manifest. What is in the directory does not depend on how many they are.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax import storage
from mtbkd_jax.errors import InputError
from mtbkd_jax.processes import is_first, wait_for_all

FORMAT: dict[str, Any] = {"format_name": "mtbkd_jax.draws", "version": 2}
ID_BYTES = 8
_MOST_DRAWS, _CHUNK_VALUES = 100, 1 << 21
"""Draws of one chunk: a hundred, or fewer where those of all chains would take more than 8 MiB in float32."""


class Kept(NamedTuple):
    """One array of a store.

    Attributes:
      shape: of what is kept of a draw.
      dtype: name of its type.
      every: how many draws there are for each that is kept, the first of them.
      block: of the first axis of the shape, as much as has a file of its own; None is all of it.
      is_read_by_draw: whether one draw can be read without the others of its chunk.
    """

    shape: tuple[int, ...]
    dtype: str
    every: int = 1
    block: int | None = None
    is_read_by_draw: bool = False


LOG_DENSITY = {"log_density": Kept((), "float32")}


class ChunkedStore:
    """Arrays over chains and draws in a directory that is filled by whole chunks; the base of the sinks on disk.

    Chains that failed are stored as they came and never read: ``num_chains`` and everything that is read leave them
    out.

    Args:
      path: the directory.
      manifest: its content.
      arrays: that it is to hold, by name; they are opened, or created where there is no manifest yet.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], arrays: Mapping[str, Kept]):
        self.path = path
        self._manifest = manifest
        self._kept = dict(arrays)
        is_new = not (path / "manifest.json").exists()
        open_or_create = _create if is_new else _open
        self._arrays = {name: open_or_create(path / name, manifest, kept) for name, kept in arrays.items()}
        if is_new:
            self._write_manifest()

    @property
    def num_draws(self) -> int:
        """Draws of each chain that are complete."""
        return self._manifest["num_complete"]

    @property
    def identity(self) -> str:
        """What tells this store from any other: hexadecimal digits of ``ID_BYTES``; zeros in those of old."""
        return self._manifest.get("id", "00" * ID_BYTES)

    @property
    def draws_per_chunk(self) -> int:
        """Draws of one ``append``; the last one may have fewer."""
        return self._manifest["draws_per_chunk"]

    @property
    def failed_at(self) -> np.ndarray:
        """The step at which each chain failed, for all chains; -1 is never."""
        return np.asarray(self._manifest["failed_at"], np.int32)

    @property
    def num_chains(self) -> int:
        """Chains that did not fail."""
        return len(self._alive)

    def state(self) -> Any:
        """Nothing has to be saved with the chains: the directory has it all."""
        return None

    def truncate(self, num_draws: int, state: Any) -> None:
        """Forget the draws of every chain beyond the first ``num_draws``; what comes next is written over them."""
        del state
        if num_draws < self.num_draws:
            self._manifest |= {"num_complete": num_draws}
            self._write_manifest()

    def log_density(self, start: int = 0, stop: int | None = None) -> Float[Array, "chains draws"]:
        """Read log densities in nats, ``[chains, draws]``, of draws ``start`` to ``stop`` (None is the last).

        Raises:
          CorruptDataError: if a chunk was truncated, altered or removed.
        """
        return jnp.asarray(self._read("log_density", start, stop))

    @property
    def _alive(self) -> np.ndarray:
        return np.flatnonzero(self.failed_at < 0)

    def _append(
        self,
        chunk: Mapping[str, np.ndarray],
        failed_at: np.ndarray,
        chains: Int[np.ndarray, " own"] | None = None,
    ) -> None:
        """Add what is kept of the next draws; that of all processes is on the disk when this returns.

        Args:
          chunk: ``[own chains, kept draws, ...]`` by name.
          failed_at: of all chains.
          chains: numbers of those that this process has; None is all.

        Raises:
          InputError: if this is not the chunk that comes next.
          StorageError: if the disk is full.
        """
        start, count = self.num_draws, chunk["log_density"].shape[1]
        self._check_is_next_chunk(count)
        for name, values in chunk.items():
            first = -(-start // self._kept[name].every)
            storage.write(self._arrays[name], (self._numbers(chains), np.s_[first : first + values.shape[1]]), values)
        wait_for_all("draws")
        self._manifest |= {"num_complete": start + count, "failed_at": np.asarray(failed_at).tolist()}
        self._write_manifest()

    def _numbers(self, chains: Int[np.ndarray, " own"] | None) -> Int[np.ndarray, " own"]:
        return np.arange(self._manifest["num_chains"]) if chains is None else chains

    def _read(
        self, name: str, start: int = 0, stop: int | None = None, step: int = 1, *, inner: tuple[slice, ...] = ()
    ) -> np.ndarray:
        """Rows ``start`` to ``stop`` of an array, or an inner part of them, without the chains that failed."""
        num_rows = -(-self.num_draws // self._kept[name].every)
        stop = num_rows if stop is None else min(stop, num_rows)
        return storage.read(self._arrays[name], (self._alive, slice(start, max(start, stop), step), *inner))

    def _check_is_next_chunk(self, count: int) -> None:
        expected = min(self.draws_per_chunk, self._manifest["num_planned"] - self.num_draws)
        if count != expected:
            raise InputError(
                str(self.path),
                "appended draws",
                f"{count} after {self.num_draws} of {self._manifest['num_planned']}",
                f"{expected}",
                "Make the store with the number of draws and the chunk size of the run.",
            )

    def _write_manifest(self) -> None:
        if is_first():
            storage.write_manifest(self.path / "manifest.json", self._manifest, **FORMAT)


def read_manifest(path: Path, *kinds: str) -> dict[str, Any]:
    """The manifest of a store, which must be of one of these kinds.

    Raises:
      InputError: if there is no store, or it is of another kind.
      CorruptDataError: if the manifest was altered.
    """
    manifest = _read_manifest(path)
    if manifest["kind"] not in kinds:
        action = "Read what was kept, or sample again."
        raise InputError(str(path), "draws", f"{manifest['kind']}", " or ".join(kinds), action)
    return manifest


def kind_of_draws(path: Path) -> str:
    """What a store keeps; raises as ``read_manifest`` does."""
    return _read_manifest(path)["kind"]


def count_draws(path: Path) -> tuple[int, int]:
    """Draws of each chain that are complete, and those that are planned; may be asked while they are written.

    Raises:
      InputError: if there is no store.
      CorruptDataError: if its manifest was altered.
    """
    manifest = _read_manifest(path)
    return manifest["num_complete"], manifest["num_planned"]


def _read_manifest(path: Path) -> dict[str, Any]:
    # Version 1 knew of nothing else.
    return {"kind": "parameters"} | storage.read_manifest(path / "manifest.json", **FORMAT)


def empty_manifest(kind: str, *, num_chains: int, num_draws: int, draws_per_chunk: int) -> dict[str, Any]:
    """The manifest of a store without a draw."""
    return {
        "kind": kind,
        "id": secrets.token_hex(ID_BYTES),
        "num_chains": num_chains,
        "num_planned": num_draws,
        "num_complete": 0,
        "draws_per_chunk": min(draws_per_chunk, num_draws),
        "failed_at": [-1] * num_chains,
    }


def fitting_chunk(num_chains: int, num_parameters: int) -> int:
    """Draws of one chunk that memory need not be asked about."""
    return max(1, min(_MOST_DRAWS, _CHUNK_VALUES // max(num_chains * num_parameters, 1)))


def _shape(manifest: Mapping[str, Any], kept: Kept) -> tuple[int, ...]:
    return manifest["num_chains"], -(-manifest["num_planned"] // kept.every), *kept.shape


def _open(path: Path, manifest: Mapping[str, Any], kept: Kept) -> Any:
    return storage.open_array(path, shape=_shape(manifest, kept), dtype=kept.dtype)


def _create(path: Path, manifest: Mapping[str, Any], kept: Kept) -> Any:
    # One that is kept now and then has a file of its own: no file is then written twice.
    chunk_shape = [1, manifest["draws_per_chunk"] if kept.every == 1 else 1, *kept.shape]
    if kept.block is not None:
        chunk_shape[2] = kept.block
    part_shape = [1, 1, *chunk_shape[2:]] if kept.is_read_by_draw else None
    shape = _shape(manifest, kept)
    return storage.create_array(path, shape=shape, dtype=kept.dtype, chunk_shape=chunk_shape, part_shape=part_shape)
