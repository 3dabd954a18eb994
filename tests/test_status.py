import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.run_log import LOG, log_of_run, read_log
from mtbkd_jax.samplers import SamplerInfo
from mtbkd_jax.sampling import ChunkReport
from mtbkd_jax.status import print_status, status_of
from mtbkd_jax.unfinished import unfinished_run


@dataclass(frozen=True)
class Asked:
    """A configuration."""

    seed: int = 0


def report(steps_done):
    """Of two chains on their way to a thousand steps, with a draw every hundred."""
    num_draws = steps_done // 100
    kept = SamplerInfo(np.full((2, num_draws), -1.5), np.ones((2, num_draws)), np.zeros((2, num_draws), bool))
    return ChunkReport(steps_done, 1000, 10, kept, kept, np.array([-1, 7]))


def running(path):
    return unfinished_run(path, Asked(), {}, resume=False)


def shown(path, capsys):
    print_status(path, as_json=False)
    return " ".join(capsys.readouterr().out.split())


def test_a_run_that_is_written_has_a_rate_and_time_left(tmp_path, capsys, monkeypatch):
    seconds = iter([10.0, 15.0])
    monkeypatch.setattr("mtbkd_jax.run_log.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with running(tmp_path), log_of_run(tmp_path, tensorboard=False) as log:
        log.begin("sampling")
        log.report(report(200))
        assert status_of(tmp_path).seconds_left is None
        log.report(report(400))
        status = status_of(tmp_path)
        text = shown(tmp_path, capsys)
    assert (status.state, status.phase, status.seconds_left) == ("running", "sampling", 15.0)
    assert status.chunk == read_log(tmp_path)[-1]
    for words in (
        "state running",
        "steps of sampling 400 of 1,000",
        "steps a second 40.0",
        "log density -1.5",
        "acceptance 1.000",
        "divergent draws 0",
        "failed chains 1",
        "R-hat of the log density not known",
        "time left 0:00:15 at this rate",
        "ago",
    ):
        assert words in text


def test_a_run_that_was_interrupted_says_where_and_how_to_go_on(tmp_path, capsys):
    with running(tmp_path), log_of_run(tmp_path, tensorboard=False) as log:
        log.begin("sampling")
        log.report(report(200))
        log.report(report(400))
    with open(tmp_path / LOG, "a") as file:
        file.write('{"time": "20')
    status = status_of(tmp_path)
    assert (status.state, status.chunk["step"], status.seconds_left) == ("interrupted", 400, None)
    assert "with --resume" in shown(tmp_path, capsys)


def test_a_phase_without_steps_has_no_time_left(tmp_path):
    with running(tmp_path), log_of_run(tmp_path, tensorboard=False) as log:
        log.begin("sampling")
        log.report(report(200))
        log.report(report(400))
        log.begin("writing")
        status = status_of(tmp_path)
    assert (status.phase, status.seconds_left, status.chunk["phase"]) == ("writing", None, "sampling")


def test_a_run_may_have_no_log_yet(tmp_path, capsys):
    with running(tmp_path):
        status = status_of(tmp_path)
        assert "state running" in shown(tmp_path, capsys)
    assert (status.phase, status.written, status.chunk, status.num_planned) == (None, None, None, None)


def test_programs_get_one_json_object(tmp_path, capsys):
    with running(tmp_path), log_of_run(tmp_path, tensorboard=False) as log:
        log.begin("sampling")
        log.report(report(200))
        print_status(tmp_path, as_json=True)
        expected = status_of(tmp_path)._asdict()
    assert json.loads(capsys.readouterr().out) == expected


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="the directory of a run"):
        status_of(tmp_path)
