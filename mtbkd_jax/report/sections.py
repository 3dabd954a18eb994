"""The parts of a report on one run, each a heading with what belongs under it."""

from collections.abc import Sequence

import numpy as np

from mtbkd_jax import figures
from mtbkd_jax.diagnostics import MIXED_R_HAT
from mtbkd_jax.draws import DrawStore
from mtbkd_jax.metrics import reliability_bins
from mtbkd_jax.prediction import Prediction
from mtbkd_jax.report.commands import OUT, flat_options, repeating_command
from mtbkd_jax.report.facts import Mixing, RunFacts
from mtbkd_jax.report.judgement import Judgement, traced
from mtbkd_jax.report.markup import Html, element, joined, printable
from mtbkd_jax.report.pictures import plot
from mtbkd_jax.report.rows import HELD_OUT, TRAINING, Row, rows_of, rows_without_inputs, spread, weights_by_class
from mtbkd_jax.report.shown import STUDY_TEST
from mtbkd_jax.report.tables import (
    METRIC_NAMES,
    METRICS_EXPLAINED,
    UNKNOWN,
    metric,
    metrics_table,
    number,
    pairs,
    scrolled,
    share,
    table,
)
from mtbkd_jax.students import num_parameters

NUM_CARDS = 8
"""Examples that are shown of the most certain, and as many of the least certain."""

_LONGEST_NAME = 40
_MIXING_NAMES = {
    "median_r_hat": "median R-hat",
    "largest_r_hat": "largest R-hat",
    f"share_r_hat_below_{MIXED_R_HAT}": f"share of probes with R-hat at most {MIXED_R_HAT}",
    "median_ess": "median ESS",
    "smallest_ess": "smallest ESS",
    "log_density_r_hat": "R-hat of the log density",
    "log_density_ess_bulk": "ESS of the log density",
}


PARTS = {
    "summary": "Summary",
    "methods": "Methods",
    "calibration": "Calibration",
    "uncertainty": "Uncertainty by class",
    "following": "Whom the student follows",
    "extremes": "Most and least certain examples",
    "examples": "Example by example",
    "convergence": "Have the chains mixed?",
    "settings": "Settings",
    "repetition": "Configuration, and how to repeat it",
}
"""The headings of a report on a run, by what their ids end with."""


class Reported:
    """A run with what its student says of the examples at hand.

    Args:
      facts: of the run.
      held_out: what it says of examples that it was not trained on, if there are any.
      training: of those that it was trained on.
      key: begins the ids of the page's parts that are about this run.
      level: of the headings of its parts.
    """

    def __init__(
        self, facts: RunFacts, held_out: Judgement | None, training: Judgement | None, *, key: str, level: int
    ):
        self.facts, self.held_out, self.training = facts, held_out, training
        self.key, self.level = key, level

    @property
    def metrics(self) -> dict[str, float | None]:
        """The figures of merit of the student, on held-out examples where there are any, and its size."""
        of = self.facts.metrics if self.held_out is None else self.held_out.metrics
        return {**of, "parameters": float(num_parameters(self.facts.run.student))}

    def heading(self, part: str) -> Html:
        """The heading of a part."""
        return element(f"h{self.level}", PARTS[part], id=f"{self.key}-{part}")


def parts(of: Reported, *, most_rows: int) -> list[Html]:
    """All parts of the report on a run.

    Args:
      of: the run.
      most_rows: of the table of examples.
    """
    return [
        summary(of),
        methods(of),
        calibration(of),
        uncertainty(of),
        following(of),
        extremes(of),
        examples(of, most_rows),
        convergence(of),
        settings(of),
        repetition(of),
    ]


