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
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mtbkd_jax.chains import BatchKey, DrawBatch, chain_mesh, copy_to_all, copy_to_chains, over_chains
from mtbkd_jax.checkpoints import Checkpoints
from mtbkd_jax.configuration import ADAPTED_SAMPLERS, DistillationConfig, SamplingConfig, check_configuration
from mtbkd_jax.diagnostics import LEAST_DRAWS, diagnose
from mtbkd_jax.draws import DrawStore, blocks_of_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.evidence import (
    NUM_BLOCKS,
    NUM_POPULATIONS,
    ComponentWeights,
    Curvature,
    Evidence,
    bridge_evidence,
    component_weights,
    evidence_of_populations,
    laplace_evidence,
    tempered_evidence,
)
from mtbkd_jax.examples import (
    Examples,
    WeightedExamples,
    all_blocks,
    full_batch,
    in_blocks,
    minibatch_for,
    minibatch_of_blocks,
    noise_beyond_sample,
    steps_of_epoch,
)
from mtbkd_jax.function_prior import dirichlet_components
from mtbkd_jax.judging import NUM_PROBES, judged_log_density, judged_log_probs, rows_to_weigh_by
from mtbkd_jax.kept_predictions import KeptPredictions
from mtbkd_jax.lessons import NUM_CLIMB_STAGES, Lessons, at_climb_stage, with_components
from mtbkd_jax.posterior import find_mode_in_stages
from mtbkd_jax.prediction import flatten_weights
from mtbkd_jax.processes import from_first
from mtbkd_jax.samplers import Sampler, hmc, nuts, sghmc, sgld, warm_up
from mtbkd_jax.sampling import ChainRun, Progress, sample_chains, start_chains
from mtbkd_jax.schedules import Schedule, constant, cyclical, polynomial
from mtbkd_jax.settings import (
    Component,
    ComponentBatch,
    PosteriorSettings,
    Powers,
    component_posterior,
    distillation_curvature,
    distillation_likelihood,
    mixture_of,
    prior_components,
)
from mtbkd_jax.stacking import leave_one_out_log_scores, stacking_weights
from mtbkd_jax.step_size import (
    cooled_hamiltonian,
    cooled_langevin,
    gradient_noise,
    hamiltonian_step_size,
    langevin_step_size,
    largest_curvature_around,
)
from mtbkd_jax.students import Student
from mtbkd_jax.tails import KnownClasses
from mtbkd_jax.teachers import softened_probs
from mtbkd_jax.tree import tree_add_scaled, tree_random_normal, tree_rows, tree_size
from mtbkd_jax.types import Key, MinibatchLogDensity, Params
from mtbkd_jax.unsaid import heard
from mtbkd_jax.weighting import FittedRule, among_asked, pooled_probs
from mtbkd_jax.windows import UnlabelledRows, Windows

WORTH_SAMPLING = 1e-3
"""Components of less posterior probability, by Laplace, are left out."""

