"""Learned trust: whom to believe on which input, from the labels there are.

Bayesian hierarchical stacking (Yao, Pirš, Vehtari and Gelman, 2022), with a flat component g = 0, p⁰ = 1/C, for
"nobody knows":

    w_i^g = softmax_g( a_g + φ(x_i)·β_g + ψ(p_i)·γ_g ),
    a_g ~ Normal(0, 1),    β_g ~ Normal(0, s²),    γ_g ~ Normal(0, t²),
    fitted to Σ_i log Σ_g w_i^g p_i^g[y_i] over the labelled examples.

Entropy weights reward confident ignorance; these weights are earned on labels. φ is where the example lies: random
Fourier features of the input. ψ is what all the teachers say of it, their log probabilities: an expert in fours is to
be believed when the others see a four too, and a hundred labels teach that sooner than where in the space of images the
fours are. The slopes' scales s and t run over a grid; zero is among the candidates of both, and two zeros are one
weight a teacher for all inputs. The weights are averaged over the grid, each fit counting by the likelihood of the
labels that it has not seen (pseudo Bayesian model averaging; Yao, Vehtari, Simpson and Gelman, 2018): where labels are
few, several fits explain them alike, and the best of them is not the one that is right elsewhere. The weight of a
labelled example comes from fits without its label (cross-fitting), which has a say only in what each fit counts. Labels
on which the teachers were trained flatter the teachers: use held-out labels where there are any.

Where a teacher was not asked about an example, its w is zero in all of the above and the others sum to one, so that it
neither gains nor loses by the label. What it would have said is zero in ψ, which is its mean there: ψ is standardised
over the examples about which it was asked.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density as numpyro_log_density

from mtbkd_jax.chains import BatchKey
from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import rows_of_epoch
from mtbkd_jax.folds import are_enough, stratified_folds
from mtbkd_jax.posterior import find_mode
from mtbkd_jax.tree import tree_rows
from mtbkd_jax.types import Key
from mtbkd_jax.weighting import asked_components

SLOPE_SCALES = (0.0, 0.1, 0.3, 1.0)
"""Candidates of s and of t."""

SMALLEST_PROBABILITY = 1e-3
"""What a teacher says of a less probable class is taken for this: how certain it is beyond that tells nothing."""

_NUM_STEPS = 400

_BATCH_SIZE = 2048
"""Labelled rows that a step takes where there are more, so that tens of thousands cost no more than these."""


class TrustData(NamedTuple):
    """What the trust model sees of the labelled examples.

    Attributes:
      features: φ(x) and ψ(p), ``[labelled, features]``.
      log_scores: log p_i^g[y_i], ``[labelled, components]``, component 0 being flat; nats.
      mask: ``[labelled]``, one where the label counts and zero where it is held out.
      is_asked: which components have a say, ``[labelled, components]``; None where all do.
    """

    features: Float[Array, "labelled features"]
    log_scores: Float[Array, "labelled components"]
    mask: Float[Array, " labelled"]
    is_asked: Bool[Array, "labelled components"] | None = None


def trust_model(data: TrustData, slope_scales: Float[Array, " features"]) -> None:
    """The stacking model in NumPyro; its sites are ``intercepts [components]`` and ``slopes [features, components]``.

    The slopes are sampled on the unit scale and multiplied by those of their features, so that a scale of zero is well
    defined.
    """
    num_components = data.log_scores.shape[1]
    intercepts = numpyro.sample("intercepts", dist.Normal(0, 1).expand([num_components]).to_event(1))
    slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand([data.features.shape[1], num_components]).to_event(2))
    params = {"intercepts": intercepts, "slopes": slopes}
    log_weights = trust_log_weights(params, data.features, slope_scales, data.is_asked)
    score = jax.nn.logsumexp(log_weights + data.log_scores, axis=-1)
    numpyro.factor("log_score", jnp.sum(data.mask * score))


def trust_log_weights(
    params,
    features: Array,
    slope_scales: Float[Array, " features"],
    is_asked: Bool[Array, "examples components"] | None = None,
) -> Array:
    """log softmax_g(a_g + φ(x_i)·β_g + ψ(p_i)·γ_g) over those who have a say, ``[examples, components]``."""
    slopes = slope_scales[:, None] * params["slopes"]
    says = params["intercepts"][None] + features @ slopes
    return jax.nn.log_softmax(says if is_asked is None else jnp.where(is_asked, says, -jnp.inf), axis=-1)


@dataclass(frozen=True)
class LearnedTrust:
    """The rule of ``learned_trust``, which makes it; it weighs new rows by the fits that have seen all labels."""

    num_features: int
    num_folds: int

    def __call__(self, key, teacher_probs, inputs, labels, is_asked=None):
        """Weigh the teachers."""
        return self._fit(key, teacher_probs, inputs, labels, is_asked).log_weights

    def fit(self, key, teacher_probs, inputs, labels, is_asked=None):
        """What the call gives, and the feature maps, the fitted parameters, and what each of the fits counts."""
        place_key, speech_key, *_ = _keys_of_fit(key)
        found = self._fit(key, teacher_probs, inputs, labels, is_asked)
        place = fourier_map(place_key, inputs, self.num_features)
        speech = projection(speech_key, _speech(teacher_probs), self.num_features, is_asked)
        maps = {f"place.{name}": leaf for name, leaf in place._asdict().items()}
        maps |= {f"speech.{name}": leaf for name, leaf in speech._asdict().items()}
        return found.log_weights, maps | found.of_all_labels._asdict()

    def weigh(self, fitted, teacher_probs, inputs, is_asked=None):
        """Weigh the teachers on new rows, without a label."""
        place = FourierMap(*(fitted[f"place.{name}"] for name in FourierMap._fields))
        speech = Projection(*(fitted[f"speech.{name}"] for name in Projection._fields))
        fits = Fits(*(fitted[name] for name in Fits._fields))
        parts = [place.features(inputs), speech.features(_speech(teacher_probs), is_asked)]
        features = jnp.concatenate(parts, axis=1)
        params = {"intercepts": fits.intercepts[:, None], "slopes": fits.slopes[:, None]}
        only_fit = jnp.zeros(features.shape[0], jnp.int32)
        have_say = None if is_asked is None else asked_components(is_asked)
        return average_log_weights(params, features, fits.candidates, fits.held_out, only_fit, have_say)

    def _fit(self, key, teacher_probs, inputs, labels, is_asked):
        options = {"num_features": self.num_features, "num_folds": self.num_folds, "is_asked": is_asked}
        return fit_trust(key, teacher_probs, inputs, labels, **options)


def learned_trust(*, num_features: int = 60, num_folds: int = 5) -> LearnedTrust:
    """Build the rule that learns the weights from the labels by the mode of the stacking model.

    Args:
      num_features: of φ, and at most as many of ψ.
      num_folds: folds over the labelled examples, for cross-fitting and for the choice of the slopes' scales.

    Raises:
      InputError: (when applied) if there are fewer labelled examples than two for each fold.
    """
    return LearnedTrust(num_features, num_folds)


class Fits(NamedTuple):
    """The fits that have seen all labels, one for each candidate of the slopes' scales.

    Attributes:
      intercepts: ``[candidates, components]``.
      slopes: on the unit scale, ``[candidates, features, components]``.
      candidates: scales of the slopes, ``[candidates, features]``.
      held_out: log likelihood of held-out labels, by which each counts, nats.
    """

    intercepts: Float[Array, "candidates components"]
    slopes: Float[Array, "candidates features components"]
    candidates: Float[Array, "candidates features"]
    held_out: Float[Array, " candidates"]


class TrustFit(NamedTuple):
    """A fitted trust model.

    Attributes:
      log_weights: ``[examples, components]``, averaged over the scales, cross-fitted where there is a label.
      slope_scales: s and t of the highest held-out score, for each feature.
      held_out_scores: mean log score on held-out labels for every s (rows) and t (columns), nats.
      features: φ and ψ of all examples, ``[examples, features]``.
      data: what the model saw of the labelled examples.
      of_all_labels: the fits that weigh examples without a label.
      is_asked: which components have a say, ``[examples, components]``; None where all do.
    """

    log_weights: Float[Array, "examples components"]
    slope_scales: Float[Array, " features"]
    held_out_scores: Float[np.ndarray, "scales scales"]
    features: Float[Array, "examples features"]
    data: TrustData
    of_all_labels: Fits
    is_asked: Bool[Array, "examples components"] | None = None


def fit_trust(
    key: Key,
    teacher_probs: Float[Array, "examples teachers classes"],
    inputs: Array,
    labels: Int[Array, " examples"],
    *,
    num_features: int = 60,
    num_folds: int = 5,
    is_asked: Bool[Array, "examples teachers"] | None = None,
) -> TrustFit:
    """Fit the stacking model by its mode, once on all labels and once without each fold of them.

    Args:
      key: of the features, the folds and the fits.
      teacher_probs: anything that is finite where a teacher was not asked.
      inputs: ``[examples, ...]``.
      labels: -1 where there is none.
      num_features: of φ, and at most as many of ψ.
      num_folds: folds over the labelled examples.
      is_asked: whether each teacher was asked about each example; None where all were about all.

    Raises:
      InputError: if there are fewer labelled examples than two for each fold.
    """
    labelled = np.flatnonzero(np.asarray(labels) >= 0)
    if not are_enough(labelled.size, num_folds):
        raise InputError(
            "learned_trust",
            "labels",
            f"{labelled.size} labelled examples",
            f"at least {2 * num_folds}, two for each of {num_folds} folds",
            "Label more examples, or choose the entropy, uniform or fixed weighting rule.",
        )
    place_key, speech_key, fold_key, fit_key = _keys_of_fit(key)
    place = random_fourier_features(place_key, inputs, num_features)
    speech = speech_features(speech_key, teacher_probs, num_features, is_asked)
    fold_of_example = np.full(labels.shape[0], -1)
    fold_of_example[labelled] = stratified_folds(fold_key, np.asarray(labels)[labelled], num_folds)
    have_say = None if is_asked is None else asked_components(is_asked)
    return fit_stacking(fit_key, place, speech, _log_scores(teacher_probs, labels), fold_of_example, have_say)


def _keys_of_fit(key: Key) -> tuple[Key, Key, Key, Key]:
    """Of φ, ψ, the folds and the fits."""
    place_key, speech_key, fold_key, fit_key = jax.random.split(key, 4)
    return place_key, speech_key, fold_key, fit_key


def fit_stacking(
    key: Key,
    place: Float[Array, "examples place_features"],
    speech: Float[Array, "examples speech_features"],
    log_scores: Float[Array, "examples components"],
    fold_of_example: Int[np.ndarray, " examples"],
    is_asked: Bool[Array, "examples components"] | None = None,
) -> TrustFit:
    """Fit the stacking model of any log scores by its mode, once on all labels and once without each fold of them.

    Args:
      key: of the fits.
      place: φ(x).
      speech: ψ of what the teachers say.
      log_scores: of each component on the label, nats; any finite number on an example without one, and of a component
        that has no say.
      fold_of_example: the fold of a labelled example's label, counted from 0, and -1 where there is no label.
      is_asked: which components have a say, one or more on each example; None where all do.
    """
    labelled = np.flatnonzero(fold_of_example >= 0)
    folds, num_folds = fold_of_example[labelled], int(fold_of_example.max()) + 1
    features = jnp.concatenate([place, speech], axis=1)
    candidates = np.array(
        [[s] * place.shape[1] + [t] * speech.shape[1] for s in SLOPE_SCALES for t in SLOPE_SCALES], np.float32
    )

    # Rows are padded to a power of two, so that fits on a few labels more or less (as in cross-validation) share one
    # compilation.
    padding = (1 << (labelled.size - 1).bit_length()) - labelled.size
    rows = np.pad(labelled, (0, padding))
    fold_of_row = np.pad(folds, (0, padding), constant_values=-1)
    is_row = fold_of_row >= 0
    masks = np.stack([is_row & (fold_of_row != fold) for fold in range(num_folds)] + [is_row]).astype(np.float32)

    asked_of_row = None if is_asked is None else is_asked[rows]
    data = TrustData(features[rows], log_scores[rows], jnp.asarray(masks[-1]), asked_of_row)
    params, held_out = _fit_all(
        key, data.features, data.log_scores, jnp.asarray(masks), jnp.asarray(candidates), asked_of_row
    )
    fit_of_example = np.where(fold_of_example >= 0, fold_of_example, num_folds)
    log_weights = average_log_weights(
        params, features, jnp.asarray(candidates), held_out, jnp.asarray(fit_of_example), is_asked
    )
    scores = np.asarray(held_out) / labelled.size
    scales = jnp.asarray(candidates[scores.argmax()])
    of_all_labels = Fits(params["intercepts"][:, -1], params["slopes"][:, -1], jnp.asarray(candidates), held_out)
    scores_of_scales = scores.reshape(len(SLOPE_SCALES), -1)
    return TrustFit(log_weights, scales, scores_of_scales, features, data, of_all_labels, is_asked)


def sample_trust(
    key: Key, fit: TrustFit, *, num_draws: int = 500, num_warmup: int = 500
) -> Float[Array, "draws examples components"]:
    """Draw the weights from their posterior by NumPyro's NUTS, given the best scales: how sure is trust itself?"""
    kernel = NUTS(trust_model)
    mcmc = MCMC(kernel, num_warmup=num_warmup, num_samples=num_draws, progress_bar=False)
    mcmc.run(key, fit.data, fit.slope_scales)
    log_weights = jax.vmap(trust_log_weights, in_axes=(0, None, None, None))
    return jnp.exp(log_weights(mcmc.get_samples(), fit.features, fit.slope_scales, fit.is_asked))


