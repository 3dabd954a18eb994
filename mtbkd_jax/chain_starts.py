"""Where chains start: around the prior's centers or as a student is initialised, and the climb to a mode from there."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mtbkd_jax.chains import BatchKey, DrawBatch, over_chains
from mtbkd_jax.examples import full_batch
from mtbkd_jax.lessons import NUM_CLIMB_STAGES, Lessons, at_climb_stage, with_components
from mtbkd_jax.noise import noise_like
from mtbkd_jax.posterior import find_mode_in_stages
from mtbkd_jax.settings import Component, ComponentBatch, PosteriorSettings, component_posterior
from mtbkd_jax.step_size import gradient_noise, largest_curvature_around
from mtbkd_jax.students import Student
from mtbkd_jax.tree import tree_add_scaled, tree_rows
from mtbkd_jax.types import Key, Params
from mtbkd_jax.visits import Own, with_component


def chain_starts(key: Key, student: Student, lessons: Lessons, settings: PosteriorSettings, num_chains: int) -> Params:
    """Starts that lie further apart than the posterior's draws, stacked over chains.

    Where the prior has centers, around each teacher's in turn, and the last one around the pool's: draws of the prior
    at the temperature of the settings, Normal(center, T · scale²). Further away a student of thousands of parameters is
    lost: neither its climb nor its chain comes back. Where the prior has no centers, as the student is initialised, as
    in cross-validation: a center would start a chain in its teacher's mode, which it may never leave, whatever the
    labels say.
    """
    init_key, noise_key = jax.random.split(key)
    if not np.isfinite(settings.center_scale):
        each = [student.init(key) for key in jax.random.split(init_key, num_chains)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    at_centers = tree_rows(lessons.centers.params, _center_of_chain(lessons, num_chains))
    scale = settings.center_scale * settings.temperature**0.5
    return tree_add_scaled(at_centers, scale, noise_like(noise_key, at_centers))


def _center_of_chain(lessons: Lessons, num_chains: int) -> Int[np.ndarray, " chains"]:
    """The row of the centers that each chain starts at: the teachers in turn, and the pool for the last one."""
    rows = 1 + np.arange(num_chains) % lessons.teacher_probs.shape[1]
    rows[-1] = 0
    return rows


def moved_to_components(starts: Params, lessons: Lessons, component_of_chain: Int[np.ndarray, " chains"]) -> Params:
    """Each chain's offset around the center of its component; the wide component has no center worth starting at."""
    starts_at = _center_of_chain(lessons, component_of_chain.size)
    ends_at = np.where(component_of_chain == 0, starts_at, component_of_chain - 1)
    centers = lessons.centers.params
    return jax.tree.map(
        lambda start, new, old: start + (new - old), starts, tree_rows(centers, ends_at), tree_rows(centers, starts_at)
    )


def starts_of_components(lessons: Lessons) -> Params:
    """Each component's center, and that of the pool for the wide one: all parameters zero is no place to start at."""
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf[:1], leaf]), lessons.centers.params)


class Climbed(NamedTuple):
    """Where climbs ended, one row for each.

    Attributes:
      modes: parameters, stacked.
      log_density: at the mode, under its own power, nats.
      curvature: the largest around the mode.
      noise: of minibatch gradients there.
    """

    modes: Params
    log_density: Float[Array, " climbs"]
    curvature: Float[Array, " climbs"]
    noise: Float[Array, " climbs"]

    def higher_of(self, other: "Climbed") -> "Climbed":
        """Row by row, that of the two whose density is higher; one that is no number is lower than any."""
        is_higher = (self.log_density >= other.log_density) | jnp.isnan(other.log_density)

        def choose(one: Array, of_other: Array) -> Array:
            return jnp.where(is_higher.reshape(-1, *(1,) * (one.ndim - 1)), one, of_other)

        return jax.tree.map(choose, self, other)


@partial(jax.jit, static_argnames=("student", "softening", "draw_batch", "num_steps", "mesh"))
def climb_all(
    chains: tuple[Params, Array, Component, Float[Array, " chains"]],
    shared: tuple[Lessons, PosteriorSettings, Key],
    *,
    student: Student,
    softening: float,
    draw_batch: DrawBatch,
    num_steps: int,
    mesh: Mesh,
) -> Climbed:
    """The mode near each start under a power, and the curvature and the noise of minibatch gradients around it.

    The last two are under the power of the settings, which are data to the compiled program, so that it serves the
    student without teachers as well.
    """

    def climb(chain, shared):
        start, key, component, power = chain
        lessons, settings, look_key = shared
        own = Own(component, jnp.zeros(()))
        curvature_key, noise_key = jax.random.split(look_key)
        log_density = component_posterior(student, settings, softening=softening)
        mode = find_mode_in_stages(
            log_density,
            start,
            key=key,
            data_of_stage=lambda stage: (at_climb_stage(lessons, settings, stage), own),
            num_stages=NUM_CLIMB_STAGES,
            draw_batch=with_component(draw_batch, lambda step, phase: power),
            num_steps=num_steps,
        )
        data = with_components(lessons, settings), own
        whole = ComponentBatch(full_batch(None, data[0]), component, jnp.asarray(settings.power, jnp.float32))
        curvature = largest_curvature_around(log_density, mode, component.scale, whole, curvature_key)
        draw = with_component(draw_batch, lambda step, phase: settings.power)
        noise = gradient_noise(log_density, mode, lambda key: draw(BatchKey(key, 0), data), noise_key)
        return Climbed(mode, log_density(mode, whole._replace(power=power)), curvature, noise)

    return over_chains(climb, mesh)(chains, shared)
