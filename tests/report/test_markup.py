"""Markup: whatever a name holds, it is text."""

from html.parser import HTMLParser

import pytest

from mtbkd_jax.report.markup import Html, element, escaped, joined


def read_back(markup):
    """Text and attributes as a browser reads them."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, attrs))

        def handle_data(self, data):
            found.append(data)

    reader = Reader()
    reader.feed(markup)
    reader.close()
    return found


@pytest.mark.parametrize("text", ["<script>", "a & b", "&lt;", "\"'`", "</td>", "<!--", "]]>"])
def test_text_and_attributes_are_read_back_as_they_were(text):
    (start, content) = read_back(element("td", text, title=text))
    assert (start, content) == (("td", [("title", text)]), text)


def test_markup_is_not_escaped_again():
    assert joined("<", Html("<b>"), ">") == "&lt;<b>&gt;"
    assert escaped(escaped("<")) == "&lt;"


def test_an_element_without_content_has_no_end():
    assert element("img", src="x", alt="") == '<img src="x" alt="">'
