"""Draws on disk: a directory that is filled by whole chunks and says how far it has come.

    manifest.json    names, shapes and type of the parameters; chains; draws planned and complete; where chains failed
    positions/       [chains, draws, parameters]; the parameters of a draw are joined in the order of the manifest
    log_density/     [chains, draws], nats

A chunk of the arrays is one chain's share of one ``append``, with a checksum, and the manifest is replaced after the
chunks are on the disk. So an interrupted run leaves the draws that its manifest counts. A run that goes on from a
checkpoint may write a chunk that was there already again, with the same draws in it.
"""

from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, keystr, tree_leaves_with_path
from jaxtyping import Array, Float

from mtbkd_jax import storage
from mtbkd_jax.checks import check_positive
from mtbkd_jax.errors import InputError

_FORMAT: dict[str, Any] = {"format_name": "mtbkd_jax.draws", "version": 1}


class DrawStore:
    """Draws in a directory, made by ``create_draws`` or ``open_draws``; a sink for ``sample_chains``.

    Chains that failed are stored as they came and never read: ``num_chains`` and everything that is read leave them
    out.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], arrays: dict[str, Any], template: Any):
        self.path = path
        self._manifest = manifest
        self._arrays = arrays
        self._template = template

    @property
    def num_draws(self) -> int:
        """Draws of each chain that are complete."""
        return self._manifest["num_complete"]

    @property
    def failed_at(self) -> np.ndarray:
        """The step at which each chain failed, for all chains; -1 is never."""
        return np.asarray(self._manifest["failed_at"], np.int32)

    @property
    def num_chains(self) -> int:
        """Chains that did not fail."""
        return len(self._alive)

    def append(self, positions: Any, log_density: np.ndarray, failed_at: np.ndarray) -> None:
        """Add the next draws of all chains; on the disk when this returns.

        Args:
          positions: the template's leaves with leading axes ``[chains, draws]``.
          log_density: ``[chains, draws]``, nats.
          failed_at: ``[chains]``, -1 for a chain that has not failed.

        Raises:
          InputError: if this is not the chunk that comes next.
          StorageError: if the disk is full.
        """
        start, (chains, count) = self.num_draws, log_density.shape
        self._check_is_next_chunk(count)
        rows = [np.asarray(leaf).reshape(chains, count, -1) for leaf in jax.tree.leaves(positions)]
        index = np.s_[:, start : start + count]
        storage.write(self._arrays["positions"], index, np.concatenate(rows, axis=2))
        storage.write(self._arrays["log_density"], index, np.asarray(log_density, np.float32))
        self._manifest |= {"num_complete": start + count, "failed_at": np.asarray(failed_at).tolist()}
        self._write_manifest()

    def truncate(self, num_draws: int) -> None:
        """Forget the draws of every chain beyond the first ``num_draws``; what comes next is written over them."""
        if num_draws < self.num_draws:
            self._manifest |= {"num_complete": num_draws}
            self._write_manifest()

    def positions(self, start: int = 0, stop: int | None = None) -> Any:
        """Read draws ``start`` to ``stop`` (None is the last) as parameters stacked to ``[chains, draws, ...]``.

        Raises:
          CorruptDataError: if a chunk was truncated, altered or removed.
        """
        joined = self._read("positions", start, stop)
        leaves, structure = jax.tree.flatten(self._template)
        parts = np.split(joined, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=2)
        shaped = [part.reshape(*part.shape[:2], *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in shaped])

    def log_density(self, start: int = 0, stop: int | None = None) -> Float[Array, "chains draws"]:
        """Read log densities in nats, ``[chains, draws]``; raises as ``positions`` does."""
        return jnp.asarray(self._read("log_density", start, stop))

    @property
    def _alive(self) -> np.ndarray:
        return np.flatnonzero(self.failed_at < 0)

    def _read(self, name: str, start: int, stop: int | None) -> np.ndarray:
        stop = self.num_draws if stop is None else min(stop, self.num_draws)
        return storage.read(self._arrays[name], np.s_[self._alive, start : max(start, stop)])

    def _check_is_next_chunk(self, count: int) -> None:
        expected = min(self._manifest["draws_per_chunk"], self._manifest["num_planned"] - self.num_draws)
        if count != expected:
            raise InputError(
                str(self.path),
                "appended draws",
                f"{count} after {self.num_draws} of {self._manifest['num_planned']}",
                f"{expected}",
                "Make the store with the number of draws and the chunk size of the run.",
            )

    def _write_manifest(self) -> None:
        storage.write_manifest(self.path / "manifest.json", self._manifest, **_FORMAT)


def create_draws(
    path: str | Path, template: Any, *, num_chains: int, num_draws: int, draws_per_chunk: int = 100
) -> DrawStore:
    """Make an empty store.

    Args:
      path: a directory that does not exist or is empty.
      template: the parameters of one draw (arrays or shapes); all leaves of one type.
      num_chains: chains of the run, failing ones included.
      num_draws: draws of each chain that are planned; disk space is taken as they come.
      draws_per_chunk: the ``chunk_size`` of ``sample_chains``: draws in one ``append``, and in one file of a chain.

    Raises:
      InputError: if the directory has something in it, a number is not positive, or the leaves are of several types.
      StorageError: if the disk is full.
    """
    check_positive(num_chains=num_chains, num_draws=num_draws, draws_per_chunk=draws_per_chunk)
    leaves = _describe(template)
    dtypes = {leaf["dtype"] for leaf in leaves}
    if len(dtypes) != 1:
        raise InputError(
            "template", "types of the leaves", f"{sorted(dtypes)}", "one floating point type", "Convert the parameters."
        )
    path = storage.new_directory(path)
    manifest = {
        "leaves": leaves,
        "num_chains": num_chains,
        "num_planned": num_draws,
        "num_complete": 0,
        "draws_per_chunk": draws_per_chunk,
        "failed_at": [-1] * num_chains,
    }
    arrays = {
        name: storage.create_array(
            path / name, shape=shape, dtype=dtype, chunk_shape=(1, min(draws_per_chunk, num_draws), *shape[2:])
        )
        for name, (shape, dtype) in _layout(manifest).items()
    }
    store = DrawStore(path, manifest, arrays, template)
    store._write_manifest()
    return store


def open_draws(path: str | Path, template: Any | None = None) -> DrawStore:
    """Open a store, to read it or to append what is still planned.

    Args:
      path: the directory.
      template: the parameters (arrays or shapes) that the draws must fit, in names, shapes and types; None makes nested
        dictionaries.

    Raises:
      InputError: if there is no store, it is of another model, or its parameters were not dictionaries and no template
        is given.
      CorruptDataError: if the manifest was altered, or does not agree with the arrays.
    """
    path = Path(path)
    manifest = storage.read_manifest(path / "manifest.json", **_FORMAT)
    if template is None:
        template = _nested_dictionaries(manifest["leaves"], path)
    elif _describe(template) != manifest["leaves"]:
        raise InputError(
            str(path),
            "parameters",
            _in_words(manifest["leaves"]),
            _in_words(_describe(template)),
            "Use the student that the draws were made with.",
        )
    arrays = {
        name: storage.open_array(path / name, shape=shape, dtype=dtype)
        for name, (shape, dtype) in _layout(manifest).items()
    }
    return DrawStore(path, manifest, arrays, template)


def count_draws(path: str | Path) -> tuple[int, int]:
    """Draws of each chain that are complete, and those that are planned; may be asked while they are written.

    Raises:
      InputError: if there is no store.
      CorruptDataError: if its manifest was altered.
    """
    manifest = storage.read_manifest(Path(path) / "manifest.json", **_FORMAT)
    return manifest["num_complete"], manifest["num_planned"]


def _layout(manifest: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array."""
    size = sum(prod(leaf["shape"]) for leaf in manifest["leaves"])
    shape = (manifest["num_chains"], manifest["num_planned"])
    return {"positions": ((*shape, size), manifest["leaves"][0]["dtype"]), "log_density": (shape, "float32")}