class _Standard(NamedTuple):
    """Takes columns to a mean of zero and a standard deviation of one over the examples that it was made of.

    Attributes:
      mean: of each column, ``[1, columns]``.
      spread: standard deviation of each column; one where it is constant, which becomes zero.
    """

    mean: Float[Array, "1 columns"]
    spread: Float[Array, "1 columns"]

    @classmethod
    def of(
        cls, values: Float[Array, "examples ..."], is_known: Bool[Array, "examples ..."] | None = None
    ) -> "_Standard":
        """Of the values that are known; where a column has none, its mean is zero."""
        flat = values.reshape(values.shape[0], -1)
        if is_known is None:
            spread, mean = flat.std(0, keepdims=True), flat.mean(0, keepdims=True)
        else:
            known = is_known.reshape(flat.shape)
            count = jnp.maximum(known.sum(0, keepdims=True), 1)
            mean = jnp.where(known, flat, 0.0).sum(0, keepdims=True) / count
            spread = jnp.sqrt(jnp.square(jnp.where(known, flat - mean, 0.0)).sum(0, keepdims=True) / count)
        return cls(mean, jnp.where(spread > 0, spread, 1.0))

    def columns(self, values: Float[Array, "rows ..."]) -> Float[Array, "rows columns"]:
        return (values.reshape(values.shape[0], -1) - self.mean) / self.spread


