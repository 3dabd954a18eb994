from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.schedules import constant, cyclical, polynomial


def test_constant_may_differ_between_chains():
    np.testing.assert_array_equal(constant([0.1, 0.2])(5), np.array([0.1, 0.2], np.float32))


def test_polynomial_follows_its_formula():
    schedule = polynomial(0.3, offset=2.0, power=0.7)
    np.testing.assert_allclose(schedule(jnp.arange(5)), 0.3 * (2.0 + np.arange(5)) ** -0.7, rtol=1e-6)


def test_cyclical_restarts_at_its_peak_and_falls_to_zero():
    schedule = cyclical(0.2, cycle_length=100)
    sizes = np.asarray(schedule(jnp.arange(200)))
    np.testing.assert_array_equal(sizes[:100], sizes[100:])
    assert sizes[0] == np.float32(0.2)
    assert (np.diff(sizes[:100]) < 0).all()
    assert 0 < sizes[99] < 1e-3 * sizes[0]


def test_cyclical_samples_at_the_end_of_each_cycle():
    is_sampling = cyclical(0.2, cycle_length=10, exploration=0.7).is_sampling(np.arange(20))
    np.testing.assert_array_equal(np.flatnonzero(is_sampling), [7, 8, 9, 17, 18, 19])


@pytest.mark.parametrize("make", [constant, polynomial, partial(cyclical, cycle_length=10)])
def test_another_step_size_does_not_compile_again(make):
    traces = []

    @jax.jit
    def evaluate(schedule, step):
        traces.append(step)
        return schedule(step)

    assert evaluate(make(0.1), 1) != evaluate(make(0.2), 1)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (constant, {"step_size": 0.0}),
        (constant, {"step_size": [0.1, -0.1]}),
        (polynomial, {"scale": float("nan")}),
        (polynomial, {"scale": 1.0, "offset": 0.0}),
        (polynomial, {"scale": 1.0, "power": -1.0}),
        (cyclical, {"peak": 0.0, "cycle_length": 10}),
        (cyclical, {"peak": 0.1, "cycle_length": 0}),
        (cyclical, {"peak": 0.1, "cycle_length": 10, "exploration": 1.0}),
    ],
)
def test_wrong_numbers_are_refused(make, numbers):
    with pytest.raises(InputError):
        make(**numbers)
