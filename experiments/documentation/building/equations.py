"""Equations: TeX between dollars becomes MathML when the site is built, so that no page needs a script for it.

``pymdownx.arithmatex`` finds the TeX and leaves it in elements of its own class; ``latex2mathml`` converts it. A
command that the converter does not know would stand in the page as text, so it is refused.
"""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FOUND = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<opening>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_FUNCTION = re.compile(r"(<mi>(?:log|min|max)</mi>)(?!<mo stretchy=\"false\">&#x00028;)")
"""A named function whose argument is not in parentheses: browsers put no space between them."""


def to_mathml(tex: str, *, is_block: bool) -> str:
    """MathML of an equation; a block stands on lines of its own.

    Raises:
      ValueError: if it holds a command that the converter does not know.
    """
    markup = convert(tex.strip(), display="block" if is_block else "inline")
    if (unknown := _COMMAND.search(markup)) is not None:
        raise ValueError(f"{unknown[0]} in {tex.strip()!r} is no command that becomes MathML")
    return _FUNCTION.sub(r'\1<mspace width="0.17em"/>', markup)


def on_page_content(content: str, *, page, **_) -> str:
    def converted(found: re.Match) -> str:
        tex = html.unescape(found["tex"])
        try:
            return to_mathml(tex, is_block=found["opening"] == "[")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: the equation {tex.strip()!r}: {error}") from error

    return _FOUND.sub(converted, content)
