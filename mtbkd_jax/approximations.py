"""Approximations: cheap stand-ins for a sampled posterior, which a sampler is compared with.

Each turns an objective, such as that of a classical student (``baselines``), into draws of the parameters, stacked;
they are predicted from as sampled draws are.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.vi import meanfield_vi
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mtbkd_jax.chains import BatchKey, DrawBatch
from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.posterior import FAST_LEARNING_RATE, find_mode
from mtbkd_jax.tree import tree_add_scaled
from mtbkd_jax.types import Key, MinibatchLogDensity, Params

_FIRST_SCALE = 0.05
"""Standard deviation that mean-field inference starts from."""

_PRECISIONS = np.geomspace(1e-4, 1e6, 201, dtype=np.float32)
"""Candidates of the precision of a layer's prior: standard deviations from a hundred to a thousandth."""

_ROUNDING = 1e-3
"""Share of the largest curvature that float32 may leave below zero."""


class Objective(NamedTuple):
    """A log posterior, and what its minibatches are drawn from.

    Attributes:
      log_density: minus the loss, up to a constant, in nats.
      examples: all of them.
      draw_batch: ``(key, examples) -> batch``.
    """

    log_density: MinibatchLogDensity
    examples: Examples
    draw_batch: DrawBatch


def climb(key: Key, objective: Objective, start: Params, *, num_steps: int) -> Params:
    """The mode that a start leads to, by Adam on minibatches."""
    return jax.jit(_climber(objective, num_steps))(start, key, objective.examples)


def ensemble_draws(key: Key, objective: Objective, starts: Params, *, num_steps: int) -> Params:
    """A deep ensemble (Lakshminarayanan et al. 2017): the mode that each start leads to, every one counted alike.

    Args:
      key: of the minibatches.
      objective: what is climbed.
      starts: parameters stacked over members, as ``jax.vmap(student.init)`` makes them.
      num_steps: Adam steps of each climb.

    Returns:
      Parameters stacked over members.
    """
    num_members = jax.tree.leaves(starts)[0].shape[0]

    @jax.jit
    def climb_all(starts: Params, keys: Array, examples: Examples) -> Params:
        of_one = _climber(objective, num_steps)
        return jax.lax.map(lambda member: of_one(member[0], member[1], examples), (starts, keys))

    return climb_all(starts, jax.random.split(key, num_members), objective.examples)


def dropout_draws(
    key: Key, objective: Objective, start: Params, *, num_steps: int, num_draws: int, rate: float = 0.1
) -> Params:
    """MC dropout (Gal and Ghahramani 2016): weights with rows left out at random, in training and in prediction alike.

        W_layer = M_layer · diag(z) / (1 − rate),    z_j ~ Bernoulli(1 − rate)    (their equation 2)

    M maximises E_z[log posterior(W)], which is their variational objective: the prior of W is that of M times the
    share of units that are kept. One z is drawn for a minibatch and one for a draw: a unit is left out for all
    examples at once, so that a draw is a function and can be predicted from like any other.

    Args:
      key: of the minibatches and of what is left out.
      objective: the posterior of W.
      start: where M starts.
      num_steps: Adam steps.
      num_draws: draws of W.
      rate: share of a layer's input units that are left out.

    Returns:
      W stacked over draws.

    Raises:
      InputError: if ``rate`` is not in (0, 1).
    """
    check_positive(rate=rate, share_of_units_kept=1 - rate)
    fit_key, draw_key = jax.random.split(key)

    def draw_batch(key: BatchKey, examples: Examples):
        batch_stream, unit_stream = jax.random.split(key.stream)
        units = BatchKey(unit_stream, key.step)
        return objective.draw_batch(BatchKey(batch_stream, key.step), examples), units.own

    def log_density(params: Params, batch):
        return objective.log_density(_without_units(batch[1], params, rate), batch[0])

    params = climb(fit_key, Objective(log_density, objective.examples, draw_batch), start, num_steps=num_steps)
    return jax.vmap(lambda unit_key: _without_units(unit_key, params, rate))(jax.random.split(draw_key, num_draws))


