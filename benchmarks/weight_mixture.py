"""The weight-space mixture against NumPyro's own flat mixture: ``python -m benchmarks.weight_mixture``.

Value and gradient of the log density at one point, compiled, in float32: the median time over repetitions, with the two
taking turns, and the temporary memory that the compiler asks for. Writes ``weight_mixture.json`` beside this file, or
to ``--output``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from mtbkd_jax.storage import write_json
from mtbkd_jax.weight_prior import WeightMixture

SCALE = 0.05


def main() -> None:
    """Time both, print and write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()

    center_key, value_key = jax.random.split(jax.random.key(0))
    centers = jax.random.normal(center_key, (options.components, options.parameters))
    log_weights = jnp.full(options.components, -jnp.log(options.components))
    value = centers[0] + SCALE * jax.random.normal(value_key, (options.parameters,))

    def ours(value, centers):
        return WeightMixture(centers, jnp.full(len(centers), SCALE), log_weights).relative_log_prob(value)

    def flat(value, centers):
        components = dist.Normal(centers, SCALE).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=log_weights), components).log_prob(value)

    compiled = {
        name: jax.jit(jax.value_and_grad(function)).lower(value, centers).compile()
        for name, function in {"WeightMixture": ours, "NumPyro MixtureSameFamily": flat}.items()
    }
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(options.repetitions):
        for name, function in compiled.items():
            times[name].append(_seconds(function, value, centers))

    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "parameters": options.parameters,
        "components": options.components,
        "methods": {
            name: {
                "median_ms": 1e3 * statistics.median(times[name]),
                "temporary_MB": function.memory_analysis().temp_size_in_bytes / 1e6,
            }
            for name, function in compiled.items()
        },
    }
    ours_now, flat_now = results["methods"].values()
    results["times_faster"] = flat_now["median_ms"] / ours_now["median_ms"]
    results["share_of_memory"] = ours_now["temporary_MB"] / flat_now["temporary_MB"]
    write_json(options.output, results)
    for key, result in results.items():
        print(key, result)


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
