import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.simulation1 import design
from mtbkd_jax.errors import InputError


@pytest.fixture(scope="module")
def draw():
    return design.simulation1(0, 300)


def test_bayes_limit_is_the_known_one():
    accuracy, nll = design.bayes_limit()
    assert accuracy == pytest.approx(0.843, abs=5e-4)
    assert nll == pytest.approx(0.336, abs=5e-4)


def test_labels_are_drawn_from_the_true_probabilities(draw):
    right = draw.test_probs[np.arange(design.NUM_TEST), draw.test_labels]
    nll = -np.log(right)
    assert draw.test_nll_limit == pytest.approx(nll.mean(), rel=1e-5)
    assert abs(nll.mean() - design.bayes_limit()[1]) < 4.0 * nll.std() / np.sqrt(design.NUM_TEST)
    np.testing.assert_allclose(draw.test_probs[:, 1], 1.0 / (1.0 + np.exp(-design.eta(draw.test_inputs))), rtol=1e-4)


def test_shapes_and_missing_labels(draw):
    assert draw.inputs.shape == (12_000, 2)
    assert draw.teacher_logits.shape == (12_000, 3, 2)
    assert draw.test_teacher_logits.shape == (8_000, 3, 2)
    assert (draw.labels >= 0).sum() == 300
    assert set(draw.labels.tolist()) == {-1, 0, 1}
    assert draw.inputs.min(0) == pytest.approx([-3.0, -3.0], abs=0.01)
    assert draw.inputs.max(0) == pytest.approx([3.5, 3.0], abs=0.01)


def test_teachers_know_their_own_third_and_are_certain_elsewhere(draw):
    probs = np.asarray(jax.nn.softmax(draw.test_teacher_logits))
    right = probs.argmax(-1) == draw.test_labels[:, None]
    domain = design.domain_of(draw.test_inputs)
    assert draw.teacher_trained.all()
    for teacher in range(3):
        # The Bayes limit of a third is .82 to .88, and teachers reach it within .05; the standard error is .008.
        assert right[domain == teacher, teacher].mean() > 0.75
    ignorant = right[domain == 2, 0]
    assert ignorant.mean() < 0.4
    assert probs.max(-1)[domain == 2, 0].mean() > 0.9


def test_more_labels_keep_the_data_and_the_teachers(draw):
    more = design.simulation1(0, 400)
    np.testing.assert_array_equal(draw.teacher_logits, more.teacher_logits)
    labelled = draw.labels >= 0
    np.testing.assert_array_equal(draw.labels[labelled], more.labels[labelled])
    assert (more.labels >= 0).sum() == 400


def test_a_share_of_the_training_data_can_come_from_elsewhere():
    inputs, _ = design._teacher_examples(jax.random.key(0), jnp.int32(1), 0.0)
    assert (design.domain_of(inputs) == 1).all()
    inputs, _ = design._teacher_examples(jax.random.key(0), jnp.int32(1), 0.3)
    # A third of the 30 % from the whole plane lies in the domain as well.
    share, num_examples = (design.domain_of(inputs) != 1).mean(), len(inputs)
    assert abs(share - 0.2) < 4.0 * np.sqrt(0.2 * 0.8 / num_examples)


@pytest.fixture
def teachers_that_fail_twice(monkeypatch):
    """Teacher 0 is good at once, 1 at the third attempt, 2 never; parameters are the number of the attempt."""

    def train(keys, attempt, share_elsewhere):
        trained = jnp.array([[True, attempt >= 2, False]])
        return {"bias": jnp.full((1, 3, 4), attempt, jnp.float32)}, trained

    monkeypatch.setattr(design, "_train_teachers", train)


@pytest.mark.usefixtures("teachers_that_fail_twice")
def test_teachers_that_fail_are_retrained_and_good_ones_kept():
    params, attempts, trained = design._train_until_good(None, 0.0, True)
    assert attempts.tolist() == [[1, 3, 5]]
    assert trained.tolist() == [[True, True, False]]
    assert params["bias"][0, :, 0].tolist() == [0.0, 2.0, 4.0]


@pytest.mark.usefixtures("teachers_that_fail_twice")
def test_teachers_that_fail_stay_as_they_are_when_asked():
    params, attempts, trained = design._train_until_good(None, 0.0, False)
    assert attempts.tolist() == [[1, 1, 1]]
    assert trained.tolist() == [[True, False, False]]
    assert params["bias"].max() == 0.0


@pytest.mark.parametrize(("num_labels", "share"), [(-1, 0.0), (12_001, 0.0), (10, 1.5)])
def test_numbers_out_of_range_are_refused(num_labels, share):
    with pytest.raises(InputError):
        design.simulation1(0, num_labels, share_elsewhere=share)
