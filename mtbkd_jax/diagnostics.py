"""Have the chains mixed? Judged by what the posterior is for: its predictions.

The weights of a network are not identified (units can be permuted), so R-hat and effective sample sizes are those of
the log class probabilities on a fixed set of probe examples, and of the log density. They are ArviZ's: rank-normalised
split R-hat, and bulk and tail effective sample sizes (Vehtari, Gelman, Simpson, Carpenter and Bürkner, 2021).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key

if TYPE_CHECKING:
    from arviz import InferenceData

MIXED_R_HAT = 1.05
NEARLY_MIXED_R_HAT = 1.1
R_HAT_LEVELS = (1.01, MIXED_R_HAT, NEARLY_MIXED_R_HAT)
"""Where shares of probes are reported; the first is the advice of Vehtari et al. (2021), the last the older rule."""

MIXED_SHARE = 0.9
LEAST_DRAWS = 8
"""Draws of a chain without which nothing can be said."""

ENOUGH_DRAWS = 400
"""Effective draws that Vehtari et al. (2021) ask for: the 5 % point of an interval is then good to one point."""

LOWEST_LOG_PROB = float(np.log(np.finfo(np.float32).smallest_subnormal))
"""Stands for the log probability of a class that is impossible in float32 (-inf), from which no distance can be
taken."""


@dataclass(frozen=True, eq=False)
class Convergence:
    """R-hat and effective sample sizes of an array of quantities; NaN where all draws of all chains are the same.

    Each is found when it is first asked for: whether chains have mixed is a question of R-hat alone.
    """

    values: Float[np.ndarray, "chains draws ..."]
    """The quantities."""

    @cached_property
    def r_hat(self) -> Float[np.ndarray, "..."]:
        """Rank-normalised split R-hat: 1 if all chains sample one law, infinite if each is stuck at its own place."""
        arviz = import_arviz()
        num_chains, num_draws, *shape = self.values.shape
        # R-hat compares chains; one chain gives two, its halves.
        is_alone = num_chains == 1
        chains = self.values[:, : num_draws // 2 * 2].reshape(2, -1, *shape) if is_alone else self.values
        with np.errstate(divide="ignore", invalid="ignore"):
            r_hat = arviz.rhat(arviz.convert_to_dataset(chains))["x"].values
        # No variance within any chain: infinite, where ArviZ divides by zero or by a rounding error.
        return self._unless_constant(np.where(np.all(chains == chains[:, :1], axis=(0, 1)), np.inf, r_hat))

    @cached_property
    def ess_bulk(self) -> Float[np.ndarray, "..."]:
        """Effective draws, over all chains, for means and medians."""
        return self._ess("bulk")

    @cached_property
    def ess_tail(self) -> Float[np.ndarray, "..."]:
        """Effective draws, over all chains, for the 5 % and 95 % quantiles."""
        return self._ess("tail")

    def _ess(self, method: str) -> Float[np.ndarray, "..."]:
        arviz = import_arviz()
        return self._unless_constant(arviz.ess(arviz.convert_to_dataset(self.values), method=method)["x"].values)

    def _unless_constant(self, result: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        # ArviZ says that of a constant every draw counts, for the effective sample size.
        return np.where(np.all(self.values == self.values[:1, :1], axis=(0, 1)), np.nan, result)


@dataclass(frozen=True)
class Diagnostics:
    """What the chains of a run say about each other."""

    num_chains: int
    num_draws: int
    """Draws kept of each chain."""
    predictions: Convergence
    """Of the log class probabilities, ``[probes, classes]``."""
    log_density: Convergence
    """Of the log density, a scalar."""

    @property
    def probe_r_hat(self) -> Float[np.ndarray, "probes"]:
        """The largest R-hat among the classes of each probe; NaN for a probe whose prediction never changes."""
        return _over_classes(np.fmax, self.predictions.r_hat)

    @property
    def probe_ess(self) -> Float[np.ndarray, "probes"]:
        """The smallest effective sample size, bulk or tail, among the classes of each probe; NaN as for R-hat."""
        return _over_classes(np.fmin, np.fmin(self.predictions.ess_bulk, self.predictions.ess_tail))

    @property
    def share_constant(self) -> float:
        """Share of the probes whose prediction is the same in every draw of every chain."""
        return float(np.mean(np.isnan(self.probe_r_hat)))

    def share_below(self, level: float) -> float:
        """Share of probes with R-hat at most ``level``, among those whose prediction changes; NaN if none does.

        Args:
          level: a value of R-hat, such as 1.05.

        Returns:
          The share, from 0 to 1.
        """
        r_hat = self.probe_r_hat[~np.isnan(self.probe_r_hat)]
        return float(np.mean(r_hat <= level)) if r_hat.size else float("nan")

    @property
    def has_moved(self) -> bool:
        """Whether the log density and at least one prediction differ between draws."""
        return self.share_constant < 1 and not np.isnan(self.log_density.r_hat)

    @property
    def has_mixed(self) -> bool:
        """Whether nine in ten of the probes that change have an R-hat of at most 1.05."""
        return self.has_moved and self.share_below(MIXED_R_HAT) >= MIXED_SHARE

    @property
    def verdict(self) -> str:
        """Whether the chains have mixed, what that means for the predictions, and what to do."""
        if not self.has_moved:
            return (
                "The chains have not moved: every draw gives the same predictions or the same log density. They are "
                "one point and say nothing about the posterior. Raise the step size or the thinning, and check that no "
                "chain has failed."
            )
        agreement = (
            f"R-hat is at most {MIXED_R_HAT} for {self.share_below(MIXED_R_HAT):.0%} of the probe examples "
            f"(median {np.nanmedian(self.probe_r_hat):.3f}, largest {np.nanmax(self.probe_r_hat):.3f})."
        )
        if self.share_constant > 0:
            agreement += f" (Left out: {self.share_constant:.0%} of the probes, whose prediction no draw changes.)"
        sentences: list[str]
        if self.has_mixed:
            sentences = ["The chains have mixed in what they predict.", agreement, self._worth_of_draws()]
            if self.log_density.r_hat > MIXED_R_HAT:
                sentences.append(
                    f"The log density has not settled (R-hat {self.log_density.r_hat:.3f}): the chains are in "
                    "different places that predict alike. Do not compare their log densities or read single weights."
                )
        elif self.share_below(NEARLY_MIXED_R_HAT) >= MIXED_SHARE:
            sentences = [
                "The chains have nearly mixed.",
                agreement,
                "They predict much the same: averages over the draws can be used, with care, but the uncertainty may "
                "be too small.",
                "Draw about four times as many, or use more burn-in.",
            ]
        else:
            sentences = [
                "The chains have not mixed.",
                agreement,
                "They give different predictions, so the draws do not represent the posterior: averages depend on "
                "where the chains started, and the uncertainty is not to be relied on.",
                "Use more burn-in and more draws first; then a larger step size, or a sampler with momentum.",
            ]
        if self.num_chains == 1:
            sentences.append(
                "There is one chain only, compared with itself: this cannot show a mode that it never visited. Run "
                "several from different starts."
            )
        return " ".join(sentences)

    def _worth_of_draws(self) -> str:
        effective = np.nanmedian(self.probe_ess)
        if effective < ENOUGH_DRAWS:
            return (
                f"But the draws are worth only about {effective:.0f} independent ones: averages can be used, the ends "
                "of credible intervals are rough. Draw more."
            )
        return (
            f"The draws are worth about {effective:.0f} independent ones: averages and intervals of predictions can be "
            "used."
        )

    def to_json(self) -> dict[str, Any]:
        """Summary as numbers and strings that JSON can hold: what is undefined is None, and so is an infinite R-hat.

        Returns:
          Counts, shares of probes by R-hat, medians and extremes over probes, the log density's values, and the
          verdict.
        """
        summary = {
            "num_chains": self.num_chains,
            "num_draws": self.num_draws,
            "num_probes": self.predictions.r_hat.shape[0],
            "share_constant": self.share_constant,
            **{f"share_r_hat_below_{level}": self.share_below(level) for level in R_HAT_LEVELS},
            "median_r_hat": _if_any(np.nanmedian, self.probe_r_hat),
            "largest_r_hat": _if_any(np.nanmax, self.probe_r_hat),
            "median_ess": _if_any(np.nanmedian, self.probe_ess),
            "smallest_ess": _if_any(np.nanmin, self.probe_ess),
            "log_density_r_hat": float(self.log_density.r_hat),
            "log_density_ess_bulk": float(self.log_density.ess_bulk),
            "log_density_ess_tail": float(self.log_density.ess_tail),
        }
        finite = {name: value if np.isfinite(value) else None for name, value in summary.items()}
        return {**finite, "has_mixed": self.has_mixed, "verdict": self.verdict}


def diagnose(
    log_probs: Float[np.ndarray | Array, "chains draws probes classes"],
    log_density: Float[np.ndarray | Array, "chains draws"],
) -> Diagnostics:
    """Compare chains by their predictions and log densities.

    A single chain is compared with itself: its halves stand for chains. A log probability that is the same in every
    draw has no R-hat; it is NaN here, and left out of shares and medians, but a run in which nothing changes has not
    mixed. Chains that were sampled for one component each of a mixture posterior are meant to differ: diagnose them
    component by component.

    Args:
      log_probs: log class probabilities on the probe examples, in nats; -inf is allowed. Leave out chains that have
        failed.
      log_density: log posterior density of each draw, in nats, up to a constant.

    Returns:
      R-hat, effective sample sizes and a verdict in words.

    Raises:
      InputError: if there are fewer than eight draws of a chain, or a value is NaN or +inf (or -inf in the log
        density).
    """
    log_probs, log_density = np.asarray(log_probs, np.float64), np.asarray(log_density, np.float64)
    num_chains, num_draws = log_density.shape
    if num_draws < LEAST_DRAWS:
        found, expected = f"{num_draws} of each chain", f"at least {LEAST_DRAWS}"
        raise InputError("diagnose", "draws", found, expected, "Draw more, or thin less.")
    for field, is_wrong in (
        ("log_probs", np.isnan(log_probs) | np.isposinf(log_probs)),
        ("log_density", ~np.isfinite(log_density)),
    ):
        if is_wrong.any():
            chains = np.flatnonzero(is_wrong.reshape(num_chains, -1).any(axis=1))
            raise InputError(
                "diagnose",
                field,
                f"NaN or infinite values in chains {chains.tolist()}",
                "numbers",
                "Leave out failed chains.",
            )
    return Diagnostics(
        num_chains=num_chains,
        num_draws=num_draws,
        predictions=Convergence(np.maximum(log_probs, LOWEST_LOG_PROB)),
        log_density=Convergence(log_density),
    )


def to_arviz(
    log_probs: Float[np.ndarray | Array, "chains draws examples classes"],
    log_density: Float[np.ndarray | Array, "chains draws"],
    *,
    labels: Int[np.ndarray | Array, "examples"],
    ids: Sequence[str] | np.ndarray,
    class_names: Sequence[str] | np.ndarray,
    key: Key,
) -> "InferenceData":
    """Convert a run to ArviZ.

    The groups and their variables, all over ``(chain, draw, ...)``:

    - ``posterior``: ``log_prob (example, class)``, since predictions are what the posterior identifies;
    - ``sample_stats``: ``lp``, the log density;
    - ``log_likelihood``: ``label (labelled)``, of the labelled examples, as ``arviz.loo`` takes it;
    - ``posterior_predictive``: ``label (labelled)``, labels drawn for the labelled examples, and ``observed_data`` with
    theirs;
    - ``predictions``: ``label (unlabelled)``, labels drawn for the examples without one.

    Groups that would be empty are left out.

    Args:
      log_probs: log class probabilities, in nats.
      log_density: log posterior density of each draw, in nats, up to a constant.
      labels: classes 0..C-1, -1 where there is none.
      ids: name of each example.
      class_names: name of each class.
      key: draws the labels.

    Returns:
      The ``arviz.InferenceData``.
    """
    arviz = import_arviz()
    log_probs, labels, ids = np.asarray(log_probs), np.asarray(labels), np.asarray(ids)
    drawn = np.asarray(jax.random.categorical(key, jnp.asarray(log_probs)), np.int32)
    is_labelled = labels >= 0
    groups: dict[str, Any] = {
        "posterior": {"log_prob": log_probs},
        "sample_stats": {"lp": np.asarray(log_density)},
        "coords": {"example": ids, "class": np.asarray(class_names)},
        "dims": {"log_prob": ["example", "class"]},
    }
    if is_labelled.any():
        known = labels[is_labelled]
        groups["coords"]["labelled"] = ids[is_labelled]
        groups["dims"]["label"] = ["labelled"]
        groups["log_likelihood"] = {
            "label": np.take_along_axis(log_probs[:, :, is_labelled], known[None, None, :, None], axis=3)[..., 0]
        }
        groups["posterior_predictive"] = {"label": drawn[:, :, is_labelled]}
        groups["observed_data"] = {"label": known}
    if not is_labelled.all():
        groups["predictions"] = {"label": drawn[:, :, ~is_labelled]}
        groups["coords"]["unlabelled"] = ids[~is_labelled]
        groups["pred_dims"] = {"label": ["unlabelled"]}
    return arviz.from_dict(**groups)


def import_arviz() -> ModuleType:
    """ArviZ, without what it announces when it is imported."""
    with warnings.catch_warnings():
        # Announces version 1.0, which the requirement excludes.
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        import arviz
    return arviz


def _over_classes(reduction: np.ufunc, values: Float[np.ndarray, "probes classes"]) -> Float[np.ndarray, "probes"]:
    return reduction.reduce(values, axis=1)


def _if_any(reduction: Any, values: Float[np.ndarray, "probes"]) -> float:
    return float("nan") if np.isnan(values).all() else float(reduction(values))
