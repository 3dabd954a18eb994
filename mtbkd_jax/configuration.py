"""Configuration: how a student is distilled, and how its posterior is sampled."""

from dataclasses import dataclass, field
from typing import Literal

from mtbkd_jax.checks import check_positive
from mtbkd_jax.errors import InputError
from mtbkd_jax.selection import MOMENTUM_DECAY, STEP_FRACTION, Budget, GivenSettings

ADAPTED_SAMPLERS = ("hmc", "nuts")
"""Samplers whose step size is adapted; their draws use all of the data."""


@dataclass(frozen=True)
class SamplingConfig:
    """How the posterior is sampled.

    Attributes:
      sampler: SGHMC and SGLD step on minibatches; HMC and NUTS on all of the data, with adaptation, and are exact.
      num_chains: chains; they start at the teachers' centers in turn, and the last one at random.
      num_mode_steps: Adam steps of each of the two stages from a start to the mode nearby, before any sampling.
      num_burn_in: steps before the first draw (for HMC and NUTS, the steps of adaptation).
      num_draws: draws kept of each chain.
      thinning: steps from one draw to the next.
      batch_size: examples in a minibatch.
      step_fraction: step size as a fraction of the inverse square root (SGLD: of the inverse) of the largest
        curvature; the leapfrog is stable below 2.
      schedule: how the step size of SGHMC or SGLD goes on: constant, polynomial (from the first step on it falls as
        the 0.55th power of the steps, counted from ``num_burn_in``), or cyclical (draws come from the last fifth of
        each cycle). That of HMC and NUTS is adapted, and constant.
      num_cycles: of the cyclical schedule.
      momentum_decay: share of the momentum that SGHMC forgets in a step.
      num_leapfrog_steps: of HMC.
      chain_weighting: what chains of different components of the weight-space prior count: by the evidence for their
        component, which is the posterior; or by stacking, which is not, and goes by how well they predict.
    """

    sampler: Literal["sghmc", "sgld", "hmc", "nuts"] = "sghmc"
    num_chains: int = 4
    num_mode_steps: int = 1000
    num_burn_in: int = 5000
    num_draws: int = 100
    thinning: int = 200
    batch_size: int = 128
    step_fraction: float = STEP_FRACTION
    schedule: Literal["constant", "polynomial", "cyclical"] = "constant"
    num_cycles: int = 4
    momentum_decay: float = MOMENTUM_DECAY
    num_leapfrog_steps: int = 20
    chain_weighting: Literal["evidence", "stacking"] = "evidence"


@dataclass(frozen=True)
class DistillationConfig:
    """How a student is distilled.

    Attributes:
      softening: τ, the temperature that softens the teachers' and the student's probabilities in the function-space
        prior.
      settings: the priors' settings; those left out are chosen on the labels.
      num_folds: folds of the labels, for trust and for the choice of settings.
      defensive_weight: prior weight of the wide component of the weight-space prior.
      budget: length of the chains that score a candidate.
      sampling: how the posterior is sampled.
    """

    softening: float = 1.0
    settings: GivenSettings = field(default_factory=GivenSettings)
    num_folds: int = 5
    defensive_weight: float = 0.05
    budget: Budget = field(default_factory=Budget)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def check_sampling(sampling: SamplingConfig) -> None:
    """Refuse what would fail after a minute of learning."""
    check_positive(num_chains=sampling.num_chains, step_fraction=sampling.step_fraction, num_cycles=sampling.num_cycles)
    if sampling.sampler in ADAPTED_SAMPLERS and sampling.schedule != "constant":
        raise InputError(
            "sampling",
            "schedule",
            f"{sampling.schedule} with {sampling.sampler}",
            "constant: the step size is adapted",
            "Leave the schedule out, or sample by sghmc or sgld.",
        )
