"""What the configuration refuses, at once and by name."""

from dataclasses import replace

import pytest

from mtbkd_jax.configuration import DistillationConfig, SamplingConfig, check_configuration
from mtbkd_jax.errors import InputError
from mtbkd_jax.selection import Budget, GivenSettings


def refused(config: DistillationConfig, field: str) -> None:
    with pytest.raises(InputError, match=rf"\b{field}: .*found .*, expected "):
        check_configuration(config)


def untyped(config, field, value):
    """With a field set to what the annotations forbid, as nothing hinders a caller outside these tests."""
    config = replace(config)
    object.__setattr__(config, field, value)
    return config


def test_the_defaults_pass():
    check_configuration(DistillationConfig())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("softening", 0.0),
        ("softening", -1.0),
        ("num_folds", 1),
        ("num_folds", 2.5),
        ("defensive_weight", -0.1),
        ("defensive_weight", 1.0),
        ("defensive_weight", float("nan")),
    ],
)
def test_a_wrong_number_is_refused(field, value):
    refused(untyped(DistillationConfig(), field, value), field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("power", -0.1),
        ("power", float("nan")),
        ("concentration", 0.0),
        ("center_scale", 0.0),
        ("wide_scale", -1.0),
        ("wide_scale", float("inf")),
        ("temperature", 0.0),
    ],
)
def test_a_given_setting_that_is_none_is_refused(field, value):
    refused(DistillationConfig(settings=GivenSettings(**{field: value})), field)


def test_centers_and_teachers_may_be_left_out():
    check_configuration(DistillationConfig(settings=GivenSettings(power=0.0, center_scale=float("inf"))))
    check_configuration(DistillationConfig(defensive_weight=0.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampler", "sghcm"),
        ("schedule", "cosine"),
        ("chain_weighting", "equal"),
        ("num_chains", 0),
        ("num_starts", 0),
        ("num_mode_steps", 0),
        ("num_burn_in", -1),
        ("num_draws", 0),
        ("num_draws", 2.5),
        ("thinning", 0),
        ("batch_size", 0),
        ("step_fraction", 0.0),
        ("num_cycles", 0),
        ("momentum_decay", 0.0),
        ("momentum_decay", 1.5),
        ("num_leapfrog_steps", 0),
    ],
)
def test_a_wrong_way_to_sample_is_refused(field, value):
    refused(DistillationConfig(sampling=untyped(SamplingConfig(), field, value)), field)


def test_adaptation_takes_steps_and_goes_with_no_schedule():
    refused(DistillationConfig(sampling=SamplingConfig(sampler="nuts", num_burn_in=0)), "num_burn_in")
    refused(DistillationConfig(sampling=SamplingConfig(sampler="hmc", schedule="cyclical")), "schedule")


@pytest.mark.parametrize(
    ("field", "budget"),
    [
        ("num_mode_steps", Budget(num_mode_steps=0)),
        ("num_burn_in", Budget(num_burn_in=-1)),
        ("num_steps", Budget(num_steps=-1)),
        ("num_steps", Budget(num_steps=39, thinning=40)),
        ("thinning", Budget(thinning=0)),
        ("num_chains", Budget(num_chains=0)),
    ],
)
def test_a_chain_that_would_score_nothing_is_refused(field, budget):
    refused(DistillationConfig(budget=budget), field)


def test_the_mode_alone_may_score_a_candidate():
    check_configuration(DistillationConfig(budget=Budget(num_steps=0)))
