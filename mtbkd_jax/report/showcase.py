"""The examples of a page: the most and the least certain side by side, and a table of many."""

from collections.abc import Sequence

import numpy as np

from mtbkd_jax.examples import spread
from mtbkd_jax.report.markup import Html, element, joined
from mtbkd_jax.report.reported import Reported, needs_data, section
from mtbkd_jax.report.rows import HELD_OUT, TRAINING, Row, rows_of, rows_without_inputs
from mtbkd_jax.report.tables import UNKNOWN, caption_of, number, scrolled

NUM_CARDS = 8
"""Examples that are shown of the most certain, and as many of the least certain."""


def extremes(of: Reported) -> Html:
    """The most and the least certain examples."""
    heading = of.heading("extremes")
    judged, kind = of.at_hand, TRAINING if of.held_out is None else HELD_OUT
    if judged is None:
        return section(heading, needs_data("The inputs are not at hand."))
    order = judged.by_certainty
    least, most = order[::-1][:NUM_CARDS], order[:NUM_CARDS]
    return section(
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
        caption_of(caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="numbers",
    )
    note = (
        "Evenly spaced in the order of certainty where not all are shown. Mean deviance and disagreement (the mutual "
        "information of label and parameters) are in nats. Whom the student follows is known of training examples, "
        "with a 90 % interval."
    )
    return section(
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
        *([element("span", row.text, class_="text") if row.text else UNKNOWN] if with_texts else []),
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