def mean_field_draws(
    key: Key,
    objective: Objective,
    start: Params,
    *,
    num_steps: int,
    num_draws: int,
    num_samples: int = 4,
    learning_rate: float = 3e-3,
) -> Params:
    """Mean-field variational inference: the independent normals nearest to the posterior, in KL(normals ‖ posterior).

    By BlackJAX, with the estimator of the gradient that sticks the landing (Roeder et al. 2017), minibatches, and
    Adam with a cosine decay.

    Args:
      key: of everything.
      objective: the posterior.
      start: first means, such as the mode.
      num_steps: Adam steps.
      num_draws: draws of the normals.
      num_samples: draws that a gradient is estimated from.
      learning_rate: of Adam, at the start.

    Returns:
      Parameters stacked over draws.
    """
    batch_key, sample_key, draw_key = jax.random.split(key, 3)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    @jax.jit
    def fit(start: Params, examples: Examples):
        first = meanfield_vi.init(start, optimizer)
        rho = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.log(_FIRST_SCALE)), start)

        def advance(state, step):
            batch = objective.draw_batch(BatchKey(batch_key, step), examples)
            log_density = lambda params: objective.log_density(params, batch)  # noqa: E731
            state, _ = meanfield_vi.step(
                jax.random.fold_in(sample_key, step), state, log_density, optimizer, num_samples
            )
            return state, None

        state, _ = jax.lax.scan(advance, first._replace(mu=start, rho=rho), jnp.arange(num_steps))
        return meanfield_vi.sample(draw_key, state, num_draws)

    return fit(start, objective.examples)


def laplace_draws(
    key: Key, objective: Objective, mode: Params, *, layer: str, prior_precision: float, num_draws: int
) -> Params:
    """The last-layer Laplace approximation: a normal over one layer's parameters, all others at the mode.

        θ_layer ~ Normal(mode, (H + τ I)⁻¹),    τ = argmax  (d log τ − log |H + τ I| − τ |mode|²) / 2

    H is minus the Hessian of the full data's terms; for the layer before the softmax it is the Gauss-Newton matrix,
    since the logits are linear in it (Kristiadi et al. 2020). The weight decay that makes a good mode is mostly too
    weak for a good posterior around it, so that the precision τ of the layer's prior is chosen anew by the evidence
    (MacKay 1992; Daxberger et al. 2021, section 3.4), and the mode stays. Memory and time grow with the square and the
    cube of the layer's size.

    Args:
      key: of the draws.
      objective: the posterior.
      mode: a mapping from the names of layers to their parameters, as linen makes it.
      layer: name of the layer.
      prior_precision: of the Gaussian prior in the objective, which is taken out of it; zero if there is none.
      num_draws: draws.

    Returns:
      Parameters stacked over draws.

    Raises:
      InputError: if there is no such layer, the precision is negative, or the data's terms are not concave in the
        layer.
    """
    if layer not in mode:
        raise InputError("laplace_draws", "layer", repr(layer), f"one of {sorted(mode)}", "Name the last layer.")
    check_not_negative(prior_precision=prior_precision)
    flat, unravel = ravel_pytree(mode[layer])
    batch = full_batch(key, objective.examples)

    @jax.jit
    def draw(flat, mode, batch):
        def log_density(values):
            return objective.log_density({**mode, layer: unravel(values)}, batch)

        curvature = -jax.hessian(log_density)(flat) - prior_precision * jnp.eye(flat.size)
        of_data, directions = jnp.linalg.eigh(curvature)
        known = jnp.maximum(of_data, 0.0)  # what is below zero by rounding
        candidates = jnp.asarray(_PRECISIONS)
        evidence = (
            flat.size * jnp.log(candidates)
            - jnp.log(known[None] + candidates[:, None]).sum(1)
            - candidates * jnp.sum(jnp.square(flat))
        )
        precision = candidates[jnp.argmax(evidence)]
        noise = jax.random.normal(key, (num_draws, flat.size)) / jnp.sqrt(known + precision)[None]
        is_concave = of_data[0] >= -_ROUNDING * jnp.maximum(of_data[-1], prior_precision)
        return flat[None] + noise @ directions.T, is_concave

    values, is_concave = draw(flat, mode, batch)
    if not is_concave:
        raise InputError(
            "laplace_draws", "mode", "a point where the data's terms curve upwards", "a mode", "Climb for more steps."
        )
    others = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_draws, *leaf.shape)), mode)
    return {**others, layer: jax.vmap(unravel)(values)}


