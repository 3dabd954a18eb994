"""Arithmetic on pytrees of arrays: the few operations that the samplers share."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtbkd_jax.types import Params


def tree_add_scaled(a: Params, scale: Any, b: Params) -> Params:
    """``a + scale * b``, leaf by leaf.

    >>> tree_add_scaled({"w": jnp.ones(2)}, 0.5, {"w": jnp.full(2, 4.0)})
    {'w': Array([3., 3.], dtype=float32)}
    """
    return jax.tree.map(lambda x, y: x + scale * y, a, b)


def tree_scale(scale: Any, a: Params) -> Params:
    """``scale * a``, leaf by leaf."""
    return jax.tree.map(lambda x: scale * x, a)


def tree_vdot(a: Params, b: Params) -> Float[Array, ""]:
    """Inner product over all leaves, summed per leaf first (which loses less in float32)."""
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, a, b))


def tree_norm(a: Params) -> Float[Array, ""]:
    """Euclidean length of all leaves together."""
    return jnp.sqrt(tree_vdot(a, a))


def tree_root_mean_square(a: Params) -> Float[Array, ""]:
    """Root mean square of all entries together.

    >>> float(tree_root_mean_square({"w": jnp.array([1.0, 7.0]), "b": jnp.array([5.0, 5.0])}))
    5.0
    """
    return tree_norm(a) / jnp.sqrt(tree_size(a))


def tree_where(condition: Bool[Array, ""], a: Any, b: Any) -> Any:
    """``a`` where the scalar ``condition`` holds, else ``b``."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


@jax.jit  # one program for all leaves: outside of one, each shape of a leaf would be compiled apart
def tree_rows(a: Params, rows: Any) -> Params:
    """``a[rows]``, leaf by leaf: a row of what is stacked for one index, several for an array of them.

    >>> tree_rows({"w": jnp.array([[1.0], [2.0]])}, 1)
    {'w': Array([2.], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: leaf[rows], a)


def tree_is_finite(a: Params) -> Bool[Array, ""]:
    """Whether every entry of every leaf is finite."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), a))


def tree_size(a: Params) -> int:
    """Number of entries in all leaves together."""
    return sum(leaf.size for leaf in jax.tree.leaves(a))


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves by name: the keys that lead to them, joined by dots.

    >>> named_leaves({"Dense_0": {"kernel": 1, "bias": 2}})
    {'Dense_0.bias': 2, 'Dense_0.kernel': 1}
    """
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="."): leaf for keys, leaf in leaves}
