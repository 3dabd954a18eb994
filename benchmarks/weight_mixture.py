"""The weight-space mixture beside NumPyro's own flat mixture: value and gradient of the log density at one point.

A million parameters and five components, in float32. Memory is the temporary memory that the compiler asks for.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from benchmarks.measure import Row, microseconds, row_of_ratio, take_turns
from mtbkd_jax.weight_prior import WeightMixture

NUM_PARAMETERS, NUM_COMPONENTS, SCALE, GOAL = 1_000_000, 5, 0.05, 15.0
OURS, FLAT = "WeightMixture", "NumPyro MixtureSameFamily"


def measure(*, is_small: bool) -> list[Row]:
    """One figure; a small measurement takes fewer turns."""
    center_key, value_key = jax.random.split(jax.random.key(0))
    centers = jax.random.normal(center_key, (NUM_COMPONENTS, NUM_PARAMETERS))
    value = centers[0] + SCALE * jax.random.normal(value_key, (NUM_PARAMETERS,))
    compiled = {
        name: jax.jit(jax.value_and_grad(function)).lower(value, centers).compile()
        for name, function in {OURS: _ours, FLAT: _flat}.items()
    }
    seconds = take_turns(
        {name: partial(program, value, centers) for name, program in compiled.items()}, 3 if is_small else 30
    )
    details: dict[str, Any] = {f"microseconds of {name}": microseconds(seconds[name]) for name in compiled}
    for name, program in compiled.items():
        details[f"MB of {name}"] = round(program.memory_analysis().temp_size_in_bytes / 1e6, 4)
    name = f"{FLAT}, in times of {OURS}"
    return [row_of_ratio(name, seconds[FLAT], seconds[OURS], goal=GOAL, better="higher", **details)]


def _ours(value: jax.Array, centers: jax.Array) -> jax.Array:
    return WeightMixture(centers, jnp.full(len(centers), SCALE), _log_weights(centers)).relative_log_prob(value)


def _flat(value: jax.Array, centers: jax.Array) -> jax.Array:
    components = dist.Normal(centers, SCALE).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(logits=_log_weights(centers)), components).log_prob(value)


def _log_weights(centers: jax.Array) -> jax.Array:
    return jnp.full(len(centers), -jnp.log(len(centers)))
