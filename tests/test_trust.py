import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

from mtbkd_jax import trust
from mtbkd_jax.errors import InputError
from mtbkd_jax.trust import (
    TrustData,
    fit_trust,
    learned_trust,
    projected_features,
    sample_trust,
    speech_features,
    trust_model,
)
from mtbkd_jax.weighting import (
    accuracy_by_class_weighting,
    check_weighs_new_rows,
    confidence_aware_weighting,
    entropy_weighting,
    fixed_weighting,
    uniform_weighting,
)

NUM_EXAMPLES, NUM_LABELLED = 600, 120


@pytest.fixture(scope="module")
def two_domains():
    """Teacher 0 is right where x is negative and confidently wrong elsewhere; teacher 1 the reverse, less sure."""
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = jax.random.uniform(keys[0], (NUM_EXAMPLES, 2), minval=-1, maxval=1)
    labels = jax.random.bernoulli(keys[1], 0.5, (NUM_EXAMPLES,)).astype(jnp.int32)
    first_is_right = inputs[:, 0] < 0
    said = jnp.stack(
        [jnp.where(first_is_right, labels, 1 - labels), jnp.where(first_is_right, 1 - labels, labels)], axis=1
    )
    confidence = jnp.array([[0.99], [0.9]])
    probs = jnp.where(said[..., None] == jnp.arange(2)[None, None], confidence[None], 1 - confidence[None])
    known = jnp.where(jnp.arange(NUM_EXAMPLES) < NUM_LABELLED, labels, -1)
    return inputs, known, probs, np.asarray(first_is_right)


@pytest.fixture(scope="module")
def fit(two_domains):
    inputs, labels, probs, _ = two_domains
    return fit_trust(jax.random.key(1), probs, inputs, labels)


def weight_of_the_right_teacher(log_weights, first_is_right):
    weights = np.exp(np.asarray(log_weights))[NUM_LABELLED:]
    right = first_is_right[NUM_LABELLED:]
    return np.where(right, weights[:, 1], weights[:, 2])


def test_trust_goes_to_the_teacher_that_is_right_there(two_domains, fit):
    assert weight_of_the_right_teacher(fit.log_weights, two_domains[3]).mean() > 0.8


def test_of_many_labels_a_batch_a_step_finds_weights_that_explain_held_out_labels_as_well(two_domains, monkeypatch):
    inputs, _, probs, first_is_right = two_domains
    answers = np.asarray(probs.argmax(-1))
    is_flipped = np.random.default_rng(0).random(NUM_EXAMPLES) < 0.2
    labels = jnp.asarray(np.where(first_is_right ^ is_flipped, answers[:, 0], answers[:, 1]))
    all_at_once = fit_trust(jax.random.key(1), probs, inputs, labels)
    monkeypatch.setattr(trust, "_BATCH_SIZE", 256)
    trust._fit_all.clear_cache()  # what was compiled takes all of the 1,024 rows at once
    in_batches = fit_trust(jax.random.key(1), probs, inputs, labels)
    trust._fit_all.clear_cache()
    np.testing.assert_allclose(in_batches.held_out_scores, all_at_once.held_out_scores, atol=0.02)
    weights, of_batches = (np.exp(fit.log_weights) for fit in (all_at_once, in_batches))
    assert np.sqrt(np.mean(np.square(of_batches - weights))) < 0.05
    assert in_batches.held_out_scores.max() == pytest.approx(all_at_once.held_out_scores.max(), abs=0.005)


def test_trust_goes_by_what_the_teachers_say_where_the_inputs_tell_nothing():
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = jax.random.normal(keys[0], (NUM_EXAMPLES, 2))
    labels = jax.random.randint(keys[1], (NUM_EXAMPLES,), 0, 4)
    # The first knows classes 0 and 1, and takes the others for class 0; the second knows 2 and 3, and says so.
    certain = 0.02 + 0.92 * jax.nn.one_hot(jnp.stack([jnp.where(labels < 2, labels, 0), labels], 1), 4)
    probs = certain.at[:, 1].set(jnp.where((labels < 2)[:, None], 0.25, certain[:, 1]))
    known = jnp.where(jnp.arange(NUM_EXAMPLES) < NUM_LABELLED, labels, -1)
    weights = np.exp(fit_trust(jax.random.key(1), probs, inputs, known).log_weights)[NUM_LABELLED:]
    is_of_second = np.asarray(labels >= 2)[NUM_LABELLED:]
    assert weights[is_of_second, 2].mean() > 0.9
    assert weights[~is_of_second, 1].mean() > 0.8


