"""Which draws a run is judged by, and what they predict.

Whether chains have mixed, what they weigh and whom the student follows is judged by no more than 500 draws of each
chain, evenly spaced: these tell a quantile to a point, and memory does not grow with the number of draws.
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from mtbkd_jax.draws import DrawStore, blocks_of_draws
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.sampling import ChainRun
from mtbkd_jax.students import Student
from mtbkd_jax.types import Params

MOST_JUDGED = 500


def judged_every(num_draws: int) -> int:
    """How many draws of a chain there are for each that it is judged by, which is the first of them.

    >>> [judged_every(num_draws) for num_draws in (100, 500, 501, 10_000)]
    [1, 1, 2, 20]
    """
    return -(-num_draws // MOST_JUDGED)


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
    student: Student, run: ChainRun, inputs: Array | np.ndarray, *, temperature: float = 1.0
) -> Float[np.ndarray, "chains judged examples classes"]:
    """Log class probabilities by the draws that a run is judged by, in nats; arguments as ``log_probs_by_chain``."""
    every = judged_every(run.info.log_density.shape[1])
    return log_probs_by_chain(student, run.positions, inputs, every=every, temperature=temperature)


def judged_log_density(run: ChainRun) -> Float[np.ndarray, "chains judged"]:
    """The log density of the draws that a run is judged by, in nats."""
    log_density = np.asarray(run.info.log_density)
    return log_density[:, :: judged_every(log_density.shape[1])]
