"""Chains of the posterior in regression: each climbs to a mode, adapts, and goes on by HMC on the whole data.

Chains may differ in the lesson that they see and in the settings of their posterior, so that one program samples all
candidates on all folds.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int

from mtbkd_jax.chains import chain_mesh, copy_to_all, copy_to_chains, over_chains
from mtbkd_jax.examples import WeightedExamples
from mtbkd_jax.posterior import FAST_LEARNING_RATE, find_mode
from mtbkd_jax.regression.posterior import RegressionBatch, RegressionSettings, regression_posterior
from mtbkd_jax.regression.students import NoisePrior, NoisyParams
from mtbkd_jax.samplers import Sampler, hmc, warm_up
from mtbkd_jax.sampling import ChainRun, sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.students import Student
from mtbkd_jax.tree import tree_rows
from mtbkd_jax.types import Key, Params


class ChainPlan(NamedTuple):
    """How long a chain is.

    Attributes:
      num_mode_steps: Adam steps of the climb.
      num_warm_up: HMC steps in which step size and mass matrix are adapted.
      num_draws: draws to keep.
      thinning: HMC steps for each of them.
      num_leapfrog_steps: gradients for each HMC step.
    """

    num_mode_steps: int
    num_warm_up: int
    num_draws: int
    thinning: int
    num_leapfrog_steps: int


class OwnData(NamedTuple):
    """What a chain has to itself; stacked over chains.

    Attributes:
      settings: of its posterior.
      lesson: which of the lessons it sees.
    """

    settings: RegressionSettings
    lesson: Int[Array, "*chains"]


def climb_to_modes(
    key: Key,
    student: Student,
    lessons: WeightedExamples,
    own: OwnData,
    *,
    noise: NoisePrior,
    num_steps: int,
) -> NoisyParams:
    """Climb to a mode of every chain's posterior from a start drawn at random, with σ held at its prior median.

    Were the noise let go, a network that interpolates its few labels would climb towards no noise at all, where the
    density is high and next to none of the posterior's mass is.

    Args:
      key: of the starts.
      student: made by ``with_noise``.
      lessons: stacked.
      own: of the chains.
      noise: prior of σ.
      num_steps: Adam steps.

    Returns:
      The parameters, stacked over chains.
    """
    num_chains = own.lesson.shape[0]
    networks = jax.vmap(student.init)(jax.random.split(key, num_chains)).network
    mesh = chain_mesh(num_chains)
    networks = _climb_all(
        copy_to_chains((networks, own), mesh),
        copy_to_all((key, lessons), mesh),
        student=student,
        noise=noise,
        num_steps=num_steps,
        mesh=mesh,
    )
    return NoisyParams(networks, jnp.full(num_chains, jnp.log(noise.median)))


def sample_regression(
    key: Key,
    student: Student,
    lessons: WeightedExamples,
    own: OwnData,
    *,
    noise: NoisePrior,
    plan: ChainPlan,
) -> ChainRun:
    """Sample every chain's posterior; arguments are those of ``climb_to_modes`` and the plan."""
    mode_key, warm_up_key, chain_key = jax.random.split(key, 3)
    modes = climb_to_modes(mode_key, student, lessons, own, noise=noise, num_steps=plan.num_mode_steps)
    sampler = _sampler(student, noise, plan.num_leapfrog_steps)
    shared: dict[str, Any] = {"data": lessons, "draw_batch": _own_batch, "own_data": own}
    states = start_chains(sampler, modes, mode_key)  # HMC draws nothing at its start
    states, step_sizes = warm_up(sampler, states, key=warm_up_key, num_steps=plan.num_warm_up, **shared)
    return sample_chains(
        sampler,
        states,
        key=chain_key,
        step_size=constant(step_sizes),
        num_draws=plan.num_draws,
        thinning=plan.thinning,
        **shared,
    )


@cache  # the same sampler for the same student, so that what was compiled for it serves again
def _sampler(student: Student, noise: NoisePrior, num_leapfrog_steps: int) -> Sampler:
    return hmc(regression_posterior(student, noise), num_leapfrog_steps=num_leapfrog_steps)


def _own_batch(key: object, data: tuple[WeightedExamples, OwnData]) -> RegressionBatch:
    del key  # the whole lesson
    lessons, own = data
    return RegressionBatch(tree_rows(lessons, own.lesson), own.settings)


@partial(jax.jit, static_argnames=("student", "noise", "num_steps", "mesh"))
def _climb_all(chains: Any, shared: Any, *, student: Student, noise: NoisePrior, num_steps: int, mesh: Mesh) -> Params:
    posterior = regression_posterior(student, noise)

    def climb(chain, shared):
        (network, own), (key, lessons) = chain, shared
        return find_mode(
            lambda network, batch: posterior(NoisyParams(network, jnp.log(jnp.float32(noise.median))), batch),
            network,
            key=key,
            data=(lessons, own),
            draw_batch=_own_batch,
            num_steps=num_steps,
            learning_rate=FAST_LEARNING_RATE,
        ).params

    return over_chains(climb, mesh)(chains, shared)
