"""Ratios of times, and when a goal is met."""

import numpy as np
import pytest

from benchmarks.measure import Row, row_of_ratio, slope, take_turns


def test_programs_take_turns_and_the_first_turn_is_not_timed():
    order = []
    seconds = take_turns({"one": lambda: order.append("one"), "other": lambda: order.append("other")}, 3)
    assert order == ["one", "other"] * 4
    assert {name: values.shape for name, values in seconds.items()} == {"one": (3,), "other": (3,)}
    assert all((values >= 0).all() for values in seconds.values())


def test_a_ratio_is_the_median_of_turns_and_not_that_of_medians():
    row = row_of_ratio("", np.array([1.0, 2.0, 9.0]), np.array([1.0, 4.0, 3.0]), goal=None, better="lower")
    assert row.ratio == 1.0
    assert row.spread == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("ratio", "goal", "better", "is_met"),
    [(2.0, 1.5, "higher", True), (1.0, 1.5, "higher", False), (1.0, 1.5, "lower", True), (2.0, 1.5, "lower", False)],
)
def test_a_goal_is_met_on_the_side_that_is_better(ratio, goal, better, is_met):
    assert Row("", ratio, goal, better, 0.0).is_met is is_met
    assert Row("", ratio, None, better, 0.0).is_met is True


def test_the_slope_is_the_power_of_the_size():
    sizes = np.array([1.0, 10.0, 20.0])
    assert slope(sizes, 3 * sizes**2) == pytest.approx(2.0)
