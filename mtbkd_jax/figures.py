"""Figures of a run, each a function from arrays to a Matplotlib figure.

They use Matplotlib's objects and never ``pyplot``, so they need no display and leave no state behind. Colours are those
of Okabe and Ito (2008), which colour-blind readers can tell apart; text is legible when a figure is 700 pixels wide.
"""

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from jaxtyping import Array, Bool, Float

from mtbkd_jax.errors import InputError
from mtbkd_jax.metrics import (
    Labels,
    Probs,
    Scores,
    accuracy,
    expected_calibration_error,
    reliability_bins,
    risk_coverage_curve,
)
from mtbkd_jax.selection import MILD_POWER, PLAIN_PREDICTIONS, PLAIN_TEMPERATURE, Choice, ScoredCandidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Names = Sequence[str] | np.ndarray

BLUE, VERMILLION, SKY = "#0072B2", "#D55E00", "#56B4E9"
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", SKY, "#000000")
LINES = ("-", "--", "-.", ":", "-", "--", "-.")
GREY = "0.45"
WIDTH = 7.0
"""Inches. At 100 dots an inch this is the 700 pixels that a figure must be legible at."""

AXIS_LABELS = {
    "wide_scale": "scale of the wide component",
    "power": "power of the function-space prior",
    "center_scale": "scale around the teachers' centers",
    "concentration": "concentration (pseudo-labels)",
    "temperature": "temperature of the posterior",
    "prediction_temperature": "temperature of the predictions",
}

STYLE: dict[Any, Any] = {
    "font.size": 11.0,
    "axes.titlesize": 12.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    # Names come from the user: two dollars in one would begin a formula.
    "text.parse_math": False,
}

Arguments = ParamSpec("Arguments")


def _styled(function: Callable[Arguments, "Figure"]) -> Callable[Arguments, "Figure"]:
    """Draw under our style and leave the user's as it is."""

    @functools.wraps(function)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> "Figure":
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return function(*args, **kwargs)

    return styled


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as PNG, 1,120 pixels wide, and never over a file that exists.

    Args:
      figure: what a function of this module returned.
      path: the file to make.

    Raises:
      InputError: if ``path`` exists.
    """
    try:
        with Path(path).open("xb") as stream:
            figure.savefig(stream, format="png", dpi=160)
    except FileExistsError as error:
        raise InputError(
            str(path), "figure", "a file of this name", "a new name", "Move the file away or choose another name."
        ) from error


def save_figures(figures: Mapping[str, "Figure"], folder: Path) -> None:
    """Write each figure to a run's ``folder`` as NAME.png; what an interrupted run has left there is replaced."""
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)
        save_figure(figure, path)


@_styled
def reliability_diagram(probs: Probs, labels: Labels, *, num_bins: int = 15) -> "Figure":
    """Accuracy against confidence in bins of equal width, above the number of examples in each.

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none (left out).
      num_bins: number of bins.

    Returns:
      The figure. Points below the diagonal are overconfident; bars are two binomial standard errors.
    """
    bins = reliability_bins(probs, labels, num_bins=num_bins)
    error = expected_calibration_error(probs, labels, num_bins=num_bins)
    # Of a bin's share if the bin were calibrated: it is not zero where all predictions of a small bin are right.
    standard_error = np.sqrt(bins.confidence * (1 - bins.confidence) / bins.num_examples)
    figure = _figure(height=6.0)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.5, 1])
    top.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    top.text(0.2, 0.22, "calibrated", color=GREY, ha="right")
    top.errorbar(
        bins.confidence, bins.accuracy, 2 * standard_error, color=BLUE, marker="o", markersize=5, elinewidth=1.2
    )
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    top.set_title(f"Reliability: expected calibration error {error:.3f}")
    bottom.bar(bins.confidence, bins.num_examples, width=0.8 / num_bins, color=SKY)
    bottom.set(xlabel="confidence (probability of the predicted class)", ylabel="examples")
    return figure


@_styled
def deviance_by_class(mean_deviance: Scores, labels: Labels, class_names: Names) -> "Figure":
    """How uncertain the predictions are, by true class.

    Args:
      mean_deviance: of each example, in nats.
      labels: classes, -1 where there is none (left out).
      class_names: name of each class.

    Returns:
      The figure: median, quartiles, and whiskers from the 5 % to the 95 % quantile.
    """
    mean_deviance, labels = np.asarray(mean_deviance), np.asarray(labels)
    groups = [mean_deviance[labels == c] for c in range(len(class_names))]
    figure = _figure(height=1.6 + 0.36 * len(class_names))
    axes = figure.subplots()
    axes.boxplot(
        groups,
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": SKY, "edgecolor": BLUE},
        whiskerprops={"color": BLUE},
        capprops={"color": BLUE},
        medianprops={"color": VERMILLION, "linewidth": 2},
    )
    axes.set_yticks(
        np.arange(1, len(class_names) + 1),
        [f"{name} ({group.size:,})" for name, group in zip(class_names, groups, strict=True)],
    )
    axes.invert_yaxis()
    axes.set(xlabel="mean deviance (nats): median, quartiles, 5 % and 95 %", ylabel="class (examples)")
    axes.set_xlim(left=0)
    axes.set_title("Uncertainty by true class")
    return figure


