"""Selection: the posterior's settings, chosen on the labels by cross-validated predictive log score.

The labels are dealt into folds. For each fold, trust and centers are learned again without its labels, every
candidate's posterior is sampled by short chains without the fold's examples (neither their labels nor what the
teachers say of them), and the fold's labels are scored under the predictive mean of the chains. There are several, each
from a start of its own: where labels are few, what one chain says of a candidate depends on the mode that it was caught
in, and the best of many candidates would be the luckiest (``experiments/deeploc``).
The candidates are searched one setting at a time, each from the best before it:

1. the wide component's scale, with no teacher at all (this is the *no teacher* candidate, and stays in the running):
   the narrowest that the best is not ahead of by more than one standard error, since a short chain, which is never far
   from where its climb ended, shows little of how badly a long one mixes under a wide prior;
2. the wide component's scale again, by the same rule, under the function-space prior at power one: a student that hears
   teachers needs another prior on its weights than one that has a few labels;
3. lower powers of the function-space prior, at the scale that suits the labels alone;
4. the concentration, from the better of the last two;
5. the scale around the centers, of which there have been none so far: at most that of the wide component, since a
   component that is wider than it says nothing by its center, and is another mode to be caught in.

Beside them stands a student that takes *mild* advice: a concentration of one, no centers, the scale that suits the
labels alone, and no one power: an average over all of them and *no teacher*, weighted by pseudo-BMA+ (``stacking``), so
that a power has little weight only where the labels speak against it. What the five stages lead to is chosen only where
the labels can tell: it must beat the average by more than one and a half standard errors of the difference. Many
candidates and few labels would otherwise favour a strong belief in teachers by luck alone, and one power of many is a
choice by a hair.

Last come two temperatures together, of this choice and of *no teacher*, for which all else was scored at one: that of
the posterior, which decides how far apart the draws lie, and that of the predictions, which makes all of them less sure
of themselves. A chain that has just left its mode shows little of either, so these candidates' chains are longer. They
go by what the draws cover as well: of all pairs, the one that the held-out labels speak against least, by their log
score and by how often the credible intervals hold them, both in standard errors: z² + z̄², where z is that of the log
score below the best and z̄² the mean over levels of those of the coverage. Few labels tell little of either, and many
tell the difference of a hundredth in coverage from that in nats.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mtbkd_jax.chains import (
    BatchKey,
    DrawBatch,
    chain_mesh,
    copy_to_all,
    copy_to_chains,
    each_chain,
    keys_of_step,
    over_chains,
)
from mtbkd_jax.diagnostics import LOWEST_LOG_PROB
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.posterior import FAST_LEARNING_RATE, find_mode_in_stages
from mtbkd_jax.samplers import sghmc
from mtbkd_jax.settings import PosteriorSettings, Powers, no_teacher
from mtbkd_jax.stacking import pseudo_bma_weights
from mtbkd_jax.step_size import cooled_hamiltonian, gradient_noise, hamiltonian_step_size, largest_curvature_around
from mtbkd_jax.storage import finite_or_none
from mtbkd_jax.students import Student
from mtbkd_jax.tree import tree_root_mean_square, tree_rows, tree_where
from mtbkd_jax.types import Key, MinibatchLogDensity, Params
from mtbkd_jax.uncertainty import COVERAGE_LEVELS, label_coverage

# Six candidates each, so that one compiled program serves every stage and an even number of devices shares them out.
WIDE_SCALE_RATIOS = (0.75, 1.25, 2.0, 3.5, 6.0, 10.0)
"""Candidates of the wide component's scale, in units of the root mean square of the student's initial parameters.

