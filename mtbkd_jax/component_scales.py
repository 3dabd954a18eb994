"""Scales of the weight-space prior's components: a diagonal of standard deviations around each center.

Two ways to one, both from the objective that the center was distilled by, Σ_i w_i Σ_c p_ic log q_ic(θ):

- ``curvature_scales``: how sharply the objective bends at the center. A parameter that the teacher's lesson does not
  determine keeps the width of the Gaussian that holds the distillation back.
- ``trajectory_scales``: how far an optimiser strays that goes on from the center (SWAG).

Both are pure and can be traced; with ``jax.vmap`` over centers and example weights they serve all components at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.chains import BatchKey, DrawBatch
from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.students import Student
from mtbkd_jax.tree import tree_add_scaled, tree_size
from mtbkd_jax.types import Batch, Key, MinibatchLogDensity, Params, Scalar


class ComponentScales(NamedTuple):
    """Standard deviations of one component.

    Attributes:
      scale: in the structure and shapes of the parameters.
      share_damped: share of the parameters, 0 to 1, whose scale is set by the bound more than by what was measured.
    """

    scale: Params
    share_damped: Scalar


def fisher_diagonal(
    student: Student,
    params: Params,
    inputs: Array,
    weights: Float[Array, " examples"],
    *,
    chunk_size: int = 32,
) -> Params:
    """The diagonal of the student's Fisher information, exact.

        F_d = Σ_i w_i Σ_c q_ic (∂ log q_ic / ∂θ_d)²,        q_i = softmax(logits of example i)

    The expectation is over classes drawn from the student itself. It is the generalised Gauss-Newton matrix of the
    distillation objective as well, whatever the targets p, as long as each row of them sums to one (Martens, 2020): for
    a student that is linear in its parameters, minus the objective's Hessian.

    One vector-Jacobian product for each example and class; memory is O(``chunk_size`` × parameters). Rows of a batch
    must not depend on each other.

    Args:
      student: the network.
      params: θ, where the curvature is taken.
      inputs: ``[examples, ...]``.
      weights: w_i, not negative.
      chunk_size: examples that are looked at together.

    Returns:
      F_d, in the structure and shapes of ``params``.

    Raises:
      InputError: if ``chunk_size`` is not positive or a weight is negative or not finite.

    >>> from mtbkd_jax.students import mlp
    >>> coin = mlp(num_features=1, hidden=(), num_classes=2)
    >>> zero = jax.tree.map(jnp.zeros_like, coin.init(jax.random.key(0)))
    >>> fisher_diagonal(coin, zero, jnp.array([[2.0]]), jnp.array([3.0]))["Dense_0"]["kernel"].tolist()
    [[3.0, 3.0]]
    """
    check_positive(chunk_size=chunk_size)
    check_not_negative(weights=weights)
    num_examples = inputs.shape[0]
    chunk_size = min(chunk_size, num_examples)
    places = jnp.arange(num_examples + -num_examples % chunk_size).reshape(-1, chunk_size)

    def of_example(example: Array) -> Params:
        logits, pull_back = jax.vjp(lambda params: student.apply(params, example[None])[0], params)
        probs = jax.nn.softmax(logits)

        def add_class(total: Params, index: Array) -> tuple[Params, None]:
            # ∂ log q_c / ∂ logits = e_c − q.
            (gradient,) = pull_back(jax.nn.one_hot(index, probs.size, dtype=probs.dtype) - probs)
            return jax.tree.map(lambda sum_, g: sum_ + probs[index] * jnp.square(g), total, gradient), None

        return jax.lax.scan(add_class, jax.tree.map(jnp.zeros_like, params), jnp.arange(probs.size))[0]

    def add_chunk(total: Params, places: Array) -> tuple[Params, None]:
        # The last chunk is filled up with rows from the start, at weight zero.
        rows = places % num_examples
        chunk_weights = jnp.where(places < num_examples, weights[rows], 0.0)
        squares = jax.vmap(of_example)(inputs[rows])
        return jax.tree.map(lambda sum_, leaf: sum_ + jnp.tensordot(chunk_weights, leaf, axes=1), total, squares), None

    return jax.lax.scan(add_chunk, jax.tree.map(jnp.zeros_like, params), places)[0]


def curvature_scales(
    student: Student,
    center: Params,
    inputs: Array,
    weights: Float[Array, " examples"],
    scale: float | Scalar,
    *,
    chunk_size: int = 32,
) -> ComponentScales:
    """The diagonal Laplace approximation at a center: scale_d = 1 / √(F_d + 1 / s²).

    F is that of ``fisher_diagonal``. 1 / s² is the curvature of the Gaussian that holds the distillation back, so no
    scale is above s; a parameter of which the examples say less than that Gaussian, F_d < 1 / s², counts as damped.
    Off-diagonal curvature is left out: a scale is that of a parameter given all others, which is at most its scale when
    they vary as well.

    Args:
      student: the network.
      center: distilled parameters.
      inputs: ``[examples, ...]``, those of the distillation.
      weights: w_i, how much each example counted in it; not negative.
      scale: s, as in ``distil_centers``.
      chunk_size: examples that are looked at together; memory is O(``chunk_size`` × parameters).

    Raises:
      InputError: if ``scale`` or ``chunk_size`` is not positive, or a weight is negative or not finite.
    """
    check_positive(scale=scale)
    curvature = fisher_diagonal(student, center, inputs, weights, chunk_size=chunk_size)
    damping = 1.0 / jnp.square(scale)
    scales = jax.tree.map(lambda leaf: jax.lax.rsqrt(leaf + damping), curvature)
    return ComponentScales(scales, _share(jax.tree.map(lambda leaf: leaf < damping, curvature)))


def trajectory_scales(
    log_density: MinibatchLogDensity,
    center: Params,
    *,
    key: Key,
    data: Batch,
    draw_batch: DrawBatch,
    num_steps: int,
    learning_rate: float | Scalar,
    floor: float | Scalar,
) -> ComponentScales:
    """The spread of stochastic gradient ascent around a center: the diagonal of SWAG (Maddox et al., 2019).

        θ ← θ + η ∇log p̂(θ),        scale_d = √max(E[θ_d²] − E[θ_d]², floor²)        over the steps, from the center on

    The spread is that of the gradient noise at this learning rate, not of a posterior: where the objective has the
    curvature a and a step's gradient the variance σ², it is η σ² / (a (2 − η a)). It takes 1 / (η a) steps to be seen:
    along flat directions a shorter run gives too little. A run that diverges, η a > 2, gives NaN or infinite scales,
    which ``WeightMixture`` refuses.

    Args:
      log_density: the objective, ``(params, batch) -> nats``.
      center: where the run starts, a mode of it.
      key: of the minibatches.
      data: what they are drawn from.
      draw_batch: ``(key, data) -> batch``.
      num_steps: of the run.
      learning_rate: η, constant.
      floor: the least scale; a parameter that has moved less counts as damped.

    Raises:
      InputError: if ``num_steps``, ``learning_rate`` or ``floor`` is not positive.
    """
    check_positive(num_steps=num_steps, learning_rate=learning_rate, floor=floor)
    gradient = jax.grad(log_density)

    # Welford's recurrence: E[θ²] − E[θ]² itself would lose, in float32, a spread that is small beside the parameter.
    def climb(carry, step):
        params, mean, squares = carry
        batch = draw_batch(BatchKey(key, step), data)
        params = tree_add_scaled(params, learning_rate, gradient(params, batch))
        deviation = tree_add_scaled(params, -1.0, mean)
        mean = tree_add_scaled(mean, 1.0 / (step + 1), deviation)
        squares = jax.tree.map(lambda sum_, x, old, m: sum_ + old * (x - m), squares, params, deviation, mean)
        return (params, mean, squares), None

    nothing = jax.tree.map(jnp.zeros_like, center)
    (_, _, squares), _ = jax.lax.scan(climb, (center, center, nothing), jnp.arange(num_steps))
    spreads = jax.tree.map(lambda leaf: jnp.sqrt(leaf / num_steps), squares)
    scales = jax.tree.map(lambda leaf: jnp.maximum(leaf, floor), spreads)
    return ComponentScales(scales, _share(jax.tree.map(lambda leaf: leaf < floor, spreads)))


def _share(holds: Params) -> Scalar:
    """The share of all entries of a tree that are true."""
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, holds)) / tree_size(holds)
