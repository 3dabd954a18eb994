"""Runs that are stopped, and go on as if they had not been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.checkpoints import ChainCheckpoints, PreemptedError
from mtbkd_jax.draws import create_draws, open_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.samplers import hmc, sghmc
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from tests.joined import joining_arguments

NUM_CHAINS, NUM_DRAWS, CHUNK = 2, 12, 2
SCRIPT = Path(__file__).parent / "resumed_chains.py"


def well(params, batch):
    return -jnp.sum(params**2) / 2 + 0.0 * batch


SAMPLERS = {"sghmc": sghmc(well, friction=1.0), "hmc": hmc(well, num_leapfrog_steps=3)}


class Killed(Exception):  # noqa: N818 (no error: the test asks for it)
    pass


def run(sampler, store, checkpoints=None, *, kill_after=None, thinning=3):
    """Six chunks of burn-in and six of draws, or until ``kill_after`` of them."""
    count = 0

    def progress(_):
        nonlocal count
        count += 1
        if count == kill_after:
            raise Killed

    return sample_chains(
        sampler,
        start_chains(sampler, jnp.ones((NUM_CHAINS, 3)), jax.random.key(1)),
        key=jax.random.key(2),
        data=jnp.zeros(()),
        draw_batch=lambda key, data: data,
        step_size=constant(0.2),
        num_draws=NUM_DRAWS,
        num_burn_in=36,
        thinning=thinning,
        chunk_size=CHUNK,
        sink=store,
        checkpoints=checkpoints,
        progress=progress,
    )


def new_store(path):
    return create_draws(path, jnp.zeros(3), num_chains=NUM_CHAINS, num_draws=NUM_DRAWS, draws_per_chunk=CHUNK)


def go_on(sampler, path, **options):
    with ChainCheckpoints(path / "checkpoints", seconds_between=0.0) as checkpoints:
        return run(sampler, open_draws(path / "draws", jnp.zeros(3)), checkpoints, **options)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.info, other.info)
    np.testing.assert_array_equal(one.positions.positions(), other.positions.positions())
    np.testing.assert_array_equal(one.positions.log_density(), other.positions.log_density())
    np.testing.assert_array_equal(one.failed_at, other.failed_at)
    jax.tree.map(np.testing.assert_array_equal, one.states, other.states)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_that_was_stopped_again_and_again_goes_on_to_the_bit(name, tmp_path):
    sampler = SAMPLERS[name]
    whole = run(sampler, new_store(tmp_path / "whole"))
    new_store(tmp_path / "draws")
    for kill_after in (1, 3, 4, 2, 2):
        with pytest.raises(Killed):
            go_on(sampler, tmp_path, kill_after=kill_after)
    assert_same(go_on(sampler, tmp_path), whole)
    # And once more, when there is nothing left to do.
    assert_same(go_on(sampler, tmp_path), whole)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path):
    sampler = SAMPLERS["sghmc"]
    whole = run(sampler, new_store(tmp_path / "whole"))
    store = new_store(tmp_path / "draws")
    with ChainCheckpoints(tmp_path / "checkpoints", seconds_between=3600.0) as checkpoints, pytest.raises(Killed):
        run(sampler, store, checkpoints, kill_after=10)
    assert store.num_draws > 0
    assert_same(go_on(sampler, tmp_path), whole)


def test_a_run_that_is_told_to_stop_leaves_a_checkpoint(tmp_path):
    sampler = SAMPLERS["sghmc"]
    whole = run(sampler, new_store(tmp_path / "whole"))
    with ChainCheckpoints(tmp_path / "checkpoints", seconds_between=3600.0) as checkpoints:
        checkpoints.stop()
        with pytest.raises(PreemptedError, match="after 1 chunks"):
            run(sampler, new_store(tmp_path / "draws"), checkpoints)
    assert_same(go_on(sampler, tmp_path), whole)


def damage(checkpoint):
    """Turn over one byte of the largest file, which holds the numbers."""
    file = max((path for path in (checkpoint / "content").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_moved_aside_for_the_one_before_and_it_is_said(tmp_path, caplog):
    sampler = SAMPLERS["sghmc"]
    whole = run(sampler, new_store(tmp_path / "whole"))
    new_store(tmp_path / "draws")
    with pytest.raises(Killed):
        go_on(sampler, tmp_path, kill_after=9)
    last, before = sorted((int(path.name) for path in (tmp_path / "checkpoints").iterdir()), reverse=True)
    damage(tmp_path / "checkpoints" / str(last))
    assert_same(go_on(sampler, tmp_path), whole)
    assert before == last - 1
    assert (tmp_path / "checkpoints" / f"damaged_{last}").is_dir()
    assert f"checkpoint {last} is damaged" in caplog.text


# In a process of its own, since Orbax writes in threads whose errors would be warnings here.
FULL_DISK = """
import sys
import jax
from mtbkd_jax.checkpoints import ChainCheckpoints
from mtbkd_jax.errors import StorageError
from tests.full_disk import full_disk
content = {"positions": jax.random.normal(jax.random.key(0), (2, 9999))}
with ChainCheckpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(1, {"thinning": 3}, content)
try:
    with full_disk(500), ChainCheckpoints(sys.argv[1]) as checkpoints:
        checkpoints.save(2, {"thinning": 3}, content)
