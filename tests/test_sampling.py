import os
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.chains import keys_of_step
from mtbkd_jax.draws import create_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.samplers import hmc, sghmc, sgld
from mtbkd_jax.samplers.sgld import SGLDState
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant, cyclical
from tests.samplers.digests import digest, student_chains
from tests.samplers.table import SAMPLERS

KEY = jax.random.key(5)


def well(params, batch):
    """A standard Gaussian, not a number beyond a distance of 50."""
    distance = jnp.sum(params**2)
    return jnp.where(distance > 2500, jnp.nan, -distance / 2) + 0.0 * batch


def whole(key, data):
    return data


def run_in_well(positions, sampler=None, **options):
    sampler = sgld(well) if sampler is None else sampler
    states = start_chains(sampler, jnp.asarray(positions, jnp.float32), jax.random.key(1))
    options = {"step_size": constant(0.1), "num_draws": 6, "draw_batch": whole, "data": jnp.zeros(())} | options
    return sample_chains(sampler, states, key=KEY, **options)


@pytest.mark.parametrize("name", SAMPLERS)
def test_result_does_not_depend_on_how_the_chains_are_cut(name):
    in_one_piece, in_two = (digest(student_chains(name, chunk_size=size)) for size in (100, 4))
    assert in_one_piece == in_two


def test_result_does_not_depend_on_the_number_of_devices():
    # The threads that XLA has decide how it cuts a long sum, and it has at least as many as devices: fix them.
    def in_another_process(num_devices):
        flags = f"--xla_force_host_platform_device_count={num_devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "NPROC": "4", "JAX_PLATFORMS": "cpu"}
        script = Path(__file__).parent / "samplers" / "digests.py"
        command = [sys.executable, str(script)]
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    one, two, four = (in_another_process(count).splitlines() for count in (1, 2, 4))
    assert [lines[0] for lines in (one, two, four)] == ["1 devices", "2 devices", "4 devices"]
    assert one[1:] == two[1:] == four[1:]
    assert len(one) == 4


def test_chains_and_steps_have_noise_of_their_own():
    run = run_in_well(jnp.zeros((3, 2)))
    assert len(np.unique(np.asarray(run.positions))) == 3 * 6 * 2


def test_a_kept_draw_is_the_state_after_its_step():
    every = run_in_well(jnp.zeros((2, 2)), num_draws=20)
    some = run_in_well(jnp.zeros((2, 2)), num_draws=5, num_burn_in=5, thinning=3, chunk_size=2)
    np.testing.assert_array_equal(some.positions, every.positions[:, 7::3])
    np.testing.assert_array_equal(some.info.log_density, every.info.log_density[:, 7::3])
    np.testing.assert_array_equal(every.states.position, every.positions[:, -1])


def test_the_states_given_are_not_changed():
    sampler = sgld(well)
    states = start_chains(sampler, jnp.ones((2, 2)), jax.random.key(1))
    options = {"data": jnp.zeros(()), "draw_batch": whole, "step_size": constant(0.1), "num_draws": 2}
    first = sample_chains(sampler, states, key=KEY, **options)
    again = sample_chains(sampler, states, key=KEY, **options)
    np.testing.assert_array_equal(first.positions, again.positions)


def test_the_step_size_may_change_with_the_step_and_the_chain():
    still = run_in_well(jnp.ones((2, 1)), step_size=lambda step: jnp.where(step < 3, 0.0, jnp.array([0.1, 0.0])))
    np.testing.assert_array_equal(still.positions[1], np.ones((6, 1)))
    np.testing.assert_array_equal(still.positions[0, :3], np.ones((3, 1)))
    assert (np.diff(still.positions[0, 2:, 0]) != 0).all()


def test_cyclical_draws_come_from_the_sampling_steps_only():
    schedule = cyclical(0.1, cycle_length=5, exploration=0.6)
    # The same numbers as a plain function of the step: every step is kept.
    every = run_in_well(jnp.zeros((2, 2)), step_size=lambda step: schedule(step), num_draws=25)
    kept = run_in_well(jnp.zeros((2, 2)), step_size=schedule, num_burn_in=4, num_draws=6, chunk_size=4)
    np.testing.assert_array_equal(kept.positions, every.positions[:, [4, 8, 9, 13, 14, 18]])


def test_the_explorer_takes_the_steps_outside_the_sampling_parts():
    schedule = cyclical(0.1, cycle_length=5, exploration=0.6)
    run = run_in_well(jnp.ones((1, 1)), step_size=schedule, explorer=sgld(well, temperature=0.0), num_draws=1)
    # Three steps of descent without noise, then one of Langevin dynamics with the noise of step 3.
    expected = np.prod([1 - float(schedule(step)) for step in range(4)])
    sampler_key = keys_of_step(jax.random.fold_in(KEY, 0), 3)[1]
    noise = sgld(well).step(sampler_key, SGLDState(jnp.zeros(1)), jnp.zeros(()), schedule(3))[0].position[0]
    assert float(run.positions[0, 0, 0]) == pytest.approx(float(expected + noise), rel=1e-5)


def test_a_chain_whose_density_is_not_finite_is_stopped_and_left_out():
    good = run_in_well([[0.0], [1.0]], num_burn_in=3, chunk_size=2)
    # SGLD with a curvature of 1 grows by the factor 1.5 in a step of 2.5: chain 2 leaves the well from 40 at once.
    sizes = jnp.array([0.1, 0.1, 2.5])
    run = run_in_well([[0.0], [1.0], [40.0]], step_size=constant(sizes), num_burn_in=3, chunk_size=2)
    assert run.failed_at.tolist() == [-1, -1, 1]
    np.testing.assert_array_equal(run.positions, good.positions)
    np.testing.assert_array_equal(run.info.log_density, good.info.log_density)
    assert np.isfinite(run.states.position).all()