def swag_draws(
    key: Key,
    objective: Objective,
    mode: Params,
    *,
    learning_rate: float | Float[Array, ""],
    num_draws: int,
    num_snapshots: int = 20,
    steps_between: int = 50,
) -> Params:
    """SWAG: a normal fitted to where stochastic gradient ascent goes (Maddox et al. 2019, equation 1).

        θ ~ Normal(mean, ½ (diag(spread²) + D Dᵀ / (S − 1)))

    mean, spread and the deviations D ``[parameters, S]`` are those of S snapshots. Deviations are from the last mean
    and all are kept, where the authors take them from the running one and keep the last twenty.

    Args:
      key: of the minibatches and of the draws.
      objective: the posterior.
      mode: where the ascent starts.
      learning_rate: of the ascent, a step per unit of the log posterior's gradient; unstable above two over the largest
        curvature.
      num_draws: draws of the normal.
      num_snapshots: S.
      steps_between: steps from one snapshot to the next.

    Returns:
      Parameters stacked over draws.
    """
    check_positive(learning_rate=learning_rate, more_than_one_snapshot=num_snapshots - 1)
    walk_key, own_key, shared_key = jax.random.split(key, 3)
    flat_mode, unravel = ravel_pytree(mode)

    @jax.jit
    def draw(mode: Params, examples: Examples):
        def ascend(step, params):
            batch = objective.draw_batch(BatchKey(walk_key, step), examples)
            return tree_add_scaled(params, learning_rate, jax.grad(objective.log_density)(params, batch))

        def snapshot(params, start):
            params = jax.lax.fori_loop(start, start + steps_between, ascend, params)
            return params, ravel_pytree(params)[0]

        _, snapshots = jax.lax.scan(snapshot, mode, steps_between * jnp.arange(num_snapshots))
        mean = snapshots.mean(0)
        deviations = snapshots - mean[None]
        spread = jnp.sqrt(jnp.mean(jnp.square(deviations), axis=0))
        own = jax.random.normal(own_key, (num_draws, flat_mode.size)) * spread[None]
        shared = jax.random.normal(shared_key, (num_draws, num_snapshots)) @ deviations
        return jax.vmap(unravel)(mean[None] + jnp.sqrt(0.5) * (own + shared / jnp.sqrt(num_snapshots - 1)))

    return draw(mode, objective.examples)


def _climber(objective: Objective, num_steps: int) -> Callable[[Params, Key, Examples], Params]:
    def climb(start: Params, key: Key, examples: Examples) -> Params:
        return find_mode(
            objective.log_density,
            start,
            key=key,
            data=examples,
            draw_batch=objective.draw_batch,
            num_steps=num_steps,
            learning_rate=FAST_LEARNING_RATE,
        ).params

    return climb


def _without_units(key: Key, params: Params, rate: float) -> Params:
    """Every kernel with some of its input units left out; what is left is raised so that the mean stays."""
    leaves, structure = jax.tree.flatten(params)

    def thin(leaf_key, leaf):
        if leaf.ndim < 2:  # a bias has no inputs
            return leaf
        is_kept = jax.random.bernoulli(leaf_key, 1 - rate, (leaf.shape[-2],))
        return leaf * (is_kept / (1 - rate)).reshape(*[1] * (leaf.ndim - 2), -1, 1)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [thin(*pair) for pair in zip(keys, leaves, strict=True)])
