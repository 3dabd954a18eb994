"""A step of SGLD and SGHMC: beside its gradient, with more chains, with more data, and beside BlackJAX's own loop.

The student 256-128-10 with two teachers, minibatches of 64 of 2,000 examples, both priors, float32. The bare gradient
step draws the same minibatch, takes the gradient of the same posterior, and moves along it; the samplers add noise and,
SGHMC, a momentum. BlackJAX's own kernel is scanned over minibatches drawn with replacement, as its guide draws them.
Each program is a scan of steps, compiled.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import blackjax
import jax
import jax.numpy as jnp

from benchmarks.measure import Row, microseconds, row_of_ratio, take_turns
from benchmarks.problems import BATCH_SIZE, Problem, problem
from mtbkd_jax.chains import chain_mesh, copy_to_all, copy_to_chains, keys_of_step, over_chains
from mtbkd_jax.examples import Examples, WeightedExamples
from mtbkd_jax.samplers import sghmc, sgld
from mtbkd_jax.tree import tree_add_scaled, tree_rows

STEP_SIZE = 1e-5
BARE, LANGEVIN, HAMILTONIAN, BLACKJAX = "gradient step", "SGLD", "SGHMC", "BlackJAX's SGLD"
KINDS = (BARE, LANGEVIN, HAMILTONIAN, BLACKJAX)
MOST_OF_GRADIENT, MOST_OF_EIGHT = 1.35, 8.2
NUM_EXAMPLES, MANY_EXAMPLES = 2_000, 200_000
INDEPENDENT_OF_SIZE = 1.1
"""Time does not grow with the data: within what the caches of a processor make of a hundred times as many rows."""

Step = Callable[[jax.Array, Any, jax.Array, Examples], Any]
"""``(chain key, state, index of the step, examples) -> state``."""


def measure(*, is_small: bool) -> list[Row]:
    """All figures; a small measurement takes fewer turns."""
    repetitions, num_steps = (3, 100) if is_small else (15, 1000)
    counts = 1, 8
    seconds = {}
    for num_chains in counts:
        programs = walks(problem(NUM_EXAMPLES), num_chains, num_steps)
        seconds |= {(name, num_chains): values for name, values in take_turns(programs, repetitions).items()}
    rows = [
        row_of_ratio(
            f"{name} step, {num_chains} chains, in gradient steps",
            seconds[name, num_chains],
            seconds[BARE, num_chains],
            goal=MOST_OF_GRADIENT,
            better="lower",
            microseconds=microseconds(seconds[name, num_chains], num_steps),
            microseconds_of_gradient_step=microseconds(seconds[BARE, num_chains], num_steps),
        )
        for num_chains in counts
        for name in (LANGEVIN, HAMILTONIAN)
    ]
    rows += [
        row_of_ratio(
            f"{BLACKJAX} in a scan, {num_chains} chains, in steps of SGLD",
            seconds[BLACKJAX, num_chains],
            seconds[LANGEVIN, num_chains],
            goal=1.0,
            better="higher",
            microseconds=microseconds(seconds[BLACKJAX, num_chains], num_steps),
        )
        for num_chains in counts
    ]
    return rows + of_chains(repetitions, num_steps) + of_size(repetitions, num_steps)


def of_chains(repetitions: int, num_steps: int) -> list[Row]:
    """Eight chains, in chains, the two taking turns."""
    samplers = LANGEVIN, HAMILTONIAN
    one, eight = (walks(problem(NUM_EXAMPLES), num_chains, num_steps, samplers) for num_chains in (1, 8))
    rows = []
    for name in samplers:
        seconds = take_turns({"one": one[name], "eight": eight[name]}, repetitions)
        rows.append(
            row_of_ratio(
                f"Eight chains of {name}, in chains",
                seconds["eight"],
                seconds["one"],
                goal=MOST_OF_EIGHT,
                better="lower",
                chain_steps_a_second=round(8 * num_steps / float(min(seconds["eight"]))),
            )
        )
    return rows


def of_size(repetitions: int, num_steps: int) -> list[Row]:
    """A step on a hundred times the data, in steps."""
    few, many = (
        walks(problem(size), 1, num_steps, [HAMILTONIAN])[HAMILTONIAN] for size in (NUM_EXAMPLES, MANY_EXAMPLES)
    )
    seconds = take_turns({"few": few, "many": many}, repetitions)
    name = f"{HAMILTONIAN} step on {MANY_EXAMPLES:,} examples, in steps on {NUM_EXAMPLES:,}"
    return [row_of_ratio(name, seconds["many"], seconds["few"], goal=INDEPENDENT_OF_SIZE, better="lower")]


def walks(of: Problem, num_chains: int, num_steps: int, names: Sequence[str] = KINDS) -> dict[str, Callable[[], Any]]:
    """Compiled programs of so many steps of all chains, for some kinds of step."""
    samplers = {LANGEVIN: sgld(of.log_density), HAMILTONIAN: sghmc(of.log_density, friction=1.0)}
    steps = {BARE: partial(_gradient_step, of), BLACKJAX: partial(_blackjax_step, of)}
    steps |= {name: partial(_sampler_step, of, sampler) for name, sampler in samplers.items()}
    keys = jax.random.split(jax.random.key(1), num_chains)
    positions = jax.vmap(of.student.init)(keys)
    states = dict.fromkeys((BARE, BLACKJAX), positions)
    states |= {name: jax.vmap(sampler.init)(positions, keys) for name, sampler in samplers.items()}
    mesh = chain_mesh(num_chains)
    shared = copy_to_all(of.examples, mesh)

    def program(name: str) -> Callable[[], Any]:
        chains = copy_to_chains((states[name], keys), mesh)
        walk = over_chains(partial(_walk, steps[name], num_steps), mesh)
        return partial(jax.jit(walk).lower(chains, shared).compile(), chains, shared)

    return {name: program(name) for name in names}


def _gradient_step(of: Problem, key: jax.Array, params: Any, index: jax.Array, examples: Examples) -> Any:
    batch = of.draw_batch(keys_of_step(key, index)[0], examples)
    return tree_add_scaled(params, STEP_SIZE, jax.grad(of.log_density)(params, batch))


def _sampler_step(of: Problem, sampler: Any, key: jax.Array, state: Any, index: jax.Array, examples: Examples) -> Any:
    batch_key, sampler_key = keys_of_step(key, index)
    batch = of.draw_batch(batch_key, examples)
    return sampler.step(sampler_key, state, batch, STEP_SIZE)[0]


def _blackjax_step(of: Problem, key: jax.Array, position: Any, index: jax.Array, examples: Examples) -> Any:
    row_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
    num_examples = examples.labels.shape[0]
    rows = jax.random.randint(row_key, (BATCH_SIZE,), 0, num_examples)
    weights = jnp.full(BATCH_SIZE, num_examples / BATCH_SIZE)
    sampler = blackjax.sgld(jax.grad(of.log_density))
    return sampler.step(noise_key, position, WeightedExamples(tree_rows(examples, rows), weights), STEP_SIZE)


def _walk(step: Step, num_steps: int, chain: Any, examples: Examples) -> Any:
    state, key = chain
    return jax.lax.scan(lambda state, index: (step(key, state, index, examples), None), state, jnp.arange(num_steps))[0]
