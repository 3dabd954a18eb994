import json
import struct
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from mtbkd_jax.diagnostics import diagnose
from mtbkd_jax.errors import CorruptDataError
from mtbkd_jax.run_log import LOG, TENSORBOARD, check_tensorboard, log_of_run, r_hat_so_far, read_log
from mtbkd_jax.samplers import SamplerInfo, sgld
from mtbkd_jax.sampling import ChunkReport, sample_chains, start_chains
from mtbkd_jax.schedules import constant


def sample(observer):
    """Five steps of burn-in, which are one chunk, and three chunks of draws of a standard Gaussian."""
    sampler = sgld(lambda params, batch: -jnp.sum(params**2) / 2 + 0.0 * batch)
    return sample_chains(
        sampler,
        start_chains(sampler, jnp.zeros((2, 3)), jax.random.key(0)),
        key=jax.random.key(1),
        data=jnp.zeros(()),
        draw_batch=lambda key, data: data,
        step_size=constant(0.1),
        num_draws=30,
        num_burn_in=5,
        chunk_size=10,
        progress=observer,
    )


def report_of(log_density, failed_at=(-1, -1), components=None):
    """Of draws with these log densities, ``[chains, draws]``."""
    log_density = np.asarray(log_density)
    info = SamplerInfo(log_density, np.ones(log_density.shape), np.zeros(log_density.shape, bool))
    num_draws = log_density.shape[1]
    components = None if components is None else np.asarray(components)
    return ChunkReport(num_draws, num_draws, num_draws, info, info, np.asarray(failed_at), components)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    with log_of_run(path, tensorboard=True) as log:
        log.begin("learning")
        log.begin("sampling")
        run = sample(log.report)
    return path, run


def test_every_chunk_is_a_line(logged):
    path, run = logged
    lines = read_log(path)
    assert [line["phase"] for line in lines] == ["learning", *5 * ["sampling"]]
    assert ["step" in line for line in lines] == [False, False, True, True, True, True]
    assert [line["step"] for line in lines[2:]] == [5, 15, 25, 35]
    assert [line["num_draws"] for line in lines[2:]] == [0, 10, 20, 30]
    assert {(line["num_steps"], line["num_planned"]) for line in lines[2:]} == {(35, 30)}
    assert lines[2]["steps_per_second"] is None
    assert min(line["steps_per_second"] for line in lines[3:]) > 0
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert lines[-1]["time"].endswith("+00:00")
    assert min(line["host_bytes"] for line in lines) > 2**20
    last = lines[-1]
    assert last["log_density"] == pytest.approx(float(run.info.log_density[:, -1].mean()))
    assert (last["acceptance_rate"], last["num_divergent"], last["num_failed"]) == (1.0, 0, 0)
    r_hat = diagnose(np.zeros((2, 30, 1, 1)), run.info.log_density).log_density.r_hat
    assert last["r_hat"] == pytest.approx(float(r_hat))


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each tag: a record is its length, a checksum of it, an event, and a checksum of that."""
    (file,) = folder.iterdir()
    content, found = file.read_bytes(), {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        content = content[16 + length :]
    return found


def test_the_same_numbers_are_scalars_for_tensorboard(logged):
    path, _ = logged
    scalars, lines = scalars_in(path / TENSORBOARD), [line for line in read_log(path) if "step" in line]
    for name in ("log_density", "acceptance_rate", "steps_per_second", "num_divergent", "r_hat", "host_bytes"):
        expected = [(line["step"], line[name]) for line in lines if line[name] is not None]
        steps, values = zip(*scalars[f"sampling/{name}"], strict=True)
        assert steps == tuple(step for step, _ in expected)
        np.testing.assert_allclose(values, [value for _, value in expected], rtol=1e-6)


def test_no_scalars_unless_asked_for(tmp_path):
    with log_of_run(tmp_path, tensorboard=False) as log:
        sample(log.report)
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_a_line_that_a_kill_has_torn_is_left_out_and_not_continued(tmp_path):
    with log_of_run(tmp_path, tensorboard=False) as log:
        log.begin("learning")
        log.begin("sampling")
    path = tmp_path / LOG
    path.write_bytes(path.read_bytes()[:-10])
    assert [line["phase"] for line in read_log(tmp_path)] == ["learning"]
    with log_of_run(tmp_path, tensorboard=False) as log:
        log.begin("sampling again")
    assert [json.loads(line)["phase"] for line in path.read_text().splitlines()] == ["learning", "sampling again"]


def test_there_may_be_no_log(tmp_path):
    assert read_log(tmp_path) == []


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / LOG).write_text('{"phase": "learning"}\n\x00\x00\n{"phase": "sampling"}\n')
    with pytest.raises(CorruptDataError, match=r"log\.jsonl: lines: found no JSON"):
        read_log(tmp_path)


def test_numbers_that_are_not_finite_are_null(tmp_path):
    # Each chain stuck at its own place: R-hat is infinite.
    with log_of_run(tmp_path, tensorboard=False) as log:
        log.report(report_of(np.array([[1.0], [2.0]]) * np.ones(8)))
    assert read_log(tmp_path)[0]["r_hat"] is None


def test_the_rate_is_that_of_the_last_ten_chunks(tmp_path, monkeypatch):
    # A second for each of the first ten chunks, then two.
    seconds = iter([*np.arange(11.0), *np.arange(12.0, 31.0, 2)])
    monkeypatch.setattr("mtbkd_jax.run_log.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with log_of_run(tmp_path, tensorboard=False) as log:
        for number in range(21):
            log.report(report_of(np.ones((2, 1)))._replace(steps_done=100 * number))
    rates = [line["steps_per_second"] for line in read_log(tmp_path)]
    assert rates[0] is None
    assert (rates[1], rates[10], rates[20]) == (100.0, 100.0, 50.0)


def test_r_hat_compares_chains_of_one_component_that_have_not_failed():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(5, 100)) + np.array([0.0, 0.0, 50.0, 50.0, 9.0])[:, None]
    failed_at = (-1, -1, -1, -1, 3)
    assert r_hat_so_far(report_of(draws, failed_at)) > 1.5
    apart = r_hat_so_far(report_of(draws, failed_at, components=(0, 0, 2, 2, 0)))
    each = [float(diagnose(np.zeros((2, 100, 1, 1)), draws[rows]).log_density.r_hat) for rows in ([0, 1], [2, 3])]
    assert max(each) < 1.1
    assert apart == pytest.approx(max(each))


def test_r_hat_of_few_draws_is_not_known():
    assert np.isnan(r_hat_so_far(report_of(np.random.default_rng(0).normal(size=(2, 7)))))
    assert np.isfinite(r_hat_so_far(report_of(np.random.default_rng(0).normal(size=(2, 8)))))


def test_r_hat_of_very_many_draws_is_that_of_some():
    draws = np.random.default_rng(0).normal(size=(2, 2500))
    assert r_hat_so_far(report_of(draws)) == r_hat_so_far(report_of(draws[:, ::3]))


def test_memory_of_a_device_that_says_so_is_in_the_log(tmp_path, monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: {"bytes_in_use": 1, "peak_bytes_in_use": 5})
    with log_of_run(tmp_path, tensorboard=False) as log:
        log.begin("on a processor")
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        log.begin("on an accelerator")
    assert [line["device_bytes"] for line in read_log(tmp_path)] == [None, 5]


def test_the_library_of_the_scalars_is_here():
    check_tensorboard()
