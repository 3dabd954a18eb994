"""Teachers that are fitted scikit-learn classifiers, pipelines among them."""

from typing import Any

import numpy as np

from mtbkd_jax.adapters.base import Adapter
from mtbkd_jax.errors import InputError


def from_sklearn(estimator: Any, *, source: str | None = None) -> Adapter:
    """Make an adapter of a fitted classifier.

    The names of the classes are the estimator's ``classes_`` as text; classes 0, 1, 2, ... have no names.

    Args:
      estimator: has ``predict_proba`` and ``classes_``.
      source: what the teacher is, in words; None is the estimator with its parameters, as scikit-learn prints it.

    Raises:
      InputError: if the estimator gives no probabilities, or is not fitted.
    """
    where = type(estimator).__name__
    if not hasattr(estimator, "predict_proba"):
        action = "Wrap it in `sklearn.calibration.CalibratedClassifierCV`, whose probabilities mean something."
        raise InputError(where, "predict_proba", "no such method", "a classifier with probabilities", action)
    if not hasattr(estimator, "classes_"):
        raise InputError(where, "classes_", "no such attribute", "a fitted classifier", "Fit it first.")
    classes = estimator.classes_
    if isinstance(classes, list):
        action = "Make an adapter for each output by `from_callable`, and choose the column."
        raise InputError(where, "classes_", f"those of {len(classes)} outputs", "one output", action)
    is_numbered = np.issubdtype(classes.dtype, np.integer) and np.array_equal(classes, np.arange(len(classes)))
    class_names = None if is_numbered else tuple(map(str, classes.tolist()))
    described = " ".join(str(estimator).split()) if source is None else source
    return Adapter(estimator.predict_proba, "probabilities", class_names, described)