MOST_PARAMETERS_TEMPERED = 1000
"""Parameters of the largest student whose evidence is found by tempering: minutes of two cores for each component."""


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
        first, and burns in there; HMC and NUTS are warmed up under the largest.
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
    predictions = _chain_predictions(student, run, lessons, settings)
    if config.sampling.chain_weighting == "stacking":
        stacked = _stacked(predictions, np.arange(alive.size))
        return SampledPosterior(run, alive, first_look, prepared.is_damped, stacked, is_stacked=True)
    weights = first_look
    if len(set(alive.tolist())) > 1 and settings.temperature == 1:
        likelihood = distillation_likelihood(student, settings, softening=config.softening)
        evidence_key, components = prepared.evidence_key, prepared.components
        refined = _refined_evidence(evidence_key, likelihood, prepared.examples, run.positions, components, alive)
        if refined is not None:
            weights = _with_refined(first_look, prepared.log_prior_weights, refined, np.unique(alive))
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
    sampling = config.sampling
    powers = powers or Powers((float(settings.power),), (1.0,))
    # The step size must suit the power at which the posterior is most curved.
    settings = settings._replace(power=powers.values[0])
    first_powers = jax.vmap(powers.at)(jnp.zeros(sampling.num_chains), _phases(sampling.num_chains))
    check_configuration(config)
    check_labels_to_stack_by(sampling, int((lessons.examples.labels >= 0).sum()))
    look_key, start_key, mode_key, chain_key, evidence_key = jax.random.split(key, 5)
    examples = with_components(lessons, settings)
    components, log_prior_weights = prior_components(
        lessons.centers, settings, defensive_weight=config.defensive_weight
    )
    posterior = component_posterior(
        student, settings, softening=config.softening, over_devices=sampling.num_data_blocks > 1
    )
    likelihood = distillation_likelihood(student, settings, softening=config.softening)
    minibatch = minibatch_for(examples.labels, sampling.batch_size)

    num_devices = max(jax.local_device_count() // sampling.num_model_blocks, 1)
    num_climbs = -(-max(sampling.num_chains, components.scale.shape[0]) // num_devices) * num_devices

    # No climb asks for the centers, all of which would lie on every device.
    centerless = lessons._replace(centers=lessons.centers._replace(params=()))

    def climb(
        key: Key, starts: Params, own: Component, power: Float[Array, " chains"]
    ) -> tuple[Params, Float[Array, " chains"], Float[Array, " chains"]]:
        # As many climbs for the components as for the chains, and for every device, some of them twice: one compiled
        # program serves both.
        count = own.scale.shape[0]
        rows = np.arange(num_climbs) % count
        look_key, climb_key = jax.random.split(key)
        keys = jax.random.split(climb_key, count)
        mesh = chain_mesh(num_climbs, num_model_blocks=sampling.num_model_blocks)
        found = _climb_all(
            copy_to_chains((tree_rows(starts, rows), keys[rows], tree_rows(own, rows), power[rows]), mesh),
            copy_to_all((centerless, settings, look_key), mesh),
            student=student,
            softening=config.softening,
            draw_batch=minibatch,
            num_steps=sampling.num_mode_steps,
            mesh=mesh,
        )
        return tree_rows(found, np.arange(count))

    if np.isfinite(settings.center_scale):
        largest = jnp.full(components.scale.shape, settings.power, jnp.float32)
        modes, *_ = climb(look_key, _starts_of_components(lessons), components, largest)
        curvature = distillation_curvature(student, settings, softening=config.softening)
        evidence, is_damped = _evidence_by_laplace(look_key, likelihood, curvature, examples, modes, components)
        first_look = component_weights(np.asarray(log_prior_weights), evidence)
    else:
        first_look, is_damped = ComponentWeights(np.ones(1), np.zeros(1), "alone"), np.zeros(1, bool)
    least = 0.0 if sampling.chain_weighting == "stacking" else WORTH_SAMPLING
    sampled = worth_sampling(first_look.weights, sampling.num_chains, least)
    component_of_chain = from_first(sampled[np.arange(sampling.num_chains) % sampled.size])

    own = tree_rows(components, component_of_chain)
    starts = chain_starts(start_key, student, lessons, settings, sampling.num_chains)
    if np.isfinite(settings.center_scale):
        starts = _moved_to_components(starts, lessons, component_of_chain)
    modes, curvatures, noises = jax.tree.map(jnp.asarray, from_first(climb(mode_key, starts, own, first_powers)))
    noise = float(jnp.max(noises)) * _noise_of_all_rows(examples, sampling.batch_size)
    sampler, step_size = _sampler_and_step_size(
        posterior, sampling, float(settings.temperature), float(jnp.max(curvatures)), noise
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
        modes,
        sampler,
        step_size,
        chain_key,
        evidence_key,
    )


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
        "own_data": _Own(tree_rows(prepared.components, prepared.component_of_chain), _phases(sampling.num_chains)),
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


def worth_sampling(
    weights: Float[np.ndarray, " components"], num_chains: int, least: float = WORTH_SAMPLING
) -> Int[np.ndarray, " sampled"]:
    """The components to sample, most probable first: no more than there are chains, and none of less than ``least``."""
    by_weight = np.argsort(-weights)[:num_chains]
    return by_weight[weights[by_weight] >= least]


class Advice(NamedTuple):
    """What the teachers say of some examples without a label, and what the chains do.

    Attributes:
      pseudo_labels: of each class.
      log_probs: predictions by every chain, in nats.
    """

    pseudo_labels: Float[np.ndarray, "advised classes"]
    log_probs: Float[np.ndarray, "chains advised classes"]


class ChainPredictions(NamedTuple):
    """What tells whether chains have mixed, and what those that have not are weighed by.

    Attributes:
      labels: of labelled examples.
      log_probs: predictions of them by every draw, in nats.
      num_labels: that those stand for.
      advice: gives the advice; asked for only where chains have not mixed.
      temperature: of the posterior that was sampled.
    """

    labels: Int[np.ndarray, " labelled"]
    log_probs: Float[np.ndarray, "chains draws labelled classes"]
    num_labels: int
    advice: Callable[[], Advice]
    temperature: float


def weights_of_chains(
    component_weights: Float[np.ndarray, " components"],
    component_of_chain: Int[np.ndarray, " chains"],
    log_density: Float[np.ndarray, "chains draws"],
    predictions: ChainPredictions,
) -> tuple[Float[np.ndarray, " chains"], bool]:
    """What each chain counts: its component's weight, shared equally where chains have mixed and by stacking elsewhere.

    Args:
      component_weights: of all components.
      component_of_chain: what each chain has sampled.
      log_density: of the draws.
      predictions: of the same chains; with fewer labels than there are chains, all chains of a component count alike.

    Returns:
      The weights, which sum to one, and whether stacking had a part in them.
    """
    chain_weights, is_stacked = np.zeros(component_of_chain.size), False
    for component in np.unique(component_of_chain):
        chains = np.flatnonzero(component_of_chain == component)
        shares = np.full(chains.size, 1 / chains.size)
        if chains.size > 1 and predictions.labels.size >= chains.size and log_density.shape[1] >= LEAST_DRAWS:
            diagnostics = diagnose(predictions.log_probs[chains, :, :NUM_PROBES], log_density[chains])
            if diagnostics.has_moved and not diagnostics.has_mixed:
                shares, is_stacked = _stacked(predictions, chains), True
        chain_weights[chains] = component_weights[component] * shares
    return chain_weights / chain_weights.sum(), is_stacked


def check_labels_to_stack_by(sampling: SamplingConfig, num_labelled: int) -> None:
    """Refuse to stack chains where there is no label."""
    if sampling.chain_weighting == "stacking" and num_labelled == 0:
        action = "Weigh the chains by evidence, or label some examples."
        raise InputError("sampling", "chain_weighting", "stacking, and no label", "labels to stack by", action)


def _stacked(predictions: ChainPredictions, chains: Int[np.ndarray, " stacked"]) -> Float[np.ndarray, " stacked"]:
    """Weights of some of the chains by stacking."""
    labels, advice = predictions.labels, predictions.advice()
    log_likelihood = np.take_along_axis(predictions.log_probs[chains], labels[None, None, :, None], axis=3)[..., 0]
    of_labels = leave_one_out_log_scores(log_likelihood, temperature=predictions.temperature)
    of_advice = advice.log_probs[chains].reshape(chains.size, -1)
    of_label = np.full(labels.size, predictions.num_labels / labels.size)
    counts = np.concatenate([of_label, advice.pseudo_labels.reshape(-1)])
    return stacking_weights(np.concatenate([of_labels, of_advice], axis=1), counts)


def _chain_predictions(
    student: Student, run: ChainRun, lessons: Lessons, settings: PosteriorSettings
) -> ChainPredictions:
    """Predictions of no more examples than stacking needs, which stand for all.

    An example's advice counts for power · λ labels: λ pseudo-labels, each worth what the power says.
    """
    labels, stands_for = np.asarray(lessons.examples.labels), lessons.examples.stands_for
    num_unlabelled = (labels < 0).sum() if stands_for is None else np.asarray(stands_for)[labels < 0].sum()
    labelled, advised = rows_to_weigh_by(labels)

    def by_draw(rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "chains draws rows classes"]:
        if rows.size == 0:  # not every network takes no example at all
            return np.zeros((*judged_log_density(run).shape, 0, lessons.teacher_probs.shape[2]))
        return judged_log_probs(student, run, lessons, rows)

    @cache
    def advice() -> Advice:
        worth = float(settings.power * settings.concentration) * num_unlabelled / max(advised.size, 1)
        pool = np.asarray(pooled_probs(lessons.teacher_probs[advised], lessons.log_weights[advised]))
        if lessons.is_asked is not None:  # where no teacher was asked, there is no advice
            pool = np.where(np.asarray(lessons.is_asked)[advised].any(axis=1)[:, None], pool, np.float32(0))
        log_probs = by_draw(advised)
        return Advice(worth * pool, scipy.special.logsumexp(log_probs, axis=1) - np.log(log_probs.shape[1]))

    num_labels = int((labels >= 0).sum())
    return ChainPredictions(labels[labelled], by_draw(labelled), num_labels, advice, float(settings.temperature))


def chain_starts(key: Key, student: Student, lessons: Lessons, settings: PosteriorSettings, num_chains: int) -> Params:
    """Over-dispersed starts, stacked over chains.

    Where the prior has centers, at each teacher's in turn, and the last one at the pool's, all around it at twice the
    distance that the prior would put them. Where it has none, as the student is initialised, as in cross-validation: a
    center would start a chain in its teacher's mode, which it may never leave, whatever the labels say.
    """
    init_key, noise_key = jax.random.split(key)
    if not np.isfinite(settings.center_scale):
        each = [student.init(key) for key in jax.random.split(init_key, num_chains)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    at_centers = tree_rows(lessons.centers.params, _center_of_chain(lessons, num_chains))
    return tree_add_scaled(at_centers, 2 * settings.center_scale, tree_random_normal(noise_key, at_centers))


def _center_of_chain(lessons: Lessons, num_chains: int) -> Int[np.ndarray, " chains"]:
    """The row of the centers that each chain starts at: the teachers in turn, and the pool for the last one."""
    rows = 1 + np.arange(num_chains) % lessons.teacher_probs.shape[1]
    rows[-1] = 0
    return rows


def _moved_to_components(starts: Params, lessons: Lessons, component_of_chain: Int[np.ndarray, " chains"]) -> Params:
    """Each chain's offset around the center of its component; the wide component has no center worth starting at."""
    starts_at = _center_of_chain(lessons, component_of_chain.size)
    ends_at = np.where(component_of_chain == 0, starts_at, component_of_chain - 1)
    centers = lessons.centers.params
    return jax.tree.map(
        lambda start, new, old: start + (new - old), starts, tree_rows(centers, ends_at), tree_rows(centers, starts_at)
    )


def _starts_of_components(lessons: Lessons) -> Params:
    """Each component's center, and that of the pool for the wide one: all parameters zero is no place to start at."""
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf[:1], leaf]), lessons.centers.params)


