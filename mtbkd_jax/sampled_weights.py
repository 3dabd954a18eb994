"""Teachers' weights that are sampled with the student, under a Dirichlet hyper-prior.

    v ~ Dirichlet(α, …, α),    θ ~ π_W,
    log p(θ, v | D) = Σ_i log softmax(f_θ(x_i))[y_i] + power · Σ_i log Σ_g v_g Dir(q_i(θ); 1 + λ p_i^g)
                    + log π_W(θ) + log Dirichlet(v; α) + const

with the same weights on all inputs, the flat component's v_0 among them; where a teacher was not asked, those of the
others, renormalised. A chain moves v in the coordinates of NumPyro's stick-breaking transform, whose Jacobian is added.

How this differs from learned trust (``trust``): there the teachers earn their weights on labels, here on the student,
which is to agree with them. Labels speak through the student alone, and every example without one speaks as well: a
student of few labels that follows a teacher raises that teacher's weight, whether it is right or not. Nor is
Π_i Σ_g v_g Dir(q_i) a density of θ for any v: α is the prior of v before it is seen how well a network of this size can
follow each of the teachers.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.sharding import Mesh
from jaxtyping import Array, Float
from numpyro.distributions.transforms import StickBreakingTransform

from mtbkd_jax.centers import Centers
from mtbkd_jax.chain_starts import chain_starts
from mtbkd_jax.chains import chain_mesh, copy_to_all, copy_to_chains, over_chains
from mtbkd_jax.checks import check_positive
from mtbkd_jax.examples import Examples, WeightedExamples, full_batch
from mtbkd_jax.lessons import Lessons, with_components
from mtbkd_jax.posterior import find_mode
from mtbkd_jax.samplers import nuts, warm_up
from mtbkd_jax.sampling import ChainRun, sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.settings import PosteriorSettings, distillation_posterior
from mtbkd_jax.students import Student
from mtbkd_jax.types import Key, MinibatchLogDensity, Params, Scalar
from mtbkd_jax.weighting import among_asked, asked_components


class JointParams(NamedTuple):
    """What a chain moves.

    Attributes:
      student: the student's parameters.
      stick_breaking: coordinates of the weights, ``[teachers]``; zero is all weights alike.
    """

    student: Params
    stick_breaking: Float[Array, "*draws teachers"]


class JointDraws(NamedTuple):
    """Draws of students and weights.

    Attributes:
      students: parameters, stacked to ``[chains, draws, ...]``.
      weights: v, the flat component first, ``[chains, draws, components]``.
      run: the chains, of ``JointParams``.
    """

    students: Params
    weights: Float[Array, "chains draws components"]
    run: ChainRun


def weights_of(stick_breaking: Float[Array, "*draws teachers"]) -> Float[Array, "*draws components"]:
    """The weights at these coordinates; they sum to one.

    >>> weights_of(jnp.zeros(1)).tolist()
    [0.5, 0.5]
    """
    return jnp.vectorize(StickBreakingTransform(), signature="(teachers)->(components)")(stick_breaking)


def with_weighable_components(lessons: Lessons, settings: PosteriorSettings) -> Examples:
    """The examples with components that nobody has weighed yet, as ``joint_posterior`` takes them."""
    unweighed = jnp.zeros_like(lessons.log_weights)
    if lessons.is_asked is not None:
        unweighed = jnp.where(asked_components(lessons.is_asked), unweighed, -jnp.inf)
    return with_components(lessons._replace(log_weights=unweighed), settings)


def joint_posterior(
    student: Student,
    centers: Centers,
    settings: PosteriorSettings,
    *,
    hyper_concentration: float = 1.0,
    softening: float = 1.0,
    defensive_weight: float = 0.05,
) -> MinibatchLogDensity:
    """Build ``(JointParams, batch) -> log density`` in nats up to a constant, on ``with_weighable_components``.

    Args:
      student: the network.
      centers: of the weight-space prior.
      settings: of the priors.
      hyper_concentration: α; 1 finds all weights alike likely, less prefers few teachers.
      softening: as in ``DistillationConfig``.
      defensive_weight: likewise.

    Raises:
      InputError: if ``hyper_concentration`` is not positive.
    """
    check_positive(hyper_concentration=hyper_concentration)
    of_student = distillation_posterior(
        student, centers, settings, softening=softening, defensive_weight=defensive_weight
    )

    def log_density(params: JointParams, batch: WeightedExamples) -> Scalar:
        weights = weights_of(params.stick_breaking)
        log_jacobian = StickBreakingTransform().log_abs_det_jacobian(params.stick_breaking, weights)
        hyper_prior = dist.Dirichlet(jnp.full(weights.shape, hyper_concentration)).log_prob(weights)
        return of_student(params.student, _weighed(batch, jnp.log(weights)[None])) + hyper_prior + log_jacobian

    return log_density


def _weighed(batch: WeightedExamples, log_weights: Float[Array, "1 components"]) -> WeightedExamples:
    """The batch with these weights, among the components that have a say."""
    components = batch.examples.components
    offsets = components.log_offsets
    among = among_asked(jnp.broadcast_to(log_weights, offsets.shape), jnp.isfinite(offsets[:, 1:]))
    components = components._replace(log_offsets=offsets + among)
    return batch._replace(examples=batch.examples._replace(components=components))


def sample_with_weights(
    key: Key,
    student: Student,
    lessons: Lessons,
    settings: PosteriorSettings,
    *,
    hyper_concentration: float = 1.0,
    softening: float = 1.0,
    defensive_weight: float = 0.05,
    num_chains: int = 4,
    num_mode_steps: int = 2000,
    num_warm_up: int = 500,
    num_draws: int = 500,
) -> JointDraws:
    """Sample students and weights by NUTS on all of the data; for small students.

    Chains climb to a mode of the student with all weights alike, and go on from there.

    Args:
      key: of everything.
      student: the network.
      lessons: what the teachers taught; their weights are left aside.
      settings: of the priors, as in ``joint_posterior``.
      hyper_concentration: likewise.
      softening: likewise.
      defensive_weight: likewise.
      num_chains: chains.
      num_mode_steps: Adam steps of the climb.
      num_warm_up: steps in which step sizes and mass matrices are adapted.
      num_draws: of each chain.

    Raises:
      InputError: if a number is not positive, or every chain fails.
    """
    check_positive(num_chains=num_chains, num_mode_steps=num_mode_steps)
    posterior = joint_posterior(
        student,
        lessons.centers,
        settings,
        hyper_concentration=hyper_concentration,
        softening=softening,
        defensive_weight=defensive_weight,
    )
    start_key, mode_key, state_key, warm_up_key, chain_key = jax.random.split(key, 5)
    examples = with_weighable_components(lessons, settings)
    alike = jnp.zeros((num_chains, lessons.teacher_probs.shape[1]))
    starts = JointParams(chain_starts(start_key, student, lessons, settings, num_chains), alike)
    mesh = chain_mesh(num_chains)
    modes = _climb_all(
        copy_to_chains(starts, mesh),
        copy_to_all((mode_key, examples), mesh),
        posterior=posterior,
        num_steps=num_mode_steps,
        mesh=mesh,
    )
    sampler = nuts(posterior, temperature=float(settings.temperature))
    of_data: dict[str, Any] = {"data": examples, "draw_batch": full_batch}
    states = start_chains(sampler, modes, state_key)
    states, step_sizes = warm_up(sampler, states, key=warm_up_key, num_steps=num_warm_up, **of_data)
    run = sample_chains(sampler, states, key=chain_key, step_size=constant(step_sizes), num_draws=num_draws, **of_data)
    positions = cast(JointParams, run.positions)  # there is no sink
    return JointDraws(positions.student, weights_of(positions.stick_breaking), run)


@partial(jax.jit, static_argnames=("posterior", "num_steps", "mesh"))
def _climb_all(
    starts: JointParams, shared: Any, *, posterior: MinibatchLogDensity, num_steps: int, mesh: Mesh
) -> JointParams:
    def climb(start, shared):
        key, examples = shared

        def of_student(params, batch):
            return posterior(start._replace(student=params), batch)

        climbed = find_mode(
            of_student, start.student, key=key, data=examples, draw_batch=full_batch, num_steps=num_steps
        )
        return start._replace(student=climbed.params)

    return over_chains(climb, mesh)(starts, shared)
