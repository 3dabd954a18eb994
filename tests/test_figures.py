"""Figures: what is drawn is what was given, and it can be read."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.figures import (
    cross_validation,
    deviance_by_class,
    reliability_diagram,
    responsibilities_by_class,
    risk_coverage,
    save_figure,
    traces,
    weights_by_class,
)
from mtbkd_jax.metrics import area_under_risk_coverage, expected_calibration_error, reliability_bins
from mtbkd_jax.selection import Choice, ScoredCandidate
from mtbkd_jax.settings import PosteriorSettings

GENERATOR = np.random.default_rng(0)
CLASS_NAMES = ["Cytoplasm", "Nucleus", "Endoplasmic reticulum", "Golgi apparatus"]
TEACHER_NAMES = ["support vector machine", "boosted forest", "convolutional network"]
EXAMPLES = 300
PROBS = GENERATOR.dirichlet(np.full(4, 0.3), EXAMPLES)
LABELS = np.array([GENERATOR.choice(4, p=row) for row in PROBS])
LABELS[:50] = -1
IS_CLASS = np.arange(4)[:, None] == LABELS
DEVIANCE = -2 * np.sum(PROBS * np.log(PROBS), axis=1)
RESPONSIBILITIES = GENERATOR.dirichlet([1, 4, 2, 3], 4)
INTERVAL = np.stack([0.9 * RESPONSIBILITIES, 1.1 * RESPONSIBILITIES])
LOG_DENSITY = GENERATOR.normal(-500, 3, (4, 100))
LOG_PROBS = np.log(GENERATOR.dirichlet(np.full(4, 5.0), (4, 100, 6)))


def scored(stage, nll, **changes):
    settings = {"power": 0.1, "concentration": 5.0, "center_scale": 0.2, "wide_scale": 0.5, "temperature": 1.0}
    settings |= {"prediction_temperature": 1.0} | changes
    return ScoredCandidate(stage=stage, nll=nll, standard_error=0.02, coverage_gap=0.03, **settings)


def choice():
    alone = {"power": 0.0, "concentration": 1.0, "center_scale": float("inf")}
    curve = (
        scored("no teacher", 0.7, **alone, wide_scale=0.1),
        scored("no teacher", 0.6, **alone),
        scored("power", 0.55, power=0.0),
        scored("power", 0.50, power=0.1),
        scored("power", 45.0, power=1.0),
        scored("center_scale", 0.50, center_scale=0.2),
        scored("center_scale", 0.53, center_scale=float("inf")),
        scored("concentration", 0.50, concentration=5.0),
        scored("concentration", 0.52, concentration=10.0),
        scored("temperature", 0.51, temperature=0.5),
        scored("prediction_temperature", 0.505, prediction_temperature=1.1),
        scored("temperature, no teacher", 0.58, **alone, temperature=0.5),
        scored("predictions, no teacher", 0.59, **alone, prediction_temperature=0.9),
    )
    return Choice(PosteriorSettings(0.1, 5.0, 0.2, 0.5), PosteriorSettings(0.0, 1.0, float("inf"), 0.5), curve)


FIGURES = {
    "reliability": lambda: reliability_diagram(PROBS, LABELS),
    "deviance": lambda: deviance_by_class(DEVIANCE, LABELS, CLASS_NAMES),
    "responsibilities": lambda: responsibilities_by_class(RESPONSIBILITIES, INTERVAL, TEACHER_NAMES, CLASS_NAMES),
    "weights": lambda: weights_by_class(RESPONSIBILITIES, INTERVAL, TEACHER_NAMES, CLASS_NAMES, label="mean, range"),
    "risk coverage": lambda: risk_coverage(PROBS, LABELS, {"mean deviance": DEVIANCE, "constant": 0 * DEVIANCE}),
    "traces": lambda: traces(LOG_DENSITY, LOG_PROBS, probe_names=[*"abcdef"], class_names=CLASS_NAMES),
    "cross validation": lambda: cross_validation(choice()),
}


def tick_labels(axis):
    """Those in view; Matplotlib keeps some outside as well and does not draw them."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_legible_at_700_pixels(name):
    figure = FIGURES[name]()
    assert figure.get_figwidth() == 7  # inches: 100 dots each
    figure.draw_without_rendering()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes._left_title, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            texts += [axis.label, *tick_labels(axis)]
    width, height = figure.get_size_inches() * figure.dpi
    for text in texts:
        if text.get_text():
            assert text.get_fontsize() >= 10
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y0 >= -1, text
            assert box.y1 <= height + 1, text


