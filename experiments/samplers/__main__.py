"""Which samplers draw from the posterior? NUTS as the reference: ``python -m experiments.samplers``.

Simulation 1 with 300 labels among 2,000 inputs with teacher outputs, and a student of 27 parameters, small enough for
NUTS on all of the data. The posterior is the same for all: trust learned on the labels, and settings that are given.
Each sampler has four chains, from the modes near the same starts:

- NUTS, the reference: a draw of four chains takes seconds, since its trajectories have hundreds of steps;
- ChEES, which is exact as well, and ChEES with other randomness, which says how far two right answers are apart;
- SGHMC as the library runs it, and SGLD at a step size by the curvature, both on minibatches;
- SGLD as the paper's authors run it: 2,560 steps of 8e-8 on minibatches of 64, one draw in five.

``rms`` is the root mean square difference of the predictive mean of the test points from that of NUTS, and ``spread``
the standard deviation of the class probabilities over the draws of a chain, as a share of that of NUTS (both averaged
over points; how far apart chains in different modes are does not count): one where the sampler knows how uncertain the
student is, zero where it says that nothing is uncertain. Effective draws are those of the log class probabilities of a
hundred points, the median; seconds include the climb to the modes.

Writes ``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.simulation1.__main__ import STUDENT
from experiments.simulation1.comparison import compare_on_draws
from experiments.simulation_study import CONFIG
from experiments.simulations import Simulation
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.diagnostics import LEAST_DRAWS, diagnose
from mtbkd_jax.distillation import learn
from mtbkd_jax.examples import minibatch_for
from mtbkd_jax.lessons import Lessons, with_components
from mtbkd_jax.posterior_sampling import sample_posterior
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.runs import all_metrics
from mtbkd_jax.samplers import sgld
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.settings import PosteriorSettings, distillation_posterior
from mtbkd_jax.types import Params

NUM_PROBES = 100
SETTINGS = PosteriorSettings(power=0.03, concentration=1.0, center_scale=float("inf"), wide_scale=1.0)
REFERENCE = "NUTS"
AUTHORS_STEP_SIZE, AUTHORS_STEPS, AUTHORS_THINNING, AUTHORS_BATCH = 8e-8, 2560, 5, 64
COLUMNS = (
    *("accuracy", "nll", "mse", "coverage_85", "coverage_90", "coverage_95"),
    *("rms", "spread", "share_r_hat_below_1.05", "effective_draws", "effective_draws_a_second", "seconds"),
)

SAMPLING = replace(CONFIG.sampling, num_chains=4)
NUTS = replace(SAMPLING, sampler="nuts", num_burn_in=200, num_draws=100, thinning=1)
CHEES = replace(SAMPLING, sampler="chees", num_burn_in=500, num_draws=250, thinning=1)
SAMPLERS: Mapping[str, tuple[SamplingConfig, int]] = {
    REFERENCE: (NUTS, 1),
    "ChEES": (CHEES, 1),
    "ChEES, other randomness": (CHEES, 2),
    "SGHMC": (SAMPLING, 1),
    "SGLD": (replace(SAMPLING, sampler="sgld", num_burn_in=10_000, thinning=100), 1),
}
"""The samplers that the library runs, each with the seed of its randomness."""

AUTHORS = "SGLD as the authors run it"


def run_draw(
    seed: int,
    draw: Simulation,
    samplers: Mapping[str, tuple[SamplingConfig, int]] = SAMPLERS,
    authors_steps: int = AUTHORS_STEPS,
) -> list[dict[str, Any]]:
    """Every sampler on one draw of data and teachers."""
    standardize = Standardizer.fit(draw.inputs)
    test_inputs = standardize(draw.test_inputs)
    config = replace(CONFIG, settings=GivenSettings(*SETTINGS))
    lessons, _, _ = learn(
        jax.random.key(seed), standardize(draw.inputs), draw.labels, draw.teacher_logits, STUDENT, config=config
    )
    rows: list[dict[str, Any]] = []
    reference: np.ndarray | None = None

    def add(method: str, sample: Callable[[], tuple[Params, np.ndarray, np.ndarray]]) -> None:
        nonlocal reference
        start = time.perf_counter()
        positions, log_density, weights = jax.block_until_ready(sample())
        seconds = time.perf_counter() - start
        log_probs = predictive_log_probs(STUDENT, flatten_chains(positions), test_inputs)
        probs = np.exp(log_probs[:, :, 1])
        moments = np.stack(
            [np.average(probs, axis=0, weights=weights), spread_within(probs, log_density.shape, weights)]
        )
        reference = moments if reference is None else reference
        metrics = all_metrics(log_probs, draw.test_labels, weights)
        of_probes = log_probs[:, :NUM_PROBES].reshape(*log_density.shape, NUM_PROBES, -1)
        diagnostics = diagnose(of_probes, log_density)
        effective = float(np.nanmedian(diagnostics.probe_ess))
        rows.append(
            {
                "method": method,
                "seed": seed,
                "accuracy": metrics["accuracy"],
                "nll": metrics["negative_log_likelihood"],
                "mse": float(np.mean(np.square(moments[0] - draw.test_probs[:, 1]))),
                **{name: metrics[name] for name in COLUMNS if name.startswith("coverage")},
                "rms": float(np.sqrt(np.mean(np.square(moments[0] - reference[0])))),
                "spread": float(moments[1].mean() / reference[1].mean()),
                "share_r_hat_below_1.05": diagnostics.share_below(1.05),
                "effective_draws": effective,
                "effective_draws_a_second": effective / seconds,
                "seconds": seconds,
            }
        )

    for method, (sampling, number) in samplers.items():
        add(method, lambda sampling=sampling, number=number: by_library(seed, number, lessons, sampling))
    add(AUTHORS, lambda: as_the_authors(seed, lessons, samplers[REFERENCE][0], authors_steps))
    return rows


def spread_within(
    probs: Float[np.ndarray, "draws points"], shape: tuple[int, ...], weights: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " points"]:
    """The standard deviation over the draws of a chain, as root mean square over chains by their weights.

    Args:
      probs: of the draws, chain after chain.
      shape: chains and draws.
      weights: of the draws.
    """
    variances = probs.reshape(*shape, -1).var(axis=1)
    return np.sqrt(np.average(variances, axis=0, weights=weights.reshape(shape).sum(axis=1)))


def by_library(
    seed: int, number: int, lessons: Lessons, sampling: SamplingConfig
) -> tuple[Params, np.ndarray, np.ndarray]:
    """Positions, log densities and weights of the draws of a sampler of the library."""
    config = DistillationConfig(sampling=sampling)
    key = jax.random.fold_in(jax.random.key(seed), number)
    posterior = sample_posterior(key, STUDENT, lessons, SETTINGS, powers=None, config=config)
    return posterior.run.positions, np.asarray(posterior.run.info.log_density), posterior.draw_weights


def as_the_authors(
    seed: int, lessons: Lessons, sampling: SamplingConfig, num_steps: int
) -> tuple[Params, np.ndarray, np.ndarray]:
    """The same of the authors' chain, from the modes that the first NUTS started at."""
    short = replace(sampling, sampler="sghmc", num_burn_in=0, num_draws=LEAST_DRAWS, thinning=1, step_fraction=1e-6)
    modes = jax.tree.map(lambda leaf: leaf[:, 0], by_library(seed, 1, lessons, short)[0])
    sampler = sgld(distillation_posterior(STUDENT, lessons.centers, SETTINGS))
    start_key, chain_key = jax.random.split(jax.random.key(seed))
    run = sample_chains(
        sampler,
        start_chains(sampler, modes, start_key),
        key=chain_key,
        data=with_components(lessons, SETTINGS),
        draw_batch=minibatch_for(lessons.examples.labels, AUTHORS_BATCH),
        step_size=constant(AUTHORS_STEP_SIZE),
        num_draws=num_steps // AUTHORS_THINNING,
        thinning=AUTHORS_THINNING,
    )
    log_density = np.asarray(run.info.log_density)
    return run.positions, log_density, np.full(log_density.size, 1 / log_density.size)


if __name__ == "__main__":
    compare_on_draws("samplers", str(__doc__), COLUMNS, run_draw)