except StorageError as error:
    print(error)
with ChainCheckpoints(sys.argv[1]) as checkpoints:
    number, found = checkpoints.latest({"thinning": 3}, content)
    print(number, bool((found["positions"] == content["positions"]).all()))
"""


def test_a_full_disk_is_a_storage_error_and_leaves_the_checkpoint_before(tmp_path):
    program = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    message, found = subprocess.run(
        program, check=True, capture_output=True, text=True, env=environment
    ).stdout.splitlines()
    assert "Free some space or choose another disk" in message
    assert str(tmp_path) in message
    assert found == "1 True"


def test_a_checkpoint_of_a_run_of_another_length_is_refused(tmp_path):
    new_store(tmp_path / "draws")
    with pytest.raises(Killed):
        go_on(SAMPLERS["sghmc"], tmp_path, kill_after=8)
    with pytest.raises(InputError, match="thinning: found 3, expected 4"):
        go_on(SAMPLERS["sghmc"], tmp_path, thinning=4)


def test_checkpoints_need_a_sink(tmp_path):
    with ChainCheckpoints(tmp_path / "checkpoints") as checkpoints, pytest.raises(InputError, match="no sink"):
        run(SAMPLERS["sghmc"], None, checkpoints)


def test_checkpoints_are_taken_no_more_often_than_asked(tmp_path):
    with ChainCheckpoints(tmp_path / "checkpoints", seconds_between=3600.0) as checkpoints:
        run(SAMPLERS["sghmc"], new_store(tmp_path / "draws"), checkpoints)
    assert not list((tmp_path / "checkpoints").iterdir())


def start_script(path, num_chains, num_processes):
    """Start the processes that sample together."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    environment |= {"JAX_NUM_CPU_DEVICES": "1", "NPROC": "2"}
    command = [sys.executable, str(SCRIPT), str(path), str(num_chains)]
    commands = [[*command, *joining] for joining in joining_arguments(num_processes)]
    return [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands]


def digest_of(processes):
    """What each prints at last, which is the same."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    (digest,) = {output.splitlines()[-1] for output in outputs}
    return digest


@pytest.fixture(scope="module")
def digests_of_whole_runs(tmp_path_factory):
    """By the number of chains."""
    return {number: digest_of(start_script(tmp_path_factory.mktemp("whole"), number, 1)) for number in (1, 2)}


@pytest.mark.parametrize(
    ("num_chains", "numbers_of_processes"),
    [(2, (1, 1, 1, 1)), (2, (2, 1, 2, 2)), (1, (2, 1))],
    ids=["one", "two or one", "two that share a chain, or one"],
)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "preempted"])
def test_processes_that_are_ended_at_any_moment_go_on_to_the_bit(
    end, num_chains, numbers_of_processes, digests_of_whole_runs, tmp_path
):
    rng = np.random.default_rng(end)
    for number in numbers_of_processes[:-1]:
        processes = start_script(tmp_path, num_chains, number)
        next(line for line in processes[0].stdout if line == "sampling\n")
        time.sleep(rng.uniform(0, 1))
        for process in processes:
            process.send_signal(end)
        for process in processes:
            process.communicate(timeout=300)
            assert process.returncode != 0
    finished = start_script(tmp_path, num_chains, numbers_of_processes[-1])
    assert digest_of(finished) == digests_of_whole_runs[num_chains]
