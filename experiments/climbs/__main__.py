"""How high do climbs to a mode get, by learning rate and steps? Run as ``python -m experiments.climbs``.

Candidates of the settings are climbed for a few hundred steps before a short chain scores them. Four students of very
different size are climbed in that many and in more, each from four starts, as ``selection`` climbs them, at settings
from none of what teachers say to all of it. No label is held out and no test set is read: what is compared is the log
density that is reached, on all data.

Writes ``results.json`` and ``table.md`` (nats below the highest of all climbs on the same posterior) to the folder of
this file or to ``--out``, and replaces such files only where ``--overwrite`` is given.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.digit_domains.__main__ import prepare, sources
from experiments.simulation1.__main__ import DESIGN
from experiments.simulation1.__main__ import STUDENT as SIMULATION_STUDENT
from experiments.simulation_study import CONFIG as SIMULATION_CONFIG
from experiments.simulations import simulation_draws
from experiments.study import kept, results_files, rows_of, study_parser, summary, write_results
from experiments.tasks import Task, deeploc_task, digits_task
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.distillation import learn
from mtbkd_jax.examples import full_batch, minibatch_for
from mtbkd_jax.lessons import NUM_CLIMB_STAGES, Lessons, at_climb_stage
from mtbkd_jax.posterior import find_mode_in_stages
from mtbkd_jax.selection import GivenSettings, wide_scales_of
from mtbkd_jax.settings import PosteriorSettings, distillation_posterior
from mtbkd_jax.students import Student, mlp
from mtbkd_jax.types import Key, Scalar

LEARNING_RATES = (0.003, 0.006, 0.01, 0.015, 0.022)
NUM_STEPS = (75, 150, 300, 1000)
"""Of each of the two stages."""

STRENGTHS = {"no teacher": (0.0, 1.0), "power .06": (0.06, 5.0), "power 1, λ 1": (1.0, 1.0), "power 1, λ 5": (1.0, 5.0)}
"""Power and concentration."""

NUM_STARTS = 4
WIDE_SCALE = 4
"""Which of the candidates of the wide component's scale."""

Row = dict[str, Any]
Given = tuple[Student, np.ndarray, np.ndarray, np.ndarray, DistillationConfig]
"""A student, its inputs, labels and teachers' logits, and how it is distilled."""


