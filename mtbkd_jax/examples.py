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
      stands_for: how many rows of the data each row stands for, ``[examples]``, where these are a sample of them; None
        where each stands for itself.
    """

    inputs: Array
    labels: Int[Array, " examples"] | Float[Array, " examples"]
    components: Any = None
    stands_for: Float[Array, " examples"] | None = None


class WeightedExamples(NamedTuple):
    """A batch: examples, and by how much each counts in a sum over the data."""

    examples: Examples
    weights: Float[Array, " examples"]


def spread(rows: Int[np.ndarray, " rows"], most: int) -> Int[np.ndarray, " some"]:
    """So many of these rows at the most, evenly spaced, with the first and the last: neighbours may be alike.

    >>> spread(np.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    return rows[np.linspace(0, rows.size - 1, min(most, rows.size)).astype(int)]


def full_batch(key: object, examples: Examples) -> WeightedExamples:
    """All rows, each counted once. The key is there so that every batch is drawn by the same signature."""
    del key
    return _weighted(examples, jnp.ones(examples.labels.shape, jnp.float32))


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
    if batch_size >= num_labelled + num_unlabelled:
        return full_batch
    sizes = num_labelled, num_unlabelled
    counts = _counts_of_strata(*sizes, batch_size)
    weights = _weights_of_strata(sizes, counts)

    def draw(key: BatchKey, examples: Examples) -> WeightedExamples:
        return _weighted(_rows_of(examples, _rows_of_strata(key, sizes, counts)), jnp.asarray(weights))

    return draw


def in_blocks(examples: Examples, num_blocks: int) -> WeightedExamples:
    """All of the data, dealt into blocks of equal size that lie one after the other, each with its labelled rows first.

    Where a block would be a row short it has another block's row once more, with no weight.

    Args:
      examples: those with a label first.
      num_blocks: blocks; the rows stay in their order where there is one.
    """
    num_labelled, num_rows = int((examples.labels >= 0).sum()), examples.labels.shape[0]
    dealt = [
        np.arange(start, start + -(-size // num_blocks) * num_blocks).reshape(-1, num_blocks).T
        for start, size in ((0, num_labelled), (num_labelled, num_rows - num_labelled))
    ]
    is_real = np.concatenate([dealt[0] < num_labelled, dealt[1] < num_rows], axis=1).reshape(-1)
    ends = num_labelled - 1, num_rows - 1
    rows = np.concatenate([np.minimum(*pair) for pair in zip(dealt, ends, strict=True)], axis=1).reshape(-1)
    return _weighted(_rows_of(examples, rows), jnp.asarray(is_real, jnp.float32))


def all_blocks(key: object, data: WeightedExamples) -> WeightedExamples:
    """``full_batch`` of data in blocks."""
    del key
    return data


def minibatch_of_blocks(
    labels: Int[Array, " examples"], batch_size: int, num_blocks: int
) -> Callable[[BatchKey, WeightedExamples], WeightedExamples]:
    """``minibatch_for`` of data ``in_blocks``: the same rows from each block, of as many blocks as a device holds.

    Args:
      labels: of the examples, before they were dealt.
      batch_size: rows drawn from all blocks together; rounded up to the same number for each.
      num_blocks: blocks.
    """
    num_labelled = int((labels >= 0).sum())
    return _block_minibatch(num_labelled, labels.shape[0] - num_labelled, batch_size, num_blocks)


def steps_of_epoch(num_labelled: int, num_unlabelled: int, batch_size: int, num_blocks: int) -> int:
    """Steps in which ``minibatch_of_blocks`` takes every row without a label once, but for a rest that fills no batch.

    >>> steps_of_epoch(10, 100, 20, 1)
    10
    """
    if batch_size >= num_labelled + num_unlabelled:
        return 1
    count = -(-_counts_of_strata(num_labelled, num_unlabelled, batch_size)[1] // num_blocks)
    return -(-num_unlabelled // num_blocks) // count


def noise_beyond_sample(num_labelled: int, num_sampled: int, num_unlabelled: int, batch_size: int) -> float:
    """By how much gradients on minibatches of all rows vary more than on those of a sample of them.

        (1 − b / N) / (1 − b / n)        b rows without a label of a batch, n of the sample, N of the data

    for rows that are drawn without replacement; those with a label are in the sample, and taken to vary as the others.

    Args:
      num_labelled: rows with a label.
      num_sampled: rows without one, of the sample.
      num_unlabelled: rows without one, of the data.
      batch_size: rows drawn.

    Raises:
      InputError: if a batch takes the whole sample, which then tells nothing of how it varies.

    >>> noise_beyond_sample(10, 20, 1000, 20)
    1.98
    """
    count = min(_counts_of_strata(num_labelled, num_sampled, batch_size)[1], num_sampled)
    if count == num_sampled:
        found = f"{batch_size}, which takes all {num_sampled} rows without a label that are in memory"
        action = "Lower it, or raise rows_in_memory."
        raise InputError("sampling", "batch_size", found, "a part of them", action)
    return (1 - count / num_unlabelled) / (1 - count / num_sampled)


@cache
def _block_minibatch(
    num_labelled: int, num_unlabelled: int, batch_size: int, num_blocks: int
) -> Callable[[BatchKey, WeightedExamples], WeightedExamples]:
    if batch_size >= num_labelled + num_unlabelled:
        return all_blocks
    sizes, counts = (
        tuple(-(-number // num_blocks) for number in numbers)
        for numbers in (
            (num_labelled, num_unlabelled),
            _counts_of_strata(num_labelled, num_unlabelled, batch_size),
        )
    )
    weights = _weights_of_strata(sizes, counts)

    def draw(key: BatchKey, data: WeightedExamples) -> WeightedExamples:
        num_held = data.weights.shape[0] // sum(sizes)
        starts = sum(sizes) * jnp.arange(num_held)
        rows = (starts[:, None] + _rows_of_strata(key, sizes, counts)[None]).reshape(-1)
        batch = _rows_of(data, rows)
        return batch._replace(weights=batch.weights * jnp.tile(weights, num_held))

    return draw


def _counts_of_strata(num_labelled: int, num_unlabelled: int, batch_size: int) -> tuple[int, int]:
    """How many rows of a batch are drawn from each stratum."""
    check_positive(batch_size=batch_size)
    if batch_size == 1 and num_labelled > 0 and num_unlabelled > 0:
        expected = "two or more: an example with a label and one without"
        raise InputError("stratified_minibatch", "batch_size", "1", expected, "Take larger batches.")
    from_labelled = min(num_labelled, max(batch_size // 2, batch_size - num_unlabelled))
    return from_labelled, min(batch_size - from_labelled, num_unlabelled)


def _weights_of_strata(sizes: tuple[int, ...], counts: tuple[int, ...]) -> np.ndarray:
    """Of each row of a batch."""
    ratios = [size / max(count, 1) for size, count in zip(sizes, counts, strict=True)]
    return np.repeat(np.array(ratios, np.float32), counts)


def _rows_of_strata(key: BatchKey, sizes: tuple[int, ...], counts: tuple[int, ...]) -> Int[Array, " rows"]:
    """Rows of a batch, where the strata lie one after the other."""
    starts = np.cumsum([0, *sizes[:-1]])
    streams = jax.random.split(key.stream, len(sizes))
    return jnp.concatenate(
        [
            start + rows_of_epoch(key._replace(stream=stream), size, count)
            for start, stream, size, count in zip(starts, streams, sizes, counts, strict=True)
        ]
    )


def _weighted(examples: Examples, weights: Float[Array, " examples"]) -> WeightedExamples:
    """Examples that count by these weights, and by how many rows each stands for."""
    if examples.stands_for is None:
        return WeightedExamples(examples, weights)
    return WeightedExamples(examples._replace(stands_for=None), weights * examples.stands_for)


def _rows_of(data: Any, rows: Array | np.ndarray) -> Any:
    # The rows are in bounds by construction; saying so spares a clamp for each gathered array.
    return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data)


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
    return spread(coprime, _MOST_STRIDES).astype(np.uint32)
