"""The parts of a report on one run, each a heading with what belongs under it."""

import numpy as np
from jaxtyping import Float

from mtbkd_jax import figures
from mtbkd_jax.diagnostics import MIXED_R_HAT
from mtbkd_jax.draws import DrawStore
from mtbkd_jax.metrics import reliability_bins
from mtbkd_jax.prediction import Prediction
from mtbkd_jax.report.commands import OUT, flat_options, repeating_command
from mtbkd_jax.report.judgement import Judgement, traced
from mtbkd_jax.report.markup import Html, element
from mtbkd_jax.report.reported import Reported, drawn, means_of_known, needs_data, section, short
from mtbkd_jax.report.rows import weights_by_class
from mtbkd_jax.report.showcase import examples, extremes
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

_MIXING_NAMES = {
    "median_r_hat": "median R-hat",
    "largest_r_hat": "largest R-hat",
    f"share_r_hat_below_{MIXED_R_HAT}": f"share of probes with R-hat at most {MIXED_R_HAT}",
    "median_ess": "median ESS",
    "smallest_ess": "smallest ESS",
    "log_density_r_hat": "R-hat of the log density",
    "log_density_ess_bulk": "ESS of the log density",
}


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
    # The first sentence of the verdict says whether; the others say what follows from it.
    verdict, kind = facts.mixing.verdict.partition(". ")[0], "good" if facts.mixing.has_mixed else "bad"
    return section(
        of.heading("summary"),
        element("p", element("a", verdict, class_=kind, href=f"#{of.key}-convergence")),
        element("p", f"Measured on {of.held_out.examples.source}.") if of.held_out is not None else "",
        pairs(shown | recorded | {"teachers": ", ".join(facts.following.components[1:])}),
    )


def methods(of: Reported) -> Html:
    """The table of methods."""
    facts, judged = of.facts, of.scored
    rows = [(name, STUDY_TEST, values) for name, values in facts.methods.items()]
    if judged is not None and not (rows and judged.examples.source == STUDY_TEST):
        rows.append(("MT-BKD", judged.examples.source, of.metrics))
    rows += [("MT-BKD", f"evaluation {name}", values) for name, values in facts.evaluations.items()]
    if not rows:
        return section(of.heading("methods"), needs_data("No method was scored on labelled examples."))
    return section(
        of.heading("methods"),
        metrics_table("Figures of merit of each method", rows),
        element("p", METRICS_EXPLAINED, class_="note"),
    )


def calibration(of: Reported) -> Html:
    """Reliability, and risk against coverage."""
    heading = of.heading("calibration")
    judged = of.scored
    if judged is None:
        return section(heading, needs_data("Whether confidence is earned cannot be seen on training examples."))
    diagrams = [reliability(judged, of.key)]
    labels, prediction = judged.examples.labels, judged.prediction
    is_wrong = (judged.predicted != labels)[labels >= 0]
    if is_wrong.any():
        uncertainties = {"entropy": _entropy(prediction), "mean deviance": prediction.mean_deviance}
        description = (
            "Risk and coverage: the error rate when only the most certain share of the examples is answered, by "
            f"entropy and by mean deviance. All answered, it is {is_wrong.mean():.3f}."
        )
        diagrams.append(
            drawn(figures.risk_coverage(prediction.probs, labels, uncertainties), f"{of.key}-risk", description)
        )
    return section(heading, element("div", *diagrams, class_="figures"))


def reliability(judged: Judgement, key: str) -> Html:
    """The reliability diagram of labelled examples; the key begins its ids."""
    probs, labels = judged.prediction.probs, judged.examples.labels
    bins = reliability_bins(probs, labels)
    farthest = np.abs(bins.accuracy - bins.confidence).argmax()
    description = (
        f"Reliability diagram: accuracy against confidence in {bins.confidence.size} bins. The expected calibration "
        f"error is {number(judged.metrics['expected_calibration_error'])}; farthest from the diagonal is the bin with "
        f"confidence {bins.confidence[farthest]:.2f}, accuracy {bins.accuracy[farthest]:.2f} and "
        f"{bins.num_examples[farthest]} examples."
    )
    return drawn(figures.reliability_diagram(probs, labels), f"{key}-reliability", description)


def uncertainty(of: Reported) -> Html:
    """Deviance by true class."""
    heading = of.heading("uncertainty")
    judged = of.at_hand
    if judged is None or not (judged.examples.labels >= 0).any():
        return section(heading, needs_data("No labelled examples are at hand."))
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
    return section(heading, drawn(figure, f"{of.key}-deviance", description), element("p", note, class_="note"))


def following(of: Reported) -> Html:
    """Whom the student follows, over all training examples and by class."""
    known, names = of.facts.following, of.facts.run.class_names
    rows: list[list[str]] = [["all examples", *map(share, means_of_known(known.responsibilities))]]
    for name, means, ends in zip(names, known.by_class, np.moveaxis(known.interval_by_class, 0, -1), strict=True):
        if not np.isnan(means).any():
            rows.append([name, *map(share, means.tolist(), map(tuple, ends.tolist()))])
    content = [
        element(
            "p",
            "How far the student's predictions follow each teacher, or nobody, on training examples: the "
            "posterior mean of its responsibility, with a 90 % interval for each class that has labels.",
        ),
        table("Whom the student follows, by class", ["class", *known.components], rows),
    ]
    trusted: list[list[str]] = [["all examples", *map(share, means_of_known(known.weights))]]
    if of.training is not None:
        weights = weights_by_class(known, of.training.examples, len(names))
        trusted += [
            [name, *map(share, weights[label].tolist())]
            for label, name in enumerate(names)
            if not np.isnan(weights[label]).any()
        ]
    content.append(table("Who was trusted beforehand, by class: mean weight", ["class", *known.components], trusted))
    return section(of.heading("following"), *content)


def convergence(of: Reported) -> Html:
    """Whether the chains have mixed, in words and numbers."""
    facts = of.facts
    rows = [
        [name, *(number(mixing.numbers.get(key), ".0f" if "ess" in key else ".3f") for key in _MIXING_NAMES)]
        for name, mixing in facts.mixing_of_component.items()
    ]
    content = [
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
    judged = of.at_hand
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
        content.append(drawn(figure, f"{of.key}-traces", description))
    return section(of.heading("convergence"), *content)


def settings(of: Reported) -> Html:
    """What was chosen on the labels."""
    choice = of.facts.choice
    rows = [
        [label, *(number(getattr(which, name), ".3g") for which in (choice.settings, choice.no_teacher))]
        for name, label in figures.AXIS_LABELS.items()
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
        content.append(drawn(figures.cross_validation(choice), f"{of.key}-settings", description))
    return section(of.heading("settings"), *content)


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
    return section(of.heading("repetition"), *content)


def _entropy(prediction: Prediction) -> Float[np.ndarray, " examples"]:
    """Of the prediction: what each draw is uncertain of, which is half its deviance, and what the draws differ in."""
    return prediction.mean_deviance / 2 + prediction.epistemic