@_styled
def responsibilities_by_class(
    means: Float[np.ndarray | Array, "classes components"],
    interval: Float[np.ndarray | Array, "2 classes components"],
    teacher_names: Names,
    class_names: Names,
) -> "Figure":
    """Which teacher the student follows, by true class.

    Args:
      means: mean responsibility of each component, column 0 the flat one; NaN for a class without an example.
      interval: ends of its credible interval.
      teacher_names: name of each teacher, the columns from 1 on.
      class_names: name of each class.

    Returns:
      The figure: a heat map, a row for each class; rows without an example are blank.
    """
    return _components_by_class(
        means, interval, teacher_names, class_names, "Whom the student follows, by class", "mean responsibility"
    )


@_styled
def weights_by_class(
    means: Float[np.ndarray | Array, "classes components"],
    interval: Float[np.ndarray | Array, "2 classes components"],
    teacher_names: Names,
    class_names: Names,
    *,
    label: str = "mean weight",
) -> "Figure":
    """Which teacher is trusted, by true class.

    Args:
      means: mean weight of each component, column 0 the flat one; NaN for a class without an example.
      interval: its ends.
      teacher_names: name of each teacher, the columns from 1 on.
      class_names: name of each class.
      label: of the scale; what the interval is can be said here.

    Returns:
      The figure: a heat map, a row for each class; rows without an example are blank.
    """
    return _components_by_class(means, interval, teacher_names, class_names, "Who is trusted, by class", label)


@_styled
def risk_coverage(probs: Probs, labels: Labels, uncertainties: Mapping[str, Scores]) -> "Figure":
    """Error rate when only the most certain examples are answered.

    Args:
      probs: predictive probabilities.
      labels: classes, -1 where there is none (left out).
      uncertainties: scores of each example by name, larger where one is less certain.

    Returns:
      The figure, with the area under each curve in the legend.
    """
    figure = _figure(height=4.4)
    axes = figure.subplots()
    highest = 0.0
    axes.set_prop_cycle(color=COLOURS, linestyle=LINES)
    for name, uncertainty in uncertainties.items():
        curve = risk_coverage_curve(probs, labels, uncertainty)
        axes.plot(curve.coverage, curve.risk, label=f"{name} (area {np.mean(curve.risk):.3f})")
        # The first few examples alone make a curve jump to one: they must not set the scale.
        highest = max(highest, curve.risk[curve.coverage >= 0.05].max())
    axes.axhline(1 - accuracy(probs, labels), color=GREY, linewidth=1, label="all examples answered")
    axes.set(xlim=(0, 1), ylim=(0, max(1.15 * highest, 0.01)))
    axes.set(xlabel="coverage (share of examples answered, the most certain first)", ylabel="error rate of these")
    axes.set_title("Risk and coverage")
    axes.legend()
    return figure


@_styled
def traces(
    log_density: Float[np.ndarray | Array, "chains draws"],
    log_probs: Float[np.ndarray | Array, "chains draws probes classes"],
    *,
    probe_names: Names,
    class_names: Names,
) -> "Figure":
    """Log density and the three most variable predictions along each chain.

    Args:
      log_density: of each draw, in nats.
      log_probs: log class probabilities on the probe examples, in nats.
      probe_names: name of each probe.
      class_names: name of each class.

    Returns:
      The figure: chains that have mixed lie on top of each other.
    """
    log_density, probs = np.asarray(log_density), np.exp(np.asarray(log_probs))
    spread = probs.std(axis=(0, 1))
    most_variable = np.argsort(-spread.max(axis=1), kind="stable")[:3]
    shown = [(log_density, "log density\n(nats)", f"Traces of {len(log_density)} chains, a colour each")]
    for probe in most_variable:
        c = spread[probe].argmax()
        shown.append((probs[:, :, probe, c], "probability", f"{probe_names[probe]}: probability of {class_names[c]}"))
    figure = _figure(height=1.0 + 1.6 * len(shown))
    panels = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
    for axes, (values, label, title) in zip(panels, shown, strict=True):
        for chain, values_of_chain in enumerate(values):
            colour = COLOURS[chain % len(COLOURS)]
            axes.plot(np.arange(1, values.shape[1] + 1), values_of_chain, color=colour, linewidth=0.9, alpha=0.8)
        axes.set(ylabel=label, title=title)
    for axes in panels[1:]:
        axes.set_ylim(0, 1)
    panels[-1].set(xlabel="draw", xlim=(1, log_density.shape[1]))
    figure.align_ylabels(panels)
    return figure