class FourierMap(NamedTuple):
    """φ(x) = √2 cos(Wx + b), see ``random_fourier_features``.

    Attributes:
      mean: of the inputs' columns.
      spread: of the inputs' columns.
      frequencies: W, ``[columns, features]``.
      phases: b.
    """

    mean: Float[Array, "1 columns"]
    spread: Float[Array, "1 columns"]
    frequencies: Float[Array, "columns features"]
    phases: Float[Array, " features"]

    def features(self, inputs: Array) -> Float[Array, "rows features"]:
        """φ of some inputs."""
        standard = _Standard(self.mean, self.spread).columns(inputs)
        return jnp.sqrt(2.0) * jnp.cos(standard @ self.frequencies + self.phases[None])


def fourier_map(key: Key, inputs: Array, num_features: int) -> FourierMap:
    """The map of ``random_fourier_features``, made of these inputs."""
    scaling = _Standard.of(inputs)
    standard = scaling.columns(inputs)
    pair_key, weight_key, phase_key = jax.random.split(key, 3)
    pairs = jax.random.randint(pair_key, (2, 1000), 0, standard.shape[0])
    distances = jnp.linalg.norm(standard[pairs[0]] - standard[pairs[1]], axis=-1)
    length_scale = 0.5 * jnp.median(distances)
    frequencies = jax.random.normal(weight_key, (standard.shape[1], num_features)) / jnp.where(
        length_scale > 0, length_scale, 1.0
    )
    phases = jax.random.uniform(phase_key, (num_features,), maxval=2 * jnp.pi)
    return FourierMap(*scaling, frequencies, phases)