class _Own(NamedTuple):
    """What a chain has to itself: a component, and the phase at which it begins to visit the powers."""

    component: Component
    phase: Float[Array, "*chains"]


def _phases(num_chains: int) -> Float[Array, " chains"]:
    return jnp.arange(num_chains) / num_chains


def with_component(draw_batch: DrawBatch, power_at: Callable[[Any, Array], Any]) -> DrawBatch:
    """``draw_batch`` for a chain that has a component to itself, and visits powers, ``(step, phase) -> power``."""

    def draw(key: BatchKey, data: tuple[Examples | WeightedExamples, _Own]) -> ComponentBatch:
        examples, own = data
        power = jnp.asarray(power_at(key.step, own.phase), jnp.float32)
        return ComponentBatch(draw_batch(key, examples), own.component, power)

    return draw


@partial(jax.jit, static_argnames=("student", "softening", "draw_batch", "num_steps", "mesh"))
def _climb_all(
    chains: tuple[Params, Array, Component, Float[Array, " chains"]],
    shared: tuple[Lessons, PosteriorSettings, Key],
    *,
    student: Student,
    softening: float,
    draw_batch: DrawBatch,
    num_steps: int,
    mesh: Mesh,
) -> tuple[Params, Float[Array, " chains"], Float[Array, " chains"]]:
    """The mode near each start under a power, and the curvature and the noise of minibatch gradients around it.

    These two are under the power of the settings, which are data to the compiled program, so that it serves the student
    without teachers as well.
    """

    def climb(chain, shared):
        start, key, component, power = chain
        lessons, settings, look_key = shared
        own = _Own(component, jnp.zeros(()))
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
        return mode, curvature, noise

    return over_chains(climb, mesh)(chains, shared)


