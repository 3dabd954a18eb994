"""Weights sampled with the student, or trust earned on labels? ``python -m experiments.sampled_weights``.

Simulation 1 with 300 labels among 2,000 inputs with teacher outputs. The teachers are sure outside their domains. The
settings of the posterior are given and the same for all, but the power of the function-space prior: none, one at which
teachers help, and the paper's. Weights are learned (``learned_trust``), or sampled with the student under a flat
Dirichlet (``sample_with_weights``). Of a rule that weighs each input differently, the weights shown are means.

Writes ``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.samplers.__main__ import SAMPLING, SETTINGS
from experiments.simulation1.__main__ import STUDENT
from experiments.simulation1.comparison import compare_on_draws
from experiments.simulation1.design import DESIGN
from experiments.simulation_study import CONFIG
from experiments.simulations import Simulation
from mtbkd_jax.configuration import SamplingConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.distillation import learn
from mtbkd_jax.posterior_sampling import sample_posterior
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.runs import all_metrics
from mtbkd_jax.sampled_weights import sample_with_weights
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.types import Params

POWERS = (0.03, 1.0)
COVERAGES = ("coverage_85", "coverage_90", "coverage_95")
WEIGHTS = ("nobody", *DESIGN.teacher_names)
COLUMNS = ("accuracy", "nll", "mse", *COVERAGES, *WEIGHTS, "seconds")


def run_draw(
    seed: int, draw: Simulation, sampling: SamplingConfig = SAMPLING, *, num_warm_up: int = 200, num_draws: int = 100
) -> list[dict[str, Any]]:
    """Every method on one draw of data and teachers.

    Args:
      seed: of the draw and the chains.
      draw: data and teachers.
      sampling: of the students under learned trust, and the number of chains of each method.
      num_warm_up: of the chains that sample weights.
      num_draws: of each of them.
    """
    standardize = Standardizer.fit(draw.inputs)
    test_inputs = jnp.asarray(standardize(draw.test_inputs))
    config = replace(CONFIG, settings=GivenSettings(*SETTINGS), sampling=sampling)
    learn_key, sample_key = jax.random.split(jax.random.key(seed))
    inputs = standardize(draw.inputs)
    lessons, _, _ = learn(learn_key, inputs, draw.labels, draw.teacher_logits, STUDENT, config=config)

    def row(method: str, students: Params, weights: np.ndarray, draw_weights: np.ndarray | None, start: float):
        seconds = time.perf_counter() - start
        log_probs = predictive_log_probs(STUDENT, flatten_chains(students), test_inputs)
        metrics = all_metrics(log_probs, draw.test_labels, draw_weights)
        probs = np.average(np.exp(log_probs), axis=0, weights=draw_weights)
        return {
            "method": method,
            "seed": seed,
            "accuracy": metrics["accuracy"],
            "nll": metrics["negative_log_likelihood"],
            "mse": float(np.square(probs - draw.test_probs).mean()),
            **{name: metrics[name] for name in COVERAGES},
            **dict(zip(WEIGHTS, map(float, weights), strict=True)),
            "seconds": seconds,
        }

    trusted = np.exp(np.asarray(lessons.log_weights)).mean(axis=0)

    def by_trust(method: str, power: float, weights: np.ndarray) -> dict[str, Any]:
        start = time.perf_counter()
        settings = SETTINGS._replace(power=power)
        posterior = sample_posterior(sample_key, STUDENT, lessons, settings, powers=None, config=config)
        return row(method, posterior.run.positions, weights, posterior.draw_weights, start)

    def by_sampled_weights(power: float) -> dict[str, Any]:
        start = time.perf_counter()
        sizes = {"num_chains": sampling.num_chains, "num_warm_up": num_warm_up, "num_draws": num_draws}
        sampled = sample_with_weights(sample_key, STUDENT, lessons, SETTINGS._replace(power=power), **sizes)
        weights = np.asarray(sampled.weights).mean(axis=(0, 1))
        return row(f"sampled weights, power {power:g}", sampled.students, weights, None, start)

    rows = [by_trust("no teacher", 0.0, np.eye(trusted.size)[0])]
    for power in POWERS:
        rows += [by_trust(f"learned trust, power {power:g}", power, trusted), by_sampled_weights(power)]
    return rows


if __name__ == "__main__":
    compare_on_draws("sampled_weights", str(__doc__), COLUMNS, run_draw)
