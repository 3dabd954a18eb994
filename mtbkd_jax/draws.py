"""Draws on disk: the parameters of every draw, as they are or rounded to half the size.

    manifest.json    names, shapes and type of the parameters, and what ``draw_chunks`` says
    positions/       [chains, draws, parameters]; the parameters of a draw are joined in the order of the manifest
    log_density/     [chains, draws], nats
    seals/           [chains, draws, 2]; of both (``seals``), so that files of another run, or in another place, are
                     noticed

``draw_chunks`` says what an interrupted run leaves, and how several processes write.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, keystr, tree_leaves_with_path
from jaxtyping import Int, UInt32

from mtbkd_jax import storage
from mtbkd_jax.checks import check_one_of, check_positive
from mtbkd_jax.draw_chunks import LOG_DENSITY, ChunkedStore, Kept, empty_manifest, fitting_chunk, read_manifest
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.seals import seals_of
from mtbkd_jax.tree import tree_size
from mtbkd_jax.types import Params

STORAGE_TYPES = ("float32", "bfloat16")

_SEALED = ("positions", "log_density")

_BLOCK_VALUES = 1 << 21
"""Parameters that are read at a time, about: 8 MiB in float32."""


class DrawStore(ChunkedStore):
    """Draws in a directory, made by ``create_draws`` or ``open_draws``; a sink for ``sample_chains``.

    Chains that failed are stored as they came and never read: ``num_chains`` and everything that is read leave them
    out.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], template: Any):
        self.num_parameters = sum(prod(leaf["shape"]) for leaf in manifest["leaves"])
        self._storage_type = manifest.get("storage_type", manifest["leaves"][0]["dtype"])
        positions = Kept((self.num_parameters,), self._storage_type, is_read_by_draw=True)
        self._is_sealed = "id" in manifest  # those of old are not
        seals = {"seals": Kept((len(_SEALED),), "uint32")} if self._is_sealed else {}
        super().__init__(path, manifest, {"positions": positions} | LOG_DENSITY | seals)
        self._template = template

    def append(
        self,
        positions: Any,
        log_density: np.ndarray,
        failed_at: np.ndarray,
        chains: Int[np.ndarray, " own"] | None = None,
    ) -> None:
        """Add the next draws of all chains; on the disk when this returns.

        Of several processes each adds those of its own chains, and all of them call it at the same time.

        Args:
          positions: the template's leaves with leading axes ``[own chains, draws]``.
          log_density: ``[own chains, draws]``, nats.
          failed_at: ``[all chains]``, -1 for a chain that has not failed.
          chains: numbers of the own chains; None is all.

        Raises:
          InputError: if this is not the chunk that comes next.
          StorageError: if the disk is full.
        """
        rows = [leaf.reshape(*log_density.shape, prod(leaf.shape[2:])) for leaf in jax.tree.leaves(positions)]
        joined = np.concatenate(rows, axis=2).astype(self._storage_type, copy=False)
        chunk = {"positions": joined, "log_density": np.asarray(log_density, np.float32)}
        if self._is_sealed:
            numbers, draws = self._numbers(chains), self.num_draws + np.arange(log_density.shape[1])
            chunk["seals"] = np.stack([self._seals(name, numbers, draws, chunk[name]) for name in _SEALED], axis=2)
        self._append(chunk, failed_at, chains)

    def positions(self, start: int = 0, stop: int | None = None, step: int = 1) -> Any:
        """Read draws ``start`` to ``stop`` (None is the last) as parameters stacked to ``[chains, draws, ...]``.

        Args:
          start: the first.
          stop: the one after the last.
          step: from one to the next.

        Raises:
          CorruptDataError: if a chunk was truncated, altered or removed, or is of another run, chain or draw.
        """
        joined = self._read("positions", start, stop, step)
        leaves, structure = jax.tree.flatten(self._template)
        parts = np.split(joined, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=2)
        shaped = [part.reshape(*part.shape[:2], *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(
            structure, [jnp.asarray(part, leaf.dtype) for part, leaf in zip(shaped, leaves, strict=True)]
        )

    def _read(
        self, name: str, start: int = 0, stop: int | None = None, step: int = 1, *, inner: tuple[slice, ...] = ()
    ) -> np.ndarray:
        values = super()._read(name, start, stop, step, inner=inner)
        if self._is_sealed and name in _SEALED:
            seals = super()._read("seals", start, stop, step)[..., _SEALED.index(name)]
            self._check_seals(name, start + step * np.arange(values.shape[1]), values, seals)
        return values

    def _seals(
        self, name: str, chains: Int[np.ndarray, " chains"], draws: Int[np.ndarray, " draws"], values: np.ndarray
    ) -> UInt32[np.ndarray, "chains draws"]:
        return seals_of(f"{self.identity} {name}", chains, draws, values)

    def _check_seals(
        self,
        name: str,
        draws: Int[np.ndarray, " draws"],
        values: np.ndarray,
        expected: UInt32[np.ndarray, "chains draws"],
    ) -> None:
        """Refuse draws that were not written for where they are."""
        found = self._seals(name, self._alive, draws, values)
        for row, column in np.argwhere(found != expected)[:1]:
            chain, draw = self._alive[row], draws[column]
            inner = ["0"] * (values.ndim - 2)
            file = self.path.joinpath(name, "c", str(chain), str(draw // self.draws_per_chunk), *inner)
            raise CorruptDataError(
                str(file),
                f"seal of draw {draw}",
                f"{found[row, column]:08x}",
                f"{expected[row, column]:08x}, of chain {chain} of the run {self.identity}",
                "It was written for another place: copy it, and its like in `seals`, from where they came from.",
            )


def create_draws(
    path: str | Path,
    template: Any,
    *,
    num_chains: int,
    num_draws: int,
    draws_per_chunk: int | None = None,
    storage_type: str | None = None,
) -> DrawStore:
    """Make an empty store.

    Args:
      path: a directory that does not exist or is empty.
      template: the parameters of one draw (arrays or shapes); all leaves of one type.
      num_chains: chains of the run, failing ones included.
      num_draws: draws of each chain that are planned; disk space is taken as they come.
      draws_per_chunk: the ``chunk_size`` of ``sample_chains``: draws in one ``append``, and in one file of a chain.
        None takes a hundred, or as many as all chains have in 8 MiB.
      storage_type: of the numbers on the disk, float32 or bfloat16; None stores them as they are. They are read as the
        template's type. bfloat16 takes half the space of float32: it has eight binary digits, so that a parameter is
        rounded by 2⁻⁸ of itself, 0.4 %, at the most.

    Raises:
      InputError: if the directory has something in it, a number is not positive, the leaves are of several types, or
        the storage type is neither of the two.
      StorageError: if the disk is full.
    """
    leaves = _describe(template)
    if draws_per_chunk is None:
        draws_per_chunk = fitting_chunk(num_chains, sum(prod(leaf["shape"]) for leaf in leaves))
    check_positive(num_chains=num_chains, num_draws=num_draws, draws_per_chunk=draws_per_chunk)
    dtypes = {leaf["dtype"] for leaf in leaves}
    if len(dtypes) != 1:
        raise InputError(
            "template", "types of the leaves", f"{sorted(dtypes)}", "one floating point type", "Convert the parameters."
        )
    (own_type,) = dtypes
    if storage_type is not None:
        check_one_of(STORAGE_TYPES, "draws", "storage_type", storage_type)
    manifest = empty_manifest(
        "parameters", num_chains=num_chains, num_draws=num_draws, draws_per_chunk=draws_per_chunk
    ) | {"leaves": leaves, "storage_type": storage_type or own_type}
    return DrawStore(storage.new_directory(path), manifest, template)


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
    manifest = read_manifest(path, "parameters")
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
    return DrawStore(path, manifest, template)


def blocks_of_draws(draws: Params | DrawStore, *, every: int = 1) -> Iterator[Params]:
    """Draws of all chains, ``[chains, draws, ...]``, so few of them at a time that they need little memory.

    Args:
      draws: parameters stacked to ``[chains, draws, ...]``, or a store of them.
      every: how many there are for each that is wanted, the first of them.
    """
    if isinstance(draws, DrawStore):
        num_draws, size = draws.num_draws, draws.num_chains * draws.num_parameters
    else:
        num_draws = jax.tree.leaves(draws)[0].shape[1]
        size = tree_size(draws) // max(num_draws, 1)
    length = every * max(1, _BLOCK_VALUES // max(size, 1))
    for start in range(0, num_draws, length):
        stop = min(start + length, num_draws)
        if isinstance(draws, DrawStore):
            yield draws.positions(start, stop, every)
        else:
            yield jax.tree.map(lambda leaf, rows=np.s_[start:stop:every]: leaf[:, rows], draws)


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
