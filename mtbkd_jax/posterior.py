"""The posterior: the sum of its terms, and the search for its mode.

    log p(θ | D) = Σ_i [log likelihood_i + log π_F,i](θ) + log π_W(θ) + const

Terms are of two kinds: *per example* ``(logits [B, C], examples) -> [B]`` (likelihoods, the function-space prior) and
*per parameters* ``params -> scalar`` (the weight-space prior). Only here are they added up, over a batch whose weights
say how much each row counts (one for the full data; N / B or the like for a minibatch).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from mtbkd_jax.chains import DATA_AXIS, BatchKey, DrawBatch
from mtbkd_jax.examples import Examples, WeightedExamples
from mtbkd_jax.students import Student
from mtbkd_jax.tree import tree_scale
from mtbkd_jax.types import Key, MinibatchLogDensity, Params, Scalar

PerExampleTerm = Callable[[Array, Examples], Array]
PerParametersTerm = Callable[[Params], Scalar]

LEARNING_RATE = 0.003
"""Of climbs that are long, or start at a center and are to stay in its neighbourhood."""
FAST_LEARNING_RATE = 0.01
"""For climbs from where nothing is known: a few hundred steps get high with it, whatever the student, where at
``LEARNING_RATE`` they hardly leave their start (``experiments/climbs``)."""


def log_posterior(
    student: Student,
    *,
    per_example: Sequence[PerExampleTerm],
    per_parameters: Sequence[PerParametersTerm] = (),
    chunk_size: int | None = None,
    over_devices: bool = False,
) -> MinibatchLogDensity:
    """Add the terms up to ``(params, batch) -> log density`` in nats, up to a constant.

    Args:
      student: gives the logits; evaluated once for all per-example terms.
      per_example: terms ``(logits, examples) -> [examples]``.
      per_parameters: terms ``params -> scalar``.
      chunk_size: rows evaluated at a time where a full batch does not fit in memory; the gradient recomputes the
        chunk's activations instead of keeping them. None takes all rows at once.
      over_devices: whether every device along the data axis of a mesh (``chains``) has rows of its own, whose sums are
        to be added up; for calls inside of ``over_chains`` alone.
    """

    def batch_sum(params: Params, batch: WeightedExamples) -> Scalar:
        logits = student.apply(params, batch.examples.inputs)
        chex.assert_shape(logits, (batch.weights.shape[0], None))
        total = sum(term(logits, batch.examples) for term in per_example)
        return jnp.sum(batch.weights * total)

    def chunked_sum(params: Params, batch: WeightedExamples, chunk_size: int) -> Scalar:
        def add_chunk(total, chunk):
            return total + jax.checkpoint(batch_sum)(params, chunk), None

        return jax.lax.scan(add_chunk, jnp.zeros(()), _in_chunks(batch, chunk_size))[0]

    sum_over_batch: MinibatchLogDensity = (
        batch_sum if chunk_size is None else partial(chunked_sum, chunk_size=chunk_size)
    )
    if over_devices:
        sum_over_batch = _added_up(sum_over_batch)

    def log_density(params: Params, batch: WeightedExamples) -> Scalar:
        return sum_over_batch(params, batch) + sum(term(params) for term in per_parameters)

    return log_density


def _added_up(sum_over_rows: MinibatchLogDensity) -> MinibatchLogDensity:
    """The sum over the rows of all devices; it and its gradient take one exchange between these together."""

    def exchange(tree: Any) -> Any:
        flat, unravel = ravel_pytree(tree)
        return unravel(jax.lax.psum(flat, DATA_AXIS))

    @jax.custom_vjp
    def total(params: Params, batch: WeightedExamples) -> Scalar:
        return exchange(sum_over_rows(params, batch))

    def forward(params: Params, batch: WeightedExamples) -> tuple[Scalar, Params]:
        return exchange(jax.value_and_grad(sum_over_rows)(params, batch))

    def backward(gradient: Params, slope: Scalar) -> tuple[Params, None]:
        return tree_scale(slope, gradient), None  # the data are no variables

    total.defvjp(forward, backward)
    return total


def linearised_curvature(
    student: Student, *, per_example: Sequence[PerExampleTerm]
) -> Callable[[Params, WeightedExamples], Callable[[Params], Params]]:
    """The curvature of the per-example terms for a network that is linear around the parameters.

        −Jᵀ [∂² Σ_i weight_i term_i / ∂logits²] J,        J = ∂logits / ∂θ

    This is the generalised Gauss-Newton matrix (Martens, 2020): where the terms are concave in the logits, as a
    likelihood is, it is never negative, while the Hessian of a network bends in directions that are no feature of its
    posterior wherever the search for the mode has not quite ended.

    Args:
      student: gives the logits.
      per_example: terms ``(logits, examples) -> [examples]``.

    Returns:
      ``(params, batch) -> product``, where ``product(direction)`` is the matrix times a direction; both have the
      structure of the parameters.
    """

    def at(params: Params, batch: WeightedExamples) -> Callable[[Params], Params]:
        logits, push = jax.linearize(lambda params: student.apply(params, batch.examples.inputs), params)
        pull = jax.linear_transpose(push, params)
        slope = jax.grad(
            lambda logits: jnp.sum(batch.weights * sum(term(logits, batch.examples) for term in per_example))
        )

        def product(direction: Params) -> Params:
            bend = jax.jvp(slope, (logits,), (push(direction),))[1]
            return tree_scale(-1.0, pull(bend)[0])

        return product

    return at


class Mode(NamedTuple):
    """Where the search ended.

    Attributes:
      params: the parameters found.
      log_density: estimates along the way, ``[steps]``, nats.
    """

    params: Params
    log_density: Float[Array, " steps"]


def find_mode(
    log_density: MinibatchLogDensity,
    params: Params,
    *,
    key: Key,
    data: Any,
    draw_batch: DrawBatch,
    num_steps: int,
    learning_rate: float | Scalar = LEARNING_RATE,
) -> Mode:
    """Climb the log density by Adam with a cosine decay to zero, from ``params``; can be traced and vmapped.

    Adam's step does not depend on the scale of the density, so the same learning rate serves ten examples and ten
    million.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    value_and_grad = jax.value_and_grad(log_density)

    def climb(carry, step):
        params, state = carry
        value, gradient = value_and_grad(params, draw_batch(BatchKey(key, step), data))
        updates, state = optimizer.update(jax.tree.map(jnp.negative, gradient), state)
        return (optax.apply_updates(params, updates), state), value

    (params, _), values = jax.lax.scan(climb, (params, optimizer.init(params)), jnp.arange(num_steps))
    return Mode(params, values)


