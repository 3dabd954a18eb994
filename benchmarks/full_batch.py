"""How the log posterior of all of the data and its gradient grow: with the examples, the teachers and the chains.

The student 256-128-10, both priors, float32. A figure is the power that time grows with when the larger number is
doubled: one is in proportion. Below that something is not yet paid for by size, as for teachers, whose part is small
beside the network's; above it memory runs short.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.measure import Row, slope, take_turns
from benchmarks.problems import problem
from mtbkd_jax.chains import chain_mesh, copy_to_all, copy_to_chains, over_chains
from mtbkd_jax.examples import full_batch

PROPORTIONAL = 1.05
NUM_EXAMPLES, NUM_TEACHERS, NUM_CHAINS = (2_000, 8_000, 16_000), (2, 32, 64), (2, 4, 8)
SMALL_EXAMPLES, FEW_TEACHERS = 1_000, 2


def measure(*, is_small: bool) -> list[Row]:
    """A slope for each of the three; a small measurement takes a tenth of the examples and fewer turns."""
    share, repetitions = (10, 3) if is_small else (1, 9)
    return [
        of_sizes("examples", NUM_EXAMPLES, lambda size: gradient(size // share, FEW_TEACHERS, 1), repetitions),
        of_sizes("teachers", NUM_TEACHERS, lambda size: gradient(SMALL_EXAMPLES // share, size, 1), repetitions),
        of_sizes("chains", NUM_CHAINS, lambda size: gradient(SMALL_EXAMPLES // share, FEW_TEACHERS, size), repetitions),
    ]


def of_sizes(name: str, sizes: Sequence[int], program: Callable[[int], Callable[[], Any]], repetitions: int) -> Row:
    """The slope between the two largest sizes."""
    seconds = take_turns({str(size): program(size) for size in sizes}, repetitions)
    turns = np.stack(list(seconds.values()), axis=1)
    slopes = np.array([slope(np.array(sizes), turn) for turn in turns])
    low, middle, high = np.quantile(slopes, [0.25, 0.5, 0.75])
    times = {f"milliseconds_{size}": round(1e3 * float(np.median(values)), 3) for size, values in seconds.items()}
    return Row(
        f"Full-batch gradient: power of the {name}", float(middle), PROPORTIONAL, "lower", float(high - low), times
    )


def gradient(num_examples: int, num_teachers: int, num_chains: int) -> Callable[[], Any]:
    """A compiled program: the gradient of every chain on all of the data."""
    of = problem(num_examples, num_teachers)
    mesh = chain_mesh(num_chains)

    def value_and_grad(params: Any, examples: Any) -> Any:
        return jax.value_and_grad(of.log_density)(params, full_batch(None, examples))

    positions = jax.vmap(of.student.init)(jax.random.split(jax.random.key(1), num_chains))
    arguments = copy_to_chains(positions, mesh), copy_to_all(of.examples, mesh)
    return partial(jax.jit(over_chains(value_and_grad, mesh)).lower(*arguments).compile(), *arguments)
