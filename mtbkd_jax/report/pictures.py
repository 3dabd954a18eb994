"""Images and figures inside a page: small PNG as data, and Matplotlib's figures as SVG in the colours of the page."""

import base64
import io
import warnings
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, UInt8

from mtbkd_jax.report.markup import Html, element, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_SIDE = 48
"""Pixels of a picture's longer side, at the most."""

_THEMED = {"#000000": "currentColor", "#737373": "var(--muted)"}
"""Matplotlib's black and the grey of our figures; the other colours are seen on light and dark pages alike."""


def picture(pixels: Float[np.ndarray, "height width colours"], description: str) -> Html:
    """An image element.

    Args:
      pixels: from 0 to 1, of one colour or three; a large one is shown smaller.
      description: alternative text.
    """
    values = np.round(255 * np.clip(_smaller(pixels), 0, 1)).astype(np.uint8)
    source = "data:image/png;base64," + base64.b64encode(png(values)).decode()
    height, width = values.shape[:2]
    return element("img", src=source, alt=description, width=width, height=height)


def png(values: UInt8[np.ndarray, "height width colours"]) -> bytes:
    """A PNG file of one colour or three, without anything that says when or by what it was made."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(stream, format="png", optimize=True)
    return stream.getvalue()


def plot(figure: "Figure", key: str, description: str) -> Html:
    """A figure as an SVG element that takes the colours of its surroundings, within a box that scrolls.

    Args:
      figure: of Matplotlib.
      key: begins the ids inside, and is to be another for each figure of a page.
      description: alternative text.
    """
    import matplotlib as mpl

    stream = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}), warnings.catch_warnings():
        # The reader's browser has letters that Matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(stream.getvalue())
    for child in [child for child in root if _local(child.tag) == "metadata"]:
        root.remove(child)
    for parent in root.iter():
        for child in [child for child in parent if _local(child.tag) == "style"]:
            parent.remove(child)  # it would hold for the whole page; the page's own sheet says it
    for part in root.iter():
        part.tag = _local(part.tag)
        part.attrib = {_local(name): _in_page(_local(name), value, key) for name, value in part.attrib.items()}
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": printable(description)}
    svg = Html(ElementTree.tostring(root, encoding="unicode"))
    return element("div", svg, class_="scroll", tabindex=0, role="group", aria_label="Figure; it scrolls sideways")


def _in_page(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "href":
        return value.replace("#", f"#{key}-")
    value = value.replace("url(#", f"url(#{key}-")
    for colour, themed in _THEMED.items():
        value = value.replace(colour, themed) if name == "style" else value
    return value


def _local(name: str) -> str:
    """A name without its namespace, which HTML does not write."""
    return name.rpartition("}")[2]


def _smaller(pixels: Float[np.ndarray, "height width colours"]) -> Float[np.ndarray, "less_high less_wide colours"]:
    """The mean of each square of so many pixels that the longer side is short enough."""
    step = -(-max(pixels.shape[:2]) // LONGEST_SIDE)
    rows, columns = (np.arange(0, side, step) for side in pixels.shape[:2])

    def of_squares(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)

    return of_squares(pixels) / of_squares(np.ones_like(pixels))
