"""Learned trust: whom to believe on which input, from the labels there are.

Bayesian hierarchical stacking (Yao, Pirš, Vehtari and Gelman, 2022), with a flat component g = 0, p⁰ = 1/C, for
"nobody knows":

    w_i^g = softmax_g( a_g + φ(x_i)·β_g ),    a_g ~ Normal(0, 1),    β_g ~ Normal(0, s²),
    fitted to Σ_i log Σ_g w_i^g p_i^g[y_i] over the labelled examples.

Entropy weights reward confident ignorance; these weights are earned on labels. φ is a fixed feature map (random Fourier
features by default). The slopes' scale s is chosen by the log score on labels that the fit has not seen; s = 0, one
weight a teacher for all inputs, is among the candidates. The weight of a labelled example comes from a fit without its
label (cross-fitting). Labels on which the teachers were trained flatter the teachers: use held-out labels where there
are any.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density as numpyro_log_density

from mtbkd_jax.errors import InputError
from mtbkd_jax.folds import are_enough, stratified_folds
from mtbkd_jax.posterior import find_mode
from mtbkd_jax.types import Key
from mtbkd_jax.weighting import WeightingRule

SLOPE_SCALES = (0.0, 0.1, 0.3, 1.0)
_NUM_STEPS = 400


class TrustData(NamedTuple):
    """What the trust model sees of the labelled examples.

    Attributes:
      features: φ(x), ``[labelled, features]``.
      log_scores: log p_i^g[y_i], ``[labelled, components]``, component 0 being flat; nats.
      mask: ``[labelled]``, one where the label counts and zero where it is held out.
    """

    features: Float[Array, "labelled features"]
    log_scores: Float[Array, "labelled components"]
    mask: Float[Array, " labelled"]


def trust_model(data: TrustData, slope_scale: float | Float[Array, ""]) -> None:
    """The stacking model in NumPyro; its sites are ``intercepts [components]`` and ``slopes [features, components]``.

    The slopes are sampled on the unit scale and multiplied by ``slope_scale``, so that a scale of zero is well defined.
    """
    num_components = data.log_scores.shape[1]
    intercepts = numpyro.sample("intercepts", dist.Normal(0, 1).expand([num_components]).to_event(1))
    slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand([data.features.shape[1], num_components]).to_event(2))
    log_weights = trust_log_weights({"intercepts": intercepts, "slopes": slopes}, data.features, slope_scale)
    score = jax.nn.logsumexp(log_weights + data.log_scores, axis=-1)
    numpyro.factor("log_score", jnp.sum(data.mask * score))


def trust_log_weights(params, features: Array, slope_scale: float | Float[Array, ""]) -> Array:
    """log softmax_g(a_g + φ(x_i)·β_g), ``[examples, components]``."""
    return jax.nn.log_softmax(params["intercepts"][None] + slope_scale * (features @ params["slopes"]), axis=-1)


def learned_trust(*, num_features: int = 60, num_folds: int = 5) -> WeightingRule:
    """Build the rule that learns the weights from the labels by the mode of the stacking model.

    Args:
      num_features: random Fourier features of the standardised, flattened inputs.
      num_folds: folds over the labelled examples, for cross-fitting and for the choice of the slopes' scale.

    Raises:
      InputError: (when applied) if there are fewer labelled examples than two for each fold.
    """

    def rule(key, teacher_probs, inputs, labels):
        return fit_trust(key, teacher_probs, inputs, labels, num_features=num_features, num_folds=num_folds).log_weights

    return rule


class TrustFit(NamedTuple):
    """A fitted trust model.

    Attributes:
      log_weights: ``[examples, components]``, cross-fitted where there is a label.
      slope_scale: the scale chosen.
      held_out_scores: mean log score on held-out labels for each of ``SLOPE_SCALES``, nats.
      features: φ of all examples, ``[examples, features]``.
      data: what the model saw of the labelled examples.
    """

    log_weights: Float[Array, "examples components"]
    slope_scale: float
    held_out_scores: Float[np.ndarray, " scales"]
    features: Float[Array, "examples features"]
    data: TrustData


def fit_trust(
    key: Key,
    teacher_probs: Float[Array, "examples teachers classes"],
    inputs: Array,
    labels: Int[Array, " examples"],
    *,
    num_features: int = 60,
    num_folds: int = 5,
) -> TrustFit:
    """Fit the stacking model by its mode, once on all labels and once without each fold of them.

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
    feature_key, fold_key, fit_key = jax.random.split(key, 3)
    features = random_fourier_features(feature_key, inputs, num_features)
    folds = stratified_folds(fold_key, np.asarray(labels)[labelled], num_folds)

    # Rows are padded to a power of two, so that fits on a few labels more or less (as in cross-validation) share one
    # compilation.
    padding = (1 << (labelled.size - 1).bit_length()) - labelled.size
    rows = np.pad(labelled, (0, padding))
    log_scores = _log_scores(teacher_probs[rows], labels[rows])
    fold_of_row = np.pad(folds, (0, padding), constant_values=-1)
    is_row = fold_of_row >= 0
    masks = np.stack([is_row & (fold_of_row != fold) for fold in range(num_folds)] + [is_row]).astype(np.float32)

    params, held_out = _fit_all(fit_key, features[rows], log_scores, jnp.asarray(masks), jnp.asarray(SLOPE_SCALES))
    scores = np.asarray(held_out)
    best = int(scores.argmax())
    chosen = jax.tree.map(lambda leaf: leaf[best], params)
    scale = SLOPE_SCALES[best]
    by_fold = jax.vmap(trust_log_weights, in_axes=(0, None, None))(chosen, features, scale)
    fit_of_example = np.full(labels.shape[0], num_folds)
    fit_of_example[labelled] = folds
    log_weights = by_fold[fit_of_example, np.arange(labels.shape[0])]
    return TrustFit(log_weights, scale, scores, features, TrustData(features[rows], log_scores, jnp.asarray(masks[-1])))