@pytest.mark.parametrize("num_classes", [3, 50])
def test_what_teachers_say_counts_alike_however_many_classes_there_are(num_classes):
    probs = jax.random.dirichlet(jax.random.key(0), jnp.full(num_classes, 0.3), (500, 2))
    features = speech_features(jax.random.key(1), probs, 20)
    assert features.shape == (500, min(20, 2 * num_classes))
    assert float(jnp.sum(features**2) / 500) == pytest.approx(20, rel=0.2)


def test_entropy_prefers_the_confident_teacher_everywhere(two_domains):
    inputs, labels, probs, _ = two_domains
    weights = jnp.exp(entropy_weighting()(jax.random.key(0), probs, inputs, labels))
    assert (weights[:, 1] > weights[:, 2]).all()


def test_rows_sum_to_one(fit):
    np.testing.assert_allclose(np.exp(fit.log_weights).sum(1), 1.0, rtol=1e-5)


def test_a_labelled_example_is_weighed_without_its_own_label(two_domains, monkeypatch):
    inputs, labels, probs, _ = two_domains
    monkeypatch.setattr(trust, "stratified_folds", lambda key, labels, num_folds: np.arange(labels.size) % num_folds)
    monkeypatch.setattr(trust, "SLOPE_SCALES", (0.3,))  # with several, the label has a say in what each of them counts
    fit, again = (
        fit_trust(jax.random.key(1), probs, inputs, known) for known in (labels, labels.at[0].set(1 - labels[0]))
    )
    change = np.abs(np.exp(again.log_weights) - np.exp(fit.log_weights)).max(1)
    assert change[0] < 1e-6
    assert change[NUM_LABELLED:].max() > 1e-4


def test_the_posterior_of_the_weights_surrounds_its_mode(fit):
    draws = np.asarray(sample_trust(jax.random.key(2), fit, num_draws=100, num_warmup=100))
    low, high = np.quantile(draws, [0.005, 0.995], axis=0)
    mode = np.exp(np.asarray(fit.log_weights))
    inside = ((low <= mode) & (mode <= high))[NUM_LABELLED:].mean()
    assert inside > 0.8


def test_fits_count_by_the_likelihood_of_labels_that_they_have_not_seen():
    odds = np.array([[[1.0, 3.0], [1.0, 1.0]], [[1.0, 1.0], [3.0, 1.0]]])  # candidates, fits, components
    params = {"intercepts": jnp.log(odds), "slopes": jnp.zeros((2, 2, 5, 2))}
    held_out = jnp.log(jnp.array([0.3, 0.1]))
    features, scales = jnp.ones((2, 5)), jnp.ones((2, 5))
    weights = np.exp(trust.average_log_weights(params, features, scales, held_out, jnp.array([0, 1])))
    first, second = 0.75 * 0.75 + 0.25 * 0.5, 0.75 * 0.5 + 0.25 * 0.25
    np.testing.assert_allclose(weights, [[1 - first, first], [1 - second, second]], rtol=1e-5)


def test_too_few_labels_say_how_many_are_needed(two_domains):
    inputs, labels, probs, _ = two_domains
    with pytest.raises(InputError, match="at least 10"):
        fit_trust(jax.random.key(0), probs, inputs, labels.at[3:].set(-1))


def test_entropy_weights_by_hand():
    probs = jnp.array([[[0.5, 0.5], [0.9, 0.1]], [[1.0, 0.0], [0.0, 1.0]]])
    entropies = np.array([np.log(2), -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))])
    xi = 1 - entropies / entropies.sum()
    weights = np.exp(entropy_weighting()(jax.random.key(0), probs, jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32)))
    np.testing.assert_allclose(weights, [[0.0, *(xi / xi.sum())], [0.0, 0.5, 0.5]], rtol=1e-5)


