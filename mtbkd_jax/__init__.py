"""Multi-teacher Bayesian knowledge distillation: several teachers, one small student, honest uncertainty.

``distil`` does it all; the other names are its parts, in the order in which data flow through them.
"""

from mtbkd_jax.data import Dataset, Standardizer, make_dataset, read_dataset
from mtbkd_jax.diagnostics import Diagnostics, diagnose, to_arviz
from mtbkd_jax.distillation import (
    Distillation,
    DistillationConfig,
    Lessons,
    SamplingConfig,
    distil,
    learn,
    sample_posterior,
)
from mtbkd_jax.draws import create_draws, open_draws
from mtbkd_jax.errors import CorruptDataError, InputError, MTBKDError, StorageError
from mtbkd_jax.function_prior import dirichlet_components, responsibilities, teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.metrics import classification_metrics
from mtbkd_jax.posterior import find_mode, log_posterior
from mtbkd_jax.prediction import Prediction, predict, predictive_log_probs
from mtbkd_jax.samplers import hmc, nuts, sghmc, sgld
from mtbkd_jax.sampling import sample_chains
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.settings import PriorSettings
from mtbkd_jax.students import Student, cnn, from_linen, from_nnx, mlp, num_parameters
from mtbkd_jax.teachers import align_teachers, open_teacher_outputs, open_teachers, write_teacher_outputs
from mtbkd_jax.trust import fit_trust, learned_trust, sample_trust
from mtbkd_jax.uncertainty import coverage, credible_upper, epistemic, mean_deviance, predictive_mean
from mtbkd_jax.weight_prior import WeightMixture, weight_space_prior
from mtbkd_jax.weighting import entropy_weighting, fixed_weighting, uniform_weighting

__all__ = [
    "CorruptDataError",
    "Dataset",
    "Diagnostics",
    "Distillation",
    "DistillationConfig",
    "GivenSettings",
    "InputError",
    "Lessons",
    "MTBKDError",
    "PriorSettings",
    "Prediction",
    "SamplingConfig",
    "Standardizer",
    "StorageError",
    "Student",
    "WeightMixture",
    "align_teachers",
    "categorical_log_likelihood",
    "classification_metrics",
    "cnn",
    "coverage",
    "create_draws",
    "credible_upper",
    "diagnose",
    "dirichlet_components",
    "distil",
    "entropy_weighting",
    "epistemic",
    "find_mode",
    "fit_trust",
    "fixed_weighting",
    "from_linen",
    "from_nnx",
    "hmc",
    "learn",
    "learned_trust",
    "log_posterior",
    "make_dataset",
    "mean_deviance",
    "mlp",
    "num_parameters",
    "nuts",
    "open_draws",
    "open_teacher_outputs",
    "open_teachers",
    "predict",
    "predictive_log_probs",
    "predictive_mean",
    "read_dataset",
    "responsibilities",
    "sample_chains",
    "sample_posterior",
    "sample_trust",
    "sghmc",
    "sgld",
    "teacher_informed_prior",
    "to_arviz",
    "uniform_weighting",
    "weight_space_prior",
    "write_teacher_outputs",
]
