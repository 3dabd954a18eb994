"""The command of a report is the one that repeats the run."""

import dataclasses
import json
import shlex

import pytest
import tyro

from mtbkd_jax.cli import Command
from mtbkd_jax.report.commands import OUT, repeating_command


def parsed(arguments):
    return tyro.cli(Command, args=arguments)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--no-standardize", "--student.hidden", "8", "4", "--weighting", "fixed", "--weights", "0.25", "0.75"],
        ["--settings.center-scale", "inf", "--settings.power", "1e-05", "--seed", "-3"],
        ["--sampling.sampler", "hmc", "--budget.num-steps", "10", "--draws", "moments", "--probes", "a b.npz"],
    ],
)
def test_it_gives_every_option_that_the_result_depends_on(options):
    begun = parsed(["fit", "--data", "it's.npz", "--teachers", "a=a.npz", "b=b.npz", "--out", OUT, *options])
    config = json.loads(json.dumps(dataclasses.asdict(begun), default=str))
    for name in ("processes", "out", "resume", "checkpoint_seconds", "tensorboard"):
        del config[name]
    command = shlex.split(repeating_command(config).replace("\\\n", ""))
    assert command[0] == "mtbkd"
    assert parsed(command[1:]) == begun


def test_it_repeats_a_study():
    begun = parsed(["run", "digits", "--out", OUT, "--num-labels", "7", "--seed", "5"])
    command = shlex.split(repeating_command({"name": "digits", "num_labels": 7, "seed": 5}).replace("\\\n", ""))
    assert parsed(command[1:]) == begun
