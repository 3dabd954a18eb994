"""The study of weights that are sampled with the student, made small: an eighth of the inputs, two chains, one draw."""

import pytest

from experiments.sampled_weights.__main__ import WEIGHTS, run_draw
from mtbkd_jax.configuration import SamplingConfig
from tests.experiments.small import small_draw


@pytest.fixture(scope="module")
def rows():
    sampling = SamplingConfig(
        num_chains=2, num_mode_steps=500, num_burn_in=500, num_draws=50, thinning=10, batch_size=500
    )
    found = run_draw(5, small_draw(1500), sampling, num_warm_up=50, num_draws=20)
    return {row["method"]: row for row in found}


def test_weights_are_of_all_teachers_and_sum_to_one(rows):
    for method in ("learned trust, power 1", "sampled weights, power 1"):
        assert sum(rows[method][name] for name in WEIGHTS) == pytest.approx(1.0, abs=1e-4)


def test_trust_that_is_earned_on_labels_is_worth_more_than_what_the_student_agrees_with(rows):
    assert rows["learned trust, power 1"]["nll"] < rows["sampled weights, power 1"]["nll"]