def sample_trust(
    key: Key, fit: TrustFit, *, num_draws: int = 500, num_warmup: int = 500
) -> Float[Array, "draws examples components"]:
    """Draw the weights from their posterior by NumPyro's NUTS, given the chosen scale: how sure is the trust itself?"""
    kernel = NUTS(trust_model)
    mcmc = MCMC(kernel, num_warmup=num_warmup, num_samples=num_draws, progress_bar=False)
    mcmc.run(key, fit.data, fit.slope_scale)
    log_weights = jax.vmap(trust_log_weights, in_axes=(0, None, None))
    return jnp.exp(log_weights(mcmc.get_samples(), fit.features, fit.slope_scale))


@partial(jax.jit, static_argnames="num_features")
def random_fourier_features(key: Key, inputs: Array, num_features: int) -> Float[Array, "examples features"]:
    """φ(x) = √2 cos(Wx + b): features whose inner products approximate a Gaussian kernel (Rahimi and Recht, 2007).

    Inputs are flattened and standardised; the kernel's length scale is half the median distance between examples, so
    that a straight line on which one teacher hands over to another costs a few features and not all of them.
    """
    flat = jnp.reshape(inputs, (inputs.shape[0], -1))
    spread = flat.std(0, keepdims=True)
    standard = (flat - flat.mean(0, keepdims=True)) / jnp.where(spread > 0, spread, 1.0)
    pair_key, weight_key, phase_key = jax.random.split(key, 3)
    pairs = jax.random.randint(pair_key, (2, 1000), 0, flat.shape[0])
    distances = jnp.linalg.norm(standard[pairs[0]] - standard[pairs[1]], axis=-1)
    length_scale = 0.5 * jnp.median(distances)
    frequencies = jax.random.normal(weight_key, (flat.shape[1], num_features)) / jnp.where(
        length_scale > 0, length_scale, 1.0
    )
    phases = jax.random.uniform(phase_key, (num_features,), maxval=2 * jnp.pi)
    return jnp.sqrt(2.0) * jnp.cos(standard @ frequencies + phases[None])


def _log_scores(teacher_probs: Array, labels: Array) -> Array:
    chosen = jnp.take_along_axis(teacher_probs, jnp.maximum(labels, 0)[:, None, None], axis=2)[..., 0]
    flat = jnp.full((chosen.shape[0], 1), 1.0 / teacher_probs.shape[2])
    return jnp.log(jnp.concatenate([flat, chosen], axis=1))


@jax.jit
def _fit_all(key: Key, features: Array, log_scores: Array, masks: Array, scales: Array):
    """Modes for every scale and mask, ``[scales, masks, ...]``, and the mean held-out log score of each scale."""

    def fit(scale, mask):
        data = TrustData(features, log_scores, mask)
        start = {
            "intercepts": jnp.zeros(log_scores.shape[1]),
            "slopes": jnp.zeros((features.shape[1], log_scores.shape[1])),
        }
        return find_mode(
            lambda params, batch: numpyro_log_density(trust_model, (batch, scale), {}, params)[0],
            start,
            key=key,
            data=data,
            draw_batch=lambda _, data: data,
            num_steps=_NUM_STEPS,
            learning_rate=0.1,
        ).params

    def score(scale, params, mask):
        log_weights = trust_log_weights(params, features, scale)
        return jnp.sum((masks[-1] - mask) * jax.nn.logsumexp(log_weights + log_scores, axis=-1))

    params = jax.vmap(lambda scale: jax.vmap(lambda mask: fit(scale, mask))(masks))(scales)
    held_out = jax.vmap(lambda scale, fits: jax.vmap(lambda p, m: score(scale, p, m))(fits, masks).sum())(
        scales, params
    )
    return params, held_out / masks[-1].sum()
