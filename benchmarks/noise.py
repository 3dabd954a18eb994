"""The noise of the samplers on many numbers, and what it costs: ``python -m benchmarks.noise``.

Tests of randomness on bits and normals from thousands of keys such as a run uses (one for each chain and step), the
same for JAX's own, by Threefry. A p-value is that of all keys together. A sound generator has p-values spread
evenly between zero and one; one below 1e-4 would be a finding. Then the time of as many normals as a student of 34,186
parameters has, the two taking turns. Writes ``noise.json`` beside this file, or to ``--output``.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks.measure import microseconds, take_turns
from mtbkd_jax.noise import noise_key, standard_normals
from mtbkd_jax.storage import write_json
from mtbkd_jax.types import Key

NUM_PARAMETERS = 34_186
NUM_BIRTHDAYS, NUM_DAYS = 4096, 2.0**32
NUM_CELLS = 1000


def main() -> None:
    """Run the tests and the timings, print and write them."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--keys", type=int, default=4000)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    generators = {
        "noise": Generator(noise_key, standard_normals),
        "Threefry": Generator(lambda key: key, lambda key, count: jax.random.normal(key, (count,))),
    }
    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "keys": options.keys,
        "numbers_for_each_key": NUM_PARAMETERS,
        "p_values": {name: p_values(generator, options.keys) for name, generator in generators.items()},
        "microseconds": times(generators, options.repetitions),
    }
    results["times_faster"] = results["microseconds"]["Threefry"] / results["microseconds"]["noise"]
    write_json(options.output, results)
    for key, result in results.items():
        print(key, result)


class Generator(NamedTuple):
    """Of noise.

    Attributes:
      key: the key that bits come from.
      normals: ``(key, count) -> [count]``.
    """

    key: Callable[[Key], Key]
    normals: Callable[[Key, int], jax.Array]


def p_values(generator: Generator, num_keys: int) -> dict[str, float]:
    """Of every test, over all keys."""
    byte_counts = np.zeros((4, 256), np.int64)
    pair_counts = np.zeros(4096, np.int64)
    normal_p, length_p, collisions = [], [], 0
    cells = stats.norm.ppf(np.linspace(0, 1, NUM_CELLS + 1))
    cell_counts = np.zeros(NUM_CELLS, np.int64)
    previous, serial, across = None, [], []
    draw = jax.jit(partial(_draw, generator))
    for step in range(num_keys):
        bits, normals = (np.asarray(values) for values in draw(step))
        for byte in range(4):
            byte_counts[byte] += np.bincount((bits >> (8 * byte)) & 255, minlength=256)
        high = (bits >> 26).reshape(-1, 2)
        pair_counts += np.bincount(high[:, 0] * 64 + high[:, 1], minlength=4096)
        collisions += _repeated_spacings(bits[:NUM_BIRTHDAYS])
        normal_p.append(stats.kstest(normals, "norm").pvalue)
        cell_counts += np.histogram(normals, cells)[0]
        length_p.append(stats.chi2.sf(np.square(normals, dtype=np.float64).sum(), normals.size))
        serial.append(np.vdot(normals[1:], normals[:-1]) / np.sqrt(normals.size))
        if previous is not None:
            across.append(np.vdot(normals, previous) / np.sqrt(normals.size))
        previous = normals
    expected = num_keys * NUM_BIRTHDAYS**3 / (4 * NUM_DAYS)
    return {
        **{f"byte {byte}": float(stats.chisquare(byte_counts[byte]).pvalue) for byte in range(4)},
        "pairs of neighbours": float(stats.chisquare(pair_counts).pvalue),
        "birthday spacings": float(
            2 * min(stats.poisson.cdf(collisions, expected), stats.poisson.sf(collisions - 1, expected), 0.5)
        ),
        "normality of each key": float(stats.kstest(normal_p, "uniform").pvalue),
        f"{NUM_CELLS} cells of all normals": float(stats.chisquare(cell_counts).pvalue),
        "squared lengths": float(stats.kstest(length_p, "uniform").pvalue),
        "correlation of neighbours": float(stats.kstest(serial, "norm").pvalue),
        "correlation of steps": float(stats.kstest(across, "norm").pvalue),
    }


def _draw(generator: Generator, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    key = generator.key(jax.random.fold_in(jax.random.key(0), step))
    return jax.random.bits(key, (NUM_PARAMETERS,)), generator.normals(key, NUM_PARAMETERS)


def _repeated_spacings(birthdays: np.ndarray) -> int:
    """Marsaglia's test: how many spacings between sorted birthdays occur again; Poisson with mean n³ / 4 days."""
    spacings = np.sort(np.diff(np.sort(birthdays.astype(np.int64))))
    return int((np.diff(spacings) == 0).sum())


def times(generators: dict[str, Generator], repetitions: int) -> dict[str, float]:
    """Median microseconds of one step's normals, added to a vector as a sampler does."""
    num_steps = 1000

    def walk(generator: Generator, start: jax.Array) -> jax.Array:
        def step(position: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
            key = generator.key(jax.random.fold_in(jax.random.key(0), index))
            return 0.9 * position + generator.normals(key, position.size), None

        return jax.lax.scan(step, start, jnp.arange(num_steps))[0]

    start = jnp.zeros(NUM_PARAMETERS)
    programs = {name: partial(jax.jit(partial(walk, generator)), start) for name, generator in generators.items()}
    seconds = take_turns(programs, repetitions)
    return {name: microseconds(values, num_steps) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
