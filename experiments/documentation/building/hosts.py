"""Hosts: a page that would load anything from elsewhere ends the build.

Links that a reader follows may lead anywhere. What a browser fetches by itself (scripts, styles, images, fonts, frames)
must lie in the site. The theme's pages have a content security policy besides, which browsers keep to.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.exceptions import PluginError

_FETCHING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""Attributes by which a browser fetches something, by element. A canonical link would fetch nothing; there is none."""
_ELSEWHERE = re.compile(r"^(?!data:)(?:.*[\s,])?(?:https?:|wss?:|ftp:)?//[\w.-]", re.IGNORECASE | re.DOTALL)
_STYLE = re.compile(r"(?:url\(|@import(?!\s*url))\s*[\"']?\s*(?P<address>[^\"')\s]+)", re.IGNORECASE)


class _Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self._is_style = False

    def handle_starttag(self, tag, attrs):
        self._is_style = tag == "style"
        for name, value in attrs:
            if name in _FETCHING.get(tag, ()) and value and _ELSEWHERE.search(value):
                self.found.append(f"<{tag} {name}={value!r}>")
            if name == "style" and value:
                self.found += elsewhere_in_style(value)

    def handle_endtag(self, tag):
        self._is_style = False

    def handle_data(self, data):
        if self._is_style:
            self.found += elsewhere_in_style(data)


def elsewhere_in_page(text: str) -> list[str]:
    """What a browser would fetch from another host to show this HTML."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    return parser.found


def elsewhere_in_style(text: str) -> list[str]:
    """The same of CSS."""
    return [found["address"] for found in _STYLE.finditer(text) if _ELSEWHERE.search(found["address"])]


def elsewhere_in_site(directory: Path) -> list[str]:
    """The same of all pages and styles in a directory, with the name of the file."""
    found = []
    for pattern, elsewhere in (("*.html", elsewhere_in_page), ("*.css", elsewhere_in_style)):
        for path in sorted(directory.rglob(pattern)):
            name = path.relative_to(directory)
            found += [f"{name}: {one}" for one in elsewhere(path.read_text(encoding="utf-8"))]
    return found


def on_post_build(*, config, **_) -> None:
    if found := elsewhere_in_site(Path(config.site_dir)):
        raise PluginError("pages load from elsewhere:\n" + "\n".join(found))
