"""Simulation 1 with few labels: do teachers that are sure outside their domain hurt?

Run as ``python -m experiments.simulation1``.

12,000 inputs have teacher outputs and 300 of them a label; 8,000 labelled points are the test. For each of five
draws of data and teachers, the posterior of the same student of 27 parameters is sampled

- without teachers;
- with trust learned on the labels and the priors' settings chosen on them;
- with the paper's entropy weights, at its power of one and with the settings chosen on the labels.

Writes ``results.json``, ``table.md`` and ``README.md`` to the folder of this file or to ``--out``, and replaces such
files only where ``--overwrite`` is given.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.simulation1.design import Simulation1, simulation1_draws
from mtbkd_jax.data import Standardizer
from mtbkd_jax.distillation import DistillationConfig, Lessons, SamplingConfig, learn, sample_posterior
from mtbkd_jax.errors import InputError
from mtbkd_jax.metrics import accuracy, negative_log_likelihood
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.selection import Budget, Choice
from mtbkd_jax.settings import PriorSettings, no_teacher
from mtbkd_jax.storage import finite_or_none, write_json
from mtbkd_jax.students import mlp
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.types import Key
from mtbkd_jax.uncertainty import coverage, predictive_mean
from mtbkd_jax.weighting import WeightingRule, entropy_weighting

NUM_LABELS = 300
PAPER_CONCENTRATION = 5.0
LEVELS = (0.85, 0.9, 0.95)
METRICS = ("accuracy", "nll", "mse", *(f"coverage_{level:.2f}" for level in LEVELS))
NO_TEACHER, LEARNED, ENTROPY, ENTROPY_CHOSEN = (
    "no teacher",
    "learned trust, settings chosen",
    "entropy weights, power 1",
    "entropy weights, settings chosen",
)
# What issue 2 asks of learned trust: no draw worse than this, in nats.
WORST_NLL_EXCESS = 0.01

STUDENT = mlp(num_features=2, hidden=(5,), num_classes=2)
# So small a student has many modes: more chains than the default, each with time to reach one.
CONFIG = DistillationConfig(
    budget=Budget(num_mode_steps=1500, num_burn_in=500, num_steps=1500),
    sampling=SamplingConfig(
        num_chains=8, num_mode_steps=2000, num_burn_in=2000, num_draws=100, thinning=20, batch_size=1000
    ),
)

Row = dict[str, Any]


def main() -> None:
    """Run the study, print the table and write the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--draws", type=int, default=5, help="draws of data and teachers, of seeds 0, 1, ...")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run")
    options = parser.parse_args()
    files = [options.out / name for name in ("results.json", "table.md", "README.md")]
    _refuse_to_overwrite(files, options.overwrite)

    jax.config.update("jax_num_cpu_devices", 2)
    seeds = list(range(options.draws))
    rows = []
    for seed, draw in zip(seeds, simulation1_draws(seeds, NUM_LABELS), strict=True):
        for row in run_draw(seed, draw):
            rows.append(row)
            print(
                f"draw {seed}, {row['method']}: " + ", ".join(f"{name} {row[name]:.4f}" for name in METRICS), flush=True
            )

    options.out.mkdir(parents=True, exist_ok=True)
    command = f"python -m experiments.simulation1 --draws {options.draws}"
    results_file, table_file, readme_file = files
    write_json(
        results_file,
        {
            "study": "simulation 1 with 300 labels of 12,000",
            "command": command,
            "seeds": seeds,
            "rows": summary(rows),
            "draws": rows,
        },
    )
    table = markdown_table(rows)
    table_file.write_text(table, encoding="utf-8")
    readme_file.write_text(readme(rows, table, command), encoding="utf-8")
    print(table)


def run_draw(seed: int, draw: Simulation1) -> list[Row]:
    """Every method on one draw: its metrics, the settings it ran with, and the log density of each of its chains."""
    standardize = Standardizer.fit(draw.inputs)
    inputs, test_inputs = standardize(draw.inputs), jnp.asarray(standardize(draw.test_inputs))
    learn_key, sample_key = jax.random.split(jax.random.key(seed))

    def lesson(weighting: WeightingRule) -> tuple[Lessons, Choice]:
        lessons, _, choice = learn(
            learn_key, inputs, draw.labels, draw.teacher_logits, STUDENT, weighting=weighting, config=CONFIG
        )
        return lessons, choice

    def row(method: str, lessons: Lessons, settings: PriorSettings) -> Row:
        return {
            "method": method,
            "seed": seed,
            **posterior_metrics(sample_key, lessons, settings, test_inputs, draw),
            "settings": {name: finite_or_none(value) for name, value in settings._asdict().items()},
        }

    lessons, choice = lesson(learned_trust(num_folds=CONFIG.num_folds))
    entropy_lessons, entropy_choice = lesson(entropy_weighting())
    wide_scale = choice.no_teacher.wide_scale
    paper = PriorSettings(1.0, PAPER_CONCENTRATION, float("inf"), wide_scale)
    return [
        row(NO_TEACHER, lessons, no_teacher(wide_scale)),
        row(LEARNED, lessons, choice.settings),
        row(ENTROPY, entropy_lessons, paper),
        row(ENTROPY_CHOSEN, entropy_lessons, entropy_choice.settings),
    ]


