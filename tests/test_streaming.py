"""Runs on data that do not fit in memory, as processes of their own: killed between windows, and shared out."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from mtbkd_jax.draws import open_draws
from mtbkd_jax.teacher_writer import write_teacher_outputs
from mtbkd_jax.unfinished import is_finished
from tests.joined import joining_arguments

NUM_ROWS, NUM_LABELLED, ROWS_IN_MEMORY = 300, 30, 90
OPTIONS = [
    *("--student.hidden", "4", "--weighting", "entropy", "--rows-in-memory", str(ROWS_IN_MEMORY)),
    *("--settings.power", "0.3", "--settings.concentration", "5", "--settings.center-scale", "inf"),
    *("--settings.wide-scale", "1", "--settings.temperature", "1", "--settings.prediction-temperature", "1"),
    *("--sampling.num-mode-steps", "20", "--sampling.num-burn-in", "20", "--sampling.batch-size", "40"),
    *("--sampling.num-draws", "320", "--sampling.thinning", "2", "--checkpoint-seconds", "0"),
]
# A batch has 20 of the 60 rows without a label in memory, so that a window lasts 3 steps of 660. The first 100 draws
# are on the disk when the third hundred begins, with window 140.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two classes on either side of a plane; a directory of teacher outputs in another order, and a file."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(NUM_ROWS, 3)).astype(np.float32)
    ids = np.array([f"row-{i}" for i in range(NUM_ROWS)])
    labels = np.where(np.arange(NUM_ROWS) % (NUM_ROWS // NUM_LABELLED), -1, inputs[:, 0] > 0).astype(np.int32)
    np.savez(folder / "data.npz", inputs=inputs, labels=labels, ids=ids)
    logits = np.stack([-inputs[:, 0], inputs[:, 0]], axis=1)
    order = rng.permutation(NUM_ROWS)
    write_teacher_outputs(folder / "teacher", {"good": logits[order]}, ids=ids[order])
    noisy = np.exp(logits + rng.normal(size=logits.shape))
    np.savez(folder / "noisy.npz", probs=noisy / noisy.sum(1, keepdims=True), ids=ids)
    return folder


def start(files, out, *options, dies_at=-1, num_devices=1):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "NPROC": "4", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[1]
    environment["PYTHONPATH"] = str(root)
    command = [sys.executable, str(root / "tests" / "streamed_fit.py"), str(dies_at), "fit"]
    command += ["--data", str(files / "data.npz"), "--out", str(out), *OPTIONS, *options]
    command += ["--teachers", str(files / "teacher"), f"noisy={files / 'noisy.npz'}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


TWO_CHAINS = ("--sampling.num-chains", "2")


@pytest.fixture(scope="module")
def uninterrupted(files):
    assert f"rows of windows: [{ROWS_IN_MEMORY - NUM_LABELLED}]" in finish(start(files, files / "run", *TWO_CHAINS))
    return files / "run"


def positions_of(run):
    assert is_finished(run)
    return open_draws(run / "draws").positions()


def test_a_run_says_what_it_has_seen(uninterrupted):
    config = json.loads((uninterrupted / "config.json").read_text())
    assert config["distillation"]["rows_in_memory"] == ROWS_IN_MEMORY
    metrics = json.loads((uninterrupted / "metrics.json").read_text())
    assert (metrics["examples"], metrics["labelled"], metrics["examples_in_memory"]) == (NUM_ROWS, NUM_LABELLED, 90)
    record = np.load(uninterrupted / "teachers.npz")
    assert len(record["ids"]) == len(record["weights"]) == len(record["responsibilities"]) == ROWS_IN_MEMORY
    rows = np.array([int(name.removeprefix("row-")) for name in record["ids"]])
    assert (np.diff(rows) > 0).all()
    assert (rows % (NUM_ROWS // NUM_LABELLED) == 0).sum() == NUM_LABELLED


def test_a_run_that_is_killed_between_windows_goes_on_to_the_bit_with_other_devices(files, uninterrupted, tmp_path):
    killed = start(files, tmp_path / "run", *TWO_CHAINS, dies_at=200)
    assert killed.wait(timeout=300) == 137
    assert open_draws(tmp_path / "run" / "draws").num_draws > 0
    killed.communicate()
    finish(start(files, tmp_path / "run", *TWO_CHAINS, "--resume", num_devices=2))
    jax.tree.map(np.testing.assert_array_equal, positions_of(tmp_path / "run"), positions_of(uninterrupted))


def test_each_of_two_processes_reads_its_own_blocks_of_a_window(files, tmp_path):
    options = ("--sampling.num-chains", "1", "--sampling.num-data-blocks", "2")
    finish(start(files, tmp_path / "one", *options))
    both = [start(files, tmp_path / "two", *options, *joining) for joining in joining_arguments(2)]
    for output in map(finish, both):
        assert f"rows of windows: [{(ROWS_IN_MEMORY - NUM_LABELLED) // 2}]" in output
    same = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)  # sums over rows are taken in another order
    jax.tree.map(same, positions_of(tmp_path / "two"), positions_of(tmp_path / "one"))
