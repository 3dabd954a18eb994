"""Teachers that gave the probabilities of some classes only: what the function-space prior makes of the others.

A closed model may give the log probabilities of its k most probable classes K, and of the other m = C − k nothing but
their sum, t = 1 − Σ_K p_c. Three rules say what that means; each is a normalised density of all of q with respect to
the same measure as Dir(1), so that a mixture may have it beside the flat component and beside teachers that gave
everything. With k = C each is Dir(1 + λp), and for λ → 0 each is Dir(1).

``drop``: λ p_c pseudo-labels of the known classes, and none of the others. The teacher is weaker, by t:

    log f(q) = log Γ(C + λ(1 − t)) − Σ_K log Γ(1 + λ p_c) + λ Σ_K p_c log q_c

``renormalise``: only proportions among the known classes are spoken of, p̂_c = p_c / Σ_K p and r_c = q_c / Σ_K q. Under
Dir(1) these r are Dir(1) on their own, independent of the rest, which keeps its law; so f is Dir(1) times the ratio of
Dir(r; 1 + λp̂) and Dir(r; 1). One class alone then says nothing:

    log f(q) = log Γ(C) − log Γ(k) + log Γ(k + λ) − Σ_K log Γ(1 + λ p̂_c) + λ Σ_K p̂_c (log q_c − log Σ_K q)

``bucket``: λt of the pseudo-labels are of the others, nobody knows which. The others together, b = 1 − Σ_K q, are one
more category: by the aggregation property of the Dirichlet (q_K, b) is Dir(1, ..., 1, m) under Dir(1), and with the
pseudo-labels Dir(1 + λp_K, m + λt). Proportions among the others keep their law, Dir(1):

    log f(q) = log Γ(C + λ) + log Γ(m) − log Γ(m + λt) − Σ_K log Γ(1 + λ p_c) + λ Σ_K p_c log q_c + λt log b

Whatever needs a distribution over all classes (softening, trust, centers, the pool, entropies) has t spread evenly over
the others, under each rule.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float

Tail = Literal["drop", "renormalise", "bucket"]
"""What becomes of the classes that a teacher gave nothing of."""


class SetCounts(NamedTuple):
    """Pseudo-labels of a set of classes together: ``counts · log Σ_{c in the set} q_c``.

    Attributes:
      counts: ``[examples, components]``; zero where nothing is said of a set.
      is_member: ``[examples, components, classes]``; all classes where nothing is said.
    """

    counts: Float[Array, "examples components"]
    is_member: Bool[Array, "examples components classes"]

    def log_density(self, log_probs: Float[Array, "examples classes"]) -> Float[Array, "examples components"]:
        """Their part of the log density, in nats."""
        log_sums = jax.nn.logsumexp(jnp.where(self.is_member, log_probs[:, None], -jnp.inf), axis=-1)
        return self.counts * log_sums


class SparseComponents(NamedTuple):
    """What a rule makes of the teachers.

    Attributes:
      pseudo_counts: of each class, ``[examples, components, classes]``.
      log_normalisers: ``[examples, components]``, nats.
      sets: pseudo-labels of sets of classes; None where the rule has none.
    """

    pseudo_counts: Float[Array, "examples components classes"]
    log_normalisers: Float[Array, "examples components"]
    sets: SetCounts | None


class Dropped(NamedTuple):
    """The rule ``drop``; ``is_known`` says of which classes teachers gave the probability."""

    is_known: Bool[Array | np.ndarray, "examples teachers classes"]

    def components(
        self, teacher_probs: Float[Array, "examples teachers classes"], concentration: float | Float[Array, ""]
    ) -> SparseComponents:
        """Densities around the teachers."""
        counts = concentration * jnp.where(self.is_known, teacher_probs, 0.0)
        normalisers = gammaln(counts.sum(-1) + counts.shape[-1]) - gammaln(1.0 + counts).sum(-1)
        return SparseComponents(counts, normalisers, None)


class Renormalised(NamedTuple):
    """The rule ``renormalise``; ``is_known`` is that of ``Dropped``."""

    is_known: Bool[Array | np.ndarray, "examples teachers classes"]

    def components(
        self, teacher_probs: Float[Array, "examples teachers classes"], concentration: float | Float[Array, ""]
    ) -> SparseComponents:
        """Densities around the teachers."""
        known = jnp.where(self.is_known, teacher_probs, 0.0)
        counts = concentration * known / jnp.maximum(known.sum(-1, keepdims=True), jnp.finfo(known.dtype).tiny)
        num_classes, num_known, total = counts.shape[-1], self.is_known.sum(-1), counts.sum(-1)
        of_known = gammaln(num_known + total) - gammaln(num_known) - gammaln(1.0 + counts).sum(-1)
        of_set = jnp.where(num_known == num_classes, 0.0, -total)
        return SparseComponents(
            counts, gammaln(float(num_classes)) + of_known, SetCounts(of_set, jnp.asarray(self.is_known))
        )


class Bucketed(NamedTuple):
    """The rule ``bucket``; ``is_known`` is that of ``Dropped``."""

    is_known: Bool[Array | np.ndarray, "examples teachers classes"]

    def components(
        self, teacher_probs: Float[Array, "examples teachers classes"], concentration: float | Float[Array, ""]
    ) -> SparseComponents:
        """Densities around the teachers."""
        counts = concentration * jnp.where(self.is_known, teacher_probs, 0.0)
        of_set = concentration * jnp.where(self.is_known, 0.0, teacher_probs).sum(-1)
        num_classes, num_others = counts.shape[-1], (~self.is_known).sum(-1)
        at_least_one = jnp.maximum(num_others, 1)
        normalisers = (
            gammaln(num_classes + concentration)
            + (gammaln(at_least_one) - gammaln(at_least_one + of_set))
            - gammaln(1.0 + counts).sum(-1)
        )
        is_member = jnp.asarray(~self.is_known | (num_others == 0)[..., None])
        return SparseComponents(counts, normalisers, SetCounts(of_set, is_member))


KnownClasses: TypeAlias = Dropped | Renormalised | Bucketed

RULES: Mapping[Tail, type[KnownClasses]] = {"drop": Dropped, "renormalise": Renormalised, "bucket": Bucketed}


def with_flat(components: SparseComponents) -> SparseComponents:
    """The same, with the flat component Dir(1) in front."""
    of_classes, normalisers, sets = components
    first = jnp.full_like(normalisers[:, :1], gammaln(float(of_classes.shape[-1])))
    if sets is not None:
        sets = SetCounts(
            jnp.pad(sets.counts, ((0, 0), (1, 0))),
            jnp.pad(sets.is_member, ((0, 0), (1, 0), (0, 0)), constant_values=True),
        )
    return SparseComponents(
        jnp.pad(of_classes, ((0, 0), (1, 0), (0, 0))), jnp.concatenate([first, normalisers], axis=1), sets
    )
