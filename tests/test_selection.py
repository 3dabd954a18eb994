import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.special import logit
from scipy.stats import norm

from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.selection import (
    POWERS,
    WIDE_SCALE_RATIOS,
    Budget,
    Choice,
    Fold,
    GivenSettings,
    HeldOutScores,
    Problem,
    choose_settings,
    correction_log_density,
    cross_validation,
    wide_scales_of,
)
from mtbkd_jax.settings import PosteriorSettings, no_teacher
from mtbkd_jax.students import mlp
from mtbkd_jax.uncertainty import COVERAGE_LEVELS
from mtbkd_jax.weight_prior import WeightMixture, gaussian_prior, weight_space_prior

NUM_LABELLED = 12
WIDE_SCALES = 0.05, 0.1, 0.2, 0.5, 1.0, 3.0


def test_wide_scales_are_in_proportion_to_what_a_student_starts_with():
    wide, narrow = (wide_scales_of(mlp(num_features=count, hidden=(128,), num_classes=3)) for count in (16, 1024))
    # The first layer, which nearly all weights are of, starts with a standard deviation of 1 / √features.
    np.testing.assert_allclose(np.array(wide) / narrow, 8.0, rtol=0.1)
    np.testing.assert_allclose(np.array(wide) / wide[0], np.array(WIDE_SCALE_RATIOS) / WIDE_SCALE_RATIOS[0])
    linear = mlp(num_features=4, hidden=(), num_classes=2)
    of_zero = linear._replace(init=lambda key: jax.tree.map(jnp.zeros_like, linear.init(key)))
    assert wide_scales_of(of_zero) == WIDE_SCALE_RATIOS


def scores_of(nll):
    """Made-up scores: the same for every label, minus ``nll`` of the candidate's settings; nine in ten covered."""

    def score(candidates, predictions, *, in_earnest):
        losses = np.asarray(nll(PosteriorSettings(*(np.asarray(leaf) for leaf in candidates))), np.float32)
        shape = losses.size, len(predictions), NUM_LABELLED
        covered = np.full((losses.size, len(predictions), 3, NUM_LABELLED), 0.9, np.float32)
        return HeldOutScores(np.broadcast_to(-losses[:, None, None], shape), covered)

    return score


def distance_from(power, concentration, center_scale, wide_scale):
    """Smallest at the candidate nearest to these on a log scale; teachers help."""

    def nll(s):
        def apart(value, best):
            return np.minimum(np.abs(np.log(np.maximum(value, 1e-9) / best)), 20.0)

        help_of_teachers = np.where(np.isfinite(s.center_scale) | (s.power > 0), 0.0, 200.0)
        return (
            apart(s.power, power)
            + apart(s.concentration, concentration)
            + apart(s.center_scale, center_scale)
            + apart(s.wide_scale, wide_scale)
            + help_of_teachers
        )

    return nll


def test_the_best_of_every_stage_is_found():
    nll = distance_from(0.06, 10.0, 0.25, 0.5)
    choice = choose_settings(scores_of(nll), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0)
    assert choice.settings == PosteriorSettings(0.06, 10.0, 0.25, 0.5, 1.0)
    assert choice.no_teacher.wide_scale == 0.5
    assert list(dict.fromkeys(candidate.stage for candidate in choice.curve)) == [
        "no teacher",
        "wide_scale",
        "power",
        "concentration",
        "center_scale",
        "mild power",
        "temperature",
        "prediction_temperature",
        "temperature, no teacher",
        "predictions, no teacher",
    ]


def test_no_component_around_a_center_is_wider_than_the_wide_one():
    choice = choose_settings(
        scores_of(distance_from(0.06, 10.0, 4.0, 0.2)), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0
    )
    scales = {candidate.center_scale for candidate in choice.curve if candidate.stage == "center_scale"}
    assert scales == {0.1, 0.2}
    assert choice.settings.center_scale == 0.2


