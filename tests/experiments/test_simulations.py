from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import simulations
from experiments.simulation1 import design as design1
from experiments.simulation2 import design as design2
from experiments.simulations import simulation_draws
from mtbkd_jax.errors import InputError

SHARES = {"simulation 1": 0.0, "simulation 2": design2.SHARE_ELSEWHERE}
MODULES = {"simulation 1": design1, "simulation 2": design2}


@pytest.fixture(scope="module", params=MODULES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def draw(name):
    return all_labels(name).with_labels(300)


@cache
def all_labels(name):
    (draw,) = simulation_draws(MODULES[name].DESIGN, [0], share_elsewhere=SHARES[name])
    return draw


def test_shapes_and_missing_labels(name, draw):
    design = MODULES[name].DESIGN
    num_classes, num_teachers = design.training.num_classes, len(design.teacher_names)
    assert draw.inputs.shape[0] == design.num_train
    assert draw.teacher_logits.shape == (design.num_train, num_teachers, num_classes)
    assert draw.test_teacher_logits.shape == (design.num_test, num_teachers, num_classes)
    assert (draw.labels >= 0).sum() == 300
    assert set(draw.labels.tolist()) == {-1, *range(num_classes)}


def test_labels_are_drawn_from_the_true_probabilities(name, draw):
    num_test = MODULES[name].DESIGN.num_test
    nll = -np.log(draw.test_probs[np.arange(num_test), draw.test_labels])
    assert draw.test_nll_limit == pytest.approx(nll.mean(), rel=1e-5)
    assert abs(nll.mean() - MODULES[name].bayes_limit()[1]) < 4.0 * nll.std() / np.sqrt(num_test)


@pytest.mark.parametrize(("name_of_limit", "accuracy"), [("simulation 1", 0.843), ("simulation 2", 0.849)])
def test_the_bayes_limit_is_the_known_one(name_of_limit, accuracy):
    assert MODULES[name_of_limit].bayes_limit()[0] == pytest.approx(accuracy, abs=1.5e-3)


def test_the_true_probabilities_of_simulation_1():
    inputs = np.array([[1.0, 2.0], [-2.0, 0.5]], np.float32)
    probs = design1.class_probs(jnp.asarray(inputs))[:, 1]
    np.testing.assert_allclose(probs, 1.0 / (1.0 + np.exp(-design1.eta(inputs))), rtol=1e-5)


def test_the_true_probabilities_of_simulation_2_are_those_of_its_gaussians():
    from scipy.stats import multivariate_normal

    inputs = np.random.default_rng(0).normal(1.0, 2.0, (20, 5))
    densities = np.stack([multivariate_normal(mean, design2.COVARIANCE).pdf(inputs) for mean in design2.MEANS], axis=1)
    expected = densities / densities.sum(1, keepdims=True)
    np.testing.assert_allclose(design2.class_probs(jnp.asarray(inputs, jnp.float32)), expected, atol=1e-4)


def test_the_data_of_simulation_2_have_the_moments_of_its_gaussians():
    inputs, labels = design2.draw_examples(jax.random.key(1), 50_000)
    for label, mean in enumerate(design2.MEANS):
        own = np.asarray(inputs)[np.asarray(labels) == label]
        np.testing.assert_allclose(own.mean(0), mean, atol=0.05)
        np.testing.assert_allclose(np.cov(own.T), design2.COVARIANCE, atol=0.06)


def test_teachers_know_their_own_domain_and_are_too_sure_elsewhere(name, draw):
    probs = np.asarray(jax.nn.softmax(draw.test_teacher_logits))
    right = probs.argmax(-1) == draw.test_labels[:, None]
    if name == "simulation 1":
        domain = design1.domain_of(draw.test_inputs)
        is_own = domain[:, None] == np.arange(3)
    else:
        is_own = (draw.test_labels[:, None, None] == design2.CLASSES_OF_TEACHER).any(-1)
    assert draw.teacher_trained.all()
    for teacher in range(3):
        own, other = is_own[:, teacher], ~is_own[:, teacher]
        assert right[own, teacher].mean() > 0.75
        assert right[other, teacher].mean() < right[own, teacher].mean() - 0.1
        assert probs.max(-1)[other, teacher].mean() > right[other, teacher].mean() + 0.05  # surer than right


def test_more_labels_keep_the_data_and_the_teachers(name, draw):
    more = all_labels(name).with_labels(400)
    np.testing.assert_array_equal(draw.teacher_logits, more.teacher_logits)
    labelled = draw.labels >= 0
    np.testing.assert_array_equal(draw.labels[labelled], more.labels[labelled])
    assert (more.labels >= 0).sum() == 400


def test_fewer_inputs_keep_their_labels_and_their_teachers_outputs(name, draw):
    fewer = draw.with_inputs(500)
    assert fewer.labels.size == len(fewer.inputs) == len(fewer.teacher_logits) == 500
    assert (fewer.labels[:300] >= 0).all()
    assert (fewer.labels[300:] == -1).all()
    rows = [np.flatnonzero((draw.inputs == row).all(axis=1)).item() for row in fewer.inputs]
    np.testing.assert_array_equal(draw.labels[rows], fewer.labels)
    np.testing.assert_array_equal(draw.teacher_logits[rows], fewer.teacher_logits)
    np.testing.assert_array_equal(all_labels(name).with_inputs(500).with_labels(300).labels, fewer.labels)


def test_a_share_of_the_training_data_can_come_from_elsewhere():
    examples = partial(simulations.teacher_examples, design1.DESIGN, jax.random.key(0), jnp.int32(1))
    assert (design1.domain_of(examples(0.0)[0]) == 1).all()
    inputs, _ = examples(0.3)
    # A third of the 30 % from the whole plane lies in the domain as well.
    share, num_examples = (design1.domain_of(inputs) != 1).mean(), len(inputs)
    assert abs(share - 0.2) < 4.0 * np.sqrt(0.2 * 0.8 / num_examples)


def train(attempt):
    """Teacher 0 is good at once, 1 at the third attempt, 2 never; parameters are the number of the attempt."""
    return {"bias": jnp.full((1, 3, 4), attempt, jnp.float32)}, jnp.array([[True, attempt >= 2, False]])


def test_teachers_that_fail_are_retrained_and_good_ones_kept():
    params, attempts, trained = simulations.train_until_good(train, retrain_failed=True)
    assert attempts.tolist() == [[1, 3, 5]]
    assert trained.tolist() == [[True, True, False]]
    assert params["bias"][0, :, 0].tolist() == [0.0, 2.0, 4.0]


def test_teachers_that_fail_stay_as_they_are_when_asked():
    params, attempts, trained = simulations.train_until_good(train, retrain_failed=False)
    assert attempts.tolist() == [[1, 1, 1]]
    assert trained.tolist() == [[True, False, False]]
    assert params["bias"].max() == 0.0


@pytest.mark.parametrize("num_labels", [-1, 12_001])
def test_more_labels_than_there_are_are_refused(num_labels):
    with pytest.raises(InputError, match="num_labels"):
        all_labels("simulation 1").with_labels(num_labels)


@pytest.mark.parametrize("num_inputs", [0, 12_001])
def test_more_inputs_than_there_are_are_refused(num_inputs):
    with pytest.raises(InputError, match="num_inputs"):
        all_labels("simulation 1").with_inputs(num_inputs)


def test_a_share_of_more_than_all_is_refused():
    with pytest.raises(InputError, match="share_elsewhere"):
        simulation_draws(design1.DESIGN, [0], share_elsewhere=1.5)
