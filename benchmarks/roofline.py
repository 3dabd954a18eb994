"""How near a step is to what the machine can do: its operations and bytes against a matrix product and a copy.

The machine's rates are measured in the same run: a product of two square matrices, and a copy of an array that no cache
holds, counting bytes read and written. Operations and bytes of a program are those that XLA's cost analysis counts; on
a CPU, where a step works within the caches, the bytes are an upper bound of what memory is asked for. The *roof* is the
larger of operations by the one rate and bytes by the other, and a figure is the share of the time that it explains.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import Row, microseconds, take_turns
from benchmarks.problems import Problem, problem
from mtbkd_jax.chains import keys_of_step
from mtbkd_jax.examples import full_batch
from mtbkd_jax.samplers import sghmc
from mtbkd_jax.students import mlp

WIDE = mlp(num_features=256, hidden=(2048, 2048), num_classes=10)
"""4.7 million parameters."""
MATRIX_SIZE, COPIED, NUM_COPIES = 2048, 1 << 26, 8
"""Rows of the matrix, values of the array (256 MiB), and how often it is copied."""


def measure(*, is_small: bool) -> list[Row]:
    """The machine's rates, and each program's share; a small measurement takes fewer turns."""
    repetitions = 3 if is_small else 15
    small, wide = problem(), problem(student=WIDE, batch_size=256)
    programs = {
        "SGHMC step 256-128-10, batch 64": _compiled(partial(_step, small), small),
        "SGHMC step 256-2048-2048-10, batch 256": _compiled(partial(_step, wide), wide),
        "Gradient 256-128-10, 2,000 examples": _compiled(partial(_gradient, small), small),
    }
    rates = machine_rates(repetitions)
    rows = [
        Row("Matrix product, 1e9 operations a second", rates["operations"] / 1e9, None, "higher", 0.0),
        Row("Copy, 1e9 bytes a second", rates["bytes"] / 1e9, None, "higher", 0.0),
    ]
    for name, (program, cost) in programs.items():
        seconds = take_turns({name: program}, repetitions)[name]
        by_operations, by_bytes = cost["flops"] / rates["operations"], cost["bytes accessed"] / rates["bytes"]
        shares = max(by_operations, by_bytes) / seconds
        low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75])
        details = {
            "microseconds": microseconds(seconds),
            "roof_microseconds": round(1e6 * max(by_operations, by_bytes), 2),
            "bound_by": "operations" if by_operations > by_bytes else "bytes",
            "operations": int(cost["flops"]),
            "bytes": int(cost["bytes accessed"]),
        }
        rows.append(Row(f"{name}: share of the roof", float(middle), None, "higher", float(high - low), details))
    return rows


def machine_rates(repetitions: int) -> dict[str, float]:
    """Operations and bytes a second."""
    matrix = jax.random.normal(jax.random.key(0), (MATRIX_SIZE, MATRIX_SIZE))
    array = jnp.arange(COPIED, dtype=jnp.float32)
    # Within one program, so that no memory is asked of the system for every copy.
    copy = jax.jit(lambda array: jax.lax.fori_loop(0, NUM_COPIES, lambda _, values: values + 1, array))
    product = jax.jit(jnp.matmul)
    seconds = take_turns({"product": lambda: product(matrix, matrix), "copy": lambda: copy(array)}, repetitions)
    return {
        "operations": 2 * MATRIX_SIZE**3 / float(np.median(seconds["product"])),
        "bytes": 2 * NUM_COPIES * array.nbytes / float(np.median(seconds["copy"])),
    }


def _compiled(function: Callable[..., Any], of: Problem) -> tuple[Callable[[], Any], dict[str, float]]:
    """The program, and what it costs by XLA's count."""
    state = of.student.init(jax.random.key(1))
    compiled = jax.jit(function).lower(state, of.examples).compile()
    return partial(compiled, state, of.examples), compiled.cost_analysis()


def _gradient(of: Problem, params: Any, examples: Any) -> Any:
    return jax.value_and_grad(of.log_density)(params, full_batch(None, examples))


def _step(of: Problem, params: Any, examples: Any) -> Any:
    batch_key, sampler_key = keys_of_step(jax.random.key(2), 3)
    sampler = sghmc(of.log_density, friction=1.0)
    batch = of.draw_batch(batch_key, examples)
    return sampler.step(sampler_key, sampler.init(params, sampler_key), batch, 1e-5)
