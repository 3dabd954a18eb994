"""The study of the samplers, made small: an eighth of the inputs, two chains, one draw."""

import pytest

from experiments.samplers.__main__ import AUTHORS, REFERENCE, run_draw
from mtbkd_jax.configuration import SamplingConfig
from tests.experiments.small import small_draw

NUTS = SamplingConfig(sampler="nuts", num_chains=2, num_mode_steps=500, num_burn_in=100, num_draws=100, thinning=1)
SGHMC = SamplingConfig(num_chains=2, num_mode_steps=500, num_burn_in=500, num_draws=100, thinning=10, batch_size=500)


@pytest.fixture(scope="module")
def rows():
    found = run_draw(5, small_draw(1500), {REFERENCE: (NUTS, 1), "SGHMC": (SGHMC, 1)}, authors_steps=500)
    return {row["method"]: row for row in found}


def test_sghmc_is_as_uncertain_as_nuts_and_the_authors_chain_is_not(rows):
    assert rows[REFERENCE]["spread"] == 1
    assert 0.7 < rows["SGHMC"]["spread"] < 1.4
    assert rows[AUTHORS]["spread"] < 0.5


def test_sghmc_predicts_as_nuts_does(rows):
    assert rows["SGHMC"]["rms"] < 0.05
    assert rows["SGHMC"]["nll"] == pytest.approx(rows[REFERENCE]["nll"], abs=0.02)
