"""Simulation 2 of the paper (arXiv 2605.27967): five Gaussians in five dimensions, and teachers that know some of them.

    y uniform on 0 to 4,    x | y ~ N(mean_y, Σ),    Σ_ij = 0.5^|i − j|

A domain is a Gaussian, that is, a class. The three teachers are 5-7-15-12-10-7-5 networks with dropout; each is an
expert in two classes (class 0 has two experts), and one in twenty of its examples comes from anywhere: it has heard of
every class, and is often wrong, and certain, about those it barely knows.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.simulations import Design, Training
from mtbkd_jax.types import Key

MEANS = np.array([[0, 0, 0, 0, 0], [3, 3, 3, 3, 3], [0, 0, 1, 3, 2], [2, 0, 1, 2, 1], [2, 2, 1, 0, 1]], np.float32)
NUM_CLASSES, NUM_FEATURES = MEANS.shape
COVARIANCE = 0.5 ** np.abs(np.subtract.outer(np.arange(NUM_FEATURES), np.arange(NUM_FEATURES)))
CLASSES_OF_TEACHER = np.array([[0, 1], [2, 3], [4, 0]])
SHARE_ELSEWHERE = 0.05


def class_probs(inputs: jax.Array) -> jax.Array:
    """True probabilities of the five classes, ``[..., 5]``: linear in the inputs on the log scale."""
    precision_times_means = np.linalg.solve(COVARIANCE, MEANS.T)
    offsets = -0.5 * np.sum(MEANS.T * precision_times_means, axis=0)
    logits = inputs @ jnp.asarray(precision_times_means, inputs.dtype)
    return jax.nn.softmax(logits + jnp.broadcast_to(jnp.asarray(offsets, inputs.dtype), logits.shape))


def bayes_limit(num_points: int = 1_000_000) -> tuple[float, float]:
    """Accuracy and NLL (nats) of the true probabilities, from that many points; accurate to a thousandth."""
    inputs, _ = draw_examples(jax.random.key(0), num_points)
    probs = np.asarray(class_probs(inputs), np.float64)
    entropy = -np.sum(probs * np.log(np.maximum(probs, 1e-300)), axis=1)
    return float(probs.max(1).mean()), float(entropy.mean())


def draw_examples(key: Key, num_examples: int) -> tuple[jax.Array, jax.Array]:
    """Inputs ``[num_examples, 5]`` of all classes alike, and labels."""
    return _of_classes(key, jnp.arange(NUM_CLASSES), num_examples)


def draw_own_examples(key: Key, teacher: jax.Array, num_examples: int) -> tuple[jax.Array, jax.Array]:
    """The same of the classes that a teacher is an expert in."""
    return _of_classes(key, jnp.asarray(CLASSES_OF_TEACHER)[teacher], num_examples)


def _of_classes(key: Key, classes: jax.Array, num_examples: int) -> tuple[jax.Array, jax.Array]:
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.choice(label_key, classes, (num_examples,))
    noise = jax.random.normal(noise_key, (num_examples, NUM_FEATURES))
    factor = jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)
    return jnp.asarray(MEANS)[labels] + noise @ factor.T, labels.astype(jnp.int32)


DESIGN = Design(
    num_train=24_000,
    num_test=16_000,
    teacher_names=("zero and one", "two and three", "four and zero"),
    training=Training(widths=(7, 15, 12, 10, 7), num_classes=NUM_CLASSES, num_examples=384),
    draw_examples=draw_examples,
    draw_own_examples=draw_own_examples,
    class_probs=class_probs,
    domain_names=tuple(f"class {label}" for label in range(NUM_CLASSES)),
    domain_of=lambda inputs, labels: labels,
)
