"""Several runs side by side: a table with a column for each."""

from collections.abc import Sequence

from mtbkd_jax.figures import AXIS_LABELS
from mtbkd_jax.report.commands import flat_options
from mtbkd_jax.report.markup import Html, element
from mtbkd_jax.report.reported import Reported, mean_share
from mtbkd_jax.report.sections import reliability
from mtbkd_jax.report.tables import METRIC_NAMES, METRICS_EXPLAINED, UNKNOWN, metric, number, share, table


def comparison(reported: Sequence[Reported]) -> Html:
    """The runs side by side."""
    names = [of.facts.name for of in reported]
    known = [name for name in METRIC_NAMES if any(name in of.metrics for of in reported)]
    mixing = [of.facts.mixing for of in reported]
    figures_of_merit = [
        ["measured on", *(UNKNOWN if of.held_out is None else of.held_out.examples.source for of in reported)],
        *([METRIC_NAMES[name], *(metric(name, of.metrics.get(name)) for of in reported)] for name in known),
        ["chains", *("mixed" if one.has_mixed else "not mixed" for one in mixing)],
        ["median R-hat", *(number(one.numbers.get("median_r_hat")) for one in mixing)],
        ["median ESS", *(number(one.numbers.get("median_ess"), ".0f") for one in mixing)],
    ]
    components = dict.fromkeys(name for of in reported for name in of.facts.following.components)
    followed = [[name, *(share(mean_share(of, name)) for of in reported)] for name in components]
    chosen = [
        [label, *(number(getattr(of.facts.choice.settings, name), ".3g") for of in reported)]
        for name, label in AXIS_LABELS.items()
    ]
    options = [dict(flat_options(of.facts.config)) for of in reported]
    asked = [
        [name, *(str(of.get(name, UNKNOWN)) for of in options)]
        for name in dict.fromkeys(name for of in options for name in of)
        if any(of.get(name) != options[0].get(name) for of in options)
    ]
    diagrams = [reliability(of.scored, f"side-{of.key}") for of in reported if of.scored is not None]
    return element(
        "section",
        element("h2", "Side by side", id="comparison"),
        table("Figures of merit of the student of each run", ["figure", *names], figures_of_merit),
        element("p", METRICS_EXPLAINED, class_="note"),
        table("Whom each student follows, over all training examples", ["whom", *names], followed),
        table("Settings that were chosen", ["setting", *names], chosen),
        table("Options that differ", ["option", *names], asked, class_="words") if asked else "",
        element("h3", "Reliability") if diagrams else "",
        element("div", *diagrams, class_="figures") if diagrams else "",
    )
