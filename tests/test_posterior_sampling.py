"""The posterior, component by component, against the same mixture sampled whole."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.flatten_util import ravel_pytree

from mtbkd_jax.centers import Centers
from mtbkd_jax.component_evidence import component_log_densities
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.distillation import learn
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.lessons import Lessons, with_components
from mtbkd_jax.posterior import find_mode
from mtbkd_jax.posterior_sampling import sample_posterior
from mtbkd_jax.prediction import flatten_chains
from mtbkd_jax.samplers import nuts, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.settings import (
    ComponentBatch,
    PosteriorSettings,
    Powers,
    component_posterior,
    distillation_posterior,
    prior_components,
)
from mtbkd_jax.students import from_linen, mlp
from mtbkd_jax.tree import tree_rows, tree_size

NUM_EXAMPLES = 30
EXACT = SamplingConfig(sampler="nuts", num_chains=16, num_mode_steps=200, num_burn_in=300, num_draws=4000, thinning=1)
CONFIG = DistillationConfig(defensive_weight=0.3, sampling=EXACT)


@pytest.fixture(scope="module")
def lessons():
    """A linear student, which has no symmetries, and two teachers who disagree a little."""
    student = from_linen(linen.Dense(2), (2,))
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (NUM_EXAMPLES, 2))
    logits = jnp.stack(
        [inputs @ jnp.array([[1.0, -1.0], [0.0, 0.5]]), inputs @ jnp.array([[0.5, 0.0], [-1.0, 1.0]])], 1
    )
    labels = jnp.where(jnp.arange(NUM_EXAMPLES) < 15, jax.random.categorical(keys[1], logits[:, 0]), -1)
    centers = jax.vmap(student.init)(jax.random.split(keys[2], 3))
    centers = jax.tree.map(lambda leaf: 0.4 * leaf, centers)
    log_weights = jnp.log(jnp.broadcast_to(jnp.array([0.2, 0.4, 0.4]), (NUM_EXAMPLES, 3)))
    examples = Examples(inputs, labels.astype(jnp.int32))
    return student, Lessons(examples, jax.nn.softmax(logits), log_weights, Centers(centers, jnp.array([0.2, 0.4, 0.4])))


def flat_draws(positions):
    return np.asarray(jax.vmap(lambda leaf: ravel_pytree(leaf)[0])(flatten_chains(positions)))


def whole_mixture(student, lessons, settings):
    """Chains of the posterior under the whole mixture, whose components overlap enough for NUTS to cross."""
    log_density = distillation_posterior(student, lessons.centers, settings, defensive_weight=CONFIG.defensive_weight)
    sampler, examples = nuts(log_density), with_components(lessons, settings)
    starts = jax.vmap(student.init)(jax.random.split(jax.random.key(1), EXACT.num_chains))
    common = {"data": examples, "draw_batch": full_batch}
    states = start_chains(sampler, starts, jax.random.key(2))
    states, step_sizes = warm_up(sampler, states, key=jax.random.key(3), num_steps=EXACT.num_burn_in, **common)
    run = sample_chains(
        sampler, states, key=jax.random.key(4), step_size=constant(step_sizes), num_draws=EXACT.num_draws, **common
    )
    return run.positions


def test_weighted_chains_of_the_components_are_the_posterior(lessons):
    student, lessons = lessons
    settings = PosteriorSettings(0.5, 2.0, 0.35, 1.0)
    positions = whole_mixture(student, lessons, settings)
    posterior = sample_posterior(jax.random.key(5), student, lessons, settings, powers=None, config=CONFIG)
    assert set(posterior.component_of_chain.tolist()) == {0, 1, 2, 3}
    assert posterior.weights.method == "bridge"

    # A chain of the whole posterior says how probable a component is by the mean of its responsibility.
    components, log_prior_weights = prior_components(
        lessons.centers, settings, defensive_weight=CONFIG.defensive_weight
    )
    shares = jax.nn.softmax(component_log_densities(positions, components) + log_prior_weights[None, None], axis=-1)
    of_chains = np.asarray(shares.mean(1))
    errors = np.hypot(of_chains.std(0, ddof=1) / EXACT.num_chains**0.5, posterior.weights.standard_errors)
    weights = posterior.weights.weights
    assert weights.max() > 2 * weights.min()
    assert (np.abs(weights - of_chains.mean(0)) < 4 * errors).all()
    assert (errors < 0.02).all()

    expected = flat_draws(positions)
    mean, scale = expected.mean(0), expected.std(0)
    theirs = moments_of_chains(positions, mean, scale)
    of_chains = moments_of_chains(posterior.run.positions, mean, scale)
    of_components = [of_chains[posterior.component_of_chain == component] for component in range(len(weights))]
    # The chains of a component differ by chance, as do those of the whole mixture; and its weight has an error.
    ours = sum(weight * chains.mean(0) for weight, chains in zip(weights, of_components, strict=True))
    variance = theirs.var(0, ddof=1) / len(theirs)
    for weight, error, chains in zip(weights, posterior.weights.standard_errors, of_components, strict=True):
        variance += weight**2 * chains.var(0, ddof=1) / len(chains) + error**2 * (chains.mean(0) - ours) ** 2
    assert (np.sqrt(variance) < 0.04).all()
    differences = np.abs(ours - theirs.mean(0))
    assert (differences < 4 * np.sqrt(variance)).all()
    assert (differences[: mean.size] < 0.06).all()


def moments_of_chains(positions, mean, scale):
    """First and then second moments, ``[chains, parameters + pairs]``, from a mean, in units of a scale."""
    num_chains = jax.tree.leaves(positions)[0].shape[0]
    draws = ((flat_draws(positions) - mean) / scale).reshape(num_chains, -1, mean.size)
    upper = np.triu_indices(mean.size)
    products = np.einsum("cdi,cdj->cij", draws, draws) / draws.shape[1]
    return np.concatenate([draws.mean(1), products[:, *upper]], axis=1)


def test_chains_visit_the_posterior_under_every_power(lessons):
    student, lessons = lessons
    # At a concentration of one the posterior has one mode; chains in different ones would not agree on anything.
    settings = PosteriorSettings(1.0, 1.0, float("inf"), 1.0)

    def draws(power, powers=None):
        """Of what predictions depend on: bias and slopes of the first class less those of the second."""
        own = settings._replace(power=power)
        run = sample_posterior(jax.random.key(5), student, lessons, own, powers=powers, config=CONFIG).run
        flat = flat_draws(run.positions).reshape(EXACT.num_chains, EXACT.num_draws, -1)
        return flat[..., ::2] - flat[..., 1::2]

    powers = Powers((1.0, 0.0), (0.5, 0.5))
    averaged = draws(1.0, powers)
    points = jnp.arange(EXACT.num_draws) / EXACT.num_draws
    phases = jnp.arange(EXACT.num_chains) / EXACT.num_chains
    power_of_draw = np.asarray(jax.vmap(lambda phase: jax.vmap(lambda point: powers.at(point, phase))(points))(phases))
    visits = {power: averaged[power_of_draw == power] for power in powers.values}
    laws = {power: draws(power) for power in visits}
    for power, visit in visits.items():
        law = laws[power].reshape(-1, visit.shape[-1])
        np.testing.assert_allclose(visit.mean(0) / law.std(0), law.mean(0) / law.std(0), atol=0.05)
        np.testing.assert_allclose(visit.std(0) / law.std(0), 1.0, atol=0.05)
    # And the two are apart by ten times the tolerance, so that this says something.
    means, spreads = (np.array([of(laws[power], (0, 1)) for power in powers.values]) for of in (np.mean, np.std))
    assert (np.abs(means[0] - means[1]) / spreads.max(0)).max() > 0.5


def test_few_draws_are_weighed_by_tempering(lessons):
    student, lessons = lessons
    settings = PosteriorSettings(0.5, 2.0, 0.35, 1.0)
    few, many = (
        sample_posterior(
            jax.random.key(5),
            student,
            lessons,
            settings,
            powers=None,
            config=replace(CONFIG, sampling=replace(EXACT, num_draws=count)),
        ).weights
        for count in (16, 1000)
    )
    assert (few.method, many.method) == ("tempering", "bridge")
    errors = np.hypot(few.standard_errors, many.standard_errors)
    assert (np.abs(few.weights - many.weights) < 4 * errors).all()
    assert (errors < 0.1).all()


def test_draws_from_small_batches_are_as_far_apart_as_those_of_nuts(lessons):
    student, few = lessons
    # Four hundred examples whose advice is worth 20 labels each, eight to a batch: their noise alone would heat the
    # chains at the default step size and friction fifty times.
    many = jax.tree.map(lambda leaf: jnp.tile(leaf, (14,) + (1,) * (leaf.ndim - 1)), few._replace(centers=None))
    order = jnp.argsort(many.examples.labels < 0)
    many = jax.tree.map(lambda leaf: leaf[order], many)
    # Both teachers say the same, so that there is one mode.
    many = many._replace(centers=few.centers, teacher_probs=many.teacher_probs[:, [0, 0]])
    settings = PosteriorSettings(1.0, 20.0, float("inf"), 1.0)
    spreads = []
    for sampler, steps in {"nuts": (300, 2), "sghmc": (6000, 400)}.items():
        sampling = replace(
            EXACT, sampler=sampler, num_burn_in=steps[0], thinning=steps[1], num_draws=150, num_chains=4, batch_size=8
        )
        config = replace(CONFIG, sampling=sampling)
        run = sample_posterior(jax.random.key(5), student, many, settings, powers=None, config=config).run
        # Logits, since a constant added to both of a class's weights says nothing.
        logits = jax.vmap(lambda params: student.apply(params, few.examples.inputs))(flatten_chains(run.positions))
        spreads.append(np.asarray(logits[..., 1] - logits[..., 0]).std(0))
    # Heated by a tenth, and a standard deviation of 600 draws is good to a few per cent.
    np.testing.assert_allclose(spreads[1] / spreads[0], 1.05, atol=0.15)


@pytest.mark.parametrize("sampler", ["nuts", "chees", "sghmc"])
def test_draws_at_a_low_temperature_lie_closer_together(lessons, sampler):
    student, lessons = lessons
    steps = {"nuts": (300, 1), "chees": (300, 1), "sghmc": (2000, 20)}[sampler]
    sampling = replace(EXACT, sampler=sampler, num_burn_in=steps[0], thinning=steps[1], num_draws=500)
    # Narrow enough for the posterior to be Gaussian, whose covariance is proportional to the temperature.
    settings = PosteriorSettings(0.0, 1.0, float("inf"), 0.3)
    variances = [
        flat_draws(
            sample_posterior(
                jax.random.key(6),
                student,
                lessons,
                settings._replace(temperature=temperature),
                powers=None,
                config=replace(CONFIG, sampling=sampling),
            ).run.positions
        ).var(0)
        for temperature in (1.0, 0.25)
    ]
    np.testing.assert_allclose(variances[1] / variances[0], 0.25, rtol=0.15)


@pytest.mark.parametrize("reason", ["size", "temperature"])
def test_evidence_stays_that_of_laplace_where_it_cannot_be_had_otherwise(lessons, reason, monkeypatch):
    student, lessons = lessons
    settings = PosteriorSettings(0.5, 2.0, 0.35, 1.0, 0.5 if reason == "temperature" else 1.0)
    if reason == "size":
        monkeypatch.setattr("mtbkd_jax.component_evidence.MOST_PARAMETERS_TEMPERED", 5)
    # Too few draws for a bridge.
    config = replace(CONFIG, sampling=replace(EXACT, num_draws=16))
    posterior = sample_posterior(jax.random.key(5), student, lessons, settings, powers=None, config=config)
    assert len(set(posterior.component_of_chain.tolist())) > 1
    assert posterior.weights.method == "laplace"


def test_stacking_of_all_chains_samples_every_component(lessons):
    student, lessons = lessons
    sampling = replace(EXACT, num_draws=40, chain_weighting="stacking", num_chains=4)
    config = replace(CONFIG, sampling=sampling)
    # So far from most of the data that the evidence leaves them out.
    settings = PosteriorSettings(1.0, 5.0, 0.01, 1.0)
    reports = []
    posterior = sample_posterior(
        jax.random.key(5), student, lessons, settings, powers=None, config=config, progress=reports.append
    )
    assert set(posterior.component_of_chain.tolist()) == {0, 1, 2, 3}
    assert reports[-1].component_of_chain.tolist() == posterior.component_of_chain.tolist()
    # Around narrow centers the prior's curvature outweighs any other; the wide component's mode is in a hilly place.
    assert posterior.is_damped.tolist() == [True, False, False, False]
    assert posterior.is_stacked
    assert posterior.chain_weights.sum() == pytest.approx(1)


def test_stacking_needs_a_label(lessons):
    student, lessons = lessons
    blank = lessons._replace(examples=lessons.examples._replace(labels=jnp.full(NUM_EXAMPLES, -1)))
    config = replace(CONFIG, sampling=replace(EXACT, chain_weighting="stacking"))
    settings = PosteriorSettings(1.0, 5.0, 0.01, 1.0)
    with pytest.raises(InputError, match="stacking, and no label"):
        sample_posterior(jax.random.key(5), student, blank, settings, powers=None, config=config)


def test_cold_chains_around_a_center_come_to_where_the_posterior_is():
    """They are D · T / 2 nats below their mode, as those of any posterior that is nearly Gaussian in D parameters."""
    temperature, scale = 0.1, 0.5
    student = mlp(num_features=32, hidden=(64,), num_classes=4)
    input_key, map_key, error_key, learn_key, sample_key, mode_key = jax.random.split(jax.random.key(0), 6)
    inputs = jax.random.normal(input_key, (600, 32))
    truth = inputs @ jax.random.normal(map_key, (32, 4))
    teachers = truth[:, None] + 2 * jax.random.normal(error_key, (600, 2, 4))
    labels = jnp.where(jnp.arange(600) < 60, truth.argmax(1), -1)
    given = GivenSettings(1.0, 5.0, scale, scale, temperature, 1.0)
    sampling = SamplingConfig(num_chains=2, num_mode_steps=300, num_burn_in=1000, num_draws=20, thinning=50)
    config = DistillationConfig(settings=given, sampling=sampling)
    lessons, _, choice = learn(learn_key, inputs, labels, teachers, student, config=config)
    posterior = sample_posterior(sample_key, student, lessons, choice.settings, powers=None, config=config)

    examples = with_components(lessons, choice.settings)
    components, _ = prior_components(lessons.centers, choice.settings, defensive_weight=config.defensive_weight)
    of_components = component_posterior(student, choice.settings)
    expected = tree_size(tree_rows(components.center, 0)) * temperature / 2
    for chain, component in enumerate(posterior.component_of_chain):
        own = tree_rows(components, int(component))

        def log_density(params, batch, own=own):
            return of_components(params, ComponentBatch(batch, own, jnp.float32(1.0)))

        climb = {"key": mode_key, "data": examples, "draw_batch": full_batch, "num_steps": 1000}
        mode = find_mode(log_density, own.center, **climb).log_density[-1]
        draws = tree_rows(posterior.run.positions, chain)
        of_draws = jax.lax.map(partial(log_density, batch=full_batch(None, examples)), draws)
        # Minibatches heat a chain by up to a tenth of the temperature, and the posterior is not quite Gaussian.
        assert 0.9 * expected < float(mode - of_draws.mean()) < 1.5 * expected
