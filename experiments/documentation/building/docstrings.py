"""Docstrings: what Markdown would read otherwise than it is meant.

Lines that begin by ``>>>`` become a block of code, where Markdown would see quotations. Of a role of Sphinx's, such as
``func`` before a name, the name is left.
"""

import re

from markdown import Extension
from markdown.preprocessors import Preprocessor

_FENCE = "```"
_ROLE = re.compile(r":(?:class|func|meth|mod):`~?([^`]+)`")


def fenced(lines: list[str]) -> list[str]:
    """The lines with every doctest, which an empty line ends, in a fence."""
    result: list[str] = []
    is_doctest = is_fenced = False
    for line in lines:
        if line.lstrip().startswith(_FENCE):
            is_fenced = not is_fenced
        if not is_doctest and not is_fenced and line.startswith(">>> "):
            result += ["", f"{_FENCE}pycon"]
            is_doctest = True
        if is_doctest and not line.strip():
            result.append(_FENCE)
            is_doctest = False
        result.append(line)
    return [*result, _FENCE] if is_doctest else result


def without_roles(line: str) -> str:
    """The line with the names alone of what it refers to."""
    return _ROLE.sub(r"`\1`", line)


class _Docstrings(Preprocessor):
    def run(self, lines):
        return fenced([without_roles(line) for line in lines])


class _Extension(Extension):
    def extendMarkdown(self, md):  # noqa: N802 (Markdown's own name)
        # Before fences are looked for.
        md.preprocessors.register(_Docstrings(md), "docstrings", 50)


def on_config(config, **_):
    config.markdown_extensions.append(_Extension())
    return config
