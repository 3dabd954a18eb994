"""Docstrings: what Markdown would read otherwise than it is meant.

Lines that begin by ``>>>`` become a block of code, where Markdown would see quotations.
"""

from markdown import Extension
from markdown.preprocessors import Preprocessor

_FENCE = "```"


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


class _Docstrings(Preprocessor):
    def run(self, lines):
        return fenced(lines)


class _Extension(Extension):
    def extendMarkdown(self, md):  # noqa: N802 (Markdown's own name)
        # Before fences are looked for.
        md.preprocessors.register(_Docstrings(md), "docstrings", 50)


def on_config(config, **_):
    config.markdown_extensions.append(_Extension())
    return config