@pytest.mark.parametrize(
    "rule", [entropy_weighting(), uniform_weighting(), fixed_weighting([3.0])], ids=["entropy", "uniform", "fixed"]
)
def test_one_teacher_has_all_the_weight(rule):
    weights = np.exp(rule(jax.random.key(0), jnp.full((4, 1, 2), 0.5), jnp.zeros((4, 1)), jnp.zeros(4, jnp.int32)))
    np.testing.assert_allclose(weights, np.tile([0.0, 1.0], (4, 1)), rtol=1e-6)


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0]], ids=["negative", "zero", "nan"])
def test_fixed_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match="non-negative"):
        fixed_weighting(weights)


def test_fixed_weights_must_be_one_for_each_teacher():
    with pytest.raises(InputError, match="2 weights"):
        fixed_weighting([1.0, 1.0])(
            jax.random.key(0), jnp.full((4, 3, 2), 0.5), jnp.zeros((4, 1)), jnp.zeros(4, jnp.int32)
        )


RULES = {
    "trust": learned_trust(num_features=1),  # so that what the teachers say is projected
    "entropy": entropy_weighting(),
    "uniform": uniform_weighting(),
    "fixed": fixed_weighting([1.0, 2.0]),
    "confidence": confidence_aware_weighting(),
    "accuracy": accuracy_by_class_weighting(),
}


def test_accuracy_by_class_by_hand():
    # The first teacher says 0, 0, 1, 0 and the second always 2; the last example has no label.
    says = np.array([[0, 2], [0, 2], [1, 2], [0, 2]])
    probs = jnp.asarray(np.where(np.arange(3) == says[..., None], 0.8, 0.1), jnp.float32)
    labels = jnp.array([0, 1, 1, -1])
    weights = np.exp(accuracy_by_class_weighting()(jax.random.key(0), probs, jnp.zeros((4, 1)), labels))
    first = np.array([(1 + 0) / (3 + 1), (1 + 1) / (3 + 1), (1 + 0) / (3 + 0), (1 + 1) / (3 + 2)])  # own label left out
    second = np.array([1 / 5, 1 / 5, 1 / 5, 1 / 6])
    expected = np.stack([np.full(4, 1 / 3), first, second], axis=1)
    np.testing.assert_allclose(weights, expected / expected.sum(1, keepdims=True), rtol=1e-6)


def test_accuracy_by_class_is_of_examples_that_a_teacher_was_asked_about():
    probs = jnp.tile(jnp.array([[0.9, 0.1]]), (4, 1, 1))
    labels, is_asked = jnp.array([0, 0, 1, -1]), jnp.array([[True], [False], [True], [True]])
    _, fitted = accuracy_by_class_weighting().fit(jax.random.key(0), probs, jnp.zeros((4, 1)), labels, is_asked)
    np.testing.assert_allclose(fitted["accuracies"], [[(1 + 1) / (2 + 2), 1 / 2]])


@pytest.mark.parametrize("name", RULES)
def test_rows_without_a_label_weigh_the_same_whether_they_were_there_or_came_later(name, two_domains):
    inputs, labels, probs, _ = two_domains
    key, rule = jax.random.key(1), check_weighs_new_rows(RULES[name])
    log_weights, fitted = rule.fit(key, probs, inputs, labels)
    np.testing.assert_array_equal(log_weights, rule(key, probs, inputs, labels))
    later = rule.weigh(fitted, probs[NUM_LABELLED:], inputs[NUM_LABELLED:])
    np.testing.assert_allclose(np.exp(later), np.exp(log_weights[NUM_LABELLED:]), atol=1e-5)


def test_trust_in_new_rows_is_as_good_as_in_those_it_was_learned_with(two_domains):
    inputs, labels, probs, first_is_right = two_domains
    rule, seen = learned_trust(), 360
    _, fitted = rule.fit(jax.random.key(1), probs[:seen], inputs[:seen], labels[:seen])
    later = np.exp(rule.weigh(fitted, probs[seen:], inputs[seen:]))
    assert np.where(first_is_right[seen:], later[:, 1], later[:, 2]).mean() > 0.8