@partial(jax.jit, static_argnames="num_features")
def random_fourier_features(key: Key, inputs: Array, num_features: int) -> Float[Array, "examples features"]:
    """φ(x) = √2 cos(Wx + b): features whose inner products approximate a Gaussian kernel (Rahimi and Recht, 2007).

    Inputs are flattened and standardised; the kernel's length scale is half the median distance between examples, so
    that a straight line on which one teacher hands over to another costs a few features and not all of them.
    """
    return fourier_map(key, inputs, num_features).features(inputs)


@partial(jax.jit, static_argnames="num_features")
def speech_features(
    key: Key,
    teacher_probs: Float[Array, "examples teachers classes"],
    num_features: int,
    is_asked: Bool[Array, "examples teachers"] | None = None,
) -> Float[Array, "examples features"]:
    """ψ(p): the teachers' log probabilities, as ``projected_features``; zero, the mean, where one was not asked."""
    return projected_features(key, _speech(teacher_probs), num_features, is_asked)


class Projection(NamedTuple):
    """The map of ``projected_features``.

    Attributes:
      mean: of the values' columns.
      spread: of the values' columns.
      directions: of the random projections, ``[columns, features]``; of no columns where there is none.
      scale: what the columns are multiplied by, or their projections divided by.
    """

    mean: Float[Array, "1 columns"]
    spread: Float[Array, "1 columns"]
    directions: Float[Array, "projected_columns features"]
    scale: Float[Array, ""]

    def features(
        self, values: Float[Array, "rows ..."], is_asked: Bool[Array, "rows teachers"] | None = None
    ) -> Float[Array, "rows features"]:
        """ψ of some values, ``[rows, teachers, ...]`` where some of the teachers were not asked."""
        standard = _Standard(self.mean, self.spread).columns(values)
        if is_asked is not None:
            standard = jnp.where(_of_values(is_asked, values).reshape(standard.shape), standard, 0.0)
        return standard @ self.directions / self.scale if self.directions.size else standard * self.scale


