"""The study of climbs, made small: simulation 1 with an eighth of its inputs."""

import numpy as np
import pytest

from experiments.climbs import __main__ as study
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.students import mlp
from tests.experiments.small import small_draw


@pytest.fixture(scope="module")
def climbs():
    def small():
        draw = small_draw(1500)
        student = mlp(num_features=2, hidden=(5,), num_classes=2)
        return student, draw.inputs, draw.labels, draw.teacher_logits, DistillationConfig()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study.PROBLEMS, "small", small)
        return study.climbs_on("small", [10, 100])


def reached(climbs, **which):
    values = [climb["log_density"] for climb in climbs if which.items() <= climb.items()]
    assert len(values) == study.NUM_STARTS
    return np.mean(values)


@pytest.mark.parametrize("strength", study.STRENGTHS)
def test_more_and_longer_steps_get_higher(climbs, strength):
    slow, fast, longer = (
        reached(climbs, strength=strength, steps=steps, learning_rate=rate)
        for steps, rate in ((10, 0.003), (10, 0.01), (100, 0.01))
    )
    assert slow < fast < longer


def test_the_table_shows_how_far_below_the_highest_climbs_end(climbs):
    table = study.table_of(climbs, "small", [10, 100]).splitlines()
    assert len(table) == 2 + 2 * len(study.STRENGTHS)
    of_hundred = [float(cell.replace(",", "")) for cell in table[3].split("|")[3:-1]]
    highest = max(climb["log_density"] for climb in climbs if climb["strength"] == "no teacher")
    expected = [
        highest - reached(climbs, strength="no teacher", steps=100, learning_rate=rate) for rate in study.LEARNING_RATES
    ]
    np.testing.assert_allclose(of_hundred, expected, atol=0.06)
