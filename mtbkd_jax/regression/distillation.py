"""All of it in regression: from inputs, few targets and the teachers' means to draws of the student's posterior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from mtbkd_jax.checks import check_positive, check_same_number
from mtbkd_jax.examples import Examples, WeightedExamples
from mtbkd_jax.prediction import flatten_chains
from mtbkd_jax.regression.lessons import held_out_lessons, stack_lessons, taught_examples
from mtbkd_jax.regression.posterior import RegressionSettings
from mtbkd_jax.regression.prediction import GaussianPrediction, predict_gaussian
from mtbkd_jax.regression.sampling import ChainPlan, OwnData, sample_regression
from mtbkd_jax.regression.selection import ScoredSettings, score_settings
from mtbkd_jax.regression.students import STANDARD_NOISE, NoisePrior, with_noise
from mtbkd_jax.regression.teachers import Broad, broad_component, check_targets, gaussian_teachers
from mtbkd_jax.regression.trust import GaussianRule, learned_gaussian_trust
from mtbkd_jax.sampling import ChainRun
from mtbkd_jax.students import Student

_TRUST = learned_gaussian_trust()
_LONG = ChainPlan(num_mode_steps=1000, num_warm_up=200, num_draws=200, thinning=1, num_leapfrog_steps=15)
_SHORT = ChainPlan(num_mode_steps=400, num_warm_up=40, num_draws=40, thinning=1, num_leapfrog_steps=10)


@dataclass(frozen=True)
class RegressionConfig:
    """How a student is distilled.

    Attributes:
      rule: weighs the teachers.
      concentration: λ of the function-space prior.
      powers: candidates of the power; zero is *no teacher*.
      weight_scales: candidates of the standard deviation of the network's weights.
      noise: prior of σ, in units of the standard deviation of the known targets.
      num_folds: of the cross-validation.
      num_chains: of the posterior.
      candidate_plan: how long the chain of a candidate on a fold is.
      plan: how long each chain of the posterior is.
    """

    rule: GaussianRule = _TRUST
    concentration: float = 1.0
    powers: Sequence[float] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
    weight_scales: Sequence[float] = (0.2, 0.5, 1.0)
    noise: NoisePrior = STANDARD_NOISE
    num_folds: int = 5
    num_chains: int = 4
    candidate_plan: ChainPlan = _SHORT
    plan: ChainPlan = _LONG


_DEFAULT = RegressionConfig()


@dataclass(frozen=True)
class RegressionDistillation:
    """What came out.

    Attributes:
      student: the network and its noise.
      run: its chains, of targets in units of ``broad``.
      settings: of the posterior that was sampled.
      candidates: all settings that were scored, best first; empty where there was one alone.
      examples: what the student was taught, targets and components in units of ``broad``.
      broad: mean and standard deviation of the known targets.
    """

    student: Student
    run: ChainRun
    settings: RegressionSettings
    candidates: list[ScoredSettings]
    examples: Examples
    broad: Broad

    def predict(self, inputs: Float[Array | np.ndarray, "examples ..."]) -> GaussianPrediction:
        """Predict the targets of inputs that are standardised as the taught ones are."""
        standard = predict_gaussian(self.student, flatten_chains(self.run.positions), jnp.asarray(inputs))
        return in_unit_of(self.broad, standard)


def in_unit_of(broad: Broad, standard: GaussianPrediction) -> GaussianPrediction:
    """Take a prediction of standardised targets back to their unit."""
    return GaussianPrediction(broad.mean + broad.sd * standard.means, broad.sd * standard.sds)


def distil_regression(
    inputs: ArrayLike,
    targets: ArrayLike,
    teacher_means: ArrayLike,
    network: Student,
    *,
    seed: int,
    teacher_sds: ArrayLike | None = None,
    config: RegressionConfig = _DEFAULT,
) -> RegressionDistillation:
    """Distil teachers that predict a number into a small network.

    Targets and teachers are standardised by the known targets; settings are chosen by cross-validation where there is
    more than one candidate.

    Args:
      inputs: standardised, ``[examples, ...]``.
      targets: ``[examples]``, NaN where unknown.
      teacher_means: ``[examples, teachers]``, in the unit of the targets; every teacher of every example.
      network: the student, with one output.
      seed: of everything random.
      teacher_sds: the teachers' own standard deviations, of the shape of their means, or None.
      config: how.

    Raises:
      InputError: if the arrays do not fit, hold what they must not, or too few targets are known.
    """
    outputs = gaussian_teachers(teacher_means, teacher_sds, where="teacher_means")
    num_examples = outputs.means.shape[0]
    known = jnp.asarray(check_targets(targets, num_examples))
    taught = jnp.asarray(inputs)
    check_same_number("rows", taught.shape[0], num_examples, "as the teachers have", "inputs", "examples")
    check_positive(num_chains=config.num_chains)
    broad = broad_component(known)
    standard = (known - broad.mean) / broad.sd
    teachers = outputs._replace(
        means=(outputs.means - broad.mean) / broad.sd,
        sds=outputs.sds if teacher_sds is None else outputs.sds / broad.sd,
    )
    student = with_noise(network, initial_noise=config.noise.median)
    teach_key, fold_key, select_key, sample_key = jax.random.split(jax.random.key(seed), 4)
    weighing: dict[str, Any] = {"rule": config.rule, "concentration": config.concentration}

    candidates = []
    settings = RegressionSettings(config.powers[0], config.weight_scales[0])
    if len(config.powers) * len(config.weight_scales) > 1:
        candidates = score_settings(
            select_key,
            student,
            held_out_lessons(fold_key, taught, standard, teachers, num_folds=config.num_folds, **weighing),
            standard,
            powers=config.powers,
            weight_scales=config.weight_scales,
            noise=config.noise,
            plan=config.candidate_plan,
        )
        settings = RegressionSettings(candidates[0].power, candidates[0].weight_scale)
    examples = taught_examples(teach_key, taught, standard, teachers, **weighing)
    own = OwnData(
        RegressionSettings(*(jnp.full(config.num_chains, value, jnp.float32) for value in settings)),
        jnp.zeros(config.num_chains, jnp.int32),
    )
    lesson = stack_lessons([WeightedExamples(examples, jnp.ones(num_examples))])
    run = sample_regression(sample_key, student, lesson, own, noise=config.noise, plan=config.plan)
    return RegressionDistillation(student, run, settings, candidates, examples, broad)
