"""The digits study: three teachers of different kinds, each an expert in some of scikit-learn's handwritten digits.

The 1,797 images of 8 x 8 pixels are split, stratified by class, into 650 that the teachers learn from, a pool of 600
for the student, of which a few keep their labels, and 547 to test on. No two parts share an image.

==========  ============================================  ==========
teacher     what it is                                    its digits
==========  ============================================  ==========
``svm``     support vector machine, Gaussian kernel       0, 1, 2, 3
``forest``  gradient-boosted classification trees         4, 5, 6
``cnn``     convolutional network in Flax                 7, 8, 9
==========  ============================================  ==========

Each sees all the teachers' images of its own digits and one in twenty of the others: it has heard of every digit, and
is often wrong, and certain, about those it barely knows. No teacher is good everywhere; together they know every digit.

Nothing is read but the data set that scikit-learn carries, and nothing is written. What comes out depends on the
arguments alone, but for the convolutional network: on some processors XLA's convolutions round in another way when
another number of threads shares them, and no compiler option that was tried forbids it.
"""

import dataclasses
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, Int32, Shaped

from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key

TEACHER_DOMAINS: dict[str, tuple[int, ...]] = {"svm": (0, 1, 2, 3), "forest": (4, 5, 6), "cnn": (7, 8, 9)}
"""The digits that each teacher is an expert in."""

_NUM_CLASSES = 10
_NUM_PIXELS = 64
_BRIGHTEST = 16.0
_NUM_TEACHER_ROWS = 650
_NUM_POOL_ROWS = 600
_SHARE_OF_OTHER_DIGITS = 0.05
# The logarithm needs a floor under probabilities that a teacher rounds to zero. No teacher has seen more than some 300
# images, so none has grounds for being surer than this.
_SMALLEST_PROBABILITY = 1e-6
_CNN_STEPS = 200
_CNN_BATCH = 32
_CNN_LEARNING_RATE = 2e-3


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DigitsSplit:
    """Data of the student.

    Attributes:
      pool_inputs: pixels of the student's images, 0 to 16, row by row.
      pool_labels: the digit, or -1 where its label is withheld.
      pool_true_labels: the digit, for those who want to look at what was withheld.
      pool_ids: ``digit-0000`` to ``digit-1796``, the row in scikit-learn's data set.
      test_inputs: pixels of the test images.
      test_labels: their digits.
      test_ids: as ``pool_ids``.
      class_names: ``"0"`` to ``"9"``.
    """

    pool_inputs: Float32[np.ndarray, "pool 64"]
    pool_labels: Int32[np.ndarray, " pool"]
    pool_true_labels: Int32[np.ndarray, " pool"]
    pool_ids: Shaped[np.ndarray, " pool"]
    test_inputs: Float32[np.ndarray, "test 64"]
    test_labels: Int32[np.ndarray, " test"]
    test_ids: Shaped[np.ndarray, " test"]
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DigitsStudy(DigitsSplit):
    """Data of the student and outputs of the teachers.

    Attributes:
      teacher_names: in the order of the teacher axis below.
      pool_teacher_logits: unnormalised log probabilities in nats. Of the ``svm`` and the ``forest`` they are the
        logarithms of probabilities that were raised to at least 1e-6.
      test_teacher_logits: the same for the test images.
      teacher_parameter_counts: numbers that a teacher stores and that were fitted to data. Of the ``svm``: the pixels
        of its support vectors, their dual coefficients, intercepts and one temperature. Of the ``forest``: a feature
        and a threshold for each split, a value for each leaf, and a starting score for each class. Of the ``cnn``:
        weights and biases.
    """

    teacher_names: tuple[str, ...]
    pool_teacher_logits: Float32[np.ndarray, "pool teachers 10"]
    test_teacher_logits: Float32[np.ndarray, "test teachers 10"]
    teacher_parameter_counts: tuple[int, ...]


def digits_split(*, seed: int, num_labels: int = 100) -> DigitsSplit:
    """Split the digits as ``digits_study`` does, and train nobody.

    Args:
      seed: decides the split and which labels are kept.
      num_labels: how many images of the pool keep their label.

    Raises:
      InputError: as ``digits_study`` does.
    """
    return _split(*_digits(), seed, num_labels)[0]


