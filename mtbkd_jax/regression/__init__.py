"""Regression: students of teachers that predict a number; the modules mirror those of classification."""

from mtbkd_jax.regression.distillation import RegressionConfig, RegressionDistillation, distil_regression
from mtbkd_jax.regression.function_prior import (
    gaussian_components,
    gaussian_mixture_prior,
    gaussian_responsibilities,
)
from mtbkd_jax.regression.likelihood import gaussian_log_likelihood
from mtbkd_jax.regression.metrics import regression_metrics
from mtbkd_jax.regression.prediction import GaussianPrediction, central_interval, predict_gaussian
from mtbkd_jax.regression.sampling import ChainPlan
from mtbkd_jax.regression.students import with_noise
from mtbkd_jax.regression.teachers import gaussian_teachers
from mtbkd_jax.regression.trust import equal_gaussian_trust, learned_gaussian_trust

__all__ = [
    "ChainPlan",
    "GaussianPrediction",
    "RegressionConfig",
    "RegressionDistillation",
    "central_interval",
    "distil_regression",
    "equal_gaussian_trust",
    "gaussian_components",
    "gaussian_log_likelihood",
    "gaussian_mixture_prior",
    "gaussian_responsibilities",
    "gaussian_teachers",
    "learned_gaussian_trust",
    "predict_gaussian",
    "regression_metrics",
    "with_noise",
]
