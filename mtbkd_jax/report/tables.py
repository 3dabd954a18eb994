"""Tables of a page: each has a caption, headings with their scope, and a box of its own to scroll in."""

from collections.abc import Iterable, Mapping, Sequence

from mtbkd_jax.report.facts import Metrics
from mtbkd_jax.report.markup import Html, element, joined

UNKNOWN = "–"

METRIC_NAMES = {
    "accuracy": "accuracy",
    "negative_log_likelihood": "NLL (nats)",
    "brier_score": "Brier score",
    "expected_calibration_error": "ECE",
    "error_detection_auroc": "AUROC of errors",
    "coverage_85": "coverage at .85",
    "coverage_90": "coverage at .90",
    "coverage_95": "coverage at .95",
    "parameters": "parameters",
}
"""The figures of merit that a page shows, and what it calls them."""

METRICS_EXPLAINED = (
    "NLL is the mean negative log probability of the label, ECE how far confidence is from accuracy: lower is better "
    "for both and for the Brier score. AUROC of errors says how well uncertainty finds the wrong predictions; 1 is "
    "best, .5 is chance. Coverage is best where it is the level that is named."
)


def number(value: float | None, form: str = ".3f") -> str:
    """A number as text; a dash for one that is not known or not defined.

    >>> number(0.12345), number(None), number(1234.0, ",.0f")
    ('0.123', '–', '1,234')
    """
    if value is None or value != value:
        return UNKNOWN
    return "∞" if value == float("inf") else format(value, form)


def metric(name: str, value: float | None) -> str:
    """A figure of merit as text."""
    return number(value, ",.0f" if name == "parameters" else ".3f")


def scrolled(content: Html, label: str, class_: str = "scroll") -> Html:
    """A box that scrolls, which the keyboard can reach."""
    return element("div", content, class_=class_, tabindex=0, role="region", aria_label=label)


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, class_: str = "numbers") -> Html:
    """A table whose first column names its rows.

    Args:
      caption: says what is in it.
      columns: their headings.
      rows: the cells of each, text or markup.
      class_: how it is laid out.
    """
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    body = (
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    )
    return scrolled(
        element(
            "table",
            caption_of(caption),
            element("thead", head),
            element("tbody", *body),
            class_=class_,
        ),
        caption,
    )


def caption_of(text: str) -> Html:
    """A caption that stays in sight where the table scrolls sideways."""
    return element("caption", element("span", text))


def metrics_table(caption: str, rows: Sequence[tuple[str, str, Metrics]]) -> Html:
    """Figures of merit of methods, each on some data."""
    known = [name for name in METRIC_NAMES if any(name in values for _, _, values in rows)]
    return table(
        caption,
        ["method", "on", *(METRIC_NAMES[name] for name in known)],
        ([method, data, *(metric(name, values.get(name)) for name in known)] for method, data, values in rows),
    )


def share(mean: float, interval: tuple[float, float] | None = None) -> Html:
    """A share of one with its interval and a bar; a dash where it is not known."""
    if mean != mean:
        return Html(UNKNOWN)
    ends = "" if interval is None else element("span", f"{interval[0]:.2f}–{interval[1]:.2f}", class_="interval")
    bar = element("span", class_="bar", style=f"--share: {100 * mean:.0f}%", aria_hidden="true")
    return joined(f"{mean:.2f} ", ends, bar)


def pairs(values: Mapping[str, str]) -> Html:
    """A list of names with what they are."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in values.items()))
