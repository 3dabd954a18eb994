"""Multi-teacher Bayesian knowledge distillation: several teachers, one small student, honest uncertainty.

``distil`` does it all; the other names are its parts, in the order in which data flow through them. A name is
imported when it is first used, so that importing the package is quick and starts no accelerator.
"""

import importlib
from typing import Any

_NAMES_OF_MODULE = {
    "aligned_teachers": (
        "align_teachers",
        "open_teachers",
    ),
    "alignment": (
        "align_params",
        "average_params",
        "barrier",
        "cnn_layers",
        "mlp_layers",
    ),
    "approximations": (
        "Objective",
        "dropout_draws",
        "ensemble_draws",
        "laplace_draws",
        "mean_field_draws",
        "swag_draws",
    ),
    "baselines": (
        "distil_classically",
        "gradient_space_loss",
        "pooled_loss",
    ),
    "checkpoints": (
        "ChainCheckpoints",
        "PreemptedError",
    ),
    "component_scales": (
        "curvature_scales",
        "fisher_diagonal",
        "trajectory_scales",
    ),
    "configuration": (
        "DistillationConfig",
        "SamplingConfig",
    ),
    "data": (
        "Dataset",
        "Standardizer",
        "make_dataset",
        "read_dataset",
    ),
    "diagnostics": (
        "Diagnostics",
        "diagnose",
        "to_arviz",
    ),
    "distillation": (
        "Distillation",
        "distil",
        "learn",
        "unlabelled_rows",
    ),
    "draws": (
        "create_draws",
        "open_draws",
    ),
    "errors": (
        "CorruptDataError",
        "InputError",
        "MTBKDError",
        "StorageError",
    ),
    "evidence": (
        "bridge_evidence",
        "component_weights",
        "laplace_evidence",
        "tempered_evidence",
    ),
    "function_prior": (
        "dirichlet_components",
        "responsibilities",
        "teacher_informed_prior",
    ),
    "given_centers": (
        "read_params",
        "stack_centers",
        "write_params",
    ),
    "judging": ("judged_of",),
    "kept_predictions": (
        "Judged",
        "PredictiveMoments",
        "Probing",
        "create_kept_predictions",
        "open_kept_predictions",
    ),
    "lessons": ("Lessons",),
    "likelihood": ("categorical_log_likelihood",),
    "metrics": (
        "classification_metrics",
        "ranked_probability_score",
    ),
    "multilabel": (
        "MultilabelDistillation",
        "MultilabelPrediction",
        "distil_multilabel",
        "multilabel_log_probs",
        "predict_multilabel",
    ),
    "posterior_sampling": ("sample_posterior",),
    "posterior": (
        "find_mode",
        "log_posterior",
    ),
    "prediction": (
        "Prediction",
        "predict",
        "predictive_log_probs",
    ),
    "regression": (
        "ChainPlan",
        "GaussianPrediction",
        "RegressionConfig",
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
    ),
    "report": ("report_page",),
    "rows": (
        "FileRows",
        "open_rows",
    ),
    "samplers": (
        "chees",
        "hmc",
        "nuts",
        "sghmc",
        "sgld",
        "warm_up",
    ),
    "sampled_weights": (
        "JointDraws",
        "sample_with_weights",
    ),
    "sampling": (
        "ChunkReport",
        "sample_chains",
        "start_chains",
    ),
    "schedules": (
        "constant",
        "cyclical",
        "polynomial",
    ),
    "selection": (
        "Budget",
        "GivenSettings",
    ),
    "settings": ("PosteriorSettings",),
    "students": (
        "Student",
        "cnn",
        "from_linen",
        "from_nnx",
        "mlp",
        "num_parameters",
        "ordinal",
    ),
    "tails": (
        "Bucketed",
        "Dropped",
        "Renormalised",
    ),
    "teacher_writer": ("write_teacher_outputs",),
    "teachers": ("open_teacher_outputs",),
    "trust": (
        "fit_trust",
        "learned_trust",
        "sample_trust",
    ),
    "uncertainty": (
        "coverage",
        "credible_upper",
        "epistemic",
        "mean_deviance",
        "predictive_mean",
    ),
    "weight_prior": (
        "WeightMixture",
        "weight_space_prior",
    ),
    "weighting": (
        "accuracy_by_class_weighting",
        "confidence_aware_weighting",
        "entropy_weighting",
        "fixed_weighting",
        "uniform_weighting",
    ),
    "windows": ("Windows",),
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}

__all__ = sorted(_MODULE_OF_NAME)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'mtbkd_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mtbkd_jax.{_MODULE_OF_NAME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
