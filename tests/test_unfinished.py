"""Runs that are killed by the system, and taken up again."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax import jobs
from mtbkd_jax.centers import Centers
from mtbkd_jax.cli import main
from mtbkd_jax.distillation import Learned
from mtbkd_jax.draws import open_draws
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.run_log import LOG, log_of_run, read_log
from mtbkd_jax.selection import Choice, ScoredCandidate
from mtbkd_jax.settings import PosteriorSettings
from mtbkd_jax.status import status_of
from mtbkd_jax.storage import LOCK
from mtbkd_jax.students import mlp
from mtbkd_jax.unfinished import LearnedFiles, standing_of, unfinished_run

OPTIONS = [
    *("--student.hidden", "4"),
    *("--settings.power", "0.5", "--settings.concentration", "5"),
    *("--settings.center-scale", "inf", "--settings.wide-scale", "1"),
    *("--settings.temperature", "1", "--settings.prediction-temperature", "1"),
    *("--sampling.num-mode-steps", "50", "--sampling.num-burn-in", "50"),
    *("--sampling.num-draws", "600", "--sampling.num-chains", "2"),
    # Long enough for a run to be found in the middle of its draws.
    *("--sampling.thinning", "200"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two classes on either side of a line, and a teacher of it."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 3)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int32)
    np.savez(folder / "data.npz", inputs=inputs, labels=np.where(np.arange(60) % 2, -1, labels))
    np.savez(folder / "teacher.npz", logits=np.stack([-inputs[:, 0], inputs[:, 0]], axis=1))
    return folder


def fit_arguments(files, out, *options):
    teachers = ["--teachers", f"one={files / 'teacher.npz'}"]
    return ["fit", "--data", str(files / "data.npz"), *teachers, "--out", str(out), *OPTIONS, *options]


@pytest.fixture(scope="module")
def uninterrupted(files):
    main(fit_arguments(files, files / "uninterrupted"))
    return draws_of(files / "uninterrupted")


def draws_of(run):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(open_draws(run / "draws").positions())]


def interrupt(files, run, how, *, after_draws):
    """Begin a run as a process of its own, and send it a signal once it has some draws."""
    code = "from mtbkd_jax.cli import main; main()"
    command = [sys.executable, "-c", code, *fit_arguments(files, run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not ((run / "draws" / "manifest.json").exists() and standing_of(run).num_draws >= after_draws):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if how == signal.SIGTERM:
            status = status_of(run)
            assert (status.state, status.phase) == ("running", "sampling")
            with pytest.raises(SystemExit):
                main(fit_arguments(files, run, "--resume"))
        process.send_signal(how)
        message = process.stderr.read()
    return process.returncode, message


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_run_that_was_stopped_goes_on_to_the_bit(files, uninterrupted, how, capsys):
    run = files / how.name
    status, message = interrupt(files, run, how, after_draws=100)
    if how == signal.SIGTERM:
        assert "held by another process" in capsys.readouterr().err
        assert status == 1
        assert "stopped as asked" in message
    standing = standing_of(run)
    assert standing.is_learned
    assert not standing.is_being_written
    assert not standing.is_finished
    assert 100 <= standing.num_draws < standing.num_planned == 600

    lines = read_log(run)
    with open(run / LOG, "a") as log:
        log.write('{"time": "2026')  # as a kill in the middle of a line leaves it
    for number, path in enumerate(run.rglob("*")):  # a clock that jumps, or a copy, leaves times that mean nothing
        os.utime(path, (number % 2 * 4e9,) * 2)
    main(["status", str(run)])
    assert "with --resume" in " ".join(capsys.readouterr().out.split())
    main(fit_arguments(files, run, "--resume"))
    appended = read_log(run)[len(lines) :]
    assert read_log(run)[: len(lines)] == lines
    assert [line["phase"] for line in appended if "step" not in line] == ["learning", "sampling", "writing", "finished"]
    assert [line["num_draws"] for line in appended if "step" in line][-1] == 600
    for resumed, whole in zip(draws_of(run), uninterrupted, strict=True):
        np.testing.assert_array_equal(resumed, whole)
    assert standing_of(run).is_finished
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != LOCK}
    main(fit_arguments(files, run, "--resume"))
    assert "nothing is left to do" in " ".join(capsys.readouterr().out.split())
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("most_bytes", "full"), [(2_000, "learned"), (8_000, "draws/positions/")], ids=["before", "among the draws"]
)
def test_a_run_that_filled_its_disk_says_so_and_goes_on_to_the_bit(files, uninterrupted, most_bytes, full, tmp_path):
    code = (
        f"from mtbkd_jax.cli import main\nfrom tests.full_disk import full_disk\nwith full_disk({most_bytes}): main()"
    )
    arguments = fit_arguments(files, tmp_path / "run", "--checkpoint-seconds", "0")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    *_, message = done.stderr.strip().splitlines()
    assert message.startswith("mtbkd: ")
    assert "Free some space or choose another disk, then go on with --resume" in message
    assert str(tmp_path / "run" / full) in message
    main([*arguments, "--resume"])
    for resumed, whole in zip(draws_of(tmp_path / "run"), uninterrupted, strict=True):
        np.testing.assert_array_equal(resumed, whole)


def test_a_run_that_was_stopped_while_it_drew_its_figures_is_finished(files, uninterrupted, monkeypatch):
    run = files / "figures"

    def end(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "mark_finished", end)
        with pytest.raises(KeyboardInterrupt):
            main(fit_arguments(files, run))
    assert not standing_of(run).is_finished
    main(fit_arguments(files, run, "--resume"))
    assert standing_of(run).is_finished
    for resumed, whole in zip(draws_of(run), uninterrupted, strict=True):
        np.testing.assert_array_equal(resumed, whole)


@dataclass(frozen=True)
class Asked:
    """A configuration."""

    num_draws: int = 100
    nested: dict[str, float] = field(default_factory=lambda: {"scale": 1.0})
    resume: bool = False


def begin(path, config=Asked(), digests=(("data.npz", "abc"),), *, resume=False):
    with unfinished_run(path, config, dict(digests), resume=resume):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_is_begun_where_there_is_none(tmp_path, resume):
    begin(tmp_path / "run", resume=resume)
    assert not standing_of(tmp_path / "run").is_learned


def test_a_run_is_not_taken_up_unasked(tmp_path):
    begin(tmp_path)
    with pytest.raises(InputError, match="--resume"):
        begin(tmp_path)


def begin_and_be_refused(path, *, is_learned):
    with unfinished_run(path, Asked(), {}, resume=False), log_of_run(path, tensorboard=True) as log:
        log.begin("learning")
        if is_learned:
            (path / "learned").mkdir()
        raise InputError("data", "labels", "none", "some", "Label some.")


def test_a_run_that_was_refused_before_it_learned_anything_leaves_its_directory_free(tmp_path):
    with pytest.raises(InputError, match="labels"):
        begin_and_be_refused(tmp_path / "run", is_learned=False)
    begin(tmp_path / "run", Asked(num_draws=200))


def test_a_run_that_was_refused_after_it_had_learned_something_is_kept(tmp_path):
    with pytest.raises(InputError, match="labels"):
        begin_and_be_refused(tmp_path / "run", is_learned=True)
    begin(tmp_path / "run", digests=(), resume=True)


def test_a_directory_of_something_else_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="files in it"):
        begin(tmp_path, resume=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_run_goes_on_with_the_same_options_alone(tmp_path):
    begin(tmp_path, Asked(resume=False))
    begin(tmp_path, Asked(resume=True), resume=True)
    with pytest.raises(InputError, match=r"num_draws: found 100, expected 200"):
        begin(tmp_path, Asked(num_draws=200), resume=True)
    with pytest.raises(InputError, match=r"nested\.scale: found 1\.0, expected 2\.0"):
        begin(tmp_path, Asked(nested={"scale": 2.0}), resume=True)


def test_a_data_file_that_has_changed_is_noticed(tmp_path):
    begin(tmp_path)
    with pytest.raises(InputError, match=r"input_sha256\.data\.npz: found abc, expected abd"):
        begin(tmp_path, digests=(("data.npz", "abd"),), resume=True)


def test_what_was_learned_is_read_back_to_the_bit(tmp_path):
    student = mlp(num_features=2, hidden=(3,), num_classes=2)
    params = jax.vmap(student.init)(jax.random.split(jax.random.key(0), 3))
    log_weights = jnp.log(jnp.array([[0.0, 0.3, 0.7], [0.1, 0.2, 0.7]]))
    candidate = ScoredCandidate("power", 1 / 3, 5.0, float("inf"), 0.1, 1.0, 1.25, float("inf"), float("inf"), 0.2)
    choice = Choice(candidate.settings, PosteriorSettings(0.0, 1.0, float("inf"), 0.1), (candidate,))
    learned = Learned(log_weights, Centers(params, jnp.exp(log_weights).mean(0)), choice)
    files = LearnedFiles(tmp_path / "learned")
    template = jax.eval_shape(student.init, jax.random.key(0))

    assert files.read(template) is None
    files.write(learned)
    again = files.read(template)
    jax.tree.map(np.testing.assert_array_equal, learned[:2], again[:2])
    assert again.choice == choice

    arrays = tmp_path / "learned" / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:-100])
    with pytest.raises(CorruptDataError, match="so that it is learned again"):
        files.read(template)
