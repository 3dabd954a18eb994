"""The study of regression on one seed, with chains too short to say anything."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.regression.__main__ import CLASSICAL, EQUAL, LEARNED, METRICS, NO_TEACHER, run_problem, teachers_alone
from experiments.regression.problems import HOUSE_NOISE, PROBLEMS, TEACHER_NAMES, house_prices, houses
from mtbkd_jax.regression import RegressionConfig, regression_metrics
from mtbkd_jax.regression.sampling import ChainPlan
from mtbkd_jax.students import mlp

PLAN = ChainPlan(num_mode_steps=300, num_warm_up=20, num_draws=20, thinning=1, num_leapfrog_steps=5)
QUICK = RegressionConfig(powers=(0.0, 1.0), weight_scales=(0.5,), num_chains=2, candidate_plan=PLAN, plan=PLAN)


@pytest.mark.parametrize("name", PROBLEMS)
def test_teachers_are_better_at_home_than_elsewhere(name):
    problem = PROBLEMS[name](0)
    errors = problem.test_teacher_means - problem.test_targets[:, None]
    best, alone = np.abs(errors).min(1), np.abs(errors)
    assert np.sqrt((best**2).mean()) < 0.7 * np.sqrt((alone**2).mean(0)).min()
    assert 30 < np.isfinite(problem.targets).sum() < 0.2 * problem.targets.size


def test_prices_of_houses_are_known_up_to_noise():
    problem = houses(0)
    assert problem.test_targets.std() > 2 * HOUSE_NOISE
    assert np.ptp(house_prices(np.tile([0.5, 0.5, 1.0, 0.5, 0.0], (3, 1)))) == 0


def test_a_teacher_alone_is_as_uncertain_as_it_errs():
    problem = houses(0)
    for prediction in teachers_alone(problem):
        metrics = regression_metrics(prediction, jnp.asarray(problem.test_targets, jnp.float32))
        assert metrics["coverage_95"] == pytest.approx(0.95, abs=0.05)


def test_every_method_has_every_metric():
    problem = PROBLEMS["diabetes"](0)
    rows = run_problem(0, problem, mlp(num_features=10, hidden=(4,), num_classes=1), QUICK)
    assert {row["method"] for row in rows} == {*TEACHER_NAMES, NO_TEACHER, CLASSICAL, LEARNED, EQUAL}
    assert all(set(METRICS) <= set(row) for row in rows)
    spread = problem.test_targets.std()
    assert all(row["rmse"] < 1.5 * spread for row in rows)
