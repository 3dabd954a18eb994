"""Configuration: how a student is distilled, and how its posterior is sampled."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from mtbkd_jax.checks import check_not_negative, check_one_of, check_positive, check_whole
from mtbkd_jax.errors import InputError
from mtbkd_jax.selection import MOMENTUM_DECAY, STEP_FRACTION, Budget, GivenSettings
from mtbkd_jax.tails import Tail
from mtbkd_jax.unsaid import MissingTeachers

SamplerName = Literal["sghmc", "sgld", "hmc", "chees", "nuts"]
ScheduleName = Literal["constant", "polynomial", "cyclical"]
ChainWeighting = Literal["evidence", "stacking"]

ADAPTED_SAMPLERS = ("hmc", "chees", "nuts")
"""Samplers whose step size is adapted; their draws use all of the data."""


@dataclass(frozen=True)
class SamplingConfig:
    """How the posterior is sampled.

    Attributes:
      sampler: SGHMC and SGLD step on minibatches; HMC, ChEES and NUTS on all of the data, with adaptation, and are
        exact.
      num_chains: chains; they start around the prior's centers, and where it has none as students are initialised.
      num_starts: starts of each chain, which goes on from the mode of the highest density that a climb from one of them
        ends at. Small networks have modes hundreds of nats apart that no chain leaves; those of large ones are alike.
      num_mode_steps: Adam steps of each of the two stages from a start to the mode nearby, before any sampling.
      num_burn_in: steps before the first draw (for HMC, ChEES and NUTS, the steps of adaptation).
      num_draws: draws kept of each chain.
      thinning: steps from one draw to the next.
      batch_size: examples in a minibatch.
      num_data_blocks: blocks that the examples are cut into, so that devices which the chains leave over share the
        gradients of every step: as many as there are such devices. A minibatch has the same rows from each of them.
      num_model_blocks: blocks that the parameters of a chain are cut into, each for a device, where the chains of a
        student are too large for one; a divisor of the number of devices of a process.
      step_fraction: step size as a fraction of the inverse square root (SGLD: of the inverse) of the largest
        curvature; the leapfrog is stable below 2. Steps are shorter where minibatches would heat the chain by more
        than a tenth of its temperature.
      schedule: how the step size of SGHMC or SGLD goes on: constant, polynomial (from the first step on it falls as
        the 0.55th power of the steps, counted from ``num_burn_in``), or cyclical (draws come from the last fifth of
        each cycle). That of the others is adapted, and constant.
      num_cycles: of the cyclical schedule.
      momentum_decay: share of the momentum that SGHMC forgets in a step; more where minibatches would heat it.
      num_leapfrog_steps: of HMC.
      chain_weighting: what chains of different components of the weight-space prior count: by the evidence for their
        component, which is the posterior; or by stacking, which is not, and goes by how well they predict.
    """

    sampler: SamplerName = "sghmc"
    num_chains: int = 4
    num_starts: int = 1
    num_mode_steps: int = 1000
    num_burn_in: int = 5000
    num_draws: int = 100
    thinning: int = 200
    batch_size: int = 128
    num_data_blocks: int = 1
    num_model_blocks: int = 1
    step_fraction: float = STEP_FRACTION
    schedule: ScheduleName = "constant"
    num_cycles: int = 4
    momentum_decay: float = MOMENTUM_DECAY
    num_leapfrog_steps: int = 20
    chain_weighting: ChainWeighting = "evidence"


@dataclass(frozen=True)
class DistillationConfig:
    """How a student is distilled.

    Attributes:
      softening: τ, the temperature that softens the teachers' and the student's probabilities in the function-space
        prior.
      settings: the priors' settings; those left out are chosen on the labels.
      num_folds: folds of the labels, for trust and for the choice of settings.
      defensive_weight: prior weight of the wide component of the weight-space prior, 0 for none of it.
      budget: length of the chains that score a candidate.
      sampling: how the posterior is sampled.
      rows_in_memory: how many rows of the data fit in memory, those with a label included; None holds all of them.
        Where there are more, all rows with a label and a random sample of the others are learned from, and chains see
        windows on the others that change as they go (``windows``).
      missing_teachers: what becomes of a teacher that was not asked about an example: it is refused, or masked, which
        gives its weight there to the others, and to nobody where there are none.
      tail: what becomes of the classes of which a teacher gave no probability, since it gave its most probable ones
        alone: they are dropped, the known ones are renormalised, or the others are one bucket (``tails``). None where
        teachers gave all classes; there is no default for those that did not.
    """

    softening: float = 1.0
    settings: GivenSettings = field(default_factory=GivenSettings)
    num_folds: int = 5
    defensive_weight: float = 0.05
    budget: Budget = field(default_factory=Budget)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rows_in_memory: int | None = None
    missing_teachers: MissingTeachers = "refuse"
    tail: Tail | None = None


def check_configuration(config: DistillationConfig) -> None:
    """Refuse what would fail after minutes, or be taken for something else without a word.

    Raises:
      InputError: if a number is out of its range, a word is not among those allowed, or two of them do not go together.
    """
    check_positive(softening=config.softening)
    check_whole("configuration", 2, num_folds=config.num_folds)
    check_one_of(get_args(MissingTeachers), "configuration", "missing_teachers", config.missing_teachers)
    if config.tail is not None:
        check_one_of(get_args(Tail), "configuration", "tail", config.tail)
    if not 0 <= config.defensive_weight < 1:
        action = "Give an infinite center_scale to leave the centers out."
        expected = "from 0 to less than 1"
        raise InputError("configuration", "defensive_weight", f"{config.defensive_weight}", expected, action)
    _check_settings(config.settings)
    _check_budget(config.budget)
    check_sampling(config.sampling)
    if config.rows_in_memory is not None:
        check_whole("configuration", 2, rows_in_memory=config.rows_in_memory)
        if config.sampling.sampler in ADAPTED_SAMPLERS:
            found = f"{config.rows_in_memory} with {config.sampling.sampler}, which uses all rows in every step"
            expected, action = "None, or a sampler that steps on minibatches", "Sample by sghmc or sgld."
            raise InputError("configuration", "rows_in_memory", found, expected, action)


def check_sampling(sampling: SamplingConfig) -> None:
    """The part of ``check_configuration`` that sampling depends on."""
    for name, allowed in {"sampler": SamplerName, "schedule": ScheduleName, "chain_weighting": ChainWeighting}.items():
        check_one_of(get_args(allowed), "sampling", name, getattr(sampling, name))
    is_adapted = sampling.sampler in ADAPTED_SAMPLERS
    names = (
        *("num_chains", "num_starts", "num_mode_steps", "num_draws", "thinning"),
        *("batch_size", "num_cycles", "num_leapfrog_steps"),
    )
    blocks = "num_data_blocks", "num_model_blocks"
    check_whole("sampling", 1, **{name: getattr(sampling, name) for name in (*names, *blocks)})
    check_whole("sampling", 1 if is_adapted else 0, num_burn_in=sampling.num_burn_in)
    check_positive(step_fraction=sampling.step_fraction)
    if not 0 < sampling.momentum_decay <= 1:
        expected, action = "a share above 0, at most 1", "Pass another value."
        raise InputError("sampling", "momentum_decay", f"{sampling.momentum_decay}", expected, action)
    if is_adapted and sampling.schedule != "constant":
        raise InputError(
            "sampling",
            "schedule",
            f"{sampling.schedule} with {sampling.sampler}",
            "constant: the step size is adapted",
            "Leave the schedule out, or sample by sghmc or sgld.",
        )


def _check_settings(settings: GivenSettings) -> None:
    given = {name: value for name, value in vars(settings).items() if value is not None}
    check_not_negative(power=given.pop("power", 0.0))
    if given.get("center_scale") == float("inf"):
        del given["center_scale"]
    check_positive(**given)


def _check_budget(budget: Budget) -> None:
    names = "num_chains", "num_mode_steps", "thinning", "temperature_thinning"
    check_whole("budget", 1, **{name: getattr(budget, name) for name in names})
    check_whole("budget", 0, num_burn_in=budget.num_burn_in, num_steps=budget.num_steps)
    if 0 < budget.num_steps < budget.thinning:
        found, expected = f"{budget.num_steps}", f"0, or {budget.thinning} and more, the thinning"
        raise InputError("budget", "num_steps", found, expected, "Take more steps, or predict more often.")