def projection(
    key: Key,
    values: Float[Array, "examples ..."],
    num_features: int,
    is_asked: Bool[Array, "examples teachers"] | None = None,
) -> Projection:
    """The map of ``projected_features``, made of these values."""
    scaling = _Standard.of(values, None if is_asked is None else _of_values(is_asked, values))
    width = scaling.mean.shape[1]
    if width > num_features:
        return Projection(*scaling, jax.random.normal(key, (width, num_features)), jnp.sqrt(width))
    return Projection(*scaling, jnp.zeros((0, num_features)), jnp.sqrt(num_features / width))


def _of_values(
    is_asked: Bool[Array, "rows teachers"], values: Float[Array, "rows teachers ..."]
) -> Bool[Array, "rows teachers ..."]:
    """What is asked of each value."""
    return jnp.broadcast_to(jnp.expand_dims(is_asked, range(2, values.ndim)), values.shape)


def projected_features(
    key: Key,
    values: Float[Array, "examples ..."],
    num_features: int,
    is_asked: Bool[Array, "examples teachers"] | None = None,
) -> Float[Array, "examples features"]:
    """The values, flattened and standardised, with a mean square of ``num_features`` together.

    Where there are more of them than ``num_features``, that many random projections stand for them, which keep the
    distances (Johnson and Lindenstrauss, 1984).

    Args:
      key: of the projections.
      values: ``[examples, teachers, ...]`` where some of the teachers were not asked.
      num_features: how many features there are at most.
      is_asked: whether each teacher was asked about each example; values where one was not count for nothing.
    """
    return projection(key, values, num_features, is_asked).features(values, is_asked)


