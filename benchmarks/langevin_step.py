"""What a step of SGLD and SGHMC costs beside its gradient: ``python -m benchmarks.langevin_step``.

The student 256-128-10 with two teachers, minibatches of 64 of 2,000 examples, both priors, float32. The bare gradient
step draws the same minibatch, takes the gradient of the same posterior, and moves along it; the samplers add noise and,
SGHMC, a momentum. Each is a scan of steps in one compiled program, with one chain and with eight; the programs take
turns, and a ratio is the median over turns. Writes ``langevin_step.json`` beside this file, or to ``--output``.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mtbkd_jax.chains import chain_mesh, copy_to_all, copy_to_chains, keys_of_step, over_chains
from mtbkd_jax.examples import Examples, minibatch_for
from mtbkd_jax.function_prior import dirichlet_components, teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.samplers import sghmc, sgld
from mtbkd_jax.storage import write_json
from mtbkd_jax.students import mlp
from mtbkd_jax.tree import tree_add_scaled
from mtbkd_jax.weight_prior import WeightMixture, weight_space_prior

GOAL = 1.35
STUDENT = mlp(num_features=256, hidden=(128,), num_classes=10)
NUM_EXAMPLES, BATCH_SIZE, NUM_STEPS = 2000, 64, 1000
STEP_SIZE = 1e-5
BARE = "gradient step"

Step = Callable[[jax.Array, Any, Any], Any]


def main() -> None:
    """Time all programs, print and write the ratios."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    rows = []
    for num_chains in (1, 8):
        seconds = measure(num_chains, options.repetitions)
        for name in seconds:
            if name != BARE:
                ratios = seconds[name] / seconds[BARE]
                rows.append(
                    {
                        "name": f"{name} step, {num_chains} chains, in gradient steps",
                        "ratio": float(np.median(ratios)),
                        "goal": GOAL,
                        "better": "lower",
                        "spread": float(np.subtract(*np.quantile(ratios, [0.75, 0.25]))),
                        "microseconds": float(1e6 * np.median(seconds[name]) / NUM_STEPS),
                    }
                )
                print(rows[-1], flush=True)
    write_json(options.output, {"machine": jax.devices()[0].device_kind, "rows": rows})


def measure(num_chains: int, repetitions: int) -> dict[str, np.ndarray]:
    """Seconds of ``NUM_STEPS`` steps of all chains, ``[repetitions]``, for each kind of step."""
    examples, log_density = problem()
    draw_batch = minibatch_for(examples.labels, BATCH_SIZE)
    samplers = {"SGLD": sgld(log_density), "SGHMC": sghmc(log_density, friction=1.0)}
    gradient = jax.grad(log_density)
    steps: dict[str, Step] = {
        BARE: lambda key, params, batch: tree_add_scaled(params, STEP_SIZE, gradient(params, batch))
    }
    steps |= {name: partial(_sampler_step, sampler) for name, sampler in samplers.items()}
    keys = jax.random.split(jax.random.key(1), num_chains)
    positions = jax.vmap(STUDENT.init)(keys)
    states = {BARE: positions} | {name: jax.vmap(one.init)(positions, keys) for name, one in samplers.items()}

    mesh = chain_mesh(num_chains)
    shared = copy_to_all(examples, mesh)
    programs, arguments = {}, {}
    for name, step in steps.items():
        arguments[name] = copy_to_chains((states[name], keys), mesh), shared
        programs[name] = jax.jit(over_chains(partial(_walk, step, draw_batch), mesh)).lower(*arguments[name]).compile()
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repetitions):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments[name]))
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def problem() -> tuple[Examples, Any]:
    """Random examples and teachers, and the posterior with both priors."""
    input_key, label_key, teacher_key, center_key = jax.random.split(jax.random.key(0), 4)
    probs = jax.nn.softmax(jax.random.normal(teacher_key, (NUM_EXAMPLES, 2, 10)))
    log_weights = jnp.full((NUM_EXAMPLES, 3), -jnp.log(3.0))
    examples = Examples(
        jax.random.normal(input_key, (NUM_EXAMPLES, 256)),
        jax.random.randint(label_key, (NUM_EXAMPLES,), 0, 10),
        dirichlet_components(probs, log_weights, 5.0),
    )
    centers = jax.vmap(lambda key: ravel_pytree(STUDENT.init(key))[0])(jax.random.split(center_key, 4))
    mixture = WeightMixture(centers, jnp.full(4, 0.05), jnp.full(4, -jnp.log(4.0)))
    terms = categorical_log_likelihood, teacher_informed_prior()
    return examples, log_posterior(STUDENT, per_example=terms, per_parameters=(weight_space_prior(mixture),))


def _sampler_step(sampler: Any, key: jax.Array, state: Any, batch: Any) -> Any:
    return sampler.step(key, state, batch, STEP_SIZE)[0]


def _walk(step: Step, draw_batch: Any, chain: Any, examples: Examples) -> Any:
    state, chain_key = chain

    def one(state: Any, index: jax.Array) -> tuple[Any, None]:
        batch_key, sampler_key = keys_of_step(chain_key, index)
        return step(sampler_key, state, draw_batch(batch_key, examples)), None

    return jax.lax.scan(one, state, jnp.arange(NUM_STEPS))[0]


if __name__ == "__main__":
    main()
