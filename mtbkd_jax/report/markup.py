"""HTML from Python values: text is escaped unless it is markup already."""

import html
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None

_VOID = frozenset({"img", "input", "link", "meta"})
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTROLS = {code: _REPLACEMENT for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}


class Html(str):
    """Text that is markup already, and is not escaped again."""

    __slots__ = ()


def printable(text: str) -> str:
    """The text without what neither HTML nor XML can hold: control characters and halves of surrogate pairs.

    >>> printable("a" + chr(0) + "b" + chr(0xD800))
    'a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}'
    """
    whole = "".join(_REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in text)
    return whole.translate(_CONTROLS)


def escaped(content: str) -> Html:
    """The text as markup that shows it.

    >>> escaped("<script>")
    '&lt;script&gt;'
    >>> escaped(Html("<br>"))
    '<br>'
    """
    return content if isinstance(content, Html) else Html(html.escape(printable(content)))


def joined(*parts: str) -> Html:
    """Some pieces of content after one another."""
    return Html("".join(map(escaped, parts)))


def element(name: str, /, *content: str, **attributes: Value) -> Html:
    """An element.

    Args:
      name: of the element.
      content: text, which is escaped, and markup, which is not.
      attributes: values by name, an underscore standing for a hyphen and one at the end for nothing; None and False
        leave an attribute out, and True gives it no value.

    >>> element("td", "a < b", class_="number", data_value=1.5, hidden=True, title=None)
    '<td class="number" data-value="1.5" hidden>a &lt; b</td>'
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escaped(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(*content)}</{name}>")