def posterior_metrics(
    key: Key, lessons: Lessons, settings: PriorSettings, test_inputs: jax.Array, draw: Simulation1
) -> dict[str, Any]:
    """Sample the posterior and score its predictions on the test points; NLL in nats."""
    run = sample_posterior(key, STUDENT, lessons, settings, config=CONFIG)
    log_probs = jnp.asarray(predictive_log_probs(STUDENT, flatten_chains(run.positions), test_inputs))
    probs = predictive_mean(log_probs)
    labels = jnp.asarray(draw.test_labels)
    metrics = {
        "accuracy": accuracy(probs, draw.test_labels),
        "nll": negative_log_likelihood(probs, draw.test_labels),
        "mse": float(jnp.mean(jnp.square(probs[:, 1] - draw.test_probs[:, 1]))),
    }
    covered = {f"coverage_{level:.2f}": float(coverage(log_probs, labels, level=level)) for level in LEVELS}
    by_chain = np.asarray(run.info.log_density).mean(axis=1)
    return {**metrics, **covered, "log_density_of_chains": [round(float(value), 1) for value in by_chain]}


def summary(rows: list[Row]) -> list[Row]:
    """Mean and standard deviation over draws (that of the sample) of each metric, for each method."""
    return [
        {
            "method": method,
            **{
                name: {
                    "mean": float(np.mean([row[name] for row in _rows_of(rows, method)])),
                    "sd": float(np.std([row[name] for row in _rows_of(rows, method)], ddof=1))
                    if len(_rows_of(rows, method)) > 1
                    else None,
                }
                for name in METRICS
            },
        }
        for method in _methods(rows)
    ]


def markdown_table(rows: list[Row]) -> str:
    """Means with standard deviations over draws, and then every draw."""
    head = ["| method | " + " | ".join(METRICS) + " |", "|---" * (1 + len(METRICS)) + "|"]
    lines = list(head)
    for method in summary(rows):
        cells = [
            f"{method[name]['mean']:.4f}" + (f" ± {method[name]['sd']:.4f}" if method[name]["sd"] is not None else "")
            for name in METRICS
        ]
        lines.append(f"| {method['method']} | " + " | ".join(cells) + " |")
    lines += ["", "Every draw:", "", "| draw " + head[0], "|---" + head[1]]
    for row in rows:
        lines.append(
            f"| {row['seed']} | {row['method']} | " + " | ".join(f"{row[name]:.4f}" for name in METRICS) + " |"
        )
    return "\n".join(lines) + "\n"


def readme(rows: list[Row], table: str, command: str) -> str:
    """Question and answer, with the numbers of this run."""
    excess = np.array(
        [
            with_teachers["nll"] - without["nll"]
            for with_teachers, without in zip(_rows_of(rows, LEARNED), _rows_of(rows, NO_TEACHER), strict=True)
        ]
    )
    paper = np.mean([row["nll"] for row in _rows_of(rows, ENTROPY)])
    is_kept = excess.max() <= WORST_NLL_EXCESS and excess.mean() < 0
    unused = sum(
        row["settings"]["power"] == 0 and row["settings"]["center_scale"] is None for row in _rows_of(rows, LEARNED)
    )
    return (
        "# Simulation 1 with few labels: do teachers that are sure outside their domain hurt?\n\n"
        f"Command: `{command}`. 12,000 inputs with teacher outputs, {NUM_LABELS} of them labelled; 8,000 test points;\n"
        f"a student of 27 parameters; {len(excess)} draws of data and teachers. NLL in nats; mse is that of the class\n"
        "probability against the true one. *Settings chosen* means by cross-validated NLL on the labels, no teacher\n"
        "among the candidates.\n\n"
        f"With learned trust, NLL differs from that without teachers by {excess.mean():+.4f} on average and by\n"
        f"{excess.max():+.4f} in the worst draw; in {unused} of {len(excess)} draws the labels chose no teacher.\n"
        f"Asked was less than zero on average and at most {WORST_NLL_EXCESS:+.2f} in any draw: this is "
        f"{'kept' if is_kept else 'not kept'}.\n"
        f"The paper's entropy weights at power one have an NLL of {paper:.3f}.\n\n" + table
    )


def _methods(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _rows_of(rows: list[Row], method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method]


def _refuse_to_overwrite(files: list[Path], overwrite: bool) -> None:
    existing = [str(path) for path in files if path.exists()]
    if existing and not overwrite:
        raise InputError(
            "experiments.simulation1",
            "--out",
            f"{', '.join(existing)} of an earlier run",
            "a folder without them",
            "Give another folder, or --overwrite to replace them.",
        )


if __name__ == "__main__":
    main()
