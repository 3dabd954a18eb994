"""The steps of a distillation; the commands' tests run them end to end."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mtbkd_jax import distillation
from mtbkd_jax.chain_starts import Climbed, chain_starts
from mtbkd_jax.configuration import DistillationConfig, SamplingConfig
from mtbkd_jax.distillation import distil, learn
from mtbkd_jax.draws import create_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import full_batch, labelled_first
from mtbkd_jax.folds import deal_folds
from mtbkd_jax.function_prior import teacher_informed_prior
from mtbkd_jax.lessons import Lessons, at_climb_stage, held_out_folds, prepare_lessons, with_components
from mtbkd_jax.posterior_sampling import sample_posterior
from mtbkd_jax.prediction import flatten_chains
from mtbkd_jax.selection import GivenSettings
from mtbkd_jax.settings import PosteriorSettings, distillation_posterior, no_teacher
from mtbkd_jax.students import mlp
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.weighting import entropy_weighting, uniform_weighting

STUDENT = mlp(num_features=2, hidden=(4,), num_classes=2)
GIVEN = DistillationConfig(settings=GivenSettings(1.0, 5.0, 0.05, 1.0, 1.0, 1.0))
NUM_EXAMPLES, NUM_LABELLED = 80, 40


@pytest.fixture(scope="module")
def arrays():
    """A line between two classes, a teacher that knows it and one that says the opposite."""
    inputs = np.random.default_rng(0).normal(size=(NUM_EXAMPLES, 2)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int32)
    right = np.stack([-inputs[:, 0], inputs[:, 0]], axis=1) * 4
    logits = np.stack([right, -right], axis=1)
    return inputs, np.where(np.arange(NUM_EXAMPLES) < NUM_LABELLED, labels, -1), logits


@pytest.fixture(scope="module")
def lessons(arrays) -> Lessons:
    return learn(jax.random.key(0), *arrays, STUDENT, config=GIVEN)[0]


def flat(params):
    return jax.vmap(lambda leaf: ravel_pytree(leaf)[0])(params)


def test_trust_goes_to_the_teacher_that_is_right(lessons):
    weights = np.exp(np.asarray(lessons.log_weights)).mean(0)
    assert weights[1] > 0.6
    assert weights[2] < 0.1


def test_chains_start_at_each_teachers_center_in_turn_and_the_last_at_the_pool(lessons):
    starts = flat(chain_starts(jax.random.key(1), STUDENT, lessons, PosteriorSettings(1.0, 5.0, 1e-6, 1.0), 4))
    centers = flat(lessons.centers.params)
    np.testing.assert_allclose(starts, centers[jnp.array([1, 2, 1, 0])], atol=1e-5)


@pytest.mark.parametrize(("temperature", "distance"), [(1.0, 0.3), (0.25, 0.15)])
def test_around_centers_chains_start_as_draws_of_the_prior_at_its_temperature(lessons, temperature, distance):
    settings = PosteriorSettings(1.0, 5.0, 0.3, 1.0, temperature)
    starts = flat(chain_starts(jax.random.key(1), STUDENT, lessons, settings, 60))
    centers = flat(lessons.centers.params)[jnp.concatenate([1 + jnp.arange(59) % 2, jnp.zeros(1, int)])]
    assert float(jnp.std(starts - centers)) == pytest.approx(distance, rel=0.05)


def test_where_the_prior_has_no_centers_chains_start_apart_and_with_teachers_as_without(lessons):
    without = flat(chain_starts(jax.random.key(1), STUDENT, lessons, no_teacher(1.0), 3))
    settings = PosteriorSettings(1.0, 5.0, float("inf"), 1.0)
    np.testing.assert_array_equal(flat(chain_starts(jax.random.key(1), STUDENT, lessons, settings, 3)), without)
    assert float(jnp.linalg.norm(without[1:] - without[:1], axis=1).min()) > 0.1
    distances = jnp.linalg.norm(without[:, None] - flat(lessons.centers.params)[None], axis=-1)
    assert float(distances.min()) > 0.1


def test_of_several_starts_a_chain_takes_the_one_that_leads_to_the_higher_density(lessons):
    settings = no_teacher(1.0)
    examples = with_components(lessons, settings)
    log_density = distillation_posterior(STUDENT, lessons.centers, settings)
    # Steps so short that the only draw is the mode.
    sampling = SamplingConfig(
        num_chains=6, num_mode_steps=300, num_burn_in=0, num_draws=1, thinning=1, step_fraction=1e-4
    )

    def densities(num_starts):
        config = replace(GIVEN, sampling=replace(sampling, num_starts=num_starts))
        posterior = sample_posterior(jax.random.key(3), STUDENT, lessons, settings, powers=None, config=config)
        draws = flatten_chains(posterior.run.positions)
        return np.asarray(jax.vmap(lambda params: log_density(params, full_batch(None, examples)))(draws))

    of_one, of_four = densities(1), densities(4)
    assert (of_four > of_one - 0.01).all()
    assert of_four.min() > of_one.min() + 0.5


def test_a_climb_that_ended_nowhere_is_lower_than_any():
    def climbed(log_density, value):
        values = jnp.full(3, value)
        return Climbed({"w": jnp.full((3, 2), value)}, jnp.array(log_density), values, values)

    one, other = climbed([1.0, jnp.nan, 1.0], 1.0), climbed([2.0, 2.0, jnp.nan], 2.0)
    for highest in (one.higher_of(other), other.higher_of(one)):
        np.testing.assert_array_equal(highest.modes["w"][:, 0], [2.0, 2.0, 1.0])
        np.testing.assert_array_equal(highest.curvature, [2.0, 2.0, 1.0])


def test_a_teacher_that_was_asked_about_half_of_the_examples_helps_on_those(arrays):
    inputs, labels, logits = arrays
    logits = logits.copy()
    logits[1::2, 0] = np.nan
    sampling = SamplingConfig(num_mode_steps=100, num_burn_in=100, num_draws=20, thinning=2)
    config = replace(GIVEN, sampling=sampling)
    with pytest.raises(InputError, match="NaN for all classes of teacher 0 in row 1"):
        distil(inputs, labels, logits, STUDENT, seed=0, config=config)
    result = distil(inputs, labels, logits, STUDENT, seed=0, config=replace(config, missing_teachers="mask"))
    weights = np.exp(np.asarray(result.lessons.log_weights))[np.argsort(result.order)]
    np.testing.assert_array_equal(weights[1::2, 1], 0)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert weights[::2, 1].mean() > 0.6
    assert weights[:, 2].mean() < 0.2
    draws = flatten_chains(result.posterior.run.positions)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(draws))
    probs = jax.vmap(lambda params: jax.nn.softmax(STUDENT.apply(params, jnp.asarray(inputs))))(draws).mean(0)
    assert np.mean((probs[:, 1] > 0.5) == (inputs[:, 0] > 0)) > 0.9


def test_of_two_classes_the_more_probable_one_says_all_in_a_bucket(arrays, monkeypatch):
    monkeypatch.setattr("mtbkd_jax.centers._NUM_STEPS", 3)
    inputs, labels, logits = arrays
    log_probs = np.array(jax.nn.log_softmax(logits), np.float32)
    top = np.where(log_probs < log_probs.max(axis=2, keepdims=True), np.nan, log_probs)
    # A student of its own: centers of few steps are compiled for nobody else.
    options = {"student": mlp(num_features=2, hidden=(3,), num_classes=2), "weighting": uniform_weighting()}
    with pytest.raises(InputError, match="say what becomes of the others: `tail`"):
        learn(jax.random.key(0), inputs, labels, top, config=GIVEN, **options)
    bucketed, *_ = learn(jax.random.key(0), inputs, labels, top, config=replace(GIVEN, tail="bucket"), **options)
    dense, *_ = learn(jax.random.key(0), inputs, labels, logits, config=GIVEN, **options)
    assert dense.known is None
    np.testing.assert_allclose(bucketed.teacher_probs, dense.teacher_probs, atol=1e-6)
    student_logits = jnp.asarray(np.random.default_rng(1).normal(size=(NUM_EXAMPLES, 2)), jnp.float32)
    found, expected = (
        teacher_informed_prior()(student_logits, with_components(lessons, PosteriorSettings(1.0, 5.0, 0.05, 1.0)))
        for lessons in (bucketed, dense)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_climb_begins_at_a_concentration_of_one(lessons):
    settings = PosteriorSettings(1.0, 20.0, 0.05, 1.0)
    mild, earnest = (at_climb_stage(lessons, settings, jnp.array(stage)) for stage in (0, 1))
    np.testing.assert_allclose(mild.components.pseudo_counts.sum(-1)[:, 1:], 1.0, rtol=1e-5)
    np.testing.assert_allclose(earnest.components.pseudo_counts.sum(-1)[:, 1:], 20.0, rtol=1e-5)
    weaker = settings._replace(concentration=0.5)
    mild = at_climb_stage(lessons, weaker, jnp.array(0))
    np.testing.assert_allclose(mild.components.pseudo_counts.sum(-1)[:, 1:], 0.5, rtol=1e-5)


def test_every_chain_settles_around_the_center_that_the_data_favour(lessons):
    # At this scale the components are a hundred standard deviations apart and more: no chain could cross by itself,
    # and every second one starts at the teacher that is wrong.
    sampling = SamplingConfig(num_burn_in=100, num_draws=10, thinning=5, num_mode_steps=100)
    settings = PosteriorSettings(1.0, 5.0, 0.01, 1.0)
    posterior = sample_posterior(
        jax.random.key(2), STUDENT, lessons, settings, powers=None, config=DistillationConfig(sampling=sampling)
    )
    assert posterior.weights.method == "laplace"
    assert posterior.weights.weights[posterior.main_component] > 0.999
    ends = flat(jax.tree.map(lambda leaf: leaf[:, -1], posterior.run.positions))
    distances = jnp.linalg.norm(ends[:, None] - flat(lessons.centers.params)[None], axis=-1)
    nearest = np.asarray(distances.argmin(1))
    assert (nearest == nearest[0]).all()
    assert nearest[0] != 2
    assert float(distances.min(1).max()) < 0.1 * float(distances[:, 2].min())


def test_the_teachers_are_silent_about_held_out_examples(arrays, lessons):
    inputs, _, _ = arrays
    prepare = partial(
        prepare_lessons,
        student=STUDENT,
        inputs=jnp.asarray(inputs),
        teacher_probs=lessons.teacher_probs,
        rule=learned_trust(),
        center_scale=1.0,
    )
    fold_of_example = deal_folds(jax.random.key(3), np.asarray(lessons.examples.labels), 5)
    folds = held_out_folds(jax.random.key(4), lessons, prepare, fold_of_example)
    held_out = np.stack([np.asarray(fold.labels) >= 0 for fold in folds])
    np.testing.assert_array_equal(held_out.sum(0), 1)
    for fold, is_held_out in zip(folds, held_out, strict=True):
        np.testing.assert_array_equal(fold.data.examples.labels[:NUM_LABELLED] < 0, is_held_out)
        examples = with_components(fold.data, PosteriorSettings(1.0, 5.0, 0.05, 1.0))
        logits = jax.random.normal(jax.random.key(5), (NUM_EXAMPLES, 2))
        prior = np.asarray(teacher_informed_prior()(logits, examples))
        # What is left is the flat component's constant, log Γ(C), which is zero for two classes.
        np.testing.assert_allclose(prior[:NUM_LABELLED][is_held_out], 0.0, atol=1e-6)
        assert np.abs(prior[NUM_LABELLED:]).mean() > 0.1


def test_settings_are_judged_on_whole_groups(arrays, monkeypatch):
    inputs, labels, logits = arrays
    groups = np.array([f"patient {number}" for number in np.arange(NUM_EXAMPLES) % 3])
    seen = []

    def no_choice(score, given, *, wide_scales, pool_size):
        raise StopIteration

    def keep_folds(key, student, folds, **_):
        seen.extend(folds)

    monkeypatch.setattr(distillation, "cross_validation", keep_folds)
    monkeypatch.setattr(distillation, "choose_settings", no_choice)
    with pytest.raises(StopIteration):  # the folds are known, and that is all there is to see
        learn(jax.random.key(0), inputs, labels, logits, STUDENT, groups=groups)
    assert len(seen) == 3  # no more folds than groups
    order = labelled_first(labels)
    for fold in seen:
        held_out = np.asarray(fold.labels) >= 0
        (group,) = np.unique(groups[order][:NUM_LABELLED][held_out])
        is_of_group = groups[order] == group
        np.testing.assert_array_equal(held_out, is_of_group[:NUM_LABELLED])
        # Nobody says anything of the group, of its examples without a label as little as of the others.
        silent = np.asarray(fold.data.log_weights)[:, 0] == 0
        np.testing.assert_array_equal(silent, is_of_group)


def test_few_labels_are_weighed_by_entropy_and_settings_cannot_be_chosen_on_them(arrays):
    inputs, labels, logits = arrays
    few = np.where(np.arange(NUM_EXAMPLES) < 5, labels, -1)
    weights = learn(jax.random.key(0), inputs, few, logits, STUDENT, config=GIVEN)[0].log_weights
    assert np.isneginf(weights[:, 0]).all()
    with pytest.raises(InputError, match="5 labelled examples"):
        distil(inputs, few, logits, STUDENT, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs, labels, logits: (inputs[:-1], labels, logits), "teacher_logits"),
        (lambda inputs, labels, logits: (inputs, labels[:-1], logits), "one for each input"),
        (lambda inputs, labels, logits: (inputs, labels, logits[:, :0]), "one teacher or more"),
        (lambda inputs, labels, logits: (inputs, labels, logits[:, 0]), "teachers, classes"),
        (lambda inputs, labels, logits: (inputs * np.nan, labels, logits), "inputs"),
        (lambda inputs, labels, logits: (inputs, labels + 2, logits), "labels"),
        (lambda inputs, labels, logits: (inputs, labels + 0.0, logits), "labels"),
        (lambda inputs, labels, logits: (inputs, labels, np.where(logits > 0, np.inf, logits)), "teacher_logits"),
        (lambda inputs, labels, logits: (inputs, 0 * labels, logits[:, :, :1]), "two classes or more"),
        (lambda inputs, labels, logits: (inputs[:1], labels[:1], logits[:1]), "two examples or more"),
        (lambda inputs, labels, logits: (inputs[:, :1], labels, logits), "the shape that the student was made for"),
        (lambda inputs, labels, logits: (inputs, labels, logits[:, :, [0, 1, 1]]), "student: found logits of shape"),
        (lambda inputs, labels, logits: (inputs, labels, np.asarray(jax.nn.softmax(logits))), "as probabilities do"),
    ],
    ids=[
        "inputs short",
        "labels short",
        "no teacher",
        "no axis of teachers",
        "nan",
        "label out of range",
        "labels not integer",
        "infinite logits",
        "one class",
        "one example",
        "other features",
        "other classes",
        "probabilities",
    ],
)
def test_bad_arrays_are_refused(arrays, change, message):
    with pytest.raises(InputError, match=message):
        distil(*change(*arrays), STUDENT, seed=0, config=GIVEN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 2**64}, "seed"),
        ({"teacher_softening": [1.0, 0.0]}, "teacher_softening"),
        ({"teacher_softening": [1.0]}, "one for each teacher"),
        ({"weighting": lambda key, probs, inputs, labels: jnp.zeros(probs.shape[:2])}, "weighting: log_weights"),
        ({"config": replace(GIVEN, softening=-1.0)}, "softening"),
        ({"config": replace(GIVEN, sampling=SamplingConfig(batch_size=1))}, "batch_size"),
    ],
    ids=["seed", "softening", "softenings", "rule", "configuration", "batch"],
)
def test_bad_options_are_refused(arrays, options, message):
    with pytest.raises(InputError, match=message):
        distil(*arrays, STUDENT, **({"seed": 0, "config": GIVEN} | options))


def test_what_needs_labels_is_refused_without_any_before_anything_is_learned(arrays):
    inputs, labels, logits = arrays
    stacking = replace(GIVEN, sampling=SamplingConfig(chain_weighting="stacking"))
    for options, message in (
        ({"config": replace(GIVEN, settings=GivenSettings())}, "to choose settings by"),
        ({"config": stacking}, "stacking, and no label"),
        ({"config": GIVEN, "weighting": learned_trust()}, "learned_trust"),
    ):
        with pytest.raises(InputError, match=message):
            learn(jax.random.key(0), inputs, np.full_like(labels, -1), logits, STUDENT, **options)


def test_teachers_alone_will_do_where_no_label_is_needed(arrays):
    inputs, labels, logits = arrays
    sampling = SamplingConfig(num_mode_steps=100, num_burn_in=20, num_draws=10, thinning=5)
    result = distil(
        inputs, np.full_like(labels, -1), logits[:, :1], STUDENT, seed=0, config=replace(GIVEN, sampling=sampling)
    )
    assert not result.posterior.is_stacked
    draws = flatten_chains(result.posterior.run.positions)
    probs = jax.vmap(lambda params: jax.nn.softmax(STUDENT.apply(params, jnp.asarray(inputs))))(draws).mean(0)
    assert float((probs.argmax(1) == (inputs[:, 0] > 0)).mean()) > 0.9


@pytest.mark.parametrize("schedule", ["polynomial", "cyclical"])
def test_draws_under_a_schedule_are_as_many_and_stay_near_the_mode(lessons, schedule):
    sampling = SamplingConfig(
        num_mode_steps=100, num_burn_in=50, num_draws=10, thinning=5, schedule=schedule, num_cycles=2
    )
    settings = PosteriorSettings(1.0, 5.0, 0.05, 1.0)
    posterior = sample_posterior(
        jax.random.key(2), STUDENT, lessons, settings, powers=None, config=DistillationConfig(sampling=sampling)
    )
    draws = flat(flatten_chains(posterior.run.positions))
    assert draws.shape[0] == 40
    # A step size that is an order of magnitude off would leave the components, whose scale is a twentieth.
    centers = flat(lessons.centers.params)
    nearest = jnp.linalg.norm(draws[:, None] - centers[None], axis=-1).min(1) / np.sqrt(draws.shape[1])
    assert float(nearest.max()) < 0.3


def test_a_schedule_is_refused_where_the_step_size_is_adapted(lessons):
    sampling = SamplingConfig(sampler="nuts", schedule="cyclical", num_mode_steps=10)
    with pytest.raises(InputError, match="the step size is adapted"):
        sample_posterior(
            jax.random.key(2),
            STUDENT,
            lessons,
            PosteriorSettings(1.0, 5.0, 0.05, 1.0),
            powers=None,
            config=DistillationConfig(sampling=sampling),
        )


STREAMED = DistillationConfig(
    settings=GivenSettings(1.0, 5.0, float("inf"), 1.0, 1.0, 1.0),
    sampling=SamplingConfig(num_chains=2, num_burn_in=20, num_draws=6, thinning=5, num_mode_steps=50, batch_size=16),
    rows_in_memory=60,
)
distilled = partial(distil, student=STUDENT, seed=0, weighting=entropy_weighting())


def read_by_rows(array):
    """An array that is read by rows alone, and never as a whole."""

    class ByRows:
        shape, dtype = array.shape, array.dtype

        def __getitem__(self, index):
            rows = array[index]
            assert len(rows) <= 60
            return rows

    return ByRows()


def test_a_sample_is_learned_from_and_the_other_rows_are_streamed(arrays, monkeypatch):
    monkeypatch.setattr("mtbkd_jax.rows.ROWS_AT_A_TIME", 50)
    inputs, labels, logits = arrays
    result = distilled(read_by_rows(inputs), labels, read_by_rows(logits), config=STREAMED)
    assert result.order.size == 60
    np.testing.assert_array_equal(np.sort(result.order[:NUM_LABELLED]), np.arange(NUM_LABELLED))
    np.testing.assert_array_equal(result.lessons.examples.inputs, inputs[result.order])
    np.testing.assert_array_equal(result.lessons.examples.stands_for, np.repeat([1.0, 2.0], [NUM_LABELLED, 20]))
    again = distilled(inputs, labels, logits, config=STREAMED)
    jax.tree.map(np.testing.assert_array_equal, again.posterior.run.positions, result.posterior.run.positions)


@pytest.mark.parametrize("is_stored", [False, True], ids=["in memory", "on the disk"])
def test_a_distillation_predicts_by_its_weighed_draws(arrays, is_stored, tmp_path):
    sampling = SamplingConfig(num_chains=2, num_mode_steps=50, num_burn_in=20, num_draws=10, thinning=2)
    config = replace(GIVEN, settings=replace(GIVEN.settings, prediction_temperature=1.4), sampling=sampling)
    template = STUDENT.init(jax.random.key(0))
    sink = create_draws(tmp_path / "draws", template, num_chains=2, num_draws=10) if is_stored else None
    result = distil(*arrays, STUDENT, seed=0, config=config, sink=sink)
    inputs = arrays[0][:7]
    prediction = result.predict(inputs)
    draws = result.posterior.run.positions
    by_draw = jax.vmap(lambda params: jax.nn.softmax(STUDENT.apply(params, jnp.asarray(inputs)) / 1.4))(
        flatten_chains(draws.positions() if is_stored else draws)
    )
    expected = np.einsum("s,sec->ec", result.posterior.draw_weights, by_draw)
    np.testing.assert_allclose(prediction.probs, expected, atol=1e-6)
    with pytest.raises(InputError, match="inputs: found examples of shape"):
        result.predict(inputs[:, :1])
    with pytest.raises(InputError, match="NaN in row 3"):
        result.predict(np.where(np.arange(7)[:, None] == 3, np.nan, inputs))


def test_where_all_rows_fit_nothing_is_streamed(arrays):
    config = replace(STREAMED, rows_in_memory=None)
    plain = distilled(*arrays, config=config)
    roomy = distilled(*arrays, config=replace(config, rows_in_memory=NUM_EXAMPLES))
    jax.tree.map(np.testing.assert_array_equal, plain.posterior.run.positions, roomy.posterior.run.positions)
    assert roomy.lessons.examples.stands_for is None


def test_streaming_is_refused_where_it_cannot_be_right(arrays):
    inputs, labels, logits = arrays

    def own_rule(key, teacher_probs, inputs, labels):
        return jnp.full((teacher_probs.shape[0], 3), -jnp.log(3.0))

    with pytest.raises(InputError, match="own_rule, which weighs no rows but those"):
        learn(jax.random.key(0), inputs, labels, logits, STUDENT, weighting=own_rule, config=STREAMED)
    in_memory = replace(STREAMED, rows_in_memory=None)
    learn(jax.random.key(0), inputs, labels, logits, STUDENT, weighting=own_rule, config=in_memory)
    with pytest.raises(InputError, match=r"rows_in_memory: found 60 with hmc"):
        distilled(*arrays, config=replace(STREAMED, sampling=SamplingConfig(sampler="hmc")))
    with pytest.raises(InputError, match="40 rows with a label"):
        distilled(*arrays, config=replace(STREAMED, rows_in_memory=40))


@pytest.mark.parametrize("name", ["inputs", "teacher_logits"])
def test_every_row_is_looked_at_before_anything_is_learned(arrays, name, monkeypatch):
    monkeypatch.setattr("mtbkd_jax.rows.ROWS_AT_A_TIME", 30)
    named = dict(zip(("inputs", "labels", "teacher_logits"), arrays, strict=True))
    named[name] = named[name].copy()
    named[name].reshape(NUM_EXAMPLES, -1)[70, 0] = np.nan
    with pytest.raises(InputError, match=f"{name} from row 60: found NaN in row 10"):
        learn(jax.random.key(0), **named, student=STUDENT, config=STREAMED)