def find_mode_in_stages(
    log_density: MinibatchLogDensity,
    params: Params,
    *,
    key: Key,
    data_of_stage: Callable[[Int[Array, ""]], Any],
    num_stages: int,
    draw_batch: DrawBatch,
    num_steps: int,
    learning_rate: float | Scalar = LEARNING_RATE,
) -> Params:
    """Climb by ``find_mode`` on the data of each stage in turn, each from where the last one ended.

    The first stages are easier versions of the data, whose modes are fewer and lead to the better modes of the last.
    The stages are scanned, so that one climb is compiled for all.

    Args:
      log_density: of every stage.
      params: where the first climb starts.
      key: of the minibatches.
      data_of_stage: ``stage -> data``; those of the last stage are the data that count.
      num_stages: stages.
      draw_batch: ``(key, data) -> batch``.
      num_steps: of each stage.
      learning_rate: of each stage.
    """

    def climb(params, stage):
        mode = find_mode(
            log_density,
            params,
            key=jax.random.fold_in(key, stage),
            data=data_of_stage(stage),
            draw_batch=draw_batch,
            num_steps=num_steps,
            learning_rate=learning_rate,
        )
        return mode.params, None

    return jax.lax.scan(climb, params, jnp.arange(num_stages))[0]


def _in_chunks(batch: WeightedExamples, chunk_size: int) -> WeightedExamples:
    """Cut the rows into ``[chunks, chunk_size, ...]``; the last chunk is filled up with rows of weight zero."""
    missing = -batch.weights.shape[0] % chunk_size

    def cut(leaf: Array) -> Array:
        # A repeated row is finite wherever the data are, so its zero weight really removes it (0 · NaN would not).
        padded = jnp.concatenate([leaf, jnp.broadcast_to(leaf[:1], (missing, *leaf.shape[1:]))])
        return padded.reshape(-1, chunk_size, *leaf.shape[1:])

    weights = jnp.pad(batch.weights, (0, missing)).reshape(-1, chunk_size)
    return WeightedExamples(jax.tree.map(cut, batch.examples), weights)
