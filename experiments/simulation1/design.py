"""Simulation 1 of the paper (arXiv 2605.27967): the data, and teachers that know only their own third of the plane.

    x₁ ~ U(−3, 3.5),   x₂ ~ U(−3, 3),   P(y = 1 | x) = 1 / (1 + exp(−η(x)))
    η(x) = −0.5 + 0.1 x₁ + 0.8 x₁² − 0.8 x₂²

A domain is a third of the range of x₁ (the paper shows its domains in a figure only). Each teacher is a
2-7-10-12-10-5-2 network with dropout, trained on data of its own from its own domain. Outside it a teacher is often
wrong and just as certain: that is the case in which one has to learn whom to trust.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key, Params

X1_RANGE = (-3.0, 3.5)
X2_RANGE = (-3.0, 3.0)
NUM_DOMAINS = 3
NUM_TRAIN = 12_000
NUM_TEST = 8_000
TEACHER_NAMES = ("left", "middle", "right")

_TEACHER_WIDTHS = (7, 10, 12, 10, 5)
_TEACHER_DROPOUT = 0.02
# Few examples and many passes: what makes a teacher more certain than it is right.
_TEACHER_EXAMPLES = 384
_TEACHER_EPOCHS = 500
_TEACHER_BATCH = 64
_TEACHER_LEARNING_RATE = 1e-2
_MAX_ATTEMPTS = 5
# A trained teacher lowers the NLL of its class frequencies by a quarter or more; one whose units died stays at 0.
_TRAINED_NLL_RATIO = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation1:
    """One draw of the data and of the teachers.

    Attributes:
      inputs: x, ``[12000, 2]``.
      labels: 0 or 1 for the labelled examples, −1 for the others, ``[12000]``.
      teacher_logits: ``[12000, G, 2]``, at temperature 1.
      test_inputs: ``[8000, 2]``.
      test_labels: ``[8000]``.
      test_probs: true class probabilities of the test inputs, ``[8000, 2]``.
      test_teacher_logits: ``[8000, G, 2]``.
      test_nll_limit: NLL (nats) of the true probabilities on the test labels: what no method beats but by luck.
      teacher_attempts: how often each teacher was trained, ``[G]``.
      teacher_trained: False where a teacher does no better than the class frequencies of its domain, ``[G]``.
    """

    inputs: np.ndarray
    labels: np.ndarray
    teacher_logits: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    test_probs: np.ndarray
    test_teacher_logits: np.ndarray
    test_nll_limit: float
    teacher_attempts: np.ndarray
    teacher_trained: np.ndarray


def eta(inputs):
    """Log odds of class 1 at ``inputs [..., 2]``, for NumPy and JAX arrays alike."""
    x1, x2 = inputs[..., 0], inputs[..., 1]
    return -0.5 + 0.1 * x1 + 0.8 * x1**2 - 0.8 * x2**2


def class_probs(inputs: jax.Array) -> jax.Array:
    """True probabilities of the two classes, ``[..., 2]``."""
    return jax.nn.softmax(jnp.stack([jnp.zeros_like(inputs[..., 0]), eta(inputs)], axis=-1))


def domain_of(inputs: np.ndarray) -> np.ndarray:
    """Which third of the range of x₁ an input lies in: 0, 1 or 2."""
    low, high = X1_RANGE
    thirds = (np.asarray(inputs)[..., 0] - low) / (high - low) * NUM_DOMAINS
    return np.clip(thirds.astype(np.int32), 0, NUM_DOMAINS - 1)


def bayes_limit(num_points: int = 1_500) -> tuple[float, float]:
    """Accuracy and NLL (nats) of the true probabilities, by the midpoint rule on ``num_points``² points."""
    middles = (np.arange(num_points) + 0.5) / num_points
    x1 = X1_RANGE[0] + middles * (X1_RANGE[1] - X1_RANGE[0])
    x2 = X2_RANGE[0] + middles * (X2_RANGE[1] - X2_RANGE[0])
    log_odds = eta(np.stack(np.meshgrid(x1, x2), axis=-1))
    prob = 1.0 / (1.0 + np.exp(-log_odds))
    # −p log p − (1 − p) log(1 − p), with log p = −log(1 + exp(−η)) so that neither end underflows.
    entropy = prob * np.logaddexp(0.0, -log_odds) + (1.0 - prob) * np.logaddexp(0.0, log_odds)
    return float(np.maximum(prob, 1.0 - prob).mean()), float(entropy.mean())


class Teacher(nn.Module):
    """The paper's teacher, 2-7-10-12-10-5-2, with dropout after each hidden layer.

    The masks of the dropout are an argument, so that they can be drawn once an epoch and not for each minibatch.
    """

    @nn.compact
    def __call__(self, inputs, keep=None):
        """Logits ``[B, 2]``; ``keep [B, 44]`` says which hidden units are kept, and without it all are."""
        hidden, start = inputs, 0
        for width in _TEACHER_WIDTHS:
            hidden = nn.relu(nn.Dense(width)(hidden))
            if keep is not None:
                hidden = hidden * keep[:, start : start + width] / (1.0 - _TEACHER_DROPOUT)
            start += width
        return nn.Dense(2)(hidden)


def simulation1(
    seed: int, num_labels: int, *, share_elsewhere: float = 0.0, retrain_failed: bool = True
) -> Simulation1:
    """One draw of data and teachers: :func:`simulation1_draws` for a single seed."""
    (draw,) = simulation1_draws([seed], num_labels, share_elsewhere=share_elsewhere, retrain_failed=retrain_failed)
    return draw


def simulation1_draws(
    seeds: Sequence[int], num_labels: int, *, share_elsewhere: float = 0.0, retrain_failed: bool = True
) -> list[Simulation1]:
    """Draw data and teachers for several seeds, all teachers of all draws trained together.

    The inputs, the labels and the teachers do not depend on ``num_labels``: with more labels the same ones are kept and
    others are added.

    Args:
      seeds: one for each draw.
      num_labels: how many of the 12,000 examples keep their label.
      share_elsewhere: share of a teacher's training data that comes from the whole plane and not from its domain.
      retrain_failed: train a teacher that does no better than the class frequencies again from another seed, up to five
        times in all, as a user would.

    Raises:
      InputError: if ``num_labels`` or ``share_elsewhere`` is out of range.
    """
    if not 0 <= num_labels <= NUM_TRAIN:
        raise InputError(
            "simulation 1", "num_labels", str(num_labels), f"0 to {NUM_TRAIN}", "Give the number of labelled examples."
        )
    if not 0.0 <= share_elsewhere <= 1.0:
        raise InputError("simulation 1", "share_elsewhere", str(share_elsewhere), "0 to 1", "Give a share.")

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    keys = jax.vmap(lambda key: jax.random.split(key, 4))(keys)
    train = jax.vmap(partial(_draw_examples, num_examples=NUM_TRAIN))(keys[:, 0])
    test = jax.vmap(partial(_draw_examples, num_examples=NUM_TEST))(keys[:, 1])
    label_order = jax.vmap(lambda key: jax.random.permutation(key, NUM_TRAIN))(keys[:, 2])

    teacher_keys = jax.vmap(lambda key: jax.random.split(key, NUM_DOMAINS))(keys[:, 3])
    params, attempts, trained = _train_until_good(teacher_keys, share_elsewhere, retrain_failed)
    logits, test_logits = (_teacher_logits(params, inputs) for inputs, _ in (train, test))
    test_probs = class_probs(test[0])

    draws = []
    for i in range(len(seeds)):
        labels = np.full(NUM_TRAIN, -1, np.int32)
        labelled = np.asarray(label_order[i][:num_labels])
        labels[labelled] = np.asarray(train[1][i])[labelled]
        true_probs, test_labels = np.asarray(test_probs[i]), np.asarray(test[1][i])
        draws.append(
            Simulation1(
                inputs=np.asarray(train[0][i]),
                labels=labels,
                teacher_logits=np.asarray(logits[i]),
                test_inputs=np.asarray(test[0][i]),
                test_labels=test_labels,
                test_probs=true_probs,
                test_teacher_logits=np.asarray(test_logits[i]),
                test_nll_limit=float(-np.log(true_probs[np.arange(NUM_TEST), test_labels]).mean()),
                teacher_attempts=attempts[i],
                teacher_trained=trained[i],
            )
        )
    return draws


def _draw_examples(key: Key, x1_range: tuple[float, float] = X1_RANGE, *, num_examples: int):
    """Inputs ``[num_examples, 2]`` with x₁ uniform on ``x1_range``, and labels drawn from their true probabilities."""
    input_key, label_key = jax.random.split(key)
    low = jnp.array([x1_range[0], X2_RANGE[0]])
    high = jnp.array([x1_range[1], X2_RANGE[1]])
    inputs = jax.random.uniform(input_key, (num_examples, 2), minval=low[None], maxval=high[None])
    labels = jax.random.bernoulli(label_key, jax.nn.sigmoid(eta(inputs)))
    return inputs, labels.astype(jnp.int32)


def _teacher_examples(key: Key, domain: jax.Array, share_elsewhere: float):
    """A teacher's training data: its own third of x₁, but for ``share_elsewhere`` of the examples on average."""
    own_key, everywhere_key, choice_key = jax.random.split(key, 3)
    width = (X1_RANGE[1] - X1_RANGE[0]) / NUM_DOMAINS
    low = X1_RANGE[0] + width * domain
    own = _draw_examples(own_key, (low, low + width), num_examples=_TEACHER_EXAMPLES)
    everywhere = _draw_examples(everywhere_key, num_examples=_TEACHER_EXAMPLES)
    is_own = jax.random.bernoulli(choice_key, 1.0 - share_elsewhere, (_TEACHER_EXAMPLES,))
    return jnp.where(is_own[:, None], own[0], everywhere[0]), jnp.where(is_own, own[1], everywhere[1])


