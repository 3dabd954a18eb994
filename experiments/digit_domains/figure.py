"""The most and the least certain images, by mean deviance: the paper's figure 7."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 7.0, 3.0  # inches


def certain_and_uncertain(
    images: UInt8[np.ndarray, "images height width 3"],
    labels: Int[np.ndarray, " images"],
    predicted: Int[np.ndarray, " images"],
    mean_deviance: Float[np.ndarray, " images"],
    *,
    num_images: int = 10,
) -> "Figure":
    """Draw the images of the lowest mean deviance above those of the highest.

    Args:
      images: pixels from 0 to 255.
      labels: the true classes.
      predicted: the predicted ones.
      mean_deviance: nats.
      num_images: in each row.

    Returns:
      The figure. Under an image stand the label, what was predicted where it is another class, and the deviance.
    """
    from matplotlib.figure import Figure

    order = np.argsort(mean_deviance, kind="stable")
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    rows = figure.subfigures(2, 1)
    titles = "Most certain (lowest mean deviance)", "Least certain (highest mean deviance)"
    for row, title, chosen in zip(rows, titles, (order[:num_images], order[::-1][:num_images]), strict=True):
        row.suptitle(title, fontsize=11, x=0.01, ha="left")
        for axes, image in zip(row.subplots(1, num_images), chosen, strict=True):
            axes.imshow(images[image], vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            is_right = labels[image] == predicted[image]
            says = f"{labels[image]}" if is_right else f"{labels[image]}, not {predicted[image]}"
            axes.set_xlabel(f"{says}\n{mean_deviance[image]:.2g}", fontsize=10)
    return figure