def _evidence_by_laplace(
    key: Key,
    likelihood: MinibatchLogDensity,
    curvature: Curvature,
    examples: Examples,
    modes: Params,
    components: Component,
) -> tuple[Evidence, Bool[np.ndarray, " components"]]:
    """The first look, and whose curvature was damped.

    Its errors count as independent, although the probes are the same for all and their noise cancels in part.
    """

    def look(chain, examples):
        mode, component = chain
        batch = full_batch(key, examples)
        return laplace_evidence(key, likelihood, batch, mode, component.center, component.scale, curvature=curvature)

    mesh = chain_mesh(components.scale.shape[0])
    found = jax.jit(over_chains(look, mesh))(copy_to_chains((modes, components), mesh), copy_to_all(examples, mesh))
    # A mode that was not found has no evidence.
    log_evidence = np.nan_to_num(np.asarray(found.log_evidence, np.float64), nan=-np.inf)
    if np.isneginf(log_evidence).all():
        found_instead, expected = "none that is finite, for any component", "a finite one"
        action = "Check the inputs and teachers for extreme numbers, or widen the scales."
        raise InputError("sample_posterior", "evidence", found_instead, expected, action)
    errors = np.nan_to_num(np.asarray(found.standard_error))
    return Evidence(log_evidence, np.diag(errors**2), "laplace"), np.asarray(found.is_damped)