def _speech(teacher_probs: Float[Array, "examples teachers classes"]) -> Float[Array, "examples teachers classes"]:
    return jnp.log(jnp.maximum(teacher_probs, SMALLEST_PROBABILITY))


def _log_scores(teacher_probs: Array, labels: Array) -> Array:
    chosen = jnp.take_along_axis(teacher_probs, jnp.maximum(labels, 0)[:, None, None], axis=2)[..., 0]
    flat = jnp.full((chosen.shape[0], 1), 1.0 / teacher_probs.shape[2])
    return jnp.log(jnp.concatenate([flat, chosen], axis=1))


@jax.jit
def _fit_all(
    key: Key, features: Array, log_scores: Array, masks: Array, candidates: Array, is_asked: Array | None = None
):
    """Modes for every candidate and mask, ``[candidates, masks, ...]``; each candidate's held-out log likelihood."""
    num_rows = features.shape[0]
    count = min(num_rows, _BATCH_SIZE)

    def draw_batch(key: BatchKey, data: TrustData) -> TrustData:
        if count == num_rows:
            return data
        batch = tree_rows(data, rows_of_epoch(key, num_rows, count))
        return batch._replace(mask=batch.mask * (num_rows / count))

    def fit(scales, mask):
        data = TrustData(features, log_scores, mask, is_asked)
        start = {
            "intercepts": jnp.zeros(log_scores.shape[1]),
            "slopes": jnp.zeros((features.shape[1], log_scores.shape[1])),
        }
        return find_mode(
            lambda params, batch: numpyro_log_density(trust_model, (batch, scales), {}, params)[0],
            start,
            key=key,
            data=data,
            draw_batch=draw_batch,
            num_steps=_NUM_STEPS,
            learning_rate=0.1,
        ).params

    def score(scales, params, mask):
        log_weights = trust_log_weights(params, features, scales, is_asked)
        return jnp.sum((masks[-1] - mask) * jax.nn.logsumexp(log_weights + log_scores, axis=-1))

    params = jax.vmap(lambda scales: jax.vmap(lambda mask: fit(scales, mask))(masks))(candidates)
    held_out = jax.vmap(lambda scales, fits: jax.vmap(lambda p, m: score(scales, p, m))(fits, masks).sum())(
        candidates, params
    )
    return params, held_out


@jax.jit
def average_log_weights(
    params,
    features: Float[Array, "examples features"],
    candidates: Float[Array, "candidates features"],
    held_out: Float[Array, " candidates"],
    fit_of_example: Int[Array, " examples"],
    is_asked: Bool[Array, "examples components"] | None = None,
) -> Float[Array, "examples components"]:
    """log Σ_k q_k w_i^g(k), where candidate k counts by q_k ∝ exp(its likelihood of held-out labels).

    Args:
      params: of every candidate and fit, ``[candidates, fits, ...]``.
      features: φ and ψ.
      candidates: scales of the slopes.
      held_out: log likelihood of the held-out labels, nats.
      fit_of_example: which of the fits an example's weights are taken from.
      is_asked: which components have a say; None where all do.
    """

    def of_candidate(candidate):
        fits, scales = candidate
        by_fit = jax.vmap(trust_log_weights, in_axes=(0, None, None, None))(fits, features, scales, is_asked)
        return by_fit[fit_of_example, jnp.arange(features.shape[0])]

    # One candidate after the other: all fits of all candidates at once need sixteen times the memory.
    by_candidate = jax.lax.map(of_candidate, (params, candidates))
    return jax.nn.logsumexp(by_candidate + jax.nn.log_softmax(held_out)[:, None, None], axis=0)