def main() -> None:
    """Climb, and write and print the tables."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--steps", nargs="+", type=int, default=list(NUM_STEPS), help="steps of each stage")
    options = parser.parse_args()
    files = results_files(options)
    climbs: list[Row] = []
    for problem in options.problems:
        run = partial(climbs_on, problem, options.steps)
        climbs += kept(options.runs, "_".join([problem.replace(" ", "_"), *map(str, options.steps)]), run)
    table = "\n".join(f"{problem}:\n\n{table_of(climbs, problem, options.steps)}" for problem in options.problems)
    rows = rows_of([climb | {"method": method_of(climb)} for climb in climbs], ("log_density",))
    write_results(files, summary("climbs", range(NUM_STARTS), rows) | {"runs": climbs}, table)


def simulation1() -> Given:
    """27 parameters and a thousand labels."""
    draw = simulation_draws(DESIGN, [0])[0].with_labels(1000)
    inputs = Standardizer.fit(draw.inputs)(draw.inputs)
    return SIMULATION_STUDENT, inputs, draw.labels, draw.teacher_logits, SIMULATION_CONFIG


def digits() -> Given:
    """The main job: 2,410 parameters."""
    return _with_perceptron(digits_task(0), 32)


def digit_domains() -> Given:
    """A convolutional network of 22,010 parameters."""
    study, draw = sources(argparse.Namespace(small=False, digit5=None, labels=None, sizes=None))
    task = prepare(jax.random.key(0), draw(0), 0, study).task
    return study.student, task.inputs, task.labels, task.teacher_logits, study.distillation


def deeploc() -> Given:
    """34,186 parameters and fifty labels."""
    return _with_perceptron(deeploc_task(0, 50), 128)


def _with_perceptron(task: Task, width: int) -> Given:
    student = mlp(num_features=task.inputs.shape[1], hidden=(width,), num_classes=task.teacher_logits.shape[2])
    return student, task.inputs, task.labels, task.teacher_logits, DistillationConfig()


PROBLEMS: dict[str, Callable[[], Given]] = {
    "simulation 1": simulation1,
    "digits": digits,
    "digit domains": digit_domains,
    "deeploc": deeploc,
}


def climbs_on(problem: str, steps: list[int]) -> list[Row]:
    """Every climb on one problem: how it was made, and the log density that it reached, nats."""
    student, inputs, labels, logits, config = PROBLEMS[problem]()
    wide_scale = wide_scales_of(student)[WIDE_SCALE]
    given = GivenSettings(0.0, 1.0, np.inf, wide_scale, 1.0, 1.0)
    known = dataclasses.replace(config, settings=given)
    lessons = learn(jax.random.key(0), inputs, labels, logits, student, config=known)[0]
    return [
        {"problem": problem, "strength": strength, "steps": num_steps, "learning_rate": rate, "seed": seed}
        | {"log_density": value}
        for strength, (power, concentration) in STRENGTHS.items()
        for num_steps in steps
        for rate, values in reached(
            student, lessons, PosteriorSettings(power, concentration, np.inf, wide_scale), config, num_steps
        )
        for seed, value in enumerate(values)
    ]


def reached(
    student: Student, lessons: Lessons, settings: PosteriorSettings, config: DistillationConfig, num_steps: int
) -> Iterator[tuple[float, list[float]]]:
    """The log density from each start, for each learning rate, which is data to the one compiled program."""
    posterior = distillation_posterior(
        student, lessons.centers, settings, softening=config.softening, defensive_weight=config.defensive_weight
    )
    draw_batch = minibatch_for(lessons.examples.labels, config.sampling.batch_size)

    @jax.jit
    def climb(key: Key, learning_rate: Scalar, lessons: Lessons) -> Scalar:
        mode = find_mode_in_stages(
            posterior,
            student.init(key),
            key=key,
            data_of_stage=partial(at_climb_stage, lessons, settings),
            num_stages=NUM_CLIMB_STAGES,
            draw_batch=draw_batch,
            num_steps=num_steps,
            learning_rate=learning_rate,
        )
        return posterior(mode, full_batch(key, at_climb_stage(lessons, settings, jnp.array(NUM_CLIMB_STAGES - 1))))

    keys = jax.random.split(jax.random.key(1), NUM_STARTS)
    for rate in LEARNING_RATES:
        yield rate, [float(climb(key, rate, lessons)) for key in keys]


def method_of(climb: Row) -> str:
    """Its name, without the start."""
    return f"{climb['problem']}, {climb['strength']}, {climb['steps']} steps at {climb['learning_rate']}"


def table_of(climbs: list[Row], problem: str, steps: list[int]) -> str:
    """Nats below the highest climb on the same posterior, mean over starts: a row for each strength and length."""
    lines = ["| | steps | " + " | ".join(map(str, LEARNING_RATES)) + " |", "|---" * (2 + len(LEARNING_RATES)) + "|"]
    for strength in STRENGTHS:
        same = [climb for climb in climbs if (climb["problem"], climb["strength"]) == (problem, strength)]
        highest = max(climb["log_density"] for climb in same)
        for num_steps in steps:
            below = [
                np.mean([highest - one["log_density"] for one in same if _is_of(one, num_steps, rate)])
                for rate in LEARNING_RATES
            ]
            cells = " | ".join(f"{nats:,.1f}" if nats < 100 else f"{nats:,.0f}" for nats in below)
            lines.append(f"| {strength} | {num_steps} | {cells} |")
    return "\n".join(lines) + "\n"


def _is_of(climb: Row, num_steps: int, learning_rate: float) -> bool:
    return (climb["steps"], climb["learning_rate"]) == (num_steps, learning_rate)


if __name__ == "__main__":
    main()
