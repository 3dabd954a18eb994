"""Windows on data larger than memory: which rows are seen in which step, read while the device computes.

A window is a random part of the rows, as large as fits, and each row in it stands for as many as there are windows in
an epoch. It lasts as long as minibatches take to go through it once, and then the next one takes its place; the windows
of an epoch have no row in common, and every epoch has an order of its own. So the minibatches of a chain are those of a
shuffled epoch over *all* rows, in another order than if these were in memory; what they do to the law that the chain
samples is what minibatches without replacement do (``examples``, ``step_size``):

- the gradient's error is correlated within a window, by the rows that are not in it, and summed over a window it is as
  large as that of as many independent minibatches, since no row is taken twice;
- summed over an epoch it cancels, but for the rows that fill no whole window, which sit it out.

A window that lasted longer would heat the chain in proportion. One that never changed would be another posterior, whose
mode is as many standard deviations away as the square root of how many rows a row stands for. Chains share the windows,
and so a part of this noise.

The number of a window is the step divided by the steps that each lasts, and its rows depend on its number and the seed
alone: chains that go on from a checkpoint need to know nothing of the windows before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import labelled_first
from mtbkd_jax.rows import Rows
from mtbkd_jax.tails import Tail
from mtbkd_jax.types import Batch, Key
from mtbkd_jax.weighting import RuleForNewRows


@dataclass(frozen=True)
class UnlabelledRows:
    """The rows without a label of data that do not fit in memory.

    Attributes:
      inputs: of all rows of the data, standardised.
      teacher_logits: of all rows, ``[rows, teachers, classes]``; NaN for what was not said.
      numbers: of the rows without a label.
      softening: τ, by which the teachers' probabilities are softened.
      teacher_softening: the temperature that each teacher's logits were divided by already.
      rule: weighs the teachers.
      tail: what becomes of classes that teachers gave nothing of; None where they gave all.
    """

    inputs: Rows
    teacher_logits: Rows
    numbers: Int[np.ndarray, " unlabelled"]
    softening: float
    teacher_softening: Float[Array, " teachers"]
    rule: RuleForNewRows
    tail: Tail | None = None

    def read(self, places: Int[np.ndarray, " rows"]) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and logits of some of the rows, by their places in ``numbers``, as float32."""
        rows = self.numbers[places]
        return np.asarray(self.inputs[rows], np.float32), np.asarray(self.teacher_logits[rows], np.float32)


@dataclass(frozen=True)
class Windows:
    """What chains see in turn, in place of data that are in memory all the time.

    Attributes:
      num_rows: that windows are taken of.
      size: rows of a window; a multiple of ``num_blocks``, and at most ``num_rows``.
      steps_each: steps that a window lasts.
      key: of the order of the rows.
      read: ``rows -> pytree of NumPy arrays``, called by another thread than the chains'.
      build: ``(blocks, what was read) -> data`` of these blocks, one after the other, as ``draw_batch`` takes them.
      num_blocks: blocks of equal size that a window is dealt into.
    """

    num_rows: int
    size: int
    steps_each: int
    key: Key
    read: Callable[[Int[np.ndarray, " rows"]], Any]
    build: Callable[[Sequence[int], Any], Batch]
    num_blocks: int = 1

    def number_at(self, step: int) -> int:
        """The window that is seen in a step."""
        return step // self.steps_each

    def rows(self, number: int) -> Int[np.ndarray, " size"]:
        """The rows of a window, in random order."""
        epoch, place = divmod(number, self.num_rows // self.size)
        words = tuple(np.asarray(jax.random.key_data(self.key)).tolist())
        return _order_of_epoch(words, epoch, self.num_rows)[place * self.size : (place + 1) * self.size]

    def rows_of_blocks(self, number: int, blocks: Sequence[int]) -> Int[np.ndarray, " rows"]:
        """Those of some blocks, one block after the other."""
        return self.rows(number).reshape(-1, self.num_blocks).T[list(blocks)].reshape(-1)

    @contextmanager
    def opened(self, first: int, last: int, blocks: Sequence[int]) -> Iterator[Iterator[Batch]]:
        """The data of some blocks in window ``first``, the next one, and so on to ``last``; each is read beforehand."""
        import grain  # not needed where all rows are in memory

        numbers = grain.MapDataset.range(first, last + 1)
        read = numbers.map(lambda number: self.read(self.rows_of_blocks(int(number), blocks)))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        elements = iter(read.to_iter_dataset(options))
        try:
            yield (self.build(blocks, element) for element in elements)
        finally:
            elements.close()


@lru_cache(maxsize=1)
def _order_of_epoch(words: tuple[int, ...], epoch: int, num_rows: int) -> Int[np.ndarray, " rows"]:
    return np.random.default_rng([*words, epoch]).permutation(num_rows)


def sample_of_rows(
    key: Key, labels: Int[np.ndarray, " rows"], rows_in_memory: int, *, num_blocks: int = 1
) -> Int[np.ndarray, " sample"]:
    """Rows that learning sees: all with a label, which come first, and as many of the others as fit, at random.

    Args:
      key: of the choice.
      labels: -1 where there is none.
      rows_in_memory: how many fit.
      num_blocks: the number of rows without a label is a multiple of it.

    Raises:
      InputError: if those with a label leave no room for a row of each block without.
    """
    num_labelled = int((labels >= 0).sum())
    size = (rows_in_memory - num_labelled) // num_blocks * num_blocks
    if size <= 0:
        found = f"{rows_in_memory}, and {num_labelled} rows with a label"
        expected = f"room for all of these, and for {num_blocks} rows without one"
        raise InputError("configuration", "rows_in_memory", found, expected, "Raise it, or take labels away.")
    order = labelled_first(labels)
    chosen = jax.random.key_data(key)
    places = np.random.default_rng(np.asarray(chosen).tolist()).permutation(len(labels) - num_labelled)[:size]
    return np.concatenate([order[:num_labelled], order[num_labelled:][places]])
