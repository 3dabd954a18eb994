"""Adapters: teachers of any framework as functions of a batch of inputs, and what puts their outputs in a directory.

A framework is imported when an adapter for it is made, and no sooner.
"""

from mtbkd_jax.adapters.base import Adapter, from_callable
from mtbkd_jax.adapters.flax_modules import from_linen, from_nnx
from mtbkd_jax.adapters.sklearn_estimators import from_sklearn
from mtbkd_jax.adapters.teaching import Questions, make_questions, read_questions, teach

__all__ = [
    "Adapter",
    "Questions",
    "from_callable",
    "from_linen",
    "from_nnx",
    "from_sklearn",
    "make_questions",
    "read_questions",
    "teach",
]
