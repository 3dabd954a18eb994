"""Baselines: what a multi-teacher student is compared with. Each is a per-example term that takes the place of the prior."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.examples import Examples


def classical_distillation(
    *, strength: float | Float[Array, ""], temperature: float = 1.0
) -> Callable[[Array, Examples], Float[Array, " examples"]]:
    """Classical multi-teacher knowledge distillation (the paper, equation 5), as minus the loss of each example.

        − strength · Σ_g w_i^g CE(p_i^g, q_i)

    in nats, with the weights as given (equal ones in the classical form) and without the factor T² that some authors multiply by.
    With the cross-entropy of the labels added, its minimum is the mode of the log-opinion pool of the single-teacher posteriors
    (theorem 4.2): it averages the teachers' opinions where the mixture prior chooses among them.

    Cross-entropy is linear in its first argument, so the examples carry the pooled targets Σ_g w_i^g p_i^g ``[examples, classes]`` as
    their ``components``.

    Args:
      strength: λ of equation 5, weight of the teachers against one label.
      temperature: τ, divides the student's logits; the teachers' are softened before.

    Raises:
      InputError: if ``strength`` is negative or ``temperature`` is not positive.
    """
    check_not_negative(strength=strength)
    check_positive(temperature=temperature)

    def log_density(logits, examples: Examples):
        log_probs = jax.nn.log_softmax(logits / temperature)
        return strength * jnp.sum(examples.components * log_probs, axis=-1)

    return log_density