def test_a_label_is_scored_by_the_teachers_that_were_asked_alone():
    rng = np.random.default_rng(0)
    features, scores = (
        rng.normal(size=(3, 2)).astype(np.float32),
        np.log(rng.uniform(0.1, 0.9, (3, 3)), dtype=np.float32),
    )
    is_asked = np.array([[True, True, False], [True, False, False], [True, True, True]])
    params = {"intercepts": jnp.array([0.3, -0.2, 0.5]), "slopes": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)}
    scales = jnp.array([0.5, 2.0])

    def density(params, log_scores):
        data = TrustData(jnp.asarray(features), jnp.asarray(log_scores), jnp.ones(3), jnp.asarray(is_asked))
        return log_density(trust_model, (data, scales), {}, params)[0]

    slopes = np.asarray(scales)[:, None] * np.asarray(params["slopes"])
    says = np.exp(np.asarray(params["intercepts"]) + features @ slopes)
    weights = np.where(is_asked, says, 0) / np.where(is_asked, says, 0).sum(1, keepdims=True)
    priors = sum(-0.5 * np.square(leaf).sum() - 0.5 * leaf.size * np.log(2 * np.pi) for leaf in params.values())
    expected = np.log((weights * np.exp(scores)).sum(1)).sum() + priors
    assert float(density(params, scores)) == pytest.approx(float(expected), rel=1e-5)
    others = np.where(is_asked, scores, -50.0).astype(np.float32)
    gradient, same = jax.grad(density)(params, scores), jax.grad(density)(params, others)
    for name, leaf in gradient.items():
        assert jnp.isfinite(leaf).all()
        np.testing.assert_allclose(leaf, same[name], atol=1e-6)


@pytest.mark.parametrize("num_features", [3, 60])
def test_a_teacher_that_was_not_asked_says_what_it_says_on_average(num_features):
    values = jax.random.normal(jax.random.key(0), (50, 2, 3))
    is_asked = jax.random.bernoulli(jax.random.key(1), 0.6, (50, 2))
    found = projected_features(jax.random.key(2), values, num_features, is_asked)
    means = jnp.where(is_asked[..., None], values, 0.0).sum(0, keepdims=True) / is_asked.sum(0)[None, :, None]
    others = projected_features(
        jax.random.key(2), jnp.where(is_asked[..., None], values, 100.0), num_features, is_asked
    )
    np.testing.assert_array_equal(found, others)
    spoken = jnp.where(is_asked[..., None], values, means)
    spread = jnp.sqrt(jnp.square(spoken - means).sum(0) / is_asked.sum(0)[:, None])
    standard = ((spoken - means) / spread[None]).reshape(50, 6)
    if num_features == 60:
        np.testing.assert_allclose(found, standard * jnp.sqrt(10.0), atol=1e-4)
    nobody = projected_features(jax.random.key(2), values, num_features, is_asked.at[7].set(False))
    np.testing.assert_allclose(nobody[7], 0, atol=1e-6)


@pytest.fixture(scope="module")
def half_asked(two_domains):
    """The second teacher was asked about every other example."""
    return jnp.stack([jnp.ones(NUM_EXAMPLES, bool), jnp.arange(NUM_EXAMPLES) % 2 == 0], axis=1)


def test_trust_is_not_learned_from_what_was_not_said(two_domains, half_asked):
    inputs, labels, probs, first_is_right = two_domains
    key, rule = jax.random.key(1), learned_trust()
    log_weights, fitted = rule.fit(key, jnp.where(half_asked[..., None], probs, 0.5), inputs, labels, half_asked)
    # A teacher that would have known every label.
    knowing = jnp.where(jnp.arange(2)[None] == jnp.maximum(labels, 0)[:, None], 0.999, 0.001)
    other = probs.at[:, 1].set(jnp.where(half_asked[:, 1:], probs[:, 1], knowing))
    np.testing.assert_array_equal(log_weights, rule(key, other, inputs, labels, half_asked))
    weights = np.exp(np.asarray(log_weights))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(weights[1::2, 2], 0)
    of_asked = weights[NUM_LABELLED::2], first_is_right[NUM_LABELLED::2]
    assert np.where(of_asked[1], of_asked[0][:, 1], of_asked[0][:, 2]).mean() > 0.75
    later = rule.weigh(fitted, probs[NUM_LABELLED:], inputs[NUM_LABELLED:], half_asked[NUM_LABELLED:])
    np.testing.assert_allclose(np.exp(later), weights[NUM_LABELLED:], atol=1e-5)


def test_a_rule_that_is_a_function_alone_cannot_weigh_new_rows():
    def mine(key, teacher_probs, inputs, labels):
        return None

    with pytest.raises(InputError, match=r"mine, which weighs no rows but those .*RuleForNewRows"):
        check_weighs_new_rows(mine)
