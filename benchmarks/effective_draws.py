"""Effective draws of predictions a second, beside NumPyro's NUTS: simulation 1's student on 12,000 examples.

The student has 27 parameters, 300 examples have a label, and the settings of the posterior are given, as in
``experiments.samplers``, which compares what the samplers say. NumPyro's NUTS is given the library's own density, which
is faster than a model in NumPyro's terms, starts at the same modes, has a chain for each device, and counts at the
better of two rates of acceptance. Its time is that of its draws alone, as if its warm-up were free; ours is that of the
whole sampler of the library, SGHMC on minibatches of 1,000, from random weights: search for the modes, step size,
burn-in and draws. Nobody's time holds compilation. Effective draws are ArviZ's, for the log class probabilities of a
hundred points; the median. So small a student has several modes, and chains that sit in different ones are worth few
draws together, whoever runs them; so the same is given for the chains one by one, added up.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS

from benchmarks.measure import Row
from experiments.samplers.__main__ import NUM_PROBES, SETTINGS, by_library
from experiments.simulation1.__main__ import STUDENT
from experiments.simulation1.comparison import NUM_LABELS
from experiments.simulation1.design import DESIGN
from experiments.simulation_study import CONFIG
from experiments.simulations import simulation_draws
from mtbkd_jax.data import Standardizer
from mtbkd_jax.diagnostics import LEAST_DRAWS, diagnose
from mtbkd_jax.distillation import learn
from mtbkd_jax.examples import full_batch
from mtbkd_jax.lessons import Lessons, with_components
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.settings import distillation_posterior
from mtbkd_jax.types import Params

GOAL = 3.0
NUTS_RATES = (0.65, 0.8)
TITLES = {
    "together": "Effective draws of predictions a second, in NumPyro's NUTS",
    "apart": "The same of the chains one by one, added up",
}


def measure(*, is_small: bool) -> list[Row]:
    """One figure; a small measurement takes one setting of NUTS and few draws."""
    (draw,) = simulation_draws(DESIGN, [0])
    draw = draw.with_labels(NUM_LABELS)
    standardize = Standardizer.fit(draw.inputs)
    config = replace(CONFIG, settings=GivenSettings(*SETTINGS))
    inputs = standardize(draw.inputs)
    lessons, _, _ = learn(jax.random.key(0), inputs, draw.labels, draw.teacher_logits, STUDENT, config=config)
    probes = standardize(draw.test_inputs)[:NUM_PROBES]
    sampling = replace(CONFIG.sampling, num_draws=LEAST_DRAWS) if is_small else CONFIG.sampling
    ours = effective_draws_a_second(lambda: by_library(0, 1, lessons, sampling)[0], probes)
    modes = jax.tree.map(lambda leaf: leaf[: max(jax.local_device_count(), 2)], modes_of(lessons))
    num_warm_up, num_draws = (20, 20) if is_small else (100, 50)
    of_nuts = {
        f"at {rate}": effective_draws_a_second(by_numpyro(lessons, modes, rate, num_warm_up, num_draws), probes)
        for rate in (NUTS_RATES[:1] if is_small else NUTS_RATES)
    }
    return [
        row_of(name, getattr(ours, field), {which: getattr(rate, field) for which, rate in of_nuts.items()})
        for field, name in TITLES.items()
    ]


class Rates(NamedTuple):
    """Effective draws a second: of all chains together, and of one chain after the other, added up."""

    together: float
    apart: float


def row_of(name: str, ours: float, of_nuts: Mapping[str, float]) -> Row:
    """Ours in NUTS's, at its best setting."""
    details = {"ours": round(ours, 2)} | {f"NUTS {which}": round(rate, 2) for which, rate in of_nuts.items()}
    return Row(name, ours / max(of_nuts.values()), GOAL, "higher", 0.0, details)


def effective_draws_a_second(sample: Callable[[], Params], probes: np.ndarray) -> Rates:
    """Of the second run, for which everything is compiled."""
    sample()
    start = time.perf_counter()
    positions = jax.block_until_ready(sample())
    seconds = time.perf_counter() - start
    log_probs = predictive_log_probs(STUDENT, flatten_chains(positions), probes)
    num_chains = jax.tree.leaves(positions)[0].shape[0]
    of_chains = log_probs.reshape(num_chains, -1, *log_probs.shape[1:])
    apart = sum(median_effective(chain[None]) for chain in of_chains)
    return Rates(median_effective(of_chains) / seconds, apart / seconds)


def median_effective(log_probs: np.ndarray) -> float:
    """Effective draws of the log class probabilities ``[chains, draws, probes, classes]``, the median over probes.

    Chains that never moved are worth none.
    """
    return float(np.median(np.nan_to_num(diagnose(log_probs, log_probs[:, :, 0, 0]).probe_ess)))


def modes_of(lessons: Lessons) -> Params:
    """Where the library's chains start, which no step has left."""
    short = replace(CONFIG.sampling, num_burn_in=0, num_draws=LEAST_DRAWS, thinning=1, step_fraction=1e-6)
    return jax.tree.map(lambda leaf: leaf[:, 0], by_library(0, 1, lessons, short)[0])


def by_numpyro(lessons: Lessons, modes: Params, rate: float, num_warm_up: int, num_draws: int) -> Callable[[], Params]:
    """Warm NumPyro's NUTS up, on all of the data: the function draws positions ``[chains, draws, ...]``."""
    log_density = distillation_posterior(STUDENT, lessons.centers, SETTINGS)
    data = full_batch(None, with_components(lessons, SETTINGS))
    num_chains = jax.tree.leaves(modes)[0].shape[0]
    kernel = NUTS(potential_fn=lambda params: -log_density(params, data), target_accept_prob=rate)
    mcmc = MCMC(
        kernel,
        num_warmup=num_warm_up,
        num_samples=num_draws,
        num_chains=num_chains,
        chain_method="parallel" if num_chains <= jax.local_device_count() else "vectorized",
        progress_bar=False,
    )

    mcmc.warmup(jax.random.key(1), init_params=modes)

    def sample() -> Params:
        mcmc.run(mcmc.post_warmup_state.rng_key)
        return mcmc.get_samples(group_by_chain=True)

    return sample
