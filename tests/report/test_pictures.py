"""Pictures: what is shown is what was given, and figures are of the page that they stand in."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mtbkd_jax.report.pictures import LONGEST_SIDE, picture, plot, png

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("colours", [1, 3])
def test_a_png_is_read_back(colours):
    values = RANDOM.integers(0, 256, (5, 7, colours), np.uint8)
    found = imread(io.BytesIO(png(values)), format="png").reshape(5, 7, -1)
    np.testing.assert_array_equal(np.round(255 * found).astype(np.uint8), values)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (48, 48), (49, 100), (2, 300), (224, 224)])
def test_a_picture_is_no_larger_than_it_may_be(height, width):
    shown = picture(np.full((height, width, 3), 0.5, np.float32), 'a "picture"')
    found = [int(part) for part in shown.replace('"', " ").split() if part.isdigit()]
    assert max(found) <= LONGEST_SIDE
    assert 'alt="a &quot;picture&quot;"' in shown


def figure():
    figure = Figure()
    figure.subplots().set_title("<a> & b")
    return figure


def test_a_figure_has_ids_of_its_own_and_the_colours_of_the_page():
    first, second = plot(figure(), "one", "what <it> shows"), plot(figure(), "two", "")
    assert plot(figure(), "one", "what <it> shows") == first
    ids = [{part.partition('"')[0] for part in shown.split(' id="')[1:]} for shown in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert "currentColor" in first
    assert "#000000" not in first
    assert "http" not in first
    assert "<style" not in first
    assert 'aria-label="what &lt;it&gt; shows"' in first
    assert "&lt;a&gt; &amp; b" in first
