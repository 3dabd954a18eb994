"""Tests of mtbkd_jax.adapters.sklearn_estimators: classes by name, and no classifier without probabilities."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from mtbkd_jax.adapters import from_sklearn
from mtbkd_jax.errors import InputError

INPUTS = np.random.default_rng(0).normal(size=(30, 2))


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ([0, 1, 2], None),
        ([0, 2, 5], ("0", "2", "5")),
        (["b", "a", "c"], ("a", "b", "c")),
        ([True, False], ("False", "True")),
    ],
)
def test_classes_have_the_names_that_the_estimator_was_fitted_with(classes, names):
    estimator = LogisticRegression().fit(INPUTS, np.resize(np.array(classes), 30))
    assert from_sklearn(estimator).class_names == names


def test_the_source_says_what_the_estimator_is():
    estimator = KNeighborsClassifier(n_neighbors=7).fit(INPUTS, np.resize([0, 1], 30))
    assert from_sklearn(estimator).source == "KNeighborsClassifier(n_neighbors=7)"
    assert from_sklearn(estimator, source="mine").source == "mine"


@pytest.mark.parametrize(
    ("estimator", "field", "action"),
    [
        (RidgeClassifier().fit(INPUTS, np.resize([0, 1], 30)), "predict_proba", "Wrap it in"),
        (LogisticRegression(), "classes_", "Fit it first"),
        (KNeighborsClassifier().fit(INPUTS, np.resize([[0, 1], [1, 0]], (30, 2))), "classes_", "Make an adapter for"),
    ],
)
def test_what_is_no_fitted_classifier_with_probabilities_is_refused(estimator, field, action):
    with pytest.raises(InputError, match=f"{type(estimator).__name__}: {field}: .*{action}"):
        from_sklearn(estimator)
