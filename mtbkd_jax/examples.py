"""Examples: the student's data as one pytree, and the batches that a log density is evaluated on.

A batch is a set of examples with a weight each. The full data has weight one everywhere; a minibatch has weights such
that a weighted sum over it estimates the sum over the data without bias. The posterior sums ``weight * term`` and needs
to know no more.

Minibatches are drawn without replacement: those of an epoch have no row in common. Their errors then cancel within the
memory of the momentum, so that they heat a chain less than batches that are drawn apart (``step_size``); along the
directions in which the posterior is wide, most of the heat is gone.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax.chains import BatchKey
from mtbkd_jax.checks import check_positive
from mtbkd_jax.errors import InputError

_MOST_STRIDES = 256


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


def full_batch(key: object, examples: Examples) -> WeightedExamples:
    """All of the data, each row counted once. The key is there so that every batch is drawn by the same signature."""
    del key
    return WeightedExamples(examples, jnp.ones(examples.labels.shape, jnp.float32))


def labelled_first(labels: np.ndarray) -> np.ndarray:
    """An order of rows that puts those with a label first, as ``stratified_minibatch`` needs.

    It is shuffled otherwise, and the same whenever it is asked for: neighbours in a user's order may be alike, and rows
    that are evenly spaced in this one make a minibatch.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    return order[np.argsort(np.asarray(labels)[order] < 0, kind="stable")]


@cache  # the same function for the same numbers, so that what was compiled for it serves again
def stratified_minibatch(
    *, num_labelled: int, num_unlabelled: int, batch_size: int
) -> Callable[[BatchKey, Examples], WeightedExamples]:
    """Draw minibatches from data whose first ``num_labelled`` rows are those with a label.

    Labelled and unlabelled rows are drawn apart, each by ``rows_of_epoch``, and weighted by (rows in the stratum) /
    (rows drawn from it), so that the estimate stays unbiased while a few labels are not lost among many unlabelled
    rows. Up to half of the batch goes to labelled rows; where they all fit they are all taken, and their part of the
    sum is exact.

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

    weights = np.repeat(
        np.array([num_labelled / max(from_labelled, 1), num_unlabelled / max(from_unlabelled, 1)], np.float32),
        [from_labelled, from_unlabelled],
    )

    def draw(key: BatchKey, examples: Examples) -> WeightedExamples:
        labelled_stream, unlabelled_stream = jax.random.split(key.stream)
        labelled = rows_of_epoch(key._replace(stream=labelled_stream), num_labelled, from_labelled)
        unlabelled = rows_of_epoch(key._replace(stream=unlabelled_stream), num_unlabelled, from_unlabelled)
        rows = jnp.concatenate([labelled, num_labelled + unlabelled])
        # The rows are in bounds by construction; saying so spares a clamp for each gathered array.
        batch = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), examples)
        return WeightedExamples(batch, jnp.asarray(weights))

    return draw


def minibatch_for(labels: Int[Array, " examples"], batch_size: int) -> Callable[[BatchKey, Examples], WeightedExamples]:
    """``stratified_minibatch`` for these labels, those of the labelled examples first."""
    num_labelled = int((labels >= 0).sum())
    return stratified_minibatch(
        num_labelled=num_labelled, num_unlabelled=labels.shape[0] - num_labelled, batch_size=batch_size
    )


def rows_of_epoch(key: BatchKey, num_rows: int, count: int) -> Int[Array, " count"]:
    """Rows of one batch of an epoch, in which no row comes twice; rows that fill no whole batch sit an epoch out.

        row_j = (c + a · (slot · count + j)) mod num_rows        a coprime to num_rows; a and c drawn for each epoch

    An order that a few operations give anywhere: neither is a permutation kept, nor are random bits drawn for each row.
    Rows at the same distance come together again whenever the stride does, so that they should be in random order.

    Args:
      key: of the batch; its step says which epoch, and which slot of it.
      num_rows: to draw from.
      count: rows of a batch, at most ``num_rows``.
    """
    if count in (0, num_rows):
        return jnp.arange(count)
    epoch, slot = jnp.divmod(jnp.asarray(key.step), num_rows // count)
    stride_key, start_key = jax.random.split(jax.random.fold_in(key.stream, epoch))
    stride = jax.random.choice(stride_key, _strides(num_rows))
    start = jax.random.randint(start_key, (), 0, num_rows).astype(jnp.uint32)
    places = (slot * count + jnp.arange(count)).astype(jnp.uint32)
    return ((start + stride * places % num_rows) % num_rows).astype(jnp.int32)


def _strides(num_rows: int) -> np.ndarray:
    """Strides that are coprime to ``num_rows``, and so small that a place times a stride fits into 32 bits."""
    candidates = np.arange(1, min(num_rows - 1, (2**32 - 1) // num_rows) + 1)
    coprime = candidates[np.gcd(candidates, num_rows) == 1]
    return coprime[np.linspace(0, coprime.size - 1, min(_MOST_STRIDES, coprime.size)).astype(int)].astype(np.uint32)
