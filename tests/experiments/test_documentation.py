"""What the hooks of the documentation let pass and what they refuse, which a build that succeeds does not show."""

import pytest

pytest.importorskip("mkdocs", reason="installed by the extra docs")
pytest.importorskip("latex2mathml")

from experiments.documentation.building.docstrings import fenced
from experiments.documentation.building.equations import to_mathml
from experiments.documentation.building.hosts import elsewhere_in_page, elsewhere_in_site, elsewhere_in_style


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://example.org/a.js"></script>',
        '<script src="//example.org/a.js"></script>',
        '<link rel="stylesheet" href="HTTP://example.org/a.css">',
        '<img src="here.png" srcset="here.png 1x, https://example.org/b.png 2x">',
        '<iframe src="https://example.org"></iframe>',
        "<style>@import 'https://example.org/a.css';</style>",
        '<p style="background: url(https://example.org/a.png)"></p>',
        '<svg><use xlink:href="https://example.org/a.svg"/></svg>',
    ],
)
def test_what_a_browser_would_fetch_from_elsewhere_is_found(page):
    (found,) = elsewhere_in_page(f"<p>{page}</p>")
    assert "example.org" in found.lower()


@pytest.mark.parametrize(
    "page",
    [
        '<a href="https://example.org">there</a>',
        '<script src="../assets/a.js"></script> <img src="data:image/png;base64,//a">',
        "<code>&lt;script src=https://example.org/a.js&gt;</code>",
        '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>',
    ],
)
def test_links_and_what_is_of_the_site_are_let_pass(page):
    assert elsewhere_in_page(page) == []


def test_fonts_and_imports_of_styles_are_found():
    style = "@font-face { src: url('//example.org/a.woff2') } p { background: url(here.png) }"
    assert elsewhere_in_style(style) == ["//example.org/a.woff2"]


def test_a_site_is_searched_with_all_its_folders(tmp_path):
    (tmp_path / "guides").mkdir()
    (tmp_path / "guides" / "page.html").write_text('<script src="https://example.org/a.js"></script>')
    (tmp_path / "style.css").write_text("@import url(https://example.org/a.css)")
    assert [line.split(":")[0] for line in elsewhere_in_site(tmp_path)] == ["guides/page.html", "style.css"]


def test_a_command_that_is_no_mathml_is_refused():
    assert "<mi>&#x003B8;</mi>" in to_mathml(r"\theta", is_block=False)
    with pytest.raises(ValueError, match="nosuchcommand"):
        to_mathml(r"\nosuchcommand{x}", is_block=True)


def test_a_function_stands_apart_from_its_argument():
    assert "mspace" in to_mathml(r"\log q", is_block=False)


def test_doctests_become_code_and_end_at_an_empty_line():
    lines = ["It adds.", ">>> 1 + 1", "2", "", "So it does."]
    assert fenced(lines) == ["It adds.", "", "```pycon", ">>> 1 + 1", "2", "```", "", "So it does."]
    assert fenced(["```pycon", ">>> 1 + 1", "```"]) == ["```pycon", ">>> 1 + 1", "```"]
