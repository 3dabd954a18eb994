"""A map of the plane: how uncertain the students are, beside how uncertain the class is in truth."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.simulation1.design import X1_RANGE, X2_RANGE, class_probs
from mtbkd_jax.figures import STYLE, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_PLACES = 80
"""Along each axis."""


def places() -> Float[np.ndarray, "places 2"]:
    """The points of the map, row by row from below."""
    x1, x2 = (np.linspace(*ends, NUM_PLACES, dtype=np.float32) for ends in (X1_RANGE, X2_RANGE))
    return np.stack(np.meshgrid(x1, x2), axis=-1).reshape(-1, 2)


def uncertainty_map(probs: Mapping[str, Float[np.ndarray, "places 2"]]) -> "Figure":
    """p(1 − p) of each method's predictive mean at ``places``, and of the true probabilities.

    Args:
      probs: class probabilities at the places, by the name of the method.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = {"truth": np.asarray(class_probs(jnp.asarray(places()))), **probs}
    num_columns = 3
    num_rows = -(-len(panels) // num_columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6 * num_rows), layout="constrained")
        axes = figure.subplots(num_rows, num_columns, squeeze=False)
        for place, (name, of_classes) in zip(axes.flat, panels.items(), strict=False):
            values = of_classes.prod(1).reshape(NUM_PLACES, NUM_PLACES)
            image = place.imshow(
                values, origin="lower", extent=(*X1_RANGE, *X2_RANGE), vmin=0, vmax=0.25, cmap="cividis"
            )
            place.set_title(name.replace(", ", ",\n"))
        for place in axes.flat[len(panels) :]:
            place.set_axis_off()
        figure.supxlabel("x₁")
        figure.supylabel("x₂")
        figure.colorbar(image, ax=axes, label="p (1 − p)", shrink=0.8)
    return figure
