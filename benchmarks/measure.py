"""How the benchmarks measure: programs take turns in one process, and what is reported is a ratio.

A machine's speed changes from minute to minute, with its heat and its neighbours; the ratio of two programs that ran
right after one another changes much less. Times stand beside it for orientation.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float


class Row(NamedTuple):
    """One figure.

    Attributes:
      name: what was measured.
      ratio: the median over turns.
      goal: what it should be at least, or at most; None where nothing was asked for.
      better: whether it should be higher or lower.
      spread: between the quartiles of the turns.
      details: times and counts behind it.
    """

    name: str
    ratio: float
    goal: float | None
    better: Literal["higher", "lower"]
    spread: float
    details: Mapping[str, Any] = {}

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached, if there is one."""
        return self.goal is None or bool(
            self.ratio >= self.goal if self.better == "higher" else self.ratio <= self.goal
        )


def take_turns(
    programs: Mapping[str, Callable[[], Any]], repetitions: int, *, rest_seconds: float = 0.0
) -> dict[str, Float[np.ndarray, " repetitions"]]:
    """Seconds that each program takes, turn by turn; a first turn, in which programs are compiled, is not timed.

    Args:
      programs: without arguments; what they return is waited for.
      repetitions: turns.
      rest_seconds: before each program, for threads of the one before to stop waiting for more work.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repetitions + 1):
        for name, program in programs.items():
            time.sleep(rest_seconds)
            start = time.perf_counter()
            jax.block_until_ready(program())
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def row_of_ratio(
    name: str,
    numerator: Float[np.ndarray, " repetitions"],
    denominator: Float[np.ndarray, " repetitions"],
    *,
    goal: float | None,
    better: Literal["higher", "lower"],
    **details: Any,
) -> Row:
    """The median over turns of one time by the other."""
    ratios = numerator / denominator
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return Row(name, float(middle), goal, better, float(high - low), details)


def microseconds(seconds: Float[np.ndarray, " repetitions"], steps: int = 1) -> float:
    """Median time of a step."""
    return round(1e6 * float(np.median(seconds)) / steps, 3)


def slope(sizes: Float[np.ndarray, " sizes"], seconds: Float[np.ndarray, " sizes"]) -> float:
    """The power of the size that time grows with, between the two largest sizes: one where it grows in proportion."""
    return float(np.diff(np.log(seconds[-2:]))[0] / np.diff(np.log(sizes[-2:]))[0])
