"""What a run is judged by: some of the draws, and what they predict of some training examples.

Whether chains have mixed, what they weigh and whom the student follows is judged by no more than 500 draws of each
chain, evenly spaced: these tell a quantile to a point, and memory does not grow with the number of draws. Where a run
keeps no parameters, these predictions of these examples are all that it can be judged by.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax.draws import DrawStore, blocks_of_draws
from mtbkd_jax.examples import spread
from mtbkd_jax.kept_predictions import Judged, KeptPredictions
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.sampling import ChainRun
from mtbkd_jax.students import Student
from mtbkd_jax.types import Params

MOST_JUDGED = 500
NUM_PROBES = 100
"""Examples on whose predictions convergence is judged."""

_MOST_LABELS = 4000
_MOST_SCORES = 400_000
"""Of labels by draws of a chain: what these predictions take in memory, and stacking in time, does not grow beyond."""
_MOST_ADVISED = 500


def judged_every(num_draws: int) -> int:
    """How many draws of a chain there are for each that it is judged by, which is the first of them.

    >>> [judged_every(num_draws) for num_draws in (100, 500, 501, 10_000)]
    [1, 1, 2, 20]
    """
    return -(-num_draws // MOST_JUDGED)


def rows_to_weigh_by(
    labels: Int[Array | np.ndarray, " examples"], num_draws: int
) -> tuple[Int[np.ndarray, " labelled"], Int[np.ndarray, " advised"]]:
    """Rows with a label and without one by which chains are weighed: no more of either than stacking needs.

    They are from all over the user's order, in which neighbours may be alike. Labels are scored by every draw that a
    chain is judged by: 4,000 labels by a hundred draws, 800 by five hundred.

    Args:
      labels: of the lessons, -1 for none.
      num_draws: of each chain.
    """
    labels = np.asarray(labels)
    num_judged = -(-num_draws // judged_every(num_draws))
    labelled = spread(np.flatnonzero(labels >= 0), min(_MOST_LABELS, _MOST_SCORES // num_judged))
    return labelled, spread(np.flatnonzero(labels < 0), _MOST_ADVISED)


def rows_of_probes(order: Int[np.ndarray, " examples"]) -> Int[np.ndarray, " probes"]:
    """Rows of the lessons, which are in this order of the user's rows, that hold the user's first hundred."""
    return np.argsort(order)[:NUM_PROBES]


def judged_of(lessons: Lessons, order: Int[np.ndarray, " examples"], num_draws: int) -> Judged:
    """What a run without parameters must keep to be judged.

    Args:
      lessons: what the teachers taught.
      order: row of the user's arrays for each row of the lessons.
      num_draws: of each chain.
    """
    wanted: Sequence[np.ndarray] = (*rows_to_weigh_by(lessons.examples.labels, num_draws), rows_of_probes(order))
    rows = np.unique(np.concatenate(wanted))
    return Judged(lessons.examples.inputs[rows], rows, judged_every(num_draws))


def log_probs_by_chain(
    student: Student,
    draws: Params | DrawStore,
    inputs: Array | np.ndarray,
    *,
    every: int = 1,
    temperature: float = 1.0,
) -> Float[np.ndarray, "chains draws examples classes"]:
    """Log class probabilities by every draw, or every so many, in nats; the draws are held a block at a time.

    Args:
      student: the network.
      draws: parameters stacked to ``[chains, draws, ...]``, or a store of them.
      inputs: ``[examples, ...]``.
      every: how many draws there are for each that is asked, the first of them.
      temperature: what the logits are divided by.
    """
    blocks = []
    for block in blocks_of_draws(draws, every=every):
        log_probs = predictive_log_probs(student, flatten_chains(block), inputs, temperature=temperature)
        shape = jax.tree.leaves(block)[0].shape[:2]
        blocks.append(log_probs.reshape(*shape, *log_probs.shape[1:]))
    return np.concatenate(blocks, axis=1)


def judged_log_probs(
    student: Student, run: ChainRun, lessons: Lessons, rows: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, "chains judged rows classes"]:
    """Log class probabilities of training examples by the draws that a run is judged by, in nats.

    Args:
      student: the network.
      run: the chains.
      lessons: what the teachers taught.
      rows: of the lessons; where the run keeps no parameters, some of ``judged_rows``.
    """
    if isinstance(run.positions, KeptPredictions):
        return run.positions.judged_log_probs(rows)
    every = judged_every(run.info.log_density.shape[1])
    return log_probs_by_chain(student, run.positions, lessons.examples.inputs[rows], every=every)


def judged_rows(run: ChainRun, lessons: Lessons) -> Int[np.ndarray, " rows"]:
    """Rows of the lessons that ``judged_log_probs`` can be asked for: all, if the run keeps parameters."""
    if isinstance(run.positions, KeptPredictions):
        return run.positions.judged_rows
    return np.arange(lessons.examples.labels.size)


def judged_log_density(run: ChainRun) -> Float[np.ndarray, "chains judged"]:
    """The log density of the draws that a run is judged by, in nats."""
    log_density = np.asarray(run.info.log_density)
    return log_density[:, :: judged_every(log_density.shape[1])]
