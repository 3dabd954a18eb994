"""Names of the types that pass between modules."""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

Key = PRNGKeyArray
"""A typed key of ``jax.random.key``; split or folded in, never used twice."""

Params: TypeAlias = PyTree[Shaped[Array, "..."]]
"""The student's parameters: any pytree of arrays."""

Batch = Any
"""A pytree of arrays whose leading axis runs over examples."""

Scalar = Float[Array, ""]

MinibatchLogDensity = Callable[[Params, Batch], Scalar]
"""``(params, batch) -> log density`` in nats: exact on the whole data, an unbiased estimate on a minibatch."""