def _train_teacher(key: Key, inputs: jax.Array, labels: jax.Array) -> tuple[Params, jax.Array]:
    """Adam on the cross-entropy; returns the parameters and whether the teacher learned anything."""
    teacher = Teacher()
    init_key, dropout_key = jax.random.split(key)
    params = teacher.init(init_key, inputs[:1])
    num_batches = _TEACHER_EXAMPLES // _TEACHER_BATCH
    optimizer = optax.adam(optax.cosine_decay_schedule(_TEACHER_LEARNING_RATE, _TEACHER_EPOCHS * num_batches))
    # The examples are in random order as they are drawn, so that minibatches can be cut from them as they stand.
    batches = (inputs.reshape(num_batches, _TEACHER_BATCH, 2), labels.reshape(num_batches, _TEACHER_BATCH))

    def mean_nll(params, inputs, labels, keep=None):
        logits = teacher.apply(params, inputs, keep)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry, batch):
        params, state = carry
        updates, state = optimizer.update(jax.grad(mean_nll)(params, *batch), state)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, epoch_key):
        keep_shape = (num_batches, _TEACHER_BATCH, sum(_TEACHER_WIDTHS))
        keep = jax.random.bernoulli(epoch_key, 1.0 - _TEACHER_DROPOUT, keep_shape)
        return jax.lax.scan(step, carry, (*batches, keep))[0], None

    epoch_keys = jax.random.split(dropout_key, _TEACHER_EPOCHS)
    (params, _), _ = jax.lax.scan(epoch, (params, optimizer.init(params)), epoch_keys)
    frequency = labels.mean()
    frequency_nll = -(frequency * jnp.log(frequency) + (1.0 - frequency) * jnp.log1p(-frequency))
    return params, mean_nll(params, inputs, labels) < _TRAINED_NLL_RATIO * frequency_nll