def _refined_evidence(
    key: Key,
    likelihood: MinibatchLogDensity,
    examples: Examples,
    draws: Params | DrawStore | KeptPredictions,
    components: Component,
    component_of_chain: Int[np.ndarray, " chains"],
) -> Evidence | None:
    """Evidence of the components that were sampled: from their chains, by tempering, or None where neither will do."""
    numbers, index_of_chain = np.unique(component_of_chain, return_inverse=True)
    sampled = tree_rows(components, numbers)
    if not isinstance(draws, KeptPredictions):
        blocks = [np.asarray(component_log_densities(block, sampled)) for block in blocks_of_draws(draws)]
        log_densities = np.concatenate(blocks, axis=1)
        if log_densities.shape[1] >= NUM_BLOCKS:
            bridge = bridge_evidence(log_densities, index_of_chain)
            if bridge.is_trustworthy:
                return bridge.evidence
    if tree_size(tree_rows(sampled.center, 0)) > MOST_PARAMETERS_TEMPERED:
        return None

    def lead(population, batch):
        key, component = population
        return tempered_evidence(key, likelihood, batch, *component, num_populations=1)[0]

    populations = tree_rows(sampled, np.repeat(np.arange(numbers.size), NUM_POPULATIONS))
    keys = jax.random.split(key, numbers.size * NUM_POPULATIONS)
    mesh = chain_mesh(keys.size)
    shared = copy_to_all(full_batch(key, examples), mesh)
    log_evidence = jax.jit(over_chains(lead, mesh))(copy_to_chains((keys, populations), mesh), shared)
    return evidence_of_populations(np.asarray(log_evidence).reshape(numbers.size, NUM_POPULATIONS))


def _with_refined(
    first_look: ComponentWeights,
    log_prior_weights: Float[np.ndarray, " components"],
    evidence: Evidence,
    sampled: Int[np.ndarray, " sampled"],
) -> ComponentWeights:
    """The weights of the components that were sampled, refined; the others keep what Laplace gave them."""
    refined = component_weights(log_prior_weights[sampled], evidence)
    weights, standard_errors = first_look.weights.copy(), first_look.standard_errors.copy()
    share = weights[sampled].sum()
    weights[sampled], standard_errors[sampled] = share * refined.weights, share * refined.standard_errors
    return ComponentWeights(weights, standard_errors, refined.method)


@jax.jit
def component_log_densities(positions: Params, components: Component) -> Float[Array, "chains draws components"]:
    """log Normal(θ; center_k, scale_k²) of every draw, up to the constant that all components share, in nats."""
    num_components = components.scale.shape[0]
    mixture = mixture_of(components, jnp.full(num_components, -jnp.log(num_components)))

    def of_draw(params: Params) -> Float[Array, " components"]:
        return mixture.component_log_densities(ravel_pytree(params)[0])

    return jax.lax.map(lambda chain: jax.lax.map(of_draw, chain), positions)


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