def _describe(template: Any) -> list[dict[str, Any]]:
    return [
        {"path": _path_in_json(path), "shape": list(leaf.shape), "dtype": jnp.dtype(leaf.dtype).name}
        for path, leaf in tree_leaves_with_path(template)
    ]


def _path_in_json(path: tuple[Any, ...]) -> list[str] | str:
    """Keys of nested dictionaries as a list; anything else, from which no tree can be made again, as text."""
    if all(isinstance(entry, DictKey) and isinstance(entry.key, str) for entry in path):
        return [entry.key for entry in path]
    return keystr(path)


def _nested_dictionaries(leaves: list[dict[str, Any]], path: Path) -> Any:
    tree: dict[str, Any] = {}
    for leaf in leaves:
        keys = leaf["path"]
        if not isinstance(keys, list) or not keys:
            raise InputError(
                str(path),
                "parameters",
                _in_words(leaves),
                "nested dictionaries",
                "Give the student's parameters as template.",
            )
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = jax.ShapeDtypeStruct(tuple(leaf["shape"]), leaf["dtype"])
    return tree


def _in_words(leaves: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{leaf['path'] if isinstance(leaf['path'], str) else '/'.join(leaf['path'])} {leaf['dtype']}{leaf['shape']}"
        for leaf in leaves
    )
