"""Simulation 1 of the paper (arXiv 2605.27967): the data, and teachers that know only their own third of the plane.

    x₁ ~ U(−3, 3.5),   x₂ ~ U(−3, 3),   P(y = 1 | x) = 1 / (1 + exp(−η(x)))
    η(x) = −0.5 + 0.1 x₁ + 0.8 x₁² − 0.8 x₂²

A domain is a third of the range of x₁ (the paper shows its domains in a figure only). Each teacher is a
2-7-10-12-10-5-2 network with dropout, trained on data of its own from its own domain.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.simulations import Design, Training
from mtbkd_jax.types import Key

X1_RANGE = (-3.0, 3.5)
X2_RANGE = (-3.0, 3.0)
DOMAIN_NAMES = ("left", "middle", "right")
NUM_DOMAINS = len(DOMAIN_NAMES)


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


def draw_examples(key: Key, num_examples: int, x1_range: tuple = X1_RANGE) -> tuple[jax.Array, jax.Array]:
    """Inputs ``[num_examples, 2]`` with x₁ uniform on ``x1_range``, and labels drawn from their true probabilities."""
    input_key, label_key = jax.random.split(key)
    low = jnp.array([x1_range[0], X2_RANGE[0]])
    high = jnp.array([x1_range[1], X2_RANGE[1]])
    inputs = jax.random.uniform(input_key, (num_examples, 2), minval=low[None], maxval=high[None])
    labels = jax.random.bernoulli(label_key, jax.nn.sigmoid(eta(inputs)))
    return inputs, labels.astype(jnp.int32)


def draw_own_examples(key: Key, domain: jax.Array, num_examples: int) -> tuple[jax.Array, jax.Array]:
    """The same with x₁ in one third of its range."""
    width = (X1_RANGE[1] - X1_RANGE[0]) / NUM_DOMAINS
    low = X1_RANGE[0] + width * domain
    return draw_examples(key, num_examples, (low, low + width))


DESIGN = Design(
    num_train=12_000,
    num_test=8_000,
    teacher_names=DOMAIN_NAMES,
    training=Training(widths=(7, 10, 12, 10, 5), num_classes=2, num_examples=384),
    draw_examples=draw_examples,
    draw_own_examples=draw_own_examples,
    class_probs=class_probs,
    domain_names=DOMAIN_NAMES,
    domain_of=lambda inputs, labels: domain_of(inputs),
)