@_styled
def cross_validation(choice: Choice) -> "Figure":
    """Cross-validated score of every candidate of the priors' settings, stage by stage, and the choice.

    Args:
      choice: what was chosen on the labels and the candidates that were scored.

    Returns:
      The figure: a panel for each setting that was searched; bars are one standard error over the held-out labels.
    """
    stages = list(dict.fromkeys(candidate.stage for candidate in choice.curve))
    without_teachers = min(candidate.nll for candidate in choice.curve if not candidate.settings.uses_teachers)
    # The best of every stage is in sight; a candidate that diverges does not set the scale.
    stage_best = [min(candidate.nll for candidate in choice.curve if candidate.stage == stage) for stage in stages]
    middle = np.median([candidate.nll for candidate in choice.curve if np.isfinite(candidate.nll)])
    best = min(stage_best)
    margin = 0.6 * (max(*stage_best, middle) - best) + 0.01
    limits = (best - margin, max(*stage_best, middle) + margin)
    num_rows = -(-len(stages) // 2)
    figure = _figure(height=0.9 + 2.5 * num_rows)
    panels = figure.subplots(num_rows, 2, sharey=True, squeeze=False)
    for place, (axes, stage) in enumerate(zip(panels.ravel(), stages, strict=False), start=1):
        candidates = [candidate for candidate in choice.curve if candidate.stage == stage]
        _draw_stage(axes, candidates, np.array([candidate.settings == choice.settings for candidate in candidates]))
        axes.axhline(without_teachers, color=GREY, linestyle="--", linewidth=1)
        axes.set(ylim=limits, title=f"{place}. {stage.replace('_', ' ')}")
    for axes in panels.ravel()[len(stages) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("held-out NLL (nats)")
    title = "Settings chosen on the labels (star: the choice; dashed: no teacher)"
    figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    return figure


def _components_by_class(
    means: Float[np.ndarray | Array, "classes components"],
    interval: Float[np.ndarray | Array, "2 classes components"],
    teacher_names: Names,
    class_names: Names,
    title: str,
    label: str,
) -> "Figure":
    """A heat map of shares that sum to one in each row, with the interval of each written below it."""
    means, interval = np.asarray(means), np.asarray(interval)
    columns = ["nobody", *teacher_names]
    figure = _figure(height=1.9 + 0.5 * len(class_names))
    axes = figure.subplots()
    image = axes.imshow(means, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(means):
        if not np.isnan(value):
            colour = "black" if value > 0.55 else "white"
            low, high = interval[:, row, column]
            text = f"{value:.2f}\n{low:.2f}–{high:.2f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    characters = 48 // len(columns)  # that fit side by side
    wrapped = [textwrap.fill(name, max(characters, 1), break_long_words=False) for name in columns]
    axes.set_xticks(np.arange(len(columns)), wrapped)
    axes.set_yticks(np.arange(len(class_names)), class_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(ylabel="class", title=title)
    figure.colorbar(image, ax=axes, label=label, fraction=0.04).outline.set_visible(False)
    return figure


def _draw_stage(axes: "Axes", candidates: Sequence[ScoredCandidate], is_chosen: Bool[np.ndarray, "candidates"]) -> None:
    """Scores against the setting that was searched; evenly spaced, since the values span decades, 0 and infinity."""
    stage = candidates[0].stage
    searched = {
        "no teacher": "wide_scale",
        MILD_POWER: "power",
        PLAIN_TEMPERATURE: "temperature",
        PLAIN_PREDICTIONS: "prediction_temperature",
    }.get(stage, stage)
    positions = np.arange(len(candidates))
    nll = np.array([candidate.nll for candidate in candidates])
    error = np.array([candidate.standard_error for candidate in candidates])
    axes.errorbar(positions, nll, error, color=BLUE, marker="o", markersize=4, elinewidth=1.2)
    axes.plot(positions[is_chosen], nll[is_chosen], linestyle="", marker="*", markersize=16, color=VERMILLION, zorder=3)
    values = [getattr(candidate, searched) for candidate in candidates]
    labels = ["∞" if np.isinf(value) else f"{value:.3g}" for value in values]
    every = 1 if len(labels) <= 8 else 2  # more would run into each other
    axes.set_xticks(positions[::every], labels[::every])
    axes.set_xlim(-0.4, len(candidates) - 0.6)
    axes.set_xlabel(AXIS_LABELS[searched])


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=100, layout="constrained")