Weights that sum over three inputs may be large, and those that sum over a thousand have to be small. At ten times what
a layer starts with, its outputs say yes or no and nothing between; a short chain has hardly begun to get there."""
POWERS = (0.001, 0.004, 0.016, 0.06, 0.25, 1.0)
CENTER_SCALE_RATIOS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Candidates of the scale around the centers, in units of the root mean square of the pool's parameters.

None is wider than the wide component, whose scale stands for those that would be."""
CONCENTRATIONS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
TEMPERATURES = (1.0, 0.3, 0.1)
"""Candidates of the temperature of the posterior: for two students at a time, six in all."""
PREDICTION_TEMPERATURES = (
    *(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    *(1.0, 1.05, 1.1, 1.17, 1.25, 1.32, 1.4, 1.5, 1.6, 1.75, 2.0),
)
"""Candidates of what predictions divide the logits by, of which many cost little: no chain has to run again."""
LEAST_SHARE = 0.02
"""Of the draws at a power; those that would have less are not visited."""
_NEEDED_BY_WIDE_SCALE = 1.0
"""Standard errors by which it must be ahead of a narrower one."""
_NEEDED_BY_STRONG_BELIEF = 1.5
"""Standard errors by which it must be ahead of mild advice: one that was ahead by 1.3 has hurt
(``experiments/simulation1``), and some that were ahead by 1.6 have helped (``experiments/deeploc``)."""
MILD_POWER = "mild power"
"""The stage of the powers at a concentration of one."""
PLAIN_TEMPERATURE = "temperature, no teacher"
"""The stage of the temperatures without teachers."""
PREDICTIONS = "prediction_temperature"
PLAIN_PREDICTIONS = "predictions, no teacher"
"""The stages of the temperatures of the predictions."""

_BELIEVED_CORRECTION = 0.2
"""Standard deviation of the logarithm of the temperature of the predictions, before any label is seen."""

# Candidates are scored by the sampler that the winner is then sampled by, unless the user asks for another.
STEP_FRACTION = 0.5
MOMENTUM_DECAY = 0.03


@dataclass(frozen=True)
class ScoredCandidate:
    """One candidate and how it did.

    Attributes:
      stage: which setting was being searched.
      power: of the function-space prior.
      concentration: λ.
      center_scale: around the teacher-derived centers.
      wide_scale: of the component around zero.
      temperature: of the posterior.
      prediction_temperature: what predictions divided the logits by.
      nll: mean negative log predictive probability of the held-out labels, nats.
      standard_error: of that mean, over the held-out labels.
      coverage_gap: mean distance of the held-out labels' coverage from nominal, over ``COVERAGE_LEVELS``.
    """

    stage: str
    power: float
    concentration: float
    center_scale: float
    wide_scale: float
    temperature: float
    prediction_temperature: float
    nll: float
    standard_error: float
    coverage_gap: float

    @property
    def settings(self) -> PosteriorSettings:
        """The settings that were scored."""
        return PosteriorSettings(*(getattr(self, name) for name in PosteriorSettings._fields))

    def to_json(self) -> dict[str, Any]:
        """As JSON values; an infinite scale becomes None."""
        return {name: value if name == "stage" else finite_or_none(value) for name, value in asdict(self).items()}


class Budget(NamedTuple):
    """How many short chains a candidate has in each fold, and how long they are.

    Attributes:
      num_chains: of them, each from a start of its own. How far apart their modes lie is part of what they predict.
      num_mode_steps: Adam steps to the mode, for each stage of the climb.
      num_burn_in: SGHMC steps left out of each chain, rounded up to a multiple of the thinning.
      num_steps: SGHMC steps of each chain that are predicted from.
      thinning: steps between two predictions.
      temperature_thinning: the same where temperatures are chosen; burn-in and chain are longer in proportion.
    """

    num_chains: int = 4
    num_mode_steps: int = 150
    num_burn_in: int = 80
    num_steps: int = 320
    thinning: int = 40
    temperature_thinning: int = 200


class Fold(NamedTuple):
    """A fold of the labels, with everything learned without them.

    Attributes:
      data: pytree that the candidate's posterior is built on; its examples have label -1 where the fold's labels were.
      inputs: of the labelled examples, ``[labelled, ...]``.
      labels: ``[labelled]``, -1 where the label is not in this fold.
    """

    data: Any
    inputs: Array
    labels: Int[Array, " labelled"]


class Problem(NamedTuple):
    """A candidate's posterior on a fold: what it is, where its chain may start, and what it sees.

    Attributes:
      log_density: the posterior.
      starts: parameters, stacked.
      num_starts: how many of them, the first ones, are tried.
      data_of_stage: the examples that each stage of the climb to the mode sees, those of the last stage in earnest.
      num_stages: stages of that climb.
    """

    log_density: MinibatchLogDensity
    starts: Params
    num_starts: int | Int[Array, ""]
    data_of_stage: Callable[[Int[Array, ""]], Examples]
    num_stages: int

    @property
    def examples(self) -> Examples:
        """The examples of the posterior, which minibatches are drawn from."""
        return self.data_of_stage(jnp.array(self.num_stages - 1))


class HeldOutScores(NamedTuple):
    """How candidates did on each label, from chains that had not seen it, at every temperature of the predictions.

    Attributes:
      log_scores: log predictive probability of each label, ``[candidates, temperatures, labelled]``, nats.
      covered: share of the draws whose deviance of the label lies in the credible interval, for each of
        ``COVERAGE_LEVELS``, ``[candidates, temperatures, levels, labelled]``; its mean over labels is the coverage.
    """

    log_scores: Float[np.ndarray, "candidates temperatures labelled"]
    covered: Float[np.ndarray, "candidates temperatures levels labelled"]


@runtime_checkable
class Score(Protocol):
    """Scores candidates."""

    def __call__(
        self, candidates: PosteriorSettings, prediction_temperatures: Sequence[float], *, in_earnest: bool
    ) -> HeldOutScores:
        """Score candidates at each of these temperatures of the predictions instead of their own.

        Args:
          candidates: their settings, stacked.
          prediction_temperatures: what their predictions divide logits by.
          in_earnest: whether their chains are so long that temperatures can be told apart.
        """


def cross_validation(
    key: Key,
    student: Student,
    folds: Sequence[Fold],
    *,
    build: Callable[[Key, PosteriorSettings, Any], Problem],
    draw_batch: DrawBatch,
    budget: Budget,
) -> Score:
    """Score every label by chains that have not seen it.

    Args:
      key: of the chains; every candidate gets the same ones, so that differences are less noisy than levels.
      student: the network.
      folds: as they were prepared.
      build: ``(key, settings, fold.data) -> Problem``, the key for where a chain starts; traced.
      draw_batch: draws minibatches from the problem's examples.
      budget: length of the chains.

    Returns:
      The function that scores candidates. As many candidates in a later call as in an earlier one run the program that
      was compiled for those.
    """

    def score_fold(mesh: Mesh, settings: PosteriorSettings, shared: tuple[Fold, Array, Array, Array]):
        fold, chain_keys, prediction_temperatures, thinning = shared

        def predict(key: Key) -> Float[Array, "draws labelled classes"]:
            start_key, chain_key = jax.random.split(key)
            problem = build(start_key, settings, fold.data)
            return _short_chain(chain_key, student, problem, settings, fold.inputs, draw_batch, budget, thinning)

        draws = jnp.concatenate(each_chain(predict, chain_keys, mesh))

        def score_at(temperature: Float[Array, ""]):
            log_probs = jax.nn.log_softmax(draws / temperature)
            label_log_probs = jnp.take_along_axis(log_probs, jnp.maximum(fold.labels, 0)[None, :, None], axis=2)[..., 0]
            log_scores = jax.nn.logsumexp(label_log_probs, axis=0) - jnp.log(log_probs.shape[0])
            covered = jnp.stack([label_coverage(log_probs, fold.labels, level=level) for level in COVERAGE_LEVELS])
            return log_scores, covered

        return jax.lax.map(score_at, prediction_temperatures)

    num_labelled = folds[0].labels.shape[0]
    held_out_rows = [np.flatnonzero(np.asarray(fold.labels) >= 0) for fold in folds]
    # As many rows of each fold as the longest has, so that one program scores all; what fills others up is left out.
    longest = max(rows.size for rows in held_out_rows)
    padded_rows = [np.pad(rows, (0, longest - rows.size)) for rows in held_out_rows]
    scored_folds = [
        fold._replace(inputs=fold.inputs[rows], labels=fold.labels[rows])
        for fold, rows in zip(folds, padded_rows, strict=True)
    ]

    @jax.jit
    def score_fold_of_all(candidates: PosteriorSettings, shared: tuple[Fold, Array, Array, Array]):
        mesh = chain_mesh(candidates.power.shape[0])
        return over_chains(partial(score_fold, mesh), mesh)(candidates, shared)

    def score(
        candidates: PosteriorSettings, prediction_temperatures: Sequence[float], *, in_earnest: bool
    ) -> HeldOutScores:
        mesh = chain_mesh(np.shape(candidates.power)[0])
        candidates = copy_to_chains(jax.tree.map(jnp.float32, candidates), mesh)
        shape = candidates.power.shape[0], len(prediction_temperatures)
        thinning = jnp.array(budget.temperature_thinning if in_earnest else budget.thinning)
        log_scores = np.zeros((*shape, num_labelled), np.float32)
        covered = np.zeros((*shape, len(COVERAGE_LEVELS), num_labelled), np.float32)
        for index, (fold, rows) in enumerate(zip(scored_folds, held_out_rows, strict=True)):
            chain_keys = jax.random.split(jax.random.fold_in(key, index), budget.num_chains)
            shared = fold, chain_keys, jnp.array(prediction_temperatures, jnp.float32), thinning
            parts = score_fold_of_all(candidates, copy_to_all(shared, mesh))
            log_scores[..., rows], covered[..., rows] = (np.asarray(part)[..., : rows.size] for part in parts)
        # A chain that blew up predicts nothing: its candidate cannot be chosen.
        return HeldOutScores(np.nan_to_num(log_scores, nan=-np.inf), np.nan_to_num(covered))

    return score


def _short_chain(
    key: Key,
    student: Student,
    problem: Problem,
    settings: PosteriorSettings,
    inputs: Array,
    draw_batch: DrawBatch,
    budget: Budget,
    thinning: Int[Array, ""],
) -> Float[Array, "draws examples classes"]:
    """Log class probabilities of a short SGHMC chain from the best mode; of the mode itself for no steps.

    The thinning is data to the compiled program, so that one serves short and long chains.
    """
    mode_key, curvature_key, noise_key, init_key, chain_key = jax.random.split(key, 5)
    examples = problem.examples
    mode = _best_mode(mode_key, problem, draw_batch, budget.num_mode_steps)
    if budget.num_steps == 0:
        return jax.nn.log_softmax(student.apply(mode, inputs))[None]
    log_density, temperature = problem.log_density, settings.temperature
    batch = draw_batch(BatchKey(curvature_key, 0), examples)
    curvature = largest_curvature_around(log_density, mode, settings.weight_scale, batch, curvature_key)
    noise = gradient_noise(log_density, mode, lambda key: draw_batch(BatchKey(key, 0), examples), noise_key)
    stable = hamiltonian_step_size(curvature, fraction=STEP_FRACTION)
    step_size, decay = cooled_hamiltonian(stable, MOMENTUM_DECAY, noise=noise, temperature=temperature)
    sampler = sghmc(log_density, friction=decay / step_size, temperature=temperature)

    def advance(step, state):
        batch_key, sampler_key = keys_of_step(chain_key, step)
        return sampler.step(sampler_key, state, draw_batch(batch_key, examples), step_size)[0]

    def advance_and_predict(state, draw):
        state = jax.lax.fori_loop(draw * thinning, (draw + 1) * thinning, advance, state)
        return state, jax.nn.log_softmax(student.apply(state.position, inputs))

    # Predictions of the burn-in are thrown away: cheaper than compiling the step a second time.
    num_left_out = -(-budget.num_burn_in // budget.thinning)
    draws = jnp.arange(num_left_out + budget.num_steps // budget.thinning)
    return jax.lax.scan(advance_and_predict, sampler.init(mode, init_key), draws)[1][num_left_out:]


def _best_mode(key: Key, problem: Problem, draw_batch: DrawBatch, num_steps: int) -> Params:
    """Of the modes near the starts, the one of the highest density."""

    def climb(index, best):
        mode = find_mode_in_stages(
            problem.log_density,
            tree_rows(problem.starts, index),
            key=key,
            data_of_stage=problem.data_of_stage,
            num_stages=problem.num_stages,
            draw_batch=draw_batch,
            num_steps=num_steps,
            learning_rate=FAST_LEARNING_RATE,
        )
        log_density = problem.log_density(mode, full_batch(key, problem.examples))
        return tree_where(log_density > best[1], (mode, log_density), best)

    first = tree_rows(problem.starts, 0)
    return jax.lax.fori_loop(0, problem.num_starts, climb, (first, -jnp.inf))[0]


class Choice(NamedTuple):
    """What was chosen, and every candidate that was scored.

    Attributes:
      settings: of the winner.
      no_teacher: the best settings without any teacher.
      curve: the candidates in the order in which they were scored.
      powers: what is averaged over, where the winner has no one power; that of its settings has the largest share.
    """

    settings: PosteriorSettings
    no_teacher: PosteriorSettings
    curve: tuple[ScoredCandidate, ...]
    powers: Powers | None = None

    def to_json(self) -> dict[str, Any]:
        """The settings chosen and every candidate's score as JSON values; infinite ones become None."""
        chosen = self.settings.to_json() | {"uses_teachers": bool(self.settings.uses_teachers)}
        powers = None if self.powers is None else self.powers._asdict()
        curve = [one.to_json() for one in self.curve]
        return {"chosen": chosen, "powers": powers, "no_teacher": self.no_teacher.to_json(), "curve": curve}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Choice":
        """What ``to_json`` gave."""

        def known(values: Mapping[str, Any]) -> dict[str, Any]:
            return {name: float("inf") if value is None else value for name, value in values.items()}

        chosen, no_teacher = (
            PosteriorSettings(**{name: known(content[which])[name] for name in PosteriorSettings._fields})
            for which in ("chosen", "no_teacher")
        )
        curve = tuple(ScoredCandidate(**known(one)) for one in content["curve"])
        powers = content.get("powers")  # runs from before chains visited several have none
        visited = None if powers is None else Powers(*(tuple(powers[name]) for name in Powers._fields))
        return cls(chosen, no_teacher, curve, visited)


@dataclass(frozen=True)
class GivenSettings:
    """Settings that the user has decided; None leaves the choice to the labels.

    Attributes:
      power: of the function-space prior.
      concentration: λ, pseudo-labels an example.
      center_scale: standard deviation around the teacher-derived centers; infinite to leave them out.
      wide_scale: standard deviation of the wide component.
      temperature: of the posterior; 1 is Bayes.
      prediction_temperature: what predictions divide the student's logits by.
    """

    power: float | None = None
    concentration: float | None = None
    center_scale: float | None = None
    wide_scale: float | None = None
    temperature: float | None = None
    prediction_temperature: float | None = None


def wide_scales_of(student: Student) -> tuple[float, ...]:
    """Candidates of the wide component's scale for this student; the ratios themselves where it starts at zero."""
    size = float(tree_root_mean_square(student.init(jax.random.key(0))))
    return tuple(ratio * (size or 1.0) for ratio in WIDE_SCALE_RATIOS)


def choose_settings(
    score: Score,
    given: GivenSettings,
    *,
    wide_scales: tuple[float, ...],
    pool_size: float,
) -> Choice:
    """Search the settings that are not given, one at a time.

    Args:
      score: of stacked candidates, as ``cross_validation`` makes it.
      given: what is not searched. With a power given, *no teacher* is scored but not chosen.
      wide_scales: candidates of the wide component's scale, the narrowest first.
      pool_size: root mean square of the pool's parameters, the unit of the candidates' scale around the centers.
    """
    curve: list[ScoredCandidate] = []
    held_out: dict[PosteriorSettings, _HeldOut] = {}
    temperature = 1.0 if given.temperature is None else given.temperature
    predictions = _unless_given(given.prediction_temperature, PREDICTION_TEMPERATURES)
    uncorrected = max(predictions, key=correction_log_density)

    def score_all(candidates: Sequence[PosteriorSettings], *, in_earnest: bool) -> None:
        """Each of them at every temperature of the predictions."""
        stacked = PosteriorSettings(*(jnp.array(values, jnp.float32) for values in zip(*candidates, strict=True)))
        scores = score(stacked, predictions, in_earnest=in_earnest)
        for candidate, log_scores, covered in zip(candidates, *scores, strict=True):
            for value, of_value in zip(predictions, zip(log_scores, covered, strict=True), strict=True):
                held_out[candidate._replace(prediction_temperature=value)] = _HeldOut(*of_value)

    def record(stage: str, candidates: Sequence[PosteriorSettings]) -> list[ScoredCandidate]:
        scored = [_scored(stage, candidate, held_out[candidate]) for candidate in candidates]
        curve.extend(scored)
        return scored

    def score_stage(stage: str, candidates: Sequence[PosteriorSettings]) -> list[ScoredCandidate]:
        score_all(candidates, in_earnest=False)
        return record(stage, candidates)

    def best_of(scored: Sequence[ScoredCandidate]) -> ScoredCandidate:
        return min(scored, key=lambda candidate: candidate.nll)

    def narrowest_of(scored: Sequence[ScoredCandidate]) -> ScoredCandidate:
        """The narrowest that the best is not ahead of by much; the candidates are in the order of their scale."""
        of_best = held_out[best_of(scored).settings].log_scores

        def is_as_good(candidate: ScoredCandidate) -> bool:
            of_candidate = held_out[candidate.settings].log_scores
            return not _is_better(of_best, of_candidate, standard_errors=_NEEDED_BY_WIDE_SCALE)

        return next(filter(is_as_good, scored))

    wide_scales = _unless_given(given.wide_scale, wide_scales)
    plain_candidates = [no_teacher(scale, temperature, uncorrected) for scale in wide_scales]
    plain = narrowest_of(score_stage("no teacher", plain_candidates))
    settings = PosteriorSettings(
        power=1.0 if given.power is None else given.power,
        concentration=5.0 if given.concentration is None else given.concentration,
        center_scale=float("inf") if given.center_scale is None else given.center_scale,
        wide_scale=plain.wide_scale,
        temperature=temperature,
        prediction_temperature=uncorrected,
    )
    best = narrowest_of(score_stage("wide_scale", [settings._replace(wide_scale=scale) for scale in wide_scales]))

    def search(name: str, values: Sequence[float], start: PosteriorSettings) -> ScoredCandidate:
        if getattr(given, name) is not None:
            return best
        return best_of(score_stage(name, [start._replace(**{name: value}) for value in values]))

    best = best_of([best, search("power", POWERS, settings)])
    best = best_of([best, search("concentration", CONCENTRATIONS, best.settings)])
    center_scales = [min(ratio * pool_size, best.wide_scale) for ratio in CENTER_SCALE_RATIOS]
    best = best_of([best, search("center_scale", center_scales, best.settings)])
    powers: Powers | None = None
    if given.power is None:
        of_best, of_plain = (held_out[one.settings].log_scores for one in (best, plain))
        if given.concentration is None and given.center_scale is None:
            mild = [settings._replace(power=power, concentration=1.0) for power in POWERS]
            mild_scored = score_stage(MILD_POWER, mild)
            log_scores = np.stack([*(held_out[one].log_scores for one in mild[::-1]), of_plain])
            powers, of_average = _average(log_scores)
            if _is_better(of_best, of_average, standard_errors=_NEEDED_BY_STRONG_BELIEF):
                powers = None
            else:
                best = (
                    plain if powers.values == (0.0,) else max(mild_scored, key=lambda one: powers.share_of(one.power))
                )
        elif not _is_better(of_best, of_plain, standard_errors=_NEEDED_BY_STRONG_BELIEF):
            best = plain

    temperatures = _unless_given(given.temperature, TEMPERATURES)
    if len(temperatures) * len(predictions) == 1:
        return Choice(best.settings, plain.settings, tuple(curve), powers)
    students = best.settings, plain.settings
    score_all([student._replace(temperature=value) for student in students for value in temperatures], in_earnest=True)

    def cool(student: PosteriorSettings, stage: str, stage_of_predictions: str) -> PosteriorSettings:
        """Choose its two temperatures; on record are the candidates that differ from the choice in one of them."""
        chosen = _least_doubted(
            {
                candidate: held_out[candidate]
                for value in temperatures
                for of_predictions in predictions
                for candidate in [student._replace(temperature=value, prediction_temperature=of_predictions)]
            }
        )
        if len(temperatures) > 1:
            record(stage, [chosen._replace(temperature=value) for value in temperatures])
        if len(predictions) > 1:
            record(stage_of_predictions, [chosen._replace(prediction_temperature=value) for value in predictions])
        return chosen

    chosen = cool(best.settings, "temperature", PREDICTIONS)
    return Choice(chosen, cool(plain.settings, PLAIN_TEMPERATURE, PLAIN_PREDICTIONS), tuple(curve), powers)


class _HeldOut(NamedTuple):
    """How one candidate did on each label."""

    log_scores: Float[np.ndarray, " labelled"]
    covered: Float[np.ndarray, "levels labelled"]

    @property
    def nll(self) -> float:
        return -float(self.log_scores.mean())

    @property
    def beyond_nominal(self) -> Float[np.ndarray, " levels"]:
        """The coverage less the nominal one."""
        return self.covered.mean(1) - np.array(COVERAGE_LEVELS)

    @property
    def coverage_gap(self) -> float:
        """Mean distance of the coverage from nominal."""
        return float(np.abs(self.beyond_nominal).mean())

    @property
    def squared_coverage_error(self) -> float:
        """Mean over levels of the coverage's squared distance from nominal, in units of such a share's variance."""
        levels = np.array(COVERAGE_LEVELS)
        return float(np.mean(self.beyond_nominal**2 / (levels * (1 - levels) / self.log_scores.size)))


def _average(log_scores: Float[np.ndarray, "powers labelled"]) -> tuple[Powers, Float[np.ndarray, " labelled"]]:
    """Shares of the powers, largest first and zero last; and the log score of each label under them."""
    known = np.maximum(np.nan_to_num(log_scores.astype(np.float64), nan=LOWEST_LOG_PROB), LOWEST_LOG_PROB)
    weights = pseudo_bma_weights(known)
    is_heard = weights >= LEAST_SHARE
    shares = weights[is_heard] / weights[is_heard].sum()
    values = np.array([*POWERS[::-1], 0.0])[is_heard]
    averaged = scipy.special.logsumexp(known[is_heard], axis=0, b=shares[:, None])
    # As exact as the scores, so that equal ones stay equal.
    return Powers(tuple(values.tolist()), tuple(shares.tolist())), averaged.astype(log_scores.dtype)


def _least_doubted(candidates: Mapping[PosteriorSettings, _HeldOut]) -> PosteriorSettings:
    """The pair of temperatures to choose: see the top of this file."""
    best = min(candidates.values(), key=lambda held_out: held_out.nll)

    def doubt(candidate: PosteriorSettings) -> float:
        held_out = candidates[candidate]
        of_score = max(_in_standard_errors(best.log_scores, held_out.log_scores), 0.0)
        of_correction = -2 * correction_log_density(candidate.prediction_temperature)
        return of_score**2 + held_out.squared_coverage_error + of_correction

    return min(candidates, key=doubt)


def correction_log_density(prediction_temperature: float) -> float:
    """What is believed of a temperature τ of the predictions before any label is seen: log Normal(log τ; 0, .2²).

    The constant is left out, so that predictions as they are have zero.
    """
    return -0.5 * float(np.log(prediction_temperature) / _BELIEVED_CORRECTION) ** 2


def _is_better(
    one: Float[np.ndarray, " labelled"], other: Float[np.ndarray, " labelled"], *, standard_errors: float
) -> bool:
    """Whether ``one`` has the higher mean log score by more than so many standard errors of the difference."""
    return _in_standard_errors(one, other) > standard_errors


def _in_standard_errors(one: Float[np.ndarray, " labelled"], other: Float[np.ndarray, " labelled"]) -> float:
    """By how many standard errors of the difference the mean log score of ``one`` is the higher."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return np.inf if np.isfinite(one).all() else -np.inf
    gains = one - other
    mean, standard_error = float(gains.mean()), float(gains.std() / np.sqrt(gains.size))
    if standard_error == 0:
        return float(np.sign(mean)) * np.inf if mean else 0.0
    return mean / standard_error


def _unless_given(value: float | None, candidates: tuple[float, ...]) -> tuple[float, ...]:
    return candidates if value is None else (value,)


def _scored(stage: str, settings: PosteriorSettings, held_out: _HeldOut) -> ScoredCandidate:
    log_scores = held_out.log_scores
    standard_error = (
        float(np.std(log_scores) / np.sqrt(log_scores.size)) if np.isfinite(log_scores).all() else float("inf")
    )
    numbers = {name: float(value) for name, value in settings._asdict().items()}
    return ScoredCandidate(
        stage, **numbers, nll=held_out.nll, standard_error=standard_error, coverage_gap=held_out.coverage_gap
    )