def digits_study(*, seed: int, num_labels: int = 100) -> DigitsStudy:
    """Split the digits, train the teachers, and ask them about the student's images.

    Args:
      seed: decides the split, the teachers and which labels are kept. ``num_labels`` changes neither of the first two,
        and a larger one keeps the labels that a smaller one does.
      num_labels: how many images of the pool keep their label, spread evenly over the classes.

    Raises:
      InputError: if ``seed`` is negative, or ``num_labels`` is not between 0 and the size of the pool, 600.
    """
    inputs, labels = _digits()
    split, teacher_rows, rngs = _split(inputs, labels, seed, num_labels)
    pixels = inputs / np.float32(_BRIGHTEST)
    asked = np.concatenate([split.pool_inputs, split.test_inputs]) / np.float32(_BRIGHTEST)
    logits, counts = [], []
    for teach, domain, rng in zip((_teach_svm, _teach_forest, _teach_cnn), TEACHER_DOMAINS.values(), rngs, strict=True):
        seen = teacher_rows[_rows_seen(labels[teacher_rows], domain, rng)]
        teacher_logits, count = teach(pixels[seen], labels[seen], asked, int(rng.integers(2**31)))
        logits.append(teacher_logits)
        counts.append(count)
    pool_logits, test_logits = np.split(np.stack(logits, axis=1), [_NUM_POOL_ROWS])
    return DigitsStudy(
        **vars(split),
        teacher_names=tuple(TEACHER_DOMAINS),
        pool_teacher_logits=pool_logits,
        test_teacher_logits=test_logits,
        teacher_parameter_counts=tuple(counts),
    )


def _digits() -> tuple[Float32[np.ndarray, "images 64"], Int32[np.ndarray, " images"]]:
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    return inputs.astype(np.float32), labels.astype(np.int32)


def _split(
    inputs: Float32[np.ndarray, "images 64"], labels: Int32[np.ndarray, " images"], seed: int, num_labels: int
) -> tuple[DigitsSplit, Int[np.ndarray, " taught"], list[np.random.Generator]]:
    """The student's data, the rows that the teachers learn from, and a generator for each teacher."""
    if seed < 0:
        raise InputError("digits_study", "seed", str(seed), "a whole number from 0 on", "Choose another seed.")
    if not 0 <= num_labels <= _NUM_POOL_ROWS:
        raise InputError(
            "digits_study", "num_labels", str(num_labels), f"0 to {_NUM_POOL_ROWS}", "Ask for fewer labels or more."
        )
    ids = np.array([f"digit-{row:04d}" for row in range(len(labels))])
    split_rng, label_rng, *teacher_rngs = np.random.default_rng(seed).spawn(2 + len(TEACHER_DOMAINS))
    # Sorted, so that neither the class nor whether there is a label can be told from an image's position.
    teacher_rows, pool_rows, test_rows = map(
        np.sort, np.split(_stratified_order(labels, split_rng), [_NUM_TEACHER_ROWS, _NUM_TEACHER_ROWS + _NUM_POOL_ROWS])
    )
    pool_true_labels = labels[pool_rows]
    labelled = _stratified_order(pool_true_labels, label_rng)[:num_labels]
    pool_labels = np.full_like(pool_true_labels, -1)
    pool_labels[labelled] = pool_true_labels[labelled]
    split = DigitsSplit(
        pool_inputs=inputs[pool_rows],
        pool_labels=pool_labels,
        pool_true_labels=pool_true_labels,
        pool_ids=ids[pool_rows],
        test_inputs=inputs[test_rows],
        test_labels=labels[test_rows],
        test_ids=ids[test_rows],
        class_names=tuple(str(digit) for digit in range(_NUM_CLASSES)),
    )
    return split, teacher_rows, teacher_rngs


