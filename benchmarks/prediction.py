"""Class probabilities of 480 draws for 1,000 inputs, as many as DeepLoc's proteins, beside a loop over the draws.

The student 256-128-10. The loop applies the network to one draw after the other and brings its probabilities to the
host, as a program does that walks through a folder of draws; once as it stands, and once with that step compiled, where
only the calls and the smaller matrix products are left to save.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.measure import Row, row_of_ratio, take_turns
from benchmarks.problems import NUM_FEATURES, STUDENT
from mtbkd_jax.prediction import predictive_log_probs
from mtbkd_jax.tree import tree_rows

NUM_DRAWS, NUM_INPUTS, GOAL = 480, 1000, 20.0
AT_ONCE = "all at once"


def measure(*, is_small: bool) -> list[Row]:
    """A figure for each loop; a small measurement takes fewer turns."""
    draws = jax.vmap(STUDENT.init)(jax.random.split(jax.random.key(0), NUM_DRAWS))
    inputs = jax.random.normal(jax.random.key(1), (NUM_INPUTS, NUM_FEATURES))
    goals = {"loop": GOAL, "compiled loop": None}
    programs: dict[str, Callable[[], Any]] = {
        AT_ONCE: lambda: predictive_log_probs(STUDENT, draws, inputs),
        "loop": lambda: in_a_loop(_log_probs, draws, inputs),
        "compiled loop": lambda: in_a_loop(jax.jit(_log_probs), draws, inputs),
    }
    seconds = take_turns(programs, 2 if is_small else 9)
    return [
        row_of_ratio(
            f"{name} over {NUM_DRAWS} draws, {NUM_INPUTS:,} inputs, in predictions of {AT_ONCE}".capitalize(),
            seconds[name],
            seconds[AT_ONCE],
            goal=goal,
            better="higher",
            milliseconds=round(1e3 * float(np.median(seconds[name])), 2),
            milliseconds_at_once=round(1e3 * float(np.median(seconds[AT_ONCE])), 2),
        )
        for name, goal in goals.items()
    ]


def _log_probs(params: Any, inputs: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(STUDENT.apply(params, inputs))


def in_a_loop(log_probs: Callable[[Any, jax.Array], jax.Array], draws: Any, inputs: jax.Array) -> np.ndarray:
    """What ``predictive_log_probs`` says, one draw after the other."""
    return np.stack([np.asarray(log_probs(tree_rows(draws, index), inputs)) for index in range(NUM_DRAWS)])
