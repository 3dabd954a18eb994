"""The page: one run with all its parts, or several side by side and then each with its own."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from mtbkd_jax.errors import InputError
from mtbkd_jax.report.comparison import comparison
from mtbkd_jax.report.facts import RunFacts, read_facts
from mtbkd_jax.report.judgement import judge_held_out, judge_training
from mtbkd_jax.report.markup import Html, element, joined
from mtbkd_jax.report.reported import PARTS, Reported
from mtbkd_jax.report.sections import parts
from mtbkd_jax.report.shown import held_out_examples, training_examples

_MOST_ROWS = 600
"""Rows of all tables of examples together: with pictures they are the larger part of a page."""

_LEAST_ROWS = 50


def report_page(runs: Sequence[str | Path], *, data: str | Path | None = None) -> str:
    """The report of finished runs as one HTML page, which depends on the runs and the data alone.

    Args:
      runs: their directories.
      data: an NPZ file as ``read_dataset`` takes it, of labelled examples that the runs have not seen; it may hold
        ``images [N, height, width]`` (or with three colours) or ``texts [N]``, which are shown of the examples. Without
        it, the digits study has its test images, and other runs are not scored.

    Raises:
      InputError: if there is no run, one is not finished, their classes differ, or the data do not fit them.
      CorruptDataError: if a file was truncated or altered.
    """
    all_facts = [read_facts(Path(run)) for run in runs]
    _check_alike(all_facts)
    reported = [
        _reported(facts, None if data is None else Path(data), number, is_alone=len(runs) == 1)
        for number, facts in enumerate(all_facts, start=1)
    ]
    most_rows = max(_LEAST_ROWS, _MOST_ROWS // len(reported))
    if len(reported) == 1:
        (alone,) = reported
        title = f"Report of {alone.facts.name}"
        contents = [_links("Contents", alone)]
        body = parts(alone, most_rows=most_rows)
    else:
        title = f"{len(reported)} runs side by side"
        contents = [
            element("ul", element("li", element("a", "Side by side", href="#comparison"))),
            *(_links(of.facts.name, of) for of in reported),
        ]
        body = [comparison(reported)]
        for of in reported:
            body += [element("h2", of.facts.name, id=of.key), *parts(of, most_rows=most_rows)]
    return _document(title, element("nav", *contents, aria_label="Contents"), element("main", *body, id="main"))


def _reported(facts: RunFacts, data: Path | None, number: int, *, is_alone: bool) -> Reported:
    held_out, training = held_out_examples(facts, data), training_examples(facts)
    return Reported(
        facts,
        None if held_out is None else judge_held_out(facts, held_out),
        None if training is None else judge_training(facts, training),
        key=f"run-{number}",
        level=2 if is_alone else 3,
    )


def _check_alike(all_facts: Sequence[RunFacts]) -> None:
    if not all_facts:
        raise InputError("report", "runs", "none", "one or more directories of runs", "Name a run.")
    first = all_facts[0]
    for facts in all_facts[1:]:
        if facts.run.class_names != first.run.class_names:
            expected = f"{first.run.class_names}, as in {first.name}"
            action = "Report these runs in pages of their own."
            raise InputError(facts.name, "class_names", f"{facts.run.class_names}", expected, action)


def _links(name: str, of: Reported) -> Html:
    links = (element("li", element("a", text, href=f"#{of.key}-{part}")) for part, text in PARTS.items())
    return joined(element("p", name), element("ul", *links))


def _document(title: str, navigation: Html, main: Html) -> str:
    style, script = (_of_package(name) for name in ("page.css", "examples.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", style),
    )
    body = element(
        "body",
        element("a", "Skip to the report", class_="skip", href="#main"),
        element("header", element("h1", title), navigation),
        main,
        element("script", script),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _of_package(name: str) -> Html:
    """A file beside this module, whose content goes into the page as it is."""
    return Html(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
