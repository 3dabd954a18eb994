"""The ablations on one seed, with chains too short to say anything."""

import numpy as np
import pytest

from experiments.ablations.__main__ import CHANGES, reference, row, taught
from experiments.study import METRICS
from experiments.tasks import digits_task
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.selection import GivenSettings

QUICK = DistillationConfig(
    settings=GivenSettings(1.0, 5.0, float("inf"), 1.0, temperature=1.0, prediction_temperature=1.0),
    sampling=SamplingConfig(num_chains=2, num_mode_steps=200, num_burn_in=50, num_draws=10, thinning=2),
)


@pytest.fixture(scope="module")
def lesson():
    task = digits_task(0)
    return task, taught(task, 0, QUICK)[0]


def test_every_change_is_one_setting_of_the_reference(lesson):
    base = reference(lesson[1], 0.5)
    assert base.power == 1.0
    assert base.concentration == 5.0
    assert np.isfinite(base.center_scale)
    for name, change in CHANGES.items():
        changed = base._replace(**change)
        assert sum(one != other for one, other in zip(base, changed, strict=True)) == (name != "reference")


def test_a_row_has_every_metric_and_a_good_student(lesson):
    task, lessons = lesson
    settings = reference(lessons, 0.5)
    result = row("reference", task, 0, lessons, settings, QUICK, start=0.0)
    assert set(METRICS) < set(result)
    assert result["accuracy"] > 0.8
