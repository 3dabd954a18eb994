import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from mtbkd_jax.draw_chunks import count_draws
from mtbkd_jax.draws import open_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.processes import Processes, join_processes, processes_among
from mtbkd_jax.unfinished import is_finished
from tests.joined import joining_arguments

NUM_DRAWS = 600
SETTINGS = [
    *("--settings.power", "0.3", "--settings.concentration", "5", "--settings.center-scale", "0.3"),
    *("--settings.wide-scale", "1", "--settings.temperature", "1", "--settings.prediction-temperature", "1"),
    *("--sampling.num-chains", "2", "--sampling.num-data-blocks", "2", "--sampling.batch-size", "16"),
    *("--weighting", "uniform", "--sampling.num-mode-steps", "50", "--sampling.num-burn-in", "20"),
    *("--sampling.num-draws", str(NUM_DRAWS), "--sampling.thinning", "1", "--checkpoint-seconds", "0"),
]


def test_a_process_that_is_alone_joins_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("it joined somebody"))
    join_processes(Processes())


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        (Processes(coordinator="localhost:1"), "coordinator: found cluster False"),
        (Processes(num_processes=2, process_id=0), "coordinator: found"),
        (Processes(cluster=True, coordinator="localhost:1", num_processes=2, process_id=0), "a cluster alone"),
        (Processes(cluster=True, process_id=0), "a cluster alone"),
        (Processes(coordinator="localhost:1", num_processes=2, process_id=2), "process_id: found 2, expected 0 to 1"),
        (Processes(coordinator="localhost:1", num_processes=0, process_id=0), "num_processes"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(processes, message):
    with pytest.raises(InputError, match=message):
        join_processes(processes)


def test_what_jax_says_of_a_cluster_that_is_not_there_is_an_error_of_ours(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no cluster\nand a long story")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(InputError, match="found no cluster, expected"):
        join_processes(Processes(cluster=True))


def test_processes_that_are_ready_wait_for_one_that_still_works(monkeypatch):
    options = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **given: options.update(given))
    join_processes(Processes(cluster=True))
    # After this time without the others JAX aborts all of them, and so the first one while it writes.
    assert options["shutdown_timeout_seconds"] > 3600
    assert options["heartbeat_timeout_seconds"] < 60


def test_what_a_command_says_of_processes_is_known_before_it_is_parsed():
    arguments = ["fit", "--processes.coordinator", "host:1", "--processes.num-processes=3", "--out", "runs"]
    expected = Processes(coordinator="host:1", num_processes=3, process_id=2)
    assert processes_among([*arguments, "--processes.process_id", "2"]) == expected
    assert processes_among(["predict", "run"]) == Processes()
    assert processes_among(["fit", "--processes.cluster"]) == Processes(cluster=True)


def start_fit(files, out, *, num_processes, options=()):
    """Start the processes of one ``mtbkd fit``, two devices each."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "NPROC": "4", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", "from mtbkd_jax.cli import main; main()", "fit", "--data", str(files / "data.npz")]
    command += ["--teachers", f"good={files / 'teacher.npz'}", "--out", str(out), *SETTINGS, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    joined = [[*command, *joining] for joining in joining_arguments(num_processes)]
    return [subprocess.Popen(arguments, env=environment, **pipes) for arguments in joined]


def outputs_of(processes, timeout=300):
    return [(*process.communicate(timeout=timeout), process.returncode) for process in processes]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    inputs = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    labels = np.where(np.arange(100) % 3, -1, inputs[:, 0] > 0).astype(np.int32)
    np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    np.savez(folder / "teacher.npz", logits=np.stack([-inputs[:, 0], inputs[:, 0]], axis=1))
    return folder


@pytest.fixture(scope="module")
def draws_of_one_process(files, tmp_path_factory):
    run = tmp_path_factory.mktemp("one") / "run"
    ((_, errors, status),) = outputs_of(start_fit(files, run, num_processes=1))
    assert status == 0, errors
    return open_draws(run / "draws")


def assert_same_draws(run, expected):
    draws = open_draws(run / "draws")
    assert draws.num_draws == expected.num_draws == NUM_DRAWS
    # 620 steps of float32, whose sums over rows are taken in another order where the rows lie on other devices.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), draws.positions(), expected.positions())
    assert is_finished(run)


def test_two_processes_fit_what_one_does(files, draws_of_one_process, tmp_path):
    first, second = outputs_of(start_fit(files, tmp_path / "run", num_processes=2))
    assert (first[2], second[2]) == (0, 0), first[1] + second[1]
    assert "Wrote" in first[0]
    assert "Wrote" not in second[0]  # the first one alone talks
    assert_same_draws(tmp_path / "run", draws_of_one_process)


def test_a_process_that_dies_takes_the_others_with_it_and_another_number_of_them_goes_on(
    files, draws_of_one_process, tmp_path
):
    run = tmp_path / "run"
    first, second = start_fit(files, run, num_processes=2)
    deadline = time.monotonic() + 200
    while not ((run / "draws" / "manifest.json").exists() and count_draws(run / "draws")[0] > 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second.kill()
    killed = time.monotonic()
    _, errors = first.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert first.returncode != 0
    assert "stopped sending heartbeats):\n1\n" in errors  # JAX's words, and the rank
    second.communicate()
    assert 0 < count_draws(run / "draws")[0] < NUM_DRAWS
    ((_, errors, status),) = outputs_of(start_fit(files, run, num_processes=1, options=("--resume",)))
    assert status == 0, errors
    assert_same_draws(run, draws_of_one_process)