def split_scores(nll, gain_of_first_half):
    """As ``scores_of``, but strong belief in teachers gains on half of the labels and loses on the others."""

    def score(candidates, predictions, *, in_earnest):
        log_scores, covered = scores_of(nll)(candidates, predictions, in_earnest=in_earnest)
        sign = np.where(np.arange(NUM_LABELLED) < NUM_LABELLED // 2, 1.0, -1.0)
        is_strong = np.asarray(candidates.concentration) > 1.0
        return HeldOutScores(log_scores + gain_of_first_half * np.outer(is_strong, sign)[:, None], covered)

    return score


@pytest.mark.parametrize(
    ("spread", "concentration"),
    [(0.1, 5.0), (0.42, 5.0), (0.5, 1.0), (5.0, 1.0)],
    ids=["told apart", "just", "not quite", "a tie"],
)
def test_a_strong_belief_in_teachers_must_be_better_by_more_than_one_and_a_half_standard_errors(spread, concentration):
    def nll(s):
        return np.where(s.power == 0, 1.0, np.where(s.concentration == 5.0, 0.5, 0.7)) + np.isfinite(s.center_scale)

    choice = choose_settings(split_scores(nll, spread), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0)
    # The difference is 0.2 and its standard error spread / sqrt(12): with 0.42 it is 1.65 of them, with 0.5 it is 1.39.
    assert choice.settings.concentration == concentration
    assert choice.settings.uses_teachers


@pytest.mark.parametrize(("loss_of_cooling", "temperature"), [(0.2, 0.3), (5.0, 1.0)], ids=["a tie", "told apart"])
def test_the_temperature_is_that_whose_intervals_cover_best_unless_the_log_score_speaks_against_it(
    loss_of_cooling, temperature
):
    sign = np.where(np.arange(NUM_LABELLED) < NUM_LABELLED // 2, 1.0, -1.0)
    covered_at = {1.0: 0.6, 0.3: 0.9, 0.1: 0.99}

    def score(candidates, predictions, *, in_earnest):
        temperatures = np.asarray(candidates.temperature, float)
        losses = 0.5 + (np.asarray(candidates.power) == 0) + loss_of_cooling * (1 - temperatures)
        # The difference from a temperature of one has a standard error of 1 / sqrt(12).
        log_scores = -losses[:, None] + np.outer(temperatures < 1, sign)
        levels = np.array([covered_at[round(t, 2)] for t in temperatures])
        return HeldOutScores(
            log_scores[:, None].astype(np.float32),
            np.broadcast_to(levels[:, None, None, None], (losses.size, 1, 3, NUM_LABELLED)).astype(np.float32),
        )

    choice = choose_settings(score, GivenSettings(prediction_temperature=1.0), wide_scales=WIDE_SCALES, pool_size=1.0)
    assert choice.settings.temperature == temperature
    assert choice.no_teacher.temperature == temperature


@pytest.mark.parametrize(("num_labelled", "temperature"), [(20, 1.0), (500, 0.3)], ids=["few labels", "many"])
def test_how_much_coverage_counts_beside_the_log_score_depends_on_how_well_the_labels_know_it(
    num_labelled, temperature
):
    def score(candidates, predictions, *, in_earnest):
        is_cold = np.isclose(np.asarray(candidates.temperature), 0.3)
        is_coldest = np.isclose(np.asarray(candidates.temperature), 0.1)
        # The cold ones have the worse log score by 1.5 standard errors, whatever the number of labels.
        gains = 1.5 / np.sqrt(num_labelled) + np.where(np.arange(num_labelled) % 2, 1.0, -1.0)
        losses = 0.5 + is_cold[:, None] * gains + 2 * is_coldest[:, None] * gains
        covered = np.where(is_cold | is_coldest, 0.9, 0.86)
        shape = losses.shape[0], 1, len(COVERAGE_LEVELS), num_labelled
        return HeldOutScores(-losses[:, None].astype(np.float32), np.broadcast_to(covered[:, None, None, None], shape))

    choice = choose_settings(score, GivenSettings(prediction_temperature=1.0), wide_scales=WIDE_SCALES, pool_size=1.0)
    assert choice.no_teacher.temperature == temperature


def test_a_temperature_of_the_predictions_is_believed_to_be_log_normal_around_one():
    temperatures = np.array([0.5, 0.8, 1.0, 1.25, 2.0])
    expected = norm.logpdf(np.log(temperatures), scale=0.2) - norm.logpdf(0.0, scale=0.2)
    np.testing.assert_allclose([correction_log_density(value) for value in temperatures], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("num_labelled", "shortness", "loss", "chosen"),
    [(100, 0.0, 0.0, 1.0), (100, 1.0, 0.0, 1.17), (4000, 1.0, 0.0, 1.25), (4000, 1.0, 0.1, 1.0)],
    ids=["equally covered", "better covered, few labels", "better covered", "worse predicted"],
)
def test_predictions_are_corrected_where_the_labels_show_that_their_intervals_are_too_short(
    num_labelled, shortness, loss, chosen
):
    def covered_at(temperatures):
        beyond = np.interp(temperatures, [0.8, 0.9, 1.0, 1.1, 1.25, 1.4], [-0.15, -0.1, -0.05, -0.03, 0.0, 0.05])
        return np.array(COVERAGE_LEVELS) + shortness * beyond[:, None]

    def score(candidates, predictions, *, in_earnest):
        losses = 0.5 + np.outer(np.asarray(candidates.power) == 0, np.ones(len(predictions)))
        losses = losses + loss * (np.array(predictions) > 1)
        log_scores = np.repeat(-losses[..., None], num_labelled, axis=2)
        is_covered = np.arange(num_labelled) / num_labelled < covered_at(predictions)[..., None]
        shape = losses.shape[0], len(predictions), len(COVERAGE_LEVELS), num_labelled
        return HeldOutScores(log_scores, np.broadcast_to(is_covered, shape).astype(np.float32))

    choice = choose_settings(score, GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0)
    assert choice.settings.prediction_temperature == chosen
    assert choice.no_teacher.prediction_temperature == chosen


def test_with_teachers_the_wide_scale_may_be_another_than_without():
    choice = choose_settings(
        scores_of(lambda s: np.abs(np.log(s.wide_scale / np.where(s.power > 0, 0.1, 3.0))) - (s.power == 1.0)),
        GivenSettings(),
        wide_scales=WIDE_SCALES,
        pool_size=1.0,
    )
    assert choice.no_teacher.wide_scale == 3.0
    assert choice.settings.wide_scale == 0.1


@pytest.mark.parametrize(("spread", "wide_scale"), [(0.5, 0.5), (1.0, 0.05)], ids=["told apart", "a tie"])
def test_a_wide_scale_must_be_better_than_a_narrower_one_by_more_than_a_standard_error(spread, wide_scale):
    def score(candidates, predictions, *, in_earnest):
        best = np.asarray(candidates.wide_scale) == np.float32(0.5)
        log_scores, covered = scores_of(lambda s: np.where(best, 0.8, 1.0))(
            candidates, predictions, in_earnest=in_earnest
        )
        sign = np.where(np.arange(NUM_LABELLED) < NUM_LABELLED // 2, 1.0, -1.0)
        return HeldOutScores(log_scores + spread * np.outer(best, sign)[:, None], covered)

    choice = choose_settings(score, GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0)
    # The difference is 0.2 and its standard error spread / sqrt(12): with 0.5 it is 1.39 of them, with 1 it is 0.69.
    assert choice.no_teacher.wide_scale == wide_scale
    under_teachers = {one.wide_scale for one in choice.curve if one.stage == "power"}
    assert under_teachers == {wide_scale}


def mild_alone(nll_of_power):
    """Only mild advice is any good; all else is bad, and least so at a wide scale of its own."""

    def nll(s):
        is_mild = (s.concentration == 1) & np.isinf(s.center_scale) & (s.wide_scale == WIDE_SCALES[0])
        return np.where((s.power == 0) | is_mild, nll_of_power(s.power), np.where(s.wide_scale == 3.0, 80.0, 90.0))

    return scores_of(nll)


def test_where_the_labels_speak_against_the_teachers_no_teacher_has_the_largest_share():
    choice = choose_settings(
        mild_alone(lambda power: 0.5 + 0.1 * power), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0
    )
    assert choice.powers.values == (*POWERS[::-1], 0.0)
    assert list(choice.powers.shares) == sorted(choice.powers.shares)
    assert choice.settings == PosteriorSettings(POWERS[0], 1.0, float("inf"), choice.no_teacher.wide_scale)


def test_on_a_tie_all_powers_have_the_same_share():
    choice = choose_settings(
        scores_of(lambda s: np.ones(s.power.shape)), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0
    )
    np.testing.assert_allclose(choice.powers.shares, 1 / (1 + len(POWERS)))


def test_powers_that_the_labels_rule_out_are_left_out_however_little_each_label_says():
    nll = mild_alone(lambda power: np.where(power < 0.1, 1.0, 1.5))
    choice = choose_settings(nll, GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0)
    assert choice.powers.values == (0.06, 0.016, 0.004, 0.001, 0.0)
    np.testing.assert_allclose(choice.powers.shares, 0.2)


def test_teachers_that_no_label_speaks_for_are_left_out():
    def score(candidates, predictions, *, in_earnest):
        losses = np.where(np.asarray(candidates.power) > 0, 60.0, 1.0) + np.isfinite(candidates.center_scale)
        shape = losses.size, len(predictions), 4000
        return HeldOutScores(
            np.broadcast_to(-losses[:, None, None], shape), np.full((*shape[:2], 3, 4000), 0.9, np.float32)
        )

    choice = choose_settings(score, GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0)
    assert choice.settings == choice.no_teacher
    assert choice.powers.values == (0.0,)


def test_a_choice_goes_through_json_with_its_powers():
    choice = choose_settings(
        scores_of(lambda s: np.ones(s.power.shape)), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0
    )
    assert Choice.from_json(choice.to_json()) == choice
    strong = choose_settings(
        scores_of(distance_from(0.06, 10.0, 0.5, 0.2)), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0
    )
    assert strong.powers is None
    assert Choice.from_json(strong.to_json()) == strong


@pytest.mark.parametrize(
    "name", ["power", "concentration", "center_scale", "wide_scale", "temperature", "prediction_temperature"]
)
def test_a_setting_that_is_given_is_kept(name):
    given = GivenSettings(**{name: 0.77})
    choice = choose_settings(
        scores_of(distance_from(0.06, 10.0, 0.5, 0.2)), given, wide_scales=WIDE_SCALES, pool_size=1.0
    )
    assert getattr(choice.settings, name) == 0.77
    for_all = ("wide_scale", "temperature", "prediction_temperature")
    tried = [c for c in choice.curve if c.settings.uses_teachers or name in for_all]
    assert {getattr(candidate, name) for candidate in tried} == {0.77}


def test_a_candidate_that_blew_up_is_not_chosen():
    def nll(s):
        return np.where(s.power > 0.1, np.inf, np.where((s.power > 0) | np.isfinite(s.center_scale), 1.0, 2.0))

    choice = choose_settings(scores_of(nll), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0)
    assert choice.settings.power <= 0.1
    assert choice.settings.uses_teachers


def test_an_infinite_scale_is_null_in_json():
    choice = choose_settings(
        scores_of(lambda s: np.ones(s.power.shape)), GivenSettings(), wide_scales=WIDE_SCALES, pool_size=1.0
    )
    assert choice.curve[0].to_json()["center_scale"] is None


@pytest.mark.parametrize("num_steps", [0, 2000], ids=["mode", "chain"])
def test_cross_validation_scores_each_label_from_the_other_folds(num_steps):
    # One class per side of zero, but every label of fold 0 is the wrong one: only a fold that leaves its own labels out
    # predicts them badly.
    student = mlp(num_features=1, hidden=(), num_classes=2)
    inputs = jnp.linspace(-2, 2, NUM_LABELLED)[:, None]
    fold_of_label = (jnp.arange(NUM_LABELLED) % 4).at[1].set(2)  # folds of three and of two
    labels = jnp.where(fold_of_label == 0, inputs[:, 0] < 0, inputs[:, 0] > 0).astype(jnp.int32)
    folds = [
        Fold(
            Examples(inputs, jnp.where(fold_of_label == fold, -1, labels)),
            inputs,
            jnp.where(fold_of_label == fold, labels, -1),
        )
        for fold in (0, 1)
    ]

    def build(_, settings, examples):
        prior = gaussian_prior(settings.wide_scale)
        posterior = log_posterior(student, per_example=(categorical_log_likelihood,), per_parameters=(prior,))
        starts = jax.tree.map(lambda leaf: jnp.zeros_like(leaf)[None], student.init(jax.random.key(0)))
        return Problem(posterior, starts, 1, lambda _: examples, 1)

    candidates = PosteriorSettings(*map(np.array, zip(no_teacher(3.0), no_teacher(1e-3), strict=True)))
    score = cross_validation(
        jax.random.key(1),
        student,
        folds,
        build=build,
        draw_batch=full_batch,
        budget=Budget(num_mode_steps=1000, num_burn_in=50, num_steps=num_steps, thinning=10),
    )
    predictions = 1.0, 2.0
    all_scores, all_covered = score(candidates, predictions, in_earnest=False)
    scores, covered = all_scores[:, 0], all_covered[:, 0]
    held_out = np.asarray(fold_of_label) <= 1
    assert all_scores.shape == (2, 2, NUM_LABELLED)
    assert (scores[:, ~held_out] == 0).all()
    assert (scores[0, np.asarray(fold_of_label) == 0] < np.log(0.5)).all()
    # At a scale of a thousandth the student says nothing.
    np.testing.assert_allclose(scores[1, held_out], np.log(0.5), atol=0.02)
    # A student that says nothing is right about how little it knows: half its draws are on one side of a half, so that
    # the interval leaves out a share 1 - level of them.
    assert (covered[:, :, ~held_out] == 0).all()
    levels = 1.0 if num_steps == 0 else np.array(COVERAGE_LEVELS)
    np.testing.assert_allclose(covered[1][:, held_out].mean(1), levels, atol=0.06)
    # The mode halves its logits: log(p / (1 - p)) of the label is half of what it was.
    if num_steps == 0:
        log_odds = [logit(np.exp(of[0, held_out])) for of in (all_scores[:, 0], all_scores[:, 1])]
        np.testing.assert_allclose(log_odds[1], log_odds[0] / 2, rtol=1e-3, atol=1e-5)


SIDES = mlp(num_features=1, hidden=(), num_classes=2)
SIDED_INPUTS = jnp.linspace(-2, 2, NUM_LABELLED)[:, None]
SIDED_LABELS = (SIDED_INPUTS[:, 0] > 0).astype(jnp.int32)
NARROW = PosteriorSettings(*(np.full(1, value) for value in (0.0, 1.0, 0.05, 1.0, 1.0, 1.0)))


def between_two_sides(settings, examples, starting_side, num_starts):
    """A prior of two narrow components, the second of which agrees with the labels; a chain never crosses."""
    zero, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, SIDES.init(jax.random.key(0))))
    slope = zero.at[-2:].set(jnp.array([-3.0, 3.0]))
    centers = jnp.stack([-slope, slope])
    prior = weight_space_prior(WeightMixture(centers, jnp.full(2, settings.center_scale), jnp.log(jnp.full(2, 0.5))))
    posterior = log_posterior(SIDES, per_example=(categorical_log_likelihood,), per_parameters=(prior,))
    starts = jax.vmap(unravel)(jnp.roll(centers, -starting_side, axis=0))
    return Problem(posterior, starts, num_starts, lambda _: examples, 1)


@pytest.mark.parametrize("num_starts", [1, 2])
def test_a_candidate_is_scored_at_the_best_mode_of_those_that_its_starts_lead_to(num_starts):
    is_held_out = jnp.arange(NUM_LABELLED) % 3 == 0
    examples = Examples(SIDED_INPUTS, jnp.where(is_held_out, -1, SIDED_LABELS))
    fold = Fold(examples, SIDED_INPUTS, jnp.where(is_held_out, SIDED_LABELS, -1))

    def build(_, settings, examples):
        return between_two_sides(settings, examples, 0, num_starts)

    budget = Budget(num_mode_steps=100, num_burn_in=20, num_steps=40, thinning=10)
    score = cross_validation(jax.random.key(1), SIDES, [fold], build=build, draw_batch=full_batch, budget=budget)
    agrees = score(NARROW, (1.0,), in_earnest=False).log_scores[0, 0, np.asarray(is_held_out)] > np.log(0.5)
    assert agrees.all() if num_starts == 2 else not agrees.any()


@pytest.mark.parametrize("in_earnest", [False, True])
def test_chains_from_starts_of_their_own_are_averaged(in_earnest):
    fold = Fold(Examples(SIDED_INPUTS, jnp.full(NUM_LABELLED, -1)), SIDED_INPUTS, SIDED_LABELS)

    def build(key, settings, examples):
        return between_two_sides(settings, examples, jax.random.bernoulli(key).astype(jnp.int32), 1)

    def probs_of(num_chains):
        budget = Budget(num_chains, 100, 20, 40, thinning=10, temperature_thinning=10)
        score = cross_validation(jax.random.key(1), SIDES, [fold], build=build, draw_batch=full_batch, budget=budget)
        return np.exp(score(NARROW, (1.0,), in_earnest=in_earnest).log_scores[0, 0])

    one, several = probs_of(1), probs_of(8)
    right = np.asarray(jax.nn.sigmoid(6 * jnp.abs(SIDED_INPUTS[:, 0])))
    share = ((several - (1 - right)) / (2 * right - 1)).mean()  # of the chains that are on the right side
    np.testing.assert_allclose(several, share * right + (1 - share) * (1 - right), atol=0.03)
    assert 0.1 < share < 0.9
    np.testing.assert_allclose(share * 8, round(share * 8), atol=0.2)
    assert min(np.abs(one - right).max(), np.abs(one - (1 - right)).max()) < 0.03
