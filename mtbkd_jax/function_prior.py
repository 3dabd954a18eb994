"""The function-space prior: per example, a mixture over teachers of Dirichlet densities around their probabilities.

The teacher-informed mixture prior (the paper, equations 7 and 8), in log space:

    log π_F(θ) = power · Σ_i logsumexp_g [ log w_i^g + log Dir(q_i(θ); 1 + λ p_i^g) ]
    log Dir(q; 1 + λp) = log Γ(λ + C) − Σ_c log Γ(1 + λ p_c) + λ Σ_c p_c log q_c

Component 0 is flat, Dir(1): the weight that it gets says "nobody knows". Everything that does not depend on θ is
computed once, in ``dirichlet_components``; a step costs one contraction and one logsumexp. Densities around teachers
that gave the probabilities of some classes only are in ``tails``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.examples import Examples
from mtbkd_jax.tails import KnownClasses, SetCounts, with_flat


class DirichletComponents(NamedTuple):
    """The mixture's components for each example; component 0 is flat, then one for each teacher.

    Attributes:
      pseudo_counts: ``[examples, components, classes]``, λ p_i^g; zero for the flat component.
      log_offsets: ``[examples, components]``, log w_i^g plus the log normaliser of the Dirichlet, nats.
      sets: pseudo-labels of sets of classes, where teachers gave the probabilities of some classes only; None where
        there are none.
    """

    pseudo_counts: Float[Array, "examples components classes"]
    log_offsets: Float[Array, "examples components"]
    sets: SetCounts | None = None


def dirichlet_components(
    teacher_probs: Float[Array, "examples teachers classes"],
    log_weights: Float[Array, "examples components"],
    concentration: float | Float[Array, ""],
    known: KnownClasses | None = None,
) -> DirichletComponents:
    """Precompute what the prior needs of the teachers.

    Args:
      teacher_probs: p_i^g, softened already.
      log_weights: log w_i^g; column 0 belongs to the flat component and is -inf where there is none.
      concentration: λ, the strength of one teacher in pseudo-labels an example; positive.
      known: of which classes teachers gave the probability, and what becomes of the others; None where they gave all.

    Raises:
      InputError: if ``concentration`` is not positive.
    """
    check_positive(concentration=concentration)
    if known is not None:
        of_classes, normalisers, sets = with_flat(known.components(teacher_probs, concentration))
        return DirichletComponents(of_classes, log_weights + normalisers, sets)
    num_classes = teacher_probs.shape[-1]
    flat = jnp.zeros_like(teacher_probs[:, :1])
    pseudo_counts = jnp.concatenate([flat, concentration * teacher_probs], axis=1)
    log_normalisers = gammaln(pseudo_counts.sum(-1) + num_classes) - gammaln(1.0 + pseudo_counts).sum(-1)
    return DirichletComponents(pseudo_counts, log_weights + log_normalisers)


def teacher_informed_prior(
    *, power: float | Float[Array, ""] = 1.0, temperature: float = 1.0
) -> Callable[[Float[Array, "examples classes"], Examples], Float[Array, " examples"]]:
    """Build the per-example term ``(logits, examples) -> log density [examples]`` in nats.

    Args:
      power: what the teachers' advice is worth against the labels; 1 is the paper's posterior (9), 0 is no teacher.
      temperature: τ, divides the student's logits; the teachers' are softened before ``dirichlet_components``.

    Raises:
      InputError: if ``power`` is negative or ``temperature`` is not positive.
    """
    check_not_negative(power=power)
    check_positive(temperature=temperature)

    def log_density(logits, examples: Examples):
        return power * jax.nn.logsumexp(_component_log_densities(logits / temperature, examples.components), axis=-1)

    return log_density


def responsibilities(
    logits: Float[Array, "examples classes"], components: DirichletComponents, *, temperature: float = 1.0
) -> Float[Array, "examples components"]:
    """r_i^g ∝ w_i^g Dir(q_i; 1 + λ p_i^g): how far each component explains the student's prediction; rows sum to one.

    The gradient of the log prior is power · λ Σ_g r_i^g (p_i^g − q_i) at τ = 1, so a teacher pulls on the student in
    proportion to its r.
    """
    return jax.nn.softmax(_component_log_densities(logits / temperature, components), axis=-1)


def _component_log_densities(logits: Array, components: DirichletComponents) -> Array:
    log_probs = jax.nn.log_softmax(logits)
    log_densities = components.log_offsets + jnp.einsum("egc,ec->eg", components.pseudo_counts, log_probs)
    return log_densities if components.sets is None else log_densities + components.sets.log_density(log_probs)
