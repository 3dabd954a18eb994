"""The study of simulation 1, made small: a quarter of the inputs, short chains, one draw."""

import dataclasses

import pytest

from experiments.simulation1 import __main__ as study
from experiments.simulation1.design import simulation1
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.selection import Budget


@pytest.fixture(scope="module")
def rows():
    draw = simulation1(5, study.NUM_LABELS)
    # Labels first, so that all 300 of them are kept.
    kept = (draw.labels < 0).argsort(kind="stable")[:3000]
    small = dataclasses.replace(
        draw, inputs=draw.inputs[kept], labels=draw.labels[kept], teacher_logits=draw.teacher_logits[kept]
    )
    config = DistillationConfig(
        budget=Budget(num_mode_steps=500, num_burn_in=200, num_steps=400),
        sampling=SamplingConfig(num_mode_steps=1000, num_burn_in=500, num_draws=50, thinning=10, batch_size=1000),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "CONFIG", config)
        return {row["method"]: row for row in study.run_draw(5, small)}


def test_teachers_that_are_sure_where_they_are_ignorant_do_not_hurt(rows):
    assert rows[study.LEARNED]["nll"] < rows[study.NO_TEACHER]["nll"] + 0.01


def test_entropy_weights_are_ruined_by_them(rows):
    assert rows[study.ENTROPY]["nll"] > rows[study.NO_TEACHER]["nll"] + 0.5
