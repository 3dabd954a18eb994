"""Several runs side by side: a table with a column for each."""

from collections.abc import Callable, Sequence

from mtbkd_jax.figures import AXIS_LABELS
from mtbkd_jax.report.commands import flat_options
from mtbkd_jax.report.markup import Html, element
from mtbkd_jax.report.sections import Reported, mean_share, reliability
from mtbkd_jax.report.tables import METRIC_NAMES, METRICS_EXPLAINED, UNKNOWN, metric, number, share, table


def comparison(reported: Sequence[Reported]) -> Html:
    """The runs side by side."""
    names = [of.facts.name for of in reported]

    def row(name: str, value: Callable[[Reported], str]) -> list[str]:
        return [name, *map(value, reported)]

    def measured_on(of: Reported) -> str:
        return UNKNOWN if of.held_out is None else of.held_out.examples.source

    known = [name for name in METRIC_NAMES if any(name in of.metrics for of in reported)]
    figures_of_merit = [
        row("measured on", measured_on),
        *(row(METRIC_NAMES[name], lambda of, name=name: metric(name, of.metrics.get(name))) for name in known),
        row("chains", lambda of: "mixed" if of.facts.mixing.has_mixed else "not mixed"),
        row("median R-hat", lambda of: number(of.facts.mixing.numbers.get("median_r_hat"))),
        row("median ESS", lambda of: number(of.facts.mixing.numbers.get("median_ess"), ".0f")),
    ]
    components = dict.fromkeys(name for of in reported for name in of.facts.following.components)
    followed = [row(name, lambda of, name=name: share(mean_share(of, name))) for name in components]
    chosen = [
        row(label, lambda of, name=name: f"{getattr(of.facts.choice.settings, name):.3g}")
        for name, label in AXIS_LABELS.items()
    ]
    options = [dict(flat_options(of.facts.config)) for of in reported]
    asked = [
        [name, *(str(of.get(name, UNKNOWN)) for of in options)]
        for name in dict.fromkeys(name for of in options for name in of)
        if any(of.get(name) != options[0].get(name) for of in options)
    ]
    diagrams = [reliability(of, "side-") for of in reported if of.held_out is not None and of.held_out.metrics]
    return element(
        "section",
        element("h2", "Side by side", id="comparison"),
        table("Figures of merit of the student of each run", ["", *names], figures_of_merit),
        element("p", METRICS_EXPLAINED, class_="note"),
        table("Whom each student follows, over all training examples", ["", *names], followed),
        table("Settings that were chosen", ["setting", *names], chosen),
        table("Options that differ", ["option", *names], asked, class_="words") if asked else "",
        element("h3", "Reliability") if diagrams else "",
        element("div", *diagrams, class_="figures") if diagrams else "",
    )
