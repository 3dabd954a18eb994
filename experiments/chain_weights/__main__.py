"""What chains that settled in different modes should count: ``python -m experiments.chain_weights``.

Simulation 1 with 50 labels among 12,000 inputs with teacher outputs, a student of 27 parameters, and six chains, under
trust learned on the labels and a function-space prior strong enough to have many modes, or settings that the library
chooses on the labels. The predictions of the six chains are averaged in three ways:

- all chains alike;
- by the library's weights: stacking by labels and advice, where the chains have not mixed;
- the chain with the highest mean log density alone, which is what weights by evidence come down to at these distances;

and compared with the chain that turns out best on the test points. Writes ``results.json`` and ``table.md`` to the
folder of this file or to ``--out``, and replaces such files only where ``--overwrite`` is given.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.methods import draws_of
from experiments.simulation1.__main__ import STUDENT
from experiments.simulation1.design import DESIGN
from experiments.simulation_study import CONFIG
from experiments.simulations import Simulation, simulation_draws
from experiments.study import Rows, kept, markdown_table, results_files, study_parser, summary, write_results
from mtbkd_jax.data import Standardizer
from mtbkd_jax.distillation import learn
from mtbkd_jax.metrics import negative_log_likelihood
from mtbkd_jax.posterior_sampling import sample_posterior
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.uncertainty import predictive_mean

NUM_LABELS, NUM_CHAINS = 50, 6
SETTINGS = {
    "power 0.1": GivenSettings(0.1, 5.0, float("inf"), 3.0, temperature=1.0, prediction_temperature=1.0),
    "power 1": GivenSettings(1.0, 5.0, float("inf"), 3.0, temperature=1.0, prediction_temperature=1.0),
    "chosen": GivenSettings(),
}
BEST, ALIKE, WEIGHED, DENSEST = "best chain", "all alike", "library", "highest log density"


def main() -> None:
    """Run every draw with all settings, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)), help="of the draws")
    options = parser.parse_args()
    files = results_files(options)
    runs = []
    for seed, draw in zip(options.seeds, simulation_draws(DESIGN, options.seeds), strict=True):
        for name, given in SETTINGS.items():
            run = partial(compare, seed, draw.with_labels(NUM_LABELS), given)
            runs.append({"seed": seed, "settings": name, **kept(options.runs, f"{name}_{seed}", run)})
            print(runs[-1], flush=True)
    rows = rows_over_draws(runs)
    write_results(files, summary("chain_weights", options.seeds, rows) | {"runs": runs}, markdown_table(rows, digits=4))


def compare(seed: int, draw: Simulation, given: GivenSettings) -> dict[str, Any]:
    """NLL of each way to weigh the chains, in nats."""
    standardize = Standardizer.fit(draw.inputs)
    config = replace(CONFIG, settings=given, sampling=replace(CONFIG.sampling, num_chains=NUM_CHAINS))
    learn_key, sample_key = jax.random.split(jax.random.key(seed))
    lessons, _, choice = learn(
        learn_key, standardize(draw.inputs), draw.labels, draw.teacher_logits, STUDENT, config=config
    )
    posterior = sample_posterior(sample_key, STUDENT, lessons, choice.settings, powers=choice.powers, config=config)
    log_probs = jnp.asarray(draws_of(posterior, choice.settings).log_probs(STUDENT, standardize(draw.test_inputs)))
    by_chain = log_probs.reshape(NUM_CHAINS, -1, *log_probs.shape[1:])

    def nll(log_probs: jax.Array, weights: np.ndarray | None = None) -> float:
        probs = predictive_mean(log_probs, None if weights is None else jnp.asarray(weights))
        return negative_log_likelihood(probs, draw.test_labels)

    log_density = np.asarray(posterior.run.info.log_density).mean(1)
    of_chains = [nll(chain) for chain in by_chain]
    return {
        BEST: min(of_chains),
        ALIKE: nll(log_probs),
        WEIGHED: nll(log_probs, posterior.draw_weights),
        DENSEST: of_chains[int(log_density.argmax())],
        "is_stacked": posterior.is_stacked,
        "posterior_settings": choice.settings.to_json(),
        "nll_of_chains": of_chains,
        "chain_weights": posterior.chain_weights.tolist(),
        "log_density_of_chains": log_density.tolist(),
    }


def rows_over_draws(runs: list[dict[str, Any]]) -> Rows:
    """NLL less that of the best chain over draws, and the worst draw."""
    rows = {}
    for name in SETTINGS:
        of_settings = [run for run in runs if run["settings"] == name]
        for way in (ALIKE, WEIGHED, DENSEST):
            excess = np.array([run[way] - run[BEST] for run in of_settings])
            rows[f"{name}, {way}"] = {"excess": excess, "worst": np.array([excess.max()])}
    return rows


if __name__ == "__main__":
    main()