@pytest.mark.parametrize("name", FIGURES)
def test_tick_labels_do_not_overlap(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [label.get_window_extent() for label in tick_labels(axis)]
            for first, second in pairwise(boxes):
                assert not first.overlaps(second)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_saved_as_png_and_never_over_another(name, tmp_path):
    path = tmp_path / "figure.png"
    save_figure(FIGURES[name](), path)
    written = path.read_bytes()
    assert written.startswith(b"\x89PNG")
    with pytest.raises(InputError, match="a file of this name"):
        save_figure(FIGURES[name](), path)
    assert path.read_bytes() == written


def test_the_same_arrays_give_the_same_file(tmp_path):
    for name in ("first.png", "second.png"):
        save_figure(reliability_diagram(PROBS, LABELS), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_the_users_style_is_neither_used_nor_changed():
    with mpl.rc_context({"font.size": 3, "xtick.labelsize": 3}):
        figure = reliability_diagram(PROBS, LABELS)
        assert mpl.rcParams["font.size"] == 3
    (label, *_) = figure.axes[1].get_xticklabels()
    assert label.get_fontsize() == 10


def test_reliability_diagram_shows_the_bins_and_the_error():
    top, bottom = reliability_diagram(PROBS, LABELS, num_bins=8).axes
    bins = reliability_bins(PROBS, LABELS, num_bins=8)
    drawn = next(line for line in top.lines if line.get_marker() == "o")
    np.testing.assert_allclose(drawn.get_xydata(), np.column_stack([bins.confidence, bins.accuracy]))
    np.testing.assert_array_equal([bar.get_height() for bar in bottom.patches], bins.num_examples)
    assert f"{expected_calibration_error(PROBS, LABELS, num_bins=8):.3f}" in top.get_title(loc="left")


def test_deviance_by_class_shows_the_median_of_the_labelled_examples_of_each_class():
    (axes,) = deviance_by_class(DEVIANCE, LABELS, CLASS_NAMES).axes
    medians = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 2]
    np.testing.assert_allclose(medians, [np.median(DEVIANCE[is_class]) for is_class in IS_CLASS])
    assert axes.get_yticklabels()[1].get_text() == f"Nucleus ({IS_CLASS[1].sum()})"


def test_a_class_without_examples_is_left_blank():
    some = np.where(IS_CLASS[2], -1, LABELS)
    deviance_by_class(DEVIANCE, some, CLASS_NAMES)
    means = np.where(np.arange(4)[:, None] == 2, np.nan, RESPONSIBILITIES)
    axes = responsibilities_by_class(means, INTERVAL, TEACHER_NAMES, CLASS_NAMES).axes[0]
    assert axes.images[0].get_array().mask[2].all()


def test_responsibilities_show_the_means_of_every_component_and_class():
    axes = responsibilities_by_class(RESPONSIBILITIES, INTERVAL, TEACHER_NAMES, CLASS_NAMES).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), RESPONSIBILITIES)
    assert [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()] == ["nobody", *TEACHER_NAMES]


def test_weights_are_shown_like_responsibilities_under_a_label_of_their_own():
    axes, scale = FIGURES["weights"]().axes
    np.testing.assert_allclose(axes.images[0].get_array(), RESPONSIBILITIES)
    assert axes.get_title(loc="left") == "Who is trusted, by class"
    assert scale.get_ylabel() == "mean, range"


def test_risk_coverage_names_each_score_with_its_area():
    (axes,) = FIGURES["risk coverage"]().axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == f"mean deviance (area {area_under_risk_coverage(PROBS, LABELS, DEVIANCE):.3f})"
    assert len(labels) == 3


def test_traces_show_every_chain_of_the_log_density_and_of_the_most_variable_predictions():
    wild = LOG_PROBS.copy()
    wild[:, ::2, 4] = np.log([0.97, 0.01, 0.01, 0.01])
    axes = traces(LOG_DENSITY, wild, probe_names=[*"abcdef"], class_names=CLASS_NAMES).axes
    assert len(axes) == 4
    np.testing.assert_array_equal([line.get_ydata() for line in axes[0].lines], LOG_DENSITY)
    assert axes[1].get_title(loc="left") == "e: probability of Cytoplasm"
    np.testing.assert_allclose([line.get_ydata() for line in axes[1].lines], np.exp(wild[:, :, 4, 0]))


def test_cross_validation_has_a_panel_for_each_stage_and_a_star_at_the_choice():
    panels = FIGURES["cross validation"]().axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "1. no teacher",
        "2. power",
        "3. center scale",
        "4. concentration",
        "5. temperature",
        "6. prediction temperature",
        "7. temperature, no teacher",
        "8. predictions, no teacher",
    ]
    stars = [line.get_xydata() for axes in panels for line in axes.lines if line.get_marker() == "*"]
    assert [star.tolist() for star in stars] == [[], [[1, 0.5]], [[0, 0.5]], [[0, 0.5]], [], [], [], []]
    assert panels[1].get_ylim()[1] < 1  # the candidate that diverged does not set the scale
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["0.2", "∞"]


def test_a_name_with_dollars_is_no_formula():
    names = [r"$\no$", "a", "b", "c"]
    figure = deviance_by_class(DEVIANCE, LABELS, names)
    figure.draw_without_rendering()
    assert figure.axes[0].get_yticklabels()[0].get_text().startswith(names[0])