@partial(jax.jit, static_argnames="share_elsewhere")
def _train_teachers(keys: Key, attempt: jax.Array, share_elsewhere: float):
    """All teachers of all draws at once: ``keys [draws, G]``. Each attempt sees the same data, from another seed."""

    def one(key, domain):
        data_key, attempts_key = jax.random.split(key)
        inputs, labels = _teacher_examples(data_key, domain, share_elsewhere)
        return _train_teacher(jax.random.fold_in(attempts_key, attempt), inputs, labels)

    return jax.vmap(jax.vmap(one), in_axes=(0, None))(keys, jnp.arange(NUM_DOMAINS))


def _train_until_good(keys: Key, share_elsewhere: float, retrain_failed: bool):
    """Parameters, number of attempts and success of each teacher, ``[draws, G, ...]``."""
    params, trained = _train_teachers(keys, jnp.int32(0), share_elsewhere)
    trained = np.asarray(trained)
    attempts = np.ones(trained.shape, np.int32)
    while retrain_failed and not trained.all() and attempts.max() < _MAX_ATTEMPTS:
        # Teachers that are good already are trained again and thrown away: cheaper than compiling for another shape.
        again, better = _train_teachers(keys, jnp.int32(attempts.max()), share_elsewhere)
        attempts = np.where(trained, attempts, attempts + 1)
        params = jax.tree.map(partial(_keep_where, trained), params, again)
        trained = trained | np.asarray(better)
    return params, attempts, trained


def _keep_where(is_kept: np.ndarray, old: jax.Array, new: jax.Array) -> jax.Array:
    """``old [draws, G, ...]`` for the teachers that are kept, ``new`` for the others."""
    return jnp.where(is_kept.reshape(is_kept.shape + (1,) * (old.ndim - 2)), old, new)


@jax.jit
def _teacher_logits(params: Params, inputs: jax.Array) -> jax.Array:
    """Logits ``[draws, N, G, 2]`` of teachers ``[draws, G]`` at inputs ``[draws, N, 2]``."""
    of_one_draw = jax.vmap(Teacher().apply, in_axes=(0, None), out_axes=1)
    return jax.vmap(of_one_draw)(params, inputs)
