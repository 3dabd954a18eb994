"""Sampling the student's posterior, component by component.

The weight-space prior is a mixture, and so is the posterior (``evidence``). Its components do not overlap in as many
dimensions as a network has, so a chain stays in the one that it starts in. Hence each chain samples the posterior under
one component alone, and its draws count by the probability of that component:

1. A first look: the mode under every component, and its evidence by Laplace. Components with next to no probability
   are left out; where the others lag by hundreds of nats, as they often do, one is left.
2. The chains are dealt to the components that are left.
3. Where more than one was sampled, their evidence is found from the chains where these overlap, and by tempering where
   they do not. It stays that of Laplace where tempering would take many minutes, and at temperatures other than one,
   where the draws are of no mixture with weights that any evidence could give.
4. Chains of one component count alike if they have mixed. Those that have not sit in modes of the function-space prior,
   and are weighed by stacking: by how well they predict labels, and the classes that the trust-weighted teachers give
   to examples without one. Their evidence would say which mode has most of the posterior; but where the prior's
   thousands of pieces of advice are not as independent as it takes them to be, that mode is hundreds of nats ahead and
   often predicts worst.

Stacking of all chains, whatever their component, can be asked for instead.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtbkd_jax.chain_starts import Climbed, chain_starts, climb_all, moved_to_components, starts_of_components
from mtbkd_jax.chain_weights import chain_predictions, check_labels_to_stack_by, stacked_weights, weights_of_chains
from mtbkd_jax.chains import DrawBatch, chain_mesh, copy_to_all, copy_to_chains
from mtbkd_jax.checkpoints import Checkpoints
from mtbkd_jax.component_evidence import (
    WORTH_SAMPLING,
    evidence_by_laplace,
    refined_evidence,
    with_refined,
    worth_sampling,
)
from mtbkd_jax.configuration import ADAPTED_SAMPLERS, DistillationConfig, SamplingConfig, check_configuration
from mtbkd_jax.draws import DrawStore
from mtbkd_jax.evidence import ComponentWeights, component_weights
from mtbkd_jax.examples import (
    Examples,
    WeightedExamples,
    all_blocks,
    in_blocks,
    minibatch_for,
    minibatch_of_blocks,
    noise_beyond_sample,
    steps_of_epoch,
)
from mtbkd_jax.function_prior import dirichlet_components
from mtbkd_jax.judging import judged_log_density
from mtbkd_jax.kept_predictions import KeptPredictions
from mtbkd_jax.lessons import Lessons, with_components
from mtbkd_jax.prediction import flatten_weights
from mtbkd_jax.processes import from_first
from mtbkd_jax.samplers import Sampler, chees, hmc, nuts, sghmc, sgld, warm_up
from mtbkd_jax.sampling import ChainRun, Progress, sample_chains, start_chains
from mtbkd_jax.schedules import Schedule, constant, cyclical, polynomial
from mtbkd_jax.settings import (
    Component,
    PosteriorSettings,
    Powers,
    component_posterior,
    distillation_curvature,
    distillation_likelihood,
    prior_components,
)
from mtbkd_jax.step_size import cooled_hamiltonian, cooled_langevin, hamiltonian_step_size, langevin_step_size
from mtbkd_jax.students import Student
from mtbkd_jax.tails import KnownClasses
from mtbkd_jax.teachers import softened_probs
from mtbkd_jax.tree import tree_rows
from mtbkd_jax.types import Key, MinibatchLogDensity, Params
from mtbkd_jax.unsaid import heard
from mtbkd_jax.visits import Own, phases, with_component
from mtbkd_jax.weighting import FittedRule, among_asked
from mtbkd_jax.windows import UnlabelledRows, Windows


class SampledPosterior(NamedTuple):
    """Draws of the posterior, and what they weigh.

    Attributes:
      run: the chains. Those that failed are left out of its draws and of what follows.
      component_of_chain: the component of the weight-space prior that each chain has sampled; 0 is the wide one, 1 that
        of the pool, then one for each teacher.
      weights: posterior probabilities of all components; of those that were not sampled, by Laplace.
      is_damped: whether the posterior curved upwards near the component's mode, so that its evidence by Laplace is
        that of a curvature that was raised there.
      chain_weights: what the draws of each chain count together; they sum to one.
      is_stacked: whether stacking had a part in them.
    """

    run: ChainRun
    component_of_chain: Int[np.ndarray, " chains"]
    weights: ComponentWeights
    is_damped: Bool[np.ndarray, " components"]
    chain_weights: Float[np.ndarray, " chains"]
    is_stacked: bool

    @property
    def draw_weights(self) -> Float[np.ndarray, " draws"]:
        """The weight of every draw, chain after chain as ``flatten_chains`` puts them; they sum to one."""
        return flatten_weights(self.chain_weights, self.run.info.log_density.shape[1])

    @property
    def main_component(self) -> int:
        """The most probable of the components that were sampled."""
        return int(self.component_of_chain[np.argmax(self.weights.weights[self.component_of_chain])])


def sample_posterior(
    key: Key,
    student: Student,
    lessons: Lessons,
    settings: PosteriorSettings,
    *,
    powers: Powers | None,
    config: DistillationConfig = DistillationConfig(),
    unlabelled: UnlabelledRows | None = None,
    sink: DrawStore | KeptPredictions | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
) -> SampledPosterior:
    """Sample the student's posterior under given settings.

    Every chain climbs to the mode near its start, which keeps its offset from a center when it is moved to that of its
    component, and goes on from there by the sampler.

    Args:
      key: of everything.
      student: the network.
      lessons: what the teachers taught.
      settings: of the priors.
      powers: of the function-space prior, visited by every chain in place of that of the settings, or None: those of
        the choice (``Choice.powers``) belong to its settings. A chain climbs to a mode under the one that it visits
        first, and burns in there; HMC, ChEES and NUTS are warmed up under the
        largest.
      config: how.
      unlabelled: the rows without a label that chains see in windows, where the lessons are of a sample of them; None
        where they are of all. Where the chains start, and what components and chains weigh, the sample decides.
      sink: where draws are streamed to, or what is kept of them; None keeps them in memory. Where a sink keeps no
        parameters the evidence of components is not found from the chains, but by tempering or by Laplace.
      checkpoints: where the chains are saved now and then, and go on from; they need a sink.
      progress: called after each chunk of draws.

    Where several processes sample together this is for the first of them, and ``follow_sampling`` for the others.

    Raises:
      InputError: if chains are to be stacked and there is no label to stack them by, or no climb ends at a mode.
    """
    prepared = _prepare(key, student, lessons, settings, powers, config)
    of_chain, first_look = prepared.component_of_chain, prepared.first_look
    observer = None if progress is None else _with_components_of_chains(progress, of_chain)
    run = _run_chains(prepared, config.sampling, lessons, unlabelled, sink, checkpoints, observer)

    alive = of_chain[run.failed_at < 0]
    predictions = chain_predictions(student, run, lessons, settings)
    if config.sampling.chain_weighting == "stacking":
        chain_weights = stacked_weights(predictions, np.arange(alive.size))
        return SampledPosterior(run, alive, first_look, prepared.is_damped, chain_weights, is_stacked=True)
    weights = first_look
    if len(set(alive.tolist())) > 1 and settings.temperature == 1:
        likelihood = distillation_likelihood(student, settings, softening=config.softening)
        evidence_key, components = prepared.evidence_key, prepared.components
        refined = refined_evidence(evidence_key, likelihood, prepared.examples, run.positions, components, alive)
        if refined is not None:
            weights = with_refined(first_look, prepared.log_prior_weights, refined, np.unique(alive))
    chain_weights, is_stacked = weights_of_chains(weights.weights, alive, judged_log_density(run), predictions)
    return SampledPosterior(run, alive, weights, prepared.is_damped, chain_weights, is_stacked)


def follow_sampling(
    key: Key,
    student: Student,
    lessons: Lessons,
    settings: PosteriorSettings,
    *,
    sink: DrawStore,
    powers: Powers | None,
    config: DistillationConfig = DistillationConfig(),
    unlabelled: UnlabelledRows | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """What the other processes do while the first one calls ``sample_posterior`` with the same arguments.

    Args:
      key: of everything.
      student: the network.
      lessons: what the teachers taught.
      settings: of the priors.
      sink: the store that the first process has made, opened by this one.
      powers: that are visited.
      config: how.
      unlabelled: that chains see in windows; this process reads its own blocks of them alone.
      checkpoints: in the same directory as those of the first process.

    Raises:
      InputError: as ``sample_posterior`` does.
    """
    prepared = _prepare(key, student, lessons, settings, powers, config)
    _run_chains(prepared, config.sampling, lessons, unlabelled, sink, checkpoints, None)


class _Prepared(NamedTuple):
    """What is known before the first step.

    Attributes:
      settings: of the priors, at the power that is visited first.
      examples: of the posterior.
      components: of the weight-space prior.
      log_prior_weights: of these.
      first_look: their weights by Laplace.
      is_damped: as in ``SampledPosterior``.
      component_of_chain: of all chains.
      powers: of the function-space prior, that the chains visit.
      modes: where the chains start, stacked.
      sampler: of the posterior.
      step_size: for it.
      chain_key: of the chains.
      evidence_key: of the evidence.
    """

    settings: PosteriorSettings
    examples: Examples
    components: Component
    log_prior_weights: Float[np.ndarray, " components"]
    first_look: ComponentWeights
    is_damped: Bool[np.ndarray, " components"]
    component_of_chain: Int[np.ndarray, " chains"]
    powers: Powers
    modes: Params
    sampler: Sampler
    step_size: float
    chain_key: Key
    evidence_key: Key


def _prepare(
    key: Key,
    student: Student,
    lessons: Lessons,
    settings: PosteriorSettings,
    powers: Powers | None,
    config: DistillationConfig,
) -> _Prepared:
    """Look at the components, deal the chains to them, and climb to where they start.

    Of several processes each does it all, and goes by what the first has found: another processor may round otherwise.
    """
    check_configuration(config)
    sampling = config.sampling
    check_labels_to_stack_by(sampling, int((lessons.examples.labels >= 0).sum()))
    powers = powers or Powers((float(settings.power),), (1.0,))
    # The step size must suit the power at which the posterior is most curved.
    settings = settings._replace(power=powers.values[0])
    look_key, start_key, mode_key, chain_key, evidence_key = jax.random.split(key, 5)
    examples = with_components(lessons, settings)
    components, log_prior_weights = prior_components(
        lessons.centers, settings, defensive_weight=config.defensive_weight
    )
    # As many climbs for the components as for the chains, so that one compiled program serves both.
    num_climbs = max(sampling.num_chains, components.scale.shape[0])
    climb = _climber(student, lessons, settings, config, num_climbs)

    first_look, is_damped = ComponentWeights(np.ones(1), np.zeros(1), "alone"), np.zeros(1, bool)
    if np.isfinite(settings.center_scale):
        largest = jnp.full(components.scale.shape, settings.power, jnp.float32)
        modes = climb(look_key, starts_of_components(lessons), components, largest).modes
        likelihood = distillation_likelihood(student, settings, softening=config.softening)
        curvature = distillation_curvature(student, settings, softening=config.softening)
        evidence, is_damped = evidence_by_laplace(look_key, likelihood, curvature, examples, modes, components)
        first_look = component_weights(np.asarray(log_prior_weights), evidence)
    least = 0.0 if sampling.chain_weighting == "stacking" else WORTH_SAMPLING
    sampled = worth_sampling(first_look.weights, sampling.num_chains, least)
    component_of_chain = from_first(sampled[np.arange(sampling.num_chains) % sampled.size])

    own = tree_rows(components, component_of_chain)
    first_powers = jax.vmap(powers.at)(jnp.zeros(sampling.num_chains), phases(sampling.num_chains))

    def climb_from_start(start_key: Key, mode_key: Key) -> Climbed:
        starts = chain_starts(start_key, student, lessons, settings, sampling.num_chains)
        if np.isfinite(settings.center_scale):
            starts = moved_to_components(starts, lessons, component_of_chain)
        return climb(mode_key, starts, own, first_powers)

    highest = climb_from_start(start_key, mode_key)
    for index in range(1, sampling.num_starts):  # one after the other: they need no more memory than one does
        keys = (jax.random.fold_in(key, index) for key in (start_key, mode_key))
        highest = climb_from_start(*keys).higher_of(highest)
    highest = jax.tree.map(jnp.asarray, from_first(highest))

    posterior = component_posterior(
        student, settings, softening=config.softening, over_devices=sampling.num_data_blocks > 1
    )
    noise = float(jnp.max(highest.noise)) * _noise_of_all_rows(examples, sampling.batch_size)
    sampler, step_size = _sampler_and_step_size(
        posterior, sampling, float(settings.temperature), float(jnp.max(highest.curvature)), noise
    )
    return _Prepared(
        settings,
        examples,
        components,
        np.asarray(log_prior_weights),
        first_look,
        is_damped,
        component_of_chain,
        powers,
        highest.modes,
        sampler,
        step_size,
        chain_key,
        evidence_key,
    )


def _climber(
    student: Student, lessons: Lessons, settings: PosteriorSettings, config: DistillationConfig, num_climbs: int
) -> Callable[[Key, Params, Component, Float[Array, " chains"]], Climbed]:
    """``climb_all`` of so many chains and fewer, ``(key, starts, own components, powers)``, by one compiled program."""
    sampling = config.sampling
    minibatch = minibatch_for(lessons.examples.labels, sampling.batch_size)
    num_devices = max(jax.local_device_count() // sampling.num_model_blocks, 1)
    num_rows = -(-num_climbs // num_devices) * num_devices
    # No climb asks for the centers, all of which would lie on every device.
    centerless = lessons._replace(centers=lessons.centers._replace(params=()))

    def climb(key: Key, starts: Params, own: Component, power: Float[Array, " chains"]) -> Climbed:
        count = own.scale.shape[0]
        rows = np.arange(num_rows) % count  # some of them twice
        look_key, climb_key = jax.random.split(key)
        keys = jax.random.split(climb_key, count)
        mesh = chain_mesh(num_rows, num_model_blocks=sampling.num_model_blocks)
        found = climb_all(
            copy_to_chains((tree_rows(starts, rows), keys[rows], tree_rows(own, rows), power[rows]), mesh),
            copy_to_all((centerless, settings, look_key), mesh),
            student=student,
            softening=config.softening,
            draw_batch=minibatch,
            num_steps=sampling.num_mode_steps,
            mesh=mesh,
        )
        return tree_rows(found, np.arange(count))

    return climb


def _noise_of_all_rows(examples: Examples, batch_size: int) -> float:
    """What the noise of minibatches of the examples is multiplied by, where these are a sample."""
    if examples.stands_for is None:
        return 1.0
    is_labelled, stands_for = np.asarray(examples.labels) >= 0, np.asarray(examples.stands_for)
    num_labelled, num_unlabelled = int(is_labelled.sum()), round(float(stands_for[~is_labelled].sum()))
    return noise_beyond_sample(num_labelled, is_labelled.size - num_labelled, num_unlabelled, batch_size)


def _run_chains(
    prepared: _Prepared,
    sampling: SamplingConfig,
    lessons: Lessons,
    unlabelled: UnlabelledRows | None,
    sink: DrawStore | KeptPredictions | None,
    checkpoints: Checkpoints | None,
    progress: Progress | None,
) -> ChainRun:
    """Warm up the chains that need it, and sample."""
    sampler, examples = prepared.sampler, prepared.examples
    init_key, warm_up_key, chain_key = jax.random.split(prepared.chain_key, 3)
    states = start_chains(sampler, prepared.modes, init_key)
    num_blocks = sampling.num_data_blocks
    shared: dict[str, Any] = {
        "data": in_blocks(examples, num_blocks)
        if unlabelled is None
        else _windows_on(warm_up_key, unlabelled, lessons, prepared, sampling),  # nothing is warmed up by windows
        "own_data": Own(tree_rows(prepared.components, prepared.component_of_chain), phases(sampling.num_chains)),
        "num_blocks": num_blocks,
        "num_model_blocks": sampling.num_model_blocks,
    }
    if sampling.sampler in ADAPTED_SAMPLERS:
        # A step size that was adapted to a wide law would be rejected under a narrow one.
        draw_first = with_component(all_blocks, lambda step, phase: prepared.powers.values[0])
        num_burn_in = 0
        draw_batch: DrawBatch = all_blocks
        states, step_sizes = warm_up(
            sampler,
            states,
            key=warm_up_key,
            num_steps=sampling.num_burn_in,
            initial_step_size=prepared.step_size,
            draw_batch=draw_first,
            **shared,
        )
        schedule = constant(step_sizes)
    else:
        draw_batch = minibatch_of_blocks(examples.labels, sampling.batch_size, num_blocks)
        num_burn_in = sampling.num_burn_in
        schedule = _schedule(sampling, prepared.step_size)
    return sample_chains(
        sampler,
        states,
        key=chain_key,
        step_size=schedule,
        num_draws=sampling.num_draws,
        num_burn_in=num_burn_in,
        thinning=sampling.thinning,
        draw_batch=with_component(
            draw_batch,
            lambda step, phase: prepared.powers.at((step - num_burn_in) / _num_sampling_steps(sampling), phase),
        ),
        **shared,
        chunk_size=100 if sink is None else sink.draws_per_chunk,
        sink=sink,
        checkpoints=checkpoints,
        progress=progress,
    )


def _windows_on(
    key: Key, unlabelled: UnlabelledRows, lessons: Lessons, prepared: _Prepared, sampling: SamplingConfig
) -> Windows:
    """Windows as large as the sample of rows without a label that was learned from, each with all that have one."""
    num_blocks, is_labelled = sampling.num_data_blocks, np.asarray(prepared.examples.labels) >= 0
    num_labelled, num_rows = int(is_labelled.sum()), unlabelled.numbers.size
    size = is_labelled.size - num_labelled
    labelled = in_blocks(tree_rows(prepared.examples, np.flatnonzero(is_labelled)), num_blocks)

    @jax.jit
    def join(
        labelled: WeightedExamples,
        inputs: Array,
        logits: Array,
        fitted_rule: FittedRule,
        concentration: float | Float[Array, ""],
        is_asked: Bool[Array, "rows teachers"] | None,
        known: KnownClasses | None,
    ) -> WeightedExamples:
        """Rows of some blocks, labelled ones and others ``[blocks, rows, ...]``, one block after the other."""
        flat_inputs, flat_logits = (rows.reshape(-1, *rows.shape[2:]) for rows in (inputs, logits))
        probs = softened_probs(flat_logits, unlabelled.softening, unlabelled.teacher_softening)
        if is_asked is None:
            log_weights = unlabelled.rule.weigh(fitted_rule, probs, flat_inputs)
        else:
            log_weights = among_asked(unlabelled.rule.weigh(fitted_rule, probs, flat_inputs, is_asked), is_asked)
        components = dirichlet_components(probs, log_weights, concentration, known)
        examples = Examples(flat_inputs, jnp.full(flat_inputs.shape[0], -1, jnp.int32), components)
        window = WeightedExamples(examples, jnp.full(flat_inputs.shape[0], num_rows / size, jnp.float32))
        window = jax.tree.map(lambda leaf: leaf.reshape(inputs.shape[0], -1, *leaf.shape[1:]), window)
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), labelled, window)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), joined)

    def build(blocks: Sequence[int], read: tuple[np.ndarray, np.ndarray]) -> WeightedExamples:
        own_labelled = jax.tree.map(
            lambda leaf: leaf.reshape(num_blocks, leaf.shape[0] // num_blocks, *leaf.shape[1:])[np.asarray(blocks)],
            labelled,
        )
        said = heard(read[1], unlabelled.tail)
        inputs, logits = (rows.reshape(len(blocks), -1, *rows.shape[1:]) for rows in (read[0], said.logits))
        concentration = float(prepared.settings.concentration)
        is_asked, known = jax.tree.map(jnp.asarray, (said.is_asked, said.known))
        return join(own_labelled, inputs, logits, lessons.fitted_rule or {}, concentration, is_asked, known)

    steps_each = steps_of_epoch(num_labelled, size, sampling.batch_size, num_blocks)
    return Windows(num_rows, size, steps_each, key, unlabelled.read, build, num_blocks)


def _with_components_of_chains(progress: Progress, component_of_chain: Int[np.ndarray, " chains"]) -> Progress:
    """Tell the observer which chains sample the same law."""
    return lambda report: progress(report._replace(component_of_chain=component_of_chain))


def _sampler_and_step_size(
    posterior: MinibatchLogDensity, sampling: SamplingConfig, temperature: float, curvature: float, noise: float
) -> tuple[Sampler, float]:
    """The sampler that was asked for, and a step size for it at this curvature and noise of minibatch gradients."""
    if sampling.sampler == "sgld":
        stable = langevin_step_size(curvature, fraction=sampling.step_fraction)
        cooled = cooled_langevin(stable, noise=noise, temperature=temperature)
        return sgld(posterior, temperature=temperature), float(cooled)
    step_size = float(hamiltonian_step_size(curvature, fraction=sampling.step_fraction))
    if sampling.sampler == "hmc":
        return hmc(posterior, num_leapfrog_steps=sampling.num_leapfrog_steps, temperature=temperature), step_size
    if sampling.sampler == "chees":
        return chees(posterior, temperature=temperature), step_size
    if sampling.sampler == "nuts":
        return nuts(posterior, temperature=temperature), step_size
    cooled, decay = cooled_hamiltonian(step_size, sampling.momentum_decay, noise=noise, temperature=temperature)
    return sghmc(posterior, friction=float(decay / cooled), temperature=temperature), float(cooled)


def _num_sampling_steps(sampling: SamplingConfig) -> int:
    """From the first draw to the last, the steps between the sampling parts of a cyclical schedule included."""
    if sampling.schedule == "cyclical":
        return sampling.num_cycles * _cycle_length(sampling)
    return sampling.num_draws * sampling.thinning


def _cycle_length(sampling: SamplingConfig) -> int:
    """A fifth of every cycle is sampled."""
    return 5 * -(-sampling.num_draws // sampling.num_cycles) * sampling.thinning


def _schedule(sampling: SamplingConfig, step_size: float) -> Schedule:
    """The schedule that was asked for, beginning at ``step_size``."""
    if sampling.schedule == "polynomial":
        offset, power = float(max(sampling.num_burn_in, 1)), 0.55
        return polynomial(step_size * offset**power, offset=offset, power=power)
    if sampling.schedule == "cyclical":
        return cyclical(step_size, cycle_length=_cycle_length(sampling))
    return constant(step_size)
