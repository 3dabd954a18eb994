"""How much of what a draw gains and covers is luck of its labels?

Run as ``python -m experiments.simulation1.label_luck`` once ``results.json`` is there. Where the few labels happen to
be those that the true probabilities expect, a confident student scores well on them, held out or not, and nothing but
knowledge of how noisy labels are could tell. The luck of a draw is the NLL of the true probabilities on its labels:
the lower, the luckier. Writes ``label_luck.md`` beside the results, or to ``--out``.
"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.simulation1.design import DESIGN, class_probs
from experiments.simulation_study import LEARNED, NO_TEACHER
from experiments.simulations import Simulation, simulation_draws
from experiments.study import study_parser
from mtbkd_jax.storage import check_new_file, read_json

FOLDER = Path(__file__).parent
HEADER = "| labels | NLL of the truth on them | its correlation with NLL beyond no teacher | with coverage at .85 |"


def main() -> None:
    """Score the truth on the labels of every draw, correlate, and write and print the table."""
    options = study_parser(str(__doc__), FOLDER).parse_args()
    file = options.out / "label_luck.md"
    if not options.overwrite:
        check_new_file(file)
    results = read_json(FOLDER / "results.json")
    draws = dict(zip(results["seeds"], simulation_draws(DESIGN, results["seeds"]), strict=True))
    counts = list(dict.fromkeys(run["labels"] for run in results["runs"]))
    lines = [HEADER, "|---|---|---|---|", *(line_of(count, results["runs"], draws) for count in counts)]
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def line_of(num_labels: int, runs: list[dict[str, Any]], draws: dict[int, Simulation]) -> str:
    """A line of the table."""
    truth = np.array([nll_of_truth(draw.with_labels(num_labels)) for draw in draws.values()])
    taught, plain = (
        {run["seed"]: run for run in runs if run["method"] == f"{method}, {num_labels} labels"}
        for method in (LEARNED, NO_TEACHER)
    )
    losses = [taught[seed]["nll"] - plain[seed]["nll"] for seed in draws]
    coverage = [taught[seed]["coverage_85"] for seed in draws]
    correlations = [np.corrcoef(truth, values)[0, 1] for values in (losses, coverage)]
    columns = [f"{truth.mean():.3f} ± {truth.std(ddof=1):.3f}", *(f"{value:+.2f}" for value in correlations)]
    return f"| {num_labels} | {' | '.join(columns)} |"


def nll_of_truth(draw: Simulation) -> float:
    """NLL (nats) of the true probabilities on the labels that a draw has."""
    known = np.flatnonzero(draw.labels >= 0)
    probs = np.asarray(class_probs(jnp.asarray(draw.inputs[known])))
    return float(-np.log(probs[np.arange(known.size), draw.labels[known]]).mean())


if __name__ == "__main__":
    main()
