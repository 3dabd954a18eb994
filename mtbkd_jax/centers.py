"""Centers of the weight-space prior: the student's parameters, distilled from each teacher and from their pool.

Center k maximises Σ_i Σ_c t_ic^k log q_ic(θ) + log Normal(θ; 0, s²) with the targets

    t_i^k = a_i^k p_i^k + (1 − a_i^k) pool_i,        a_i^k = w_i^k / max_g w_i^g

Teacher k teaches alone where nobody is trusted more, and the pool where teacher k is trusted little: the evidence may
give all weight to one center, and what a teacher does not know must not be lost with the others. The pool is the
trust-weighted mean of all components, the flat one included. A teacher that was not asked about an example has no
weight there, so that the pool of the others teaches its center. All start from one initialisation, which keeps them in
one basin of the student's permutation symmetries.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtbkd_jax.examples import WeightedExamples, rows_of_epoch
from mtbkd_jax.posterior import find_mode
from mtbkd_jax.students import Student
from mtbkd_jax.types import Key, Params, Scalar
from mtbkd_jax.weight_prior import gaussian_prior
from mtbkd_jax.weighting import pooled_probs

CENTER_SCALES = (0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
_NUM_STEPS = 1000
_BATCH_SIZE = 128


class Centers(NamedTuple):
    """Distilled parameters.

    Attributes:
      params: stacked over components ``[1 + teachers, ...]``; row 0 is the pool, then one for each teacher.
      mean_weights: mean over the data of w_i^g, ``[1 + teachers]``; entry 0 is the flat component's.
    """

    params: Params
    mean_weights: Float[Array, " components"]


@partial(jax.jit, static_argnames="student")
def choose_center_scale(
    key: Key,
    student: Student,
    inputs: Array,
    teacher_probs: Float[Array, "examples teachers classes"],
    stands_for: Float[Array, " examples"] | None = None,
    is_asked: Bool[Array, "examples teachers"] | None = None,
) -> Scalar:
    """Choose the scale s that holds the distillation back, from ``CENTER_SCALES``.

    It is the one whose student, distilled from the plain mean of the teachers on four fifths of the examples, comes
    closest to it in cross-entropy on the others. This asks for teacher outputs alone, of which there are many, and for
    no label.

    Args:
      key: of the split, the initialisation and the minibatches.
      student: the network.
      inputs: ``[examples, ...]``.
      teacher_probs: softened probabilities.
      stands_for: as in ``Examples``.
      is_asked: whether each teacher was asked about each example; None where all were about all.
    """
    init_key, split_key, fit_key = jax.random.split(key, 3)
    start = student.init(init_key)
    if is_asked is None:
        targets = teacher_probs.mean(1)
    else:
        # An example that nobody was asked about has no target: its cross-entropy is zero.
        num_asked = jnp.maximum(is_asked.sum(1, keepdims=True), 1)
        targets = jnp.where(is_asked[..., None], teacher_probs, 0.0).sum(1) / num_asked
    is_kept = jax.random.permutation(split_key, inputs.shape[0]) >= inputs.shape[0] // 5

    def held_out_loss(scale):
        weights = _counted(is_kept.astype(jnp.float32), stands_for)
        params = _distil(fit_key, student, start, inputs, targets, weights, scale)
        losses = _counted(-jnp.sum(targets * jax.nn.log_softmax(student.apply(params, inputs)), axis=-1), stands_for)
        return jnp.sum(jnp.where(is_kept, 0.0, losses))

    scales = jnp.asarray(CENTER_SCALES)
    return scales[jnp.nanargmin(jax.lax.map(held_out_loss, scales))]


@partial(jax.jit, static_argnames="student")
def distil_centers(
    key: Key,
    student: Student,
    inputs: Array,
    teacher_probs: Float[Array, "examples teachers classes"],
    log_weights: Float[Array, "examples components"],
    scale: float | Scalar,
    is_taught: Bool[Array, " examples"],
    stands_for: Float[Array, " examples"] | None = None,
) -> Centers:
    """Distil the pool and every teacher into the student, all at once.

    Args:
      key: for the initialisation and the minibatches.
      student: into whose architecture the teachers are distilled.
      inputs: ``[examples, ...]``.
      teacher_probs: softened probabilities.
      log_weights: of the flat component and of each teacher, as a weighting rule gives them.
      scale: s, standard deviation of the Gaussian around zero that holds the distillation back.
      is_taught: False for examples that are to play no part.
      stands_for: as in ``Examples``.
    """
    weights = jnp.exp(log_weights)
    pool = pooled_probs(teacher_probs, log_weights)[:, None]
    alone = (weights / weights.max(axis=1, keepdims=True))[:, 1:, None]
    targets = jnp.swapaxes(jnp.concatenate([pool, alone * teacher_probs + (1 - alone) * pool], axis=1), 0, 1)

    init_key, fit_key = jax.random.split(key)
    start = student.init(init_key)
    counts = _counted(is_taught.astype(weights.dtype), stands_for)
    params = jax.vmap(lambda target: _distil(fit_key, student, start, inputs, target, counts, scale))(targets)
    mean_weights = weights.mean(0) if stands_for is None else stands_for @ weights / stands_for.sum()
    return Centers(params, mean_weights)


def _counted(values: Float[Array, " examples"], stands_for: Float[Array, " examples"] | None) -> Array:
    """Values of examples as they count in a sum over the data."""
    return values if stands_for is None else values * stands_for


def _distil(
    key: Key, student: Student, start: Params, inputs: Array, targets: Array, weights: Array, scale: float | Array
) -> Params:
    num_examples = inputs.shape[0]
    batch_size = min(_BATCH_SIZE, num_examples)

    def draw(key, data):
        rows = rows_of_epoch(key, num_examples, batch_size)
        return WeightedExamples(
            jax.tree.map(lambda leaf: leaf[rows], data), jnp.full((batch_size,), num_examples / batch_size)
        )

    def log_density(params, batch):
        inputs, targets, weights = batch.examples
        scores = jnp.sum(targets * jax.nn.log_softmax(student.apply(params, inputs)), axis=-1)
        return jnp.sum(batch.weights * weights * scores) + gaussian_prior(scale)(params)

    return find_mode(
        log_density, start, key=key, data=(inputs, targets, weights), draw_batch=draw, num_steps=_NUM_STEPS
    ).params