def summary(of: Reported) -> Html:
    """The verdict and the figures that matter most."""
    facts = of.facts
    shown = {METRIC_NAMES[name]: metric(name, of.metrics[name]) for name in METRIC_NAMES if name in of.metrics}
    recorded = {
        name.replace("_", " "): f"{facts.metrics[name]:g}"
        for name in ("examples", "labelled")
        if facts.metrics.get(name) is not None
    }
    if (nll := facts.metrics.get("cross_validated_nll")) is not None:
        recorded["cross-validated NLL (nats)"] = number(nll)
    data = "" if of.held_out is None else f"Measured on {of.held_out.examples.source}."
    return _section(
        of.heading("summary"),
        badge(facts.mixing),
        element("p", data),
        pairs(shown | recorded | {"teachers": ", ".join(facts.following.components[1:])}),
    )


def badge(mixing: Mixing) -> Html:
    """In a few words, whether the chains have mixed."""
    text = "The chains have mixed." if mixing.has_mixed else "The chains have not mixed: read the verdict."
    return element("p", element("span", text, class_="good" if mixing.has_mixed else "bad"))


def methods(of: Reported) -> Html:
    """The table of methods."""
    facts, judged = of.facts, of.held_out
    rows = [(name, STUDY_TEST, values) for name, values in facts.methods.items()]
    if judged is not None and judged.metrics and not (rows and judged.examples.source == STUDY_TEST):
        rows.append(("MT-BKD", judged.examples.source, of.metrics))
    rows += [("MT-BKD", f"evaluation {name}", values) for name, values in facts.evaluations.items()]
    if not rows:
        return _section(of.heading("methods"), _needs_data("No method was scored on labelled examples."))
    return _section(
        of.heading("methods"),
        metrics_table("Figures of merit of each method", rows),
        element("p", METRICS_EXPLAINED, class_="note"),
    )


def calibration(of: Reported) -> Html:
    """Reliability, and risk against coverage."""
    heading = of.heading("calibration")
    if of.held_out is None or not of.held_out.metrics:
        return _section(heading, _needs_data("Whether confidence is earned cannot be seen on training examples."))
    probs, labels = of.held_out.prediction.probs, of.held_out.examples.labels
    drawn = [reliability(of)]
    is_labelled = labels >= 0
    if (of.held_out.predicted != labels)[is_labelled].any():
        uncertainties = {
            "entropy": _entropy(of.held_out.prediction),
            "mean deviance": of.held_out.prediction.mean_deviance,
        }
        description = (
            "Risk and coverage: the error rate when only the most certain share of the examples is answered, by "
            f"entropy and by mean deviance. All answered, it is {1 - (of.metrics['accuracy'] or 0):.3f}."
        )
        drawn.append(_figure(figures.risk_coverage(probs, labels, uncertainties), f"{of.key}-risk", description))
    return _section(heading, element("div", *drawn, class_="figures"))


def reliability(of: Reported, prefix: str = "") -> Html:
    """The reliability diagram of held-out examples.

    Args:
      of: the run, which has some with labels.
      prefix: of the ids, where a page has it twice.
    """
    assert of.held_out is not None
    probs, labels = of.held_out.prediction.probs, of.held_out.examples.labels
    bins = reliability_bins(probs, labels)
    farthest = np.abs(bins.accuracy - bins.confidence).argmax()
    description = (
        f"Reliability diagram: accuracy against confidence in {bins.confidence.size} bins. The expected calibration "
        f"error is {of.metrics['expected_calibration_error']:.3f}; farthest from the diagonal is the bin with "
        f"confidence {bins.confidence[farthest]:.2f}, accuracy {bins.accuracy[farthest]:.2f} and "
        f"{bins.num_examples[farthest]} examples."
    )
    return _figure(figures.reliability_diagram(probs, labels), f"{prefix}{of.key}-reliability", description)


def uncertainty(of: Reported) -> Html:
    """Deviance by true class."""
    heading = of.heading("uncertainty")
    judged = of.held_out or of.training
    if judged is None or not (judged.examples.labels >= 0).any():
        return _section(heading, _needs_data("No labelled examples are at hand."))
    deviance, labels = judged.prediction.mean_deviance, judged.examples.labels
    names = [short(name) for name in of.facts.run.class_names]
    medians = (
        f"{name} {np.median(deviance[labels == label]):.2f}"
        for label, name in enumerate(names)
        if (labels == label).any()
    )
    description = f"Mean deviance by true class, in nats. Medians: {', '.join(medians)}."
    figure = figures.deviance_by_class(deviance, labels, names)
    note = f"Of {judged.examples.source}. The mean deviance is twice the entropy of a draw's prediction: 0 is certain."
    return _section(heading, _figure(figure, f"{of.key}-deviance", description), element("p", note, class_="note"))


