"""Examples: the student's data as one pytree, and the batches that a log density is evaluated on.

A batch is a set of examples with a weight each. The full data has weight one everywhere; a minibatch has weights such
that a weighted sum over it estimates the sum over the data without bias. The posterior sums ``weight * term`` and needs
to know no more.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax.checks import check_positive
from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key


class Examples(NamedTuple):
    """Rows of data.

    Attributes:
      inputs: ``[examples, ...]``.
      labels: ``[examples]``, -1 where there is none; in regression the number to predict, NaN where it is unknown.
      components: the mixture components of the function-space prior (``DirichletComponents``, or ``GaussianComponents``
        in regression), or None without teachers.
    """

    inputs: Array
    labels: Int[Array, " examples"] | Float[Array, " examples"]
    components: Any = None


class WeightedExamples(NamedTuple):
    """A batch: examples, and by how much each counts in a sum over the data."""

    examples: Examples
    weights: Float[Array, " examples"]


def full_batch(key: Key, examples: Examples) -> WeightedExamples:
    """All of the data, each row counted once. The key is there so that every batch is drawn by the same signature."""
    del key
    return WeightedExamples(examples, jnp.ones(examples.labels.shape, jnp.float32))


def labelled_first(labels: np.ndarray) -> np.ndarray:
    """The order of rows that puts those with a label first, as ``stratified_minibatch`` needs; otherwise stable."""
    return np.argsort(np.asarray(labels) < 0, kind="stable")


@cache  # the same function for the same numbers, so that what was compiled for it serves again
def stratified_minibatch(
    *, num_labelled: int, num_unlabelled: int, batch_size: int
) -> Callable[[Key, Examples], WeightedExamples]:
    """Draw minibatches from data whose first ``num_labelled`` rows are those with a label.

    Labelled and unlabelled rows are drawn apart, with replacement, and weighted by (rows in the stratum) / (rows drawn
    from it), so that the estimate stays unbiased while a few labels are not lost among many unlabelled rows. Up to half
    of the batch goes to labelled rows; where they all fit they are all taken, and their part of the sum is exact.

    Args:
      num_labelled: rows with a label.
      num_unlabelled: rows without.
      batch_size: rows drawn; the full data where it is at least as many.

    Raises:
      InputError: if ``batch_size`` is not positive, or less than one row a stratum.
    """
    check_positive(batch_size=batch_size)
    if batch_size == 1 and num_labelled > 0 and num_unlabelled > 0:
        expected = "two or more: an example with a label and one without"
        raise InputError("stratified_minibatch", "batch_size", "1", expected, "Take larger batches.")
    if batch_size >= num_labelled + num_unlabelled:
        return full_batch
    from_labelled = min(num_labelled, max(batch_size // 2, batch_size - num_unlabelled))
    from_unlabelled = min(batch_size - from_labelled, num_unlabelled)

    def draw(key: Key, examples: Examples) -> WeightedExamples:
        labelled_key, unlabelled_key = jax.random.split(key)
        labelled, labelled_weights = _draw_rows(labelled_key, 0, num_labelled, from_labelled)
        unlabelled, unlabelled_weights = _draw_rows(unlabelled_key, num_labelled, num_unlabelled, from_unlabelled)
        rows = jnp.concatenate([labelled, unlabelled])
        # The rows are in bounds by construction; saying so spares a clamp for each gathered array.
        batch = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), examples)
        return WeightedExamples(batch, jnp.concatenate([labelled_weights, unlabelled_weights]))

    return draw


def minibatch_for(labels: Int[Array, " examples"], batch_size: int) -> Callable[[Key, Examples], WeightedExamples]:
    """``stratified_minibatch`` for these labels, those of the labelled examples first."""
    num_labelled = int((labels >= 0).sum())
    return stratified_minibatch(
        num_labelled=num_labelled, num_unlabelled=labels.shape[0] - num_labelled, batch_size=batch_size
    )


def _draw_rows(key: Key, start: int, size: int, count: int) -> tuple[Array, Array]:
    weights = jnp.full((count,), size / max(count, 1), jnp.float32)
    if count == size:
        return jnp.arange(start, start + size), weights
    return jax.random.randint(key, (count,), start, start + size), weights
