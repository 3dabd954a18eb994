import jax
import jax.numpy as jnp
import numpy as np

from mtbkd_jax.examples import Examples
from mtbkd_jax.likelihood import categorical_log_likelihood

LOGITS = jnp.array([[1.0, 2.0, 3.0], [0.0, -1.0, 500.0], [4.0, 0.0, 0.0]])
EXAMPLES = Examples(jnp.zeros((3, 1)), jnp.array([2, 0, -1]))


def test_density_is_the_log_probability_of_the_label():
    expected = [3 - np.log(np.exp([1.0, 2.0, 3.0]).sum()), -500.0, 0.0]
    np.testing.assert_allclose(categorical_log_likelihood(LOGITS, EXAMPLES), expected, rtol=1e-6)


def test_gradient_is_the_label_minus_the_probability_and_nothing_without_a_label():
    gradient = jax.grad(lambda logits: categorical_log_likelihood(logits, EXAMPLES).sum())(LOGITS)
    label = jax.nn.one_hot(EXAMPLES.labels, 3)
    expected = (label - jax.nn.softmax(LOGITS)) * (EXAMPLES.labels >= 0)[:, None]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