def following(of: Reported) -> Html:
    """Whom the student follows, over all training examples and by class."""
    known, names = of.facts.following, of.facts.run.class_names
    rows = [["all examples", *(share(value) for value in _means(known.responsibilities))]]
    for label, name in enumerate(names):
        if not np.isnan(known.by_class[label]).any():
            ends = known.interval_by_class[:, label].T.tolist()
            rows.append(
                [
                    name,
                    *(
                        share(mean, (low, high))
                        for mean, (low, high) in zip(known.by_class[label].tolist(), ends, strict=True)
                    ),
                ]
            )
    content = [
        element(
            "p",
            "How far the student's predictions follow each teacher, or nobody, on training examples: the "
            "posterior mean of its responsibility, with a 90 % interval for each class that has labels.",
        ),
        table("Whom the student follows, by class", ["class", *known.components], rows),
    ]
    trusted = [["all examples", *(share(value) for value in _means(known.weights))]]
    if of.training is not None:
        weights = weights_by_class(known, of.training.examples, len(names))
        trusted += [
            [name, *map(share, weights[label].tolist())]
            for label, name in enumerate(names)
            if not np.isnan(weights[label]).any()
        ]
    content.append(table("Who was trusted beforehand, by class: mean weight", ["class", *known.components], trusted))
    return _section(of.heading("following"), *content)


def extremes(of: Reported) -> Html:
    """The most and the least certain examples."""
    heading = of.heading("extremes")
    judged, kind = (of.held_out, HELD_OUT) if of.held_out is not None else (of.training, TRAINING)
    if judged is None:
        return _section(heading, _needs_data("The inputs are not at hand."))
    order = judged.by_certainty
    least, most = order[::-1][:NUM_CARDS], order[:NUM_CARDS]
    return _section(
        heading,
        element("p", f"Of {judged.examples.source}, by the mean deviance of the prediction.", class_="note"),
        element(f"h{of.level + 1}", "Least certain"),
        cards(rows_of(of.facts, judged, kind, least)),
        element(f"h{of.level + 1}", "Most certain"),
        cards(rows_of(of.facts, judged, kind, most)),
    )


def cards(rows: Sequence[Row]) -> Html:
    """Some examples side by side."""
    return element("ul", *map(_card, rows), class_="cards")


def _card(row: Row) -> Html:
    said = row.said
    assert said is not None
    outcome = "" if row.outcome is None else f", {row.outcome}"
    return element(
        "li",
        row.picture or "",
        element("p", row.text, class_="text") if row.text is not None else "",
        element("strong", row.id),
        element("span", f"predicted {said.class_name}, {said.probability:.2f}{outcome}"),
        element("span", f"label {row.label}" if row.label is not None else "no label"),
        element("span", f"mean deviance {said.mean_deviance:.3f}"),
    )


def examples(of: Reported, most_rows: int) -> Html:
    """The table of examples, which can be sorted and filtered where scripts run."""
    rows, total = _example_rows(of, most_rows)
    with_pictures, with_texts = (
        any(value is not None for value in values)
        for values in zip(*((row.picture, row.text) for row in rows), strict=True)
    )
    components = of.facts.following.components
    columns = [
        ("example", "text", False),
        *([("image", None, False)] if with_pictures else []),
        *([("text", "text", False)] if with_texts else []),
        ("set", "text", True),
        ("label", "text", True),
        ("predicted", "text", True),
        ("outcome", "text", True),
        ("probability", "number", False),
        ("mean deviance", "number", False),
        ("disagreement of draws", "number", False),
        ("trusted most", "text", True),
        ("followed most", "text", True),
        *((f"follows {name}", "number", False) for name in components),
    ]
    head = (
        element("th", name, scope="col", data_sort=sort, data_filter=can_filter) for name, sort, can_filter in columns
    )
    caption = f"{len(rows):,} of {total:,} examples, from the least certain to the most"
    body = (_example(row, len(components), with_pictures, with_texts) for row in rows)
    written = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="numbers",
    )
    note = (
        "Evenly spaced in the order of certainty where not all are shown. Mean deviance and disagreement (the mutual "
        "information of label and parameters) are in nats. Whom the student follows is known of training examples, "
        "with a 90 % interval."
    )
    return _section(
        of.heading("examples"),
        element("p", note, class_="note"),
        element("div", scrolled(written, caption, "scroll tall"), data_examples=True),
    )


