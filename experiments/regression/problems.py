"""The two problems: diabetes, and houses on a map whose prices are known up to noise."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtbkd_jax.data import Standardizer

TEACHER_NAMES = ("gradient boosting", "kernel ridge", "small net")
HOUSE_NOISE = 0.3
"""Standard deviation of a price around what is known of it; prices have a standard deviation of about one."""

_BODY_MASS = 2
_DIABETES_TEST, _DIABETES_LABELS = 120, 50
_HOUSES_TAUGHT, _HOUSES_POOL, _HOUSES_TEST, _HOUSES_LABELS = 1500, 2000, 2000, 100


class Problem(NamedTuple):
    """What a student is distilled from and tested on.

    Attributes:
      inputs: ``[N, features]``, standardised.
      targets: NaN where unknown, ``[N]``.
      teacher_means: ``[N, G]``.
      test_inputs: standardised as the inputs are, ``[M, features]``.
      test_targets: ``[M]``.
      test_teacher_means: ``[M, G]``, for the teachers' own scores.
    """

    inputs: np.ndarray
    targets: np.ndarray
    teacher_means: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    test_teacher_means: np.ndarray


def diabetes(seed: int) -> Problem:
    """442 patients: 120 to test on, 322 for the student, of whom 50 have a target; teachers learn from the other 272.

    The teachers are specialists in a third of the body mass index each. They have not seen the student's labels.
    """
    inputs, targets = load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(targets))
    test, pool = order[:_DIABETES_TEST], order[_DIABETES_TEST:]
    labelled, taught = pool[:_DIABETES_LABELS], pool[_DIABETES_LABELS:]
    teach = _specialists(seed, inputs[taught], targets[taught], _thirds(inputs[taught, _BODY_MASS]))
    known = np.where(np.isin(pool, labelled), targets[pool], np.nan)
    return _problem(teach, inputs[pool], known, inputs[test], targets[test])


def houses(seed: int) -> Problem:
    """Houses on a made-up map: 2,000 for the student, of which 100 have a price; 2,000 to test on.

    The teachers are specialists in the north, the middle and the south. They have learned from 1,500 houses of their
    own.
    """
    rng = np.random.default_rng(seed)
    taught, taught_prices = _houses(rng, _HOUSES_TAUGHT)
    pool, prices = _houses(rng, _HOUSES_POOL)
    test, test_prices = _houses(rng, _HOUSES_TEST)
    teach = _specialists(seed, taught, taught_prices, _thirds(taught[:, 1]))
    prices[_HOUSES_LABELS:] = np.nan
    return _problem(teach, pool, prices, test, test_prices)


def house_prices(inputs: np.ndarray) -> np.ndarray:
    """What is known of prices: two cities, the coast in the west, and incomes, which count for more near a city."""
    longitude, latitude, income, age, rooms = inputs.T
    south = np.exp(-8 * ((longitude - 0.6) ** 2 + (latitude - 0.25) ** 2))
    north = np.exp(-12 * ((longitude - 0.3) ** 2 + (latitude - 0.75) ** 2))
    coast = np.exp(-4 * longitude)
    return (
        1.6 * south
        + 1.2 * north
        + 0.8 * coast
        + np.log1p(income) * (0.5 + south + north)
        + 0.2 * np.sin(3 * age)
        + 0.15 * rooms
    )


PROBLEMS: dict[str, Callable[[int], Problem]] = {"diabetes": diabetes, "houses": houses}


def _houses(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    place = rng.uniform(0, 1, (count, 2))
    income = rng.gamma(3, 1 / 3, count)
    age = rng.uniform(0, 1, count)
    rooms = rng.normal(0, 1, count)
    inputs = np.column_stack([place, income, age, rooms])
    return inputs, house_prices(inputs) + HOUSE_NOISE * rng.normal(size=count)


def _thirds(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values)


def _specialists(
    seed: int, inputs: np.ndarray, targets: np.ndarray, third: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Teach each teacher one third of the inputs; what they all say of inputs, ``[examples, teachers]``."""
    models = (
        GradientBoostingRegressor(n_estimators=100, max_depth=2, learning_rate=0.1, random_state=seed),
        KernelRidge(kernel="rbf", alpha=0.3, gamma=0.1),
        MLPRegressor(hidden_layer_sizes=(20,), alpha=1.0, max_iter=500, random_state=seed),
    )
    teachers = [
        TransformedTargetRegressor(make_pipeline(StandardScaler(), model), transformer=StandardScaler())
        for model in models
    ]
    for part, teacher in enumerate(teachers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as good as it is by then, that is the teacher
            teacher.fit(inputs[third == part], targets[third == part])
    return lambda inputs: np.column_stack([teacher.predict(inputs) for teacher in teachers])


def _problem(
    say: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    targets: np.ndarray,
    test_inputs: np.ndarray,
    test_targets: np.ndarray,
) -> Problem:
    standardize = Standardizer.fit(inputs)
    return Problem(standardize(inputs), targets, say(inputs), standardize(test_inputs), test_targets, say(test_inputs))