@pytest.mark.parametrize(
    "make", ids=("sghmc", "hmc"), argvalues=[lambda: sghmc(well, friction=1.0), lambda: hmc(well, num_leapfrog_steps=3)]
)
def test_a_chain_that_starts_where_the_density_is_not_a_number_fails_at_once(make):
    run = run_in_well([[0.0], [100.0]], make())
    assert run.failed_at.tolist() == [-1, 0]
    assert run.positions.shape == (1, 6, 1)


def test_a_position_that_overflows_is_not_a_draw():
    def steep(params, batch):
        return jnp.sum(1e38 * params) + 0.0 * batch  # finite, with a force that throws the position beyond float32

    sampler = sgld(steep)
    states = start_chains(sampler, jnp.zeros((2, 1)), jax.random.key(1))
    run = sample_chains(
        sampler,
        states,
        key=KEY,
        data=jnp.zeros(()),
        draw_batch=whole,
        step_size=constant([1e-38, 1e3]),
        num_draws=1,
    )
    assert run.failed_at.tolist() == [-1, 0]
    assert np.isfinite(run.positions).all()


def test_when_every_chain_fails_an_error_says_so():
    with pytest.raises(InputError, match="log density"):
        run_in_well([[100.0], [200.0]])


def test_wrong_counts_and_step_sizes_are_refused():
    for wrong in (
        {"num_draws": 0},
        {"thinning": 0},
        {"chunk_size": 0},
        {"num_burn_in": -1},
        {"step_size": constant([0.1, 0.1, 0.1])},
        {"explorer": sgld(well)},
    ):
        with pytest.raises(InputError):
            run_in_well(jnp.zeros((2, 1)), **wrong)


def test_an_observer_is_told_once_a_chunk():
    reports = []
    run = run_in_well(jnp.zeros((2, 1)), num_burn_in=5, thinning=2, chunk_size=4, progress=reports.append)
    assert [(report.steps_done, report.num_steps) for report in reports] == [(5, 17), (13, 17), (17, 17)]
    assert [(report.num_draws, report.num_planned) for report in reports] == [(0, 6), (4, 6), (6, 6)]
    assert [report.chunk.log_density.shape for report in reports] == [(2, 1), (2, 4), (2, 2)]
    last = reports[-1]
    assert last.mean_log_density == pytest.approx(float(run.info.log_density[:, -1].mean()))
    jax.tree.map(np.testing.assert_array_equal, last.kept, run.info)
    np.testing.assert_array_equal(last.chunk.log_density, run.info.log_density[:, 4:])
    assert (last.acceptance_rate, last.num_divergent, last.num_failed) == (1.0, 0, 0)


def test_an_observer_counts_divergences_and_acceptance_of_the_chains_that_live():
    # Twice the step at which a leapfrog of a standard Gaussian is stable; the third chain starts outside the well.
    starts, sampler = [[1.0], [-1.0], [100.0]], hmc(well, num_leapfrog_steps=10)
    reports = []
    run = run_in_well(starts, sampler, step_size=constant([0.1, 4.0, 0.1]), chunk_size=4, progress=reports.append)
    last = reports[-1]
    assert last.failed_at.tolist() == [-1, -1, 0]
    assert last.num_failed == 1
    assert 0 < last.num_divergent == int(run.info.is_divergent.sum())
    assert last.acceptance_rate == pytest.approx(float(run.info.acceptance_rate[:, 4:].mean()))
    assert np.isfinite(last.mean_log_density)


def test_one_program_serves_burn_in_and_all_chunks():
    compiled = []

    def listen(event, seconds, **labels):
        if event.endswith("backend_compile_duration") and labels.get("fun_name") == "jit(_advance_chains)":
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    run_in_well(jnp.zeros((2, 1)), sgld(lambda *arguments: well(*arguments)), num_burn_in=13, num_draws=9, chunk_size=4)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == 1


def test_draws_that_went_to_the_sink_are_let_go():
    class Sink:
        def __init__(self):
            self.taken, self.num_held, self.draws_per_chunk = [], [], 2

        def append(self, positions, log_density, failed_at, chains):
            self.num_held.append(sum(reference() is not None for reference in self.taken))
            # On a CPU the array on the host is a view: what it is a view of holds the memory.
            self.taken += [weakref.ref(positions), weakref.ref(positions.base)]

        def state(self):
            return None

        def truncate(self, num_draws, state):
            raise AssertionError("nothing goes on here")

    sink = Sink()
    run_in_well(jnp.zeros((2, 1)), num_draws=40, chunk_size=2, sink=sink)
    # The chunk before may still be on its way out.
    assert len(sink.num_held) == 20
    assert max(sink.num_held) <= 2


def flat(params, batch):
    return 0.0 * jnp.sum(params) + batch


def test_draws_on_disk_are_the_draws_in_memory(tmp_path):
    sizes = {"num_draws": 7, "chunk_size": 3}
    store = create_draws(tmp_path / "draws", jnp.zeros(2), num_chains=3, num_draws=7, draws_per_chunk=3)
    starts = [[0.0, 0.0], [100.0, 0.0], [1.0, 1.0]]
    on_disk, in_memory = run_in_well(starts, sink=store, **sizes), run_in_well(starts, **sizes)
    assert on_disk.positions is store
    np.testing.assert_array_equal(store.positions(), in_memory.positions)
    np.testing.assert_array_equal(store.log_density(), in_memory.info.log_density)
    assert store.failed_at.tolist() == [-1, 0, -1]