def _example_rows(of: Reported, most_rows: int) -> tuple[list[Row], int]:
    """Rows of the table, half of them of each set where there are two, and how many examples there are."""
    judged = [(one, kind) for one, kind in ((of.held_out, HELD_OUT), (of.training, TRAINING)) if one is not None]
    rows, total = [], 0
    num_sets = 1 + (of.held_out is not None)
    for one, kind in judged:
        rows += rows_of(of.facts, one, kind, spread(one.by_certainty[::-1], most_rows // num_sets))
        total += len(one.examples.ids)
    if of.training is None:
        num_training = len(of.facts.following.ids)
        rows += rows_without_inputs(of.facts, spread(np.arange(num_training), most_rows // num_sets))
        total += num_training
    return sorted(rows, key=lambda row: -np.inf if row.said is None else row.said.mean_deviance, reverse=True), total


def _example(row: Row, num_components: int, with_pictures: bool, with_texts: bool) -> Html:
    said, followed = row.said, row.followed
    cells = [
        *([row.picture or UNKNOWN] if with_pictures else []),
        *([row.text or UNKNOWN] if with_texts else []),
        row.kind,
        row.label or UNKNOWN,
        UNKNOWN if said is None else said.class_name,
        row.outcome or UNKNOWN,
        *map(number, (None, None, None) if said is None else said[1:]),
    ]
    if followed is None:
        cells += [UNKNOWN] * (2 + num_components)
    else:
        cells += [followed.trusted_most, followed.followed_most]
        cells += [
            joined(f"{mean:.2f} ", element("span", f"{low:.2f}–{high:.2f}", class_="interval"))
            for mean, (low, high) in zip(followed.shares, followed.intervals, strict=True)
        ]
    return element("tr", element("th", row.id, scope="row"), *(element("td", cell) for cell in cells))


def convergence(of: Reported) -> Html:
    """Whether the chains have mixed, in words and numbers."""
    facts = of.facts
    rows = [
        [name, *(number(mixing.numbers.get(key), ".0f" if "ess" in key else ".3f") for key in _MIXING_NAMES)]
        for name, mixing in facts.mixing_of_component.items()
    ]
    content = [
        badge(facts.mixing),
        element("p", facts.mixing.verdict),
        element(
            "p",
            "R-hat compares the chains with each other: 1 where all of them say the same. ESS is how many "
            "independent draws theirs are worth. Both are of the predictions on probe examples, since a network's "
            "weights are not identified.",
            class_="note",
        ),
        table("R-hat and effective sample size (ESS), by component", ["component", *_MIXING_NAMES.values()], rows),
    ]
    for name, mixing in facts.mixing_of_component.items():
        if mixing.verdict != facts.mixing.verdict:
            content.append(element("p", element("strong", f"{name}: "), mixing.verdict))
    if facts.stopped_chains:
        stopped = ", ".join(f"{name} at step {step:,}" for name, step in facts.stopped_chains.items())
        content.append(element("p", f"Stopped and left out, since the density was not finite: {stopped}."))
    if len(facts.components) > 1:
        content.append(
            table(
                f"How probable each component of the weight-space prior is (by {facts.evidence_method})",
                ["component", "probability", "standard error", "chains"],
                (
                    [
                        component.name,
                        number(component.probability),
                        number(component.standard_error),
                        ", ".join(map(str, component.chains)) or "none",
                    ]
                    for component in facts.components
                ),
            )
        )
    judged = of.held_out or of.training
    if judged is not None and isinstance(facts.run.draws, DrawStore):
        log_density, log_probs = traced(facts, judged.examples)
        figure = figures.traces(
            log_density,
            log_probs,
            probe_names=[short(str(name)) for name in judged.examples.ids[: log_probs.shape[2]]],
            class_names=[short(name) for name in facts.run.class_names],
        )
        description = (
            f"Traces of {len(log_density)} chains over {log_density.shape[1]} draws: the log density, from "
            f"{log_density.min():.1f} to {log_density.max():.1f} nats, and the predictions that change most."
        )
        content.append(_figure(figure, f"{of.key}-traces", description))
    return _section(of.heading("convergence"), *content)


def settings(of: Reported) -> Html:
    """What was chosen on the labels."""
    choice = of.facts.choice
    rows = [
        [figures.AXIS_LABELS[name], f"{getattr(choice.settings, name):.3g}", f"{getattr(choice.no_teacher, name):.3g}"]
        for name in figures.AXIS_LABELS
    ]
    content = [table("Settings, and the best without any teacher", ["setting", "chosen", "no teacher"], rows)]
    if choice.powers is not None:
        shares = ", ".join(
            f"{value:g} ({weight:.0%})"
            for value, weight in zip(choice.powers.values, choice.powers.shares, strict=True)
        )
        content.append(element("p", f"The chains visit several powers, each for a share of their draws: {shares}."))
    if choice.curve:
        best = min(choice.curve, key=lambda candidate: candidate.nll)
        description = (
            f"Cross-validated negative log likelihood of {len(choice.curve)} candidates, stage by stage; the lowest is "
            f"{best.nll:.3f} nats, at the stage {best.stage}."
        )
        content.append(_figure(figures.cross_validation(choice), f"{of.key}-settings", description))
    return _section(of.heading("settings"), *content)


def repetition(of: Reported) -> Html:
    """The configuration and the command that repeats it."""
    facts = of.facts
    options = [[name, UNKNOWN if value is None else str(value)] for name, value in flat_options(facts.config)]
    command = repeating_command(facts.config)
    content = [
        element("p", "This command repeats the run, with ", element("code", OUT), " as its directory:"),
        scrolled(element("pre", element("code", command)), "The command that repeats the run"),
        table("Configuration", ["option", "value"], options, class_="words"),
    ]
    if facts.input_digests:
        files = [[name, element("code", digest)] for name, digest in facts.input_digests.items()]
        content.append(table("Input files", ["file", "SHA-256"], files, class_="words"))
    versions = [[name, version] for name, version in facts.versions.items()]
    content.append(table("Versions that it was made with", ["library", "version"], versions, class_="words"))
    return _section(of.heading("repetition"), *content)


def short(name: str) -> str:
    """A name as a figure has room for it."""
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _section(heading: Html, *content: str) -> Html:
    return element("section", heading, *content)


def _figure(figure: "figures.Figure", key: str, description: str) -> Html:
    return element("figure", plot(figure, key, description))


def _needs_data(text: str) -> Html:
    return element(
        "p",
        f"{text} Give a file of labelled examples that the run has not seen: ",
        element("code", "--data FILE.npz"),
        ".",
    )


def _entropy(prediction: Prediction) -> np.ndarray:
    """Of the prediction: what each draw is uncertain of, which is half its deviance, and what the draws differ in."""
    return prediction.mean_deviance / 2 + prediction.epistemic


def mean_share(of: Reported, component: str) -> float:
    """How far the student of a run follows somebody over all training examples; NaN where it does not know them."""
    following = of.facts.following
    if component not in following.components:
        return float("nan")
    return _means(following.responsibilities)[following.components.index(component)]


def _means(values: np.ndarray) -> list[float]:
    known = values[~np.isnan(values).any(axis=1)]
    return known.mean(axis=0).tolist() if len(known) else [float("nan")] * values.shape[1]