def _stratified_order(labels: Int[np.ndarray, " rows"], rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """A random order of the rows in which every beginning holds each class in proportion, to within one row or so."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.lexsort((rng.random(len(labels)), position))


def _rows_seen(
    labels: Int[np.ndarray, " rows"], domain: tuple[int, ...], rng: np.random.Generator
) -> Int[np.ndarray, " seen"]:
    """All rows of the teacher's own digits and a small share of the others."""
    is_own = np.isin(labels, domain)
    others = np.flatnonzero(~is_own)
    heard_of = others[_stratified_order(labels[others], rng)[: round(_SHARE_OF_OTHER_DIGITS * len(others))]]
    return np.sort(np.concatenate([np.flatnonzero(is_own), heard_of]))


def _log_probabilities(probs: Float[np.ndarray, "asked 10"]) -> Float32[np.ndarray, "asked 10"]:
    return np.log(np.maximum(probs, _SMALLEST_PROBABILITY)).astype(np.float32)


def _teach_svm(
    pixels: Float32[np.ndarray, "seen 64"],
    labels: Int32[np.ndarray, " seen"],
    asked: Float32[np.ndarray, "asked 64"],
    seed: int,
) -> tuple[Float32[np.ndarray, "asked 10"], int]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import SVC

    # A machine has decision values only. One temperature, fitted to out-of-fold decision values, makes them
    # probabilities: right for the images that the teacher sees, mostly its own digits, and too sure about the others.
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    model = CalibratedClassifierCV(SVC(C=10.0), method="temperature", ensemble=False, cv=folds).fit(pixels, labels)
    machine = model.calibrated_classifiers_[0].estimator
    count = machine.support_vectors_.size + machine.dual_coef_.size + machine.intercept_.size + 1
    return _log_probabilities(model.predict_proba(asked)), count


def _teach_forest(
    pixels: Float32[np.ndarray, "seen 64"],
    labels: Int32[np.ndarray, " seen"],
    asked: Float32[np.ndarray, "asked 64"],
    seed: int,
) -> tuple[Float32[np.ndarray, "asked 10"], int]:
    from sklearn.ensemble import GradientBoostingClassifier

    # The histogram version is meant for more data: its threads spend their time waiting for each other here.
    model = GradientBoostingClassifier(n_estimators=60, subsample=0.7, max_features=8, random_state=seed)
    model.fit(pixels, labels)
    trees = [tree.tree_ for tree in model.estimators_.flat]
    num_leaves = sum(int(tree.n_leaves) for tree in trees)
    num_splits = sum(int(tree.node_count) for tree in trees) - num_leaves
    return _log_probabilities(model.predict_proba(asked)), 2 * num_splits + num_leaves + _NUM_CLASSES


class _ConvolutionalNetwork(nn.Module):
    """Two convolutions and a hidden layer: 155,434 parameters."""

    @nn.compact
    def __call__(self, pixels: Float[Array, "images 64"]) -> Float[Array, "images 10"]:
        values = pixels.reshape(-1, 8, 8, 1)
        values = nn.max_pool(nn.relu(nn.Conv(16, (3, 3))(values)), (2, 2), strides=(2, 2))
        values = nn.relu(nn.Conv(32, (3, 3))(values))
        values = nn.relu(nn.Dense(288)(values.reshape(values.shape[0], -1)))
        return nn.Dense(_NUM_CLASSES)(values)


@partial(jax.jit, static_argnames="network")
def _train_and_ask(
    network: nn.Module,
    key: Key,
    pixels: Float[Array, "seen 64"],
    labels: Int[Array, " seen"],
    asked: Float[Array, "asked 64"],
) -> Float[Array, "asked 10"]:
    """Train by Adam with a cosine decay and predict, in one compilation."""
    optimizer = optax.adam(optax.cosine_decay_schedule(_CNN_LEARNING_RATE, _CNN_STEPS))
    init_key, batch_key = jax.random.split(key)
    params = network.init(init_key, pixels[:1])

    def loss(params, rows):
        logits = network.apply(params, pixels[rows])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]))

    def step(carry, step_key):
        params, state = carry
        rows = jax.random.randint(step_key, (_CNN_BATCH,), 0, len(pixels))
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(batch_key, _CNN_STEPS)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    return cast(Array, network.apply(params, asked))  # without `mutable` it is the output alone


def _teach_cnn(
    pixels: Float32[np.ndarray, "seen 64"],
    labels: Int32[np.ndarray, " seen"],
    asked: Float32[np.ndarray, "asked 64"],
    seed: int,
) -> tuple[Float32[np.ndarray, "asked 10"], int]:
    network = _ConvolutionalNetwork()
    logits = _train_and_ask(network, jax.random.key(seed), jnp.asarray(pixels), jnp.asarray(labels), jnp.asarray(asked))
    shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, _NUM_PIXELS), jnp.float32))
    return np.asarray(logits), sum(leaf.size for leaf in jax.tree.leaves(shapes))
