import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.regression.distillation import RegressionConfig, distil_regression
from mtbkd_jax.regression.metrics import regression_metrics
from mtbkd_jax.regression.sampling import ChainPlan
from mtbkd_jax.regression.selection import candidates_on_folds
from mtbkd_jax.regression.trust import learned_gaussian_trust
from mtbkd_jax.students import mlp

NETWORK = mlp(num_features=1, hidden=(6,), num_classes=1)
QUICK = ChainPlan(num_mode_steps=300, num_warm_up=40, num_draws=30, thinning=1, num_leapfrog_steps=10)
CONFIG = RegressionConfig(
    rule=learned_gaussian_trust(num_folds=3),
    powers=(0.0, 1.0),
    weight_scales=(1.0,),
    num_folds=3,
    num_chains=2,
    candidate_plan=QUICK,
    plan=QUICK,
)


@pytest.fixture(scope="module")
def problem():
    """y = 100 + 20 |x|, 12 targets, and two teachers: one for each sign of x, 40 off where it is not at home."""
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1.7, 1.7, (120, 1))
    means = 100 + 20 * np.abs(inputs[:, 0])
    targets = np.where(np.arange(120) < 12, means + rng.normal(size=120), np.nan)
    teachers = means[:, None] + np.where(np.stack([inputs[:, 0] < 0, inputs[:, 0] >= 0], axis=1), 0.0, 40.0)
    return inputs.astype(np.float32), targets, teachers, means


def distilled(problem, config=CONFIG):
    return distil_regression(*problem[:3], NETWORK, seed=0, config=config)


def test_a_student_with_teachers_predicts_in_the_unit_of_the_targets(problem):
    result = distilled(problem)
    inputs, _, _, means = problem
    metrics = regression_metrics(result.predict(inputs), jnp.asarray(means, jnp.float32))
    assert metrics["rmse"] < 5
    assert [candidate.nll for candidate in result.candidates] == sorted(c.nll for c in result.candidates)
    assert result.settings.power == result.candidates[0].power
    assert {candidate.power for candidate in result.candidates} == {0.0, 1.0}


def test_draws_depend_on_the_seed_alone(problem):
    config = RegressionConfig(powers=(1.0,), weight_scales=(1.0,), num_chains=2, plan=QUICK)
    first, again = (distilled(problem, config).run.positions.log_noise for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = distil_regression(*problem[:3], NETWORK, seed=1, config=config).run.positions.log_noise
    assert not np.allclose(first, other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": np.zeros((119, 1), np.float32)}, "119 rows"),
        ({"targets": np.zeros(119)}, "shape"),
        ({"teacher_means": np.full((120, 2), np.nan)}, "NaN"),
        ({"teacher_sds": np.zeros((120, 2))}, "above zero"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(problem, changed, message):
    arguments = dict(zip(("inputs", "targets", "teacher_means"), problem[:3], strict=True)) | changed
    with pytest.raises(InputError, match=message):
        distil_regression(**arguments, network=NETWORK, seed=0, config=CONFIG)


@pytest.mark.parametrize(("powers", "scales"), [([-1.0], [1.0]), ([0.0], [0.0]), ([np.nan], [1.0])])
def test_candidates_that_are_none_are_refused(powers, scales):
    with pytest.raises(InputError):
        candidates_on_folds(powers, scales, 2)
