import ast
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.chains import (
    chain_mesh,
    copy_to_chains,
    keys_of_step,
    over_chains,
    own_chains,
    rows_of_own_chains,
    shape_of_mesh,
)
from mtbkd_jax.errors import InputError
from tests.joined import joining_arguments
from tests.samplers.digests import student_chains


def test_chains_are_run_with_what_they_share():
    rows = over_chains(lambda chain, shared: chain + shared.sum(), chain_mesh(3))(jnp.arange(3.0), jnp.ones(2))
    np.testing.assert_array_equal(rows, [2.0, 3.0, 4.0])


def test_keys_differ_between_steps_chains_and_uses():
    chain_keys = [jax.random.fold_in(jax.random.key(0), chain) for chain in range(3)]
    pairs = [keys_of_step(chain_key, step) for chain_key in chain_keys for step in range(4)]
    keys = [key for batch_key, sampler_key in pairs for key in (batch_key.own, sampler_key)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3 * 4 * 2


def test_a_copy_that_is_donated_leaves_the_original():
    original = jnp.arange(4.0)
    copy = copy_to_chains(original, chain_mesh(4))
    jax.jit(lambda x: x + 1, donate_argnums=0)(copy)
    assert copy.is_deleted()
    np.testing.assert_array_equal(original, np.arange(4.0))


def test_a_process_that_is_alone_has_all_chains():
    stacked = copy_to_chains({"a": jnp.arange(8.0).reshape(4, 2), "b": jnp.arange(4)}, chain_mesh(4))
    np.testing.assert_array_equal(own_chains(stacked["b"]), np.arange(4))
    jax.tree.map(np.testing.assert_array_equal, rows_of_own_chains(stacked), stacked)


@pytest.mark.parametrize("name", ["sghmc", "nuts"])
def test_the_batched_form_for_accelerators_computes_the_same_chains(name, monkeypatch):
    one_by_one = student_chains(name, chunk_size=100)
    monkeypatch.setattr(jax.lax, "map", lambda function, chains: jax.vmap(function)(chains))
    batched = student_chains(name, chunk_size=100)
    # A batched product may sum in another order: 17 steps of float32 apart, and not the same to the bit.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one_by_one.positions, batched.positions
    )


def draws_in_blocks(folder, *, num_devices, num_processes=1, num_model_blocks=1):
    """What each process of ``chains_in_blocks`` says, and its draws."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "NPROC": "8", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    processes = []
    for number, joining in enumerate(joining_arguments(num_processes)):
        path = folder / f"{num_devices}_{num_processes}_{number}.npz"
        command = [sys.executable, "-m", "tests.chains_in_blocks", str(path), str(num_model_blocks), *joining]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append((path, subprocess.Popen(command, env=environment, **pipes)))
    results = []
    for path, process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        with np.load(path) as arrays:
            results.append((output.splitlines(), [arrays[name] for name in arrays.files]))
    return results


@pytest.fixture(scope="module")
def draws_of_one_device(tmp_path_factory):
    ((lines, draws),) = draws_in_blocks(tmp_path_factory.mktemp("one"), num_devices=1)
    assert lines[0] == "{'chain': 1, 'data': 1, 'model': 1}"
    return draws


def assert_same_draws(found, expected):
    for one, other in zip(found, expected, strict=True):
        # 20 steps of float32, whose sums are taken in another order: a few units in the last place of numbers near one,
        # and of log densities near a hundred.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_devices_that_share_the_data_sample_the_same_chains(draws_of_one_device, tmp_path):
    ((lines, draws),) = draws_in_blocks(tmp_path, num_devices=8)
    assert_same_draws(draws, draws_of_one_device)
    # One exchange a step, of the gradient with the log density, and among the devices of a chain alone.
    assert lines[0] == "{'chain': 2, 'data': 4, 'model': 1}"
    assert lines[1] == "[('all-reduce', '{{0,1,2,3},{4,5,6,7}}')]"
    assert lines[2] == "('cpu', 'cuda', 'tpu') 8"


def test_processes_that_share_chains_and_data_sample_the_same_chains(draws_of_one_device, tmp_path):
    for lines, draws in draws_in_blocks(tmp_path, num_devices=2, num_processes=2):
        assert_same_draws(draws, draws_of_one_device)
        assert "{'chain': 2, 'data': 2, 'model': 1}" in lines


def test_devices_that_share_the_parameters_sample_the_same_chains(draws_of_one_device, tmp_path):
    ((lines, draws),) = draws_in_blocks(tmp_path, num_devices=8, num_model_blocks=2)
    assert_same_draws(draws, draws_of_one_device)
    assert lines[0] == "{'chain': 2, 'data': 2, 'model': 2}"
    among_model, among_data = "[4,2]<=[8]", "{{0,2},{1,3},{4,6},{5,7}}"
    collectives = ast.literal_eval(lines[1])
    # The gradient is still added up once a step, each device its part; and no chain hears of the other.
    assert [name for name, groups in collectives if groups == among_data] == ["all-reduce"]
    assert {groups for _, groups in collectives} <= {among_model, among_data, "{{0,1},{2,3},{4,5},{6,7}}"}
    assert lines[2] == "('cpu', 'cuda', 'tpu') 8"
    assert lines[3] == "(2, 5, 256, 8) (1, 5, 128, 8)"


def test_processes_whose_devices_share_the_parameters_sample_the_same_chains(draws_of_one_device, tmp_path):
    for lines, draws in draws_in_blocks(tmp_path, num_devices=2, num_processes=2, num_model_blocks=2):
        assert_same_draws(draws, draws_of_one_device)
        assert "{'chain': 2, 'data': 1, 'model': 2}" in lines


def test_more_blocks_of_parameters_than_devices_are_refused():
    blocks = 2 * jax.local_device_count()
    with pytest.raises(InputError, match=f"num_model_blocks.*{blocks}"):
        chain_mesh(4, num_model_blocks=blocks)


def test_chains_come_first_and_data_share_what_is_left():
    cases = {(4, 1): (4, 1), (8, 4): (8, 1), (3, 4): (3, 2), (6, 4): (2, 4), (1, 1): (1, 1)}
    assert {case: shape_of_mesh(*case, num_devices=8) for case in cases} == cases
