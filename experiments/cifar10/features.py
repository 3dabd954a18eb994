"""A frozen feature map of colour images: whitened patches, in the manner of Coates and Ng (2012).

    z = ((u − mean) Z) · d_k / |d_k|,    u a patch less its mean, divided by its standard deviation;  Z = (Σ + ε)^(−1/2)
    f = max(z − t, 0), max(−z − t, 0),   averaged over each quarter of the image, and projected on principal components

The filters d_k are whitened patches drawn at random; mean, Σ and the principal components are those of the images that
the map is fitted to. No label and no teacher has a part in it, and nothing in it is learned by descent or sampled: to
the student it is a fixed array of inputs, computed once.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

Images = UInt8[np.ndarray, "images height width 3"]

_PATCH, _STRIDE = 6, 2
_NUM_PATCHES_SEEN = 20_000
_CONTRAST_FLOOR = 10.0
"""Added to a patch's variance, of pixels from 0 to 255, so that flat patches are not blown up."""
_WHITENING_FLOOR = 0.1
"""ε, added to the variances of patches that have one of about one together."""
_THRESHOLD = 0.5
_BLOCK = 100
"""Images whose patches are held in memory at a time: some 35 MB with 256 filters."""


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The fitted map; make it by ``fit_features``.

    Attributes:
      mean: of patches.
      filters: whitening and filter in one matrix.
      center: mean of the pooled responses.
      components: the principal components of the pooled responses, as columns.
    """

    mean: Float[np.ndarray, " pixels"]
    filters: Float[np.ndarray, "pixels filters"]
    center: Float[np.ndarray, " responses"]
    components: Float[np.ndarray, "responses features"]

    def __call__(self, images: Images) -> Float[np.ndarray, "images features"]:
        """The features of some images."""
        return (_responses(images, self.mean, self.filters) - self.center) @ self.components


def fit_features(
    images: Images, *, seed: int, num_filters: int = 256, num_features: int = 256
) -> tuple[FeatureMap, Float[np.ndarray, "images features"]]:
    """Fit the map to images without labels.

    Args:
      images: pixels from 0 to 255, 32 by 32 or larger.
      seed: draws the patches that become filters.
      num_filters: of them; each has two responses, positive and negative, in four quarters of the image.
      num_features: principal components that are kept.

    Returns:
      The map, and the features of these images.
    """
    rng = np.random.default_rng(seed)
    patches = _random_patches(images, rng)
    mean = patches.mean(0)
    variances, directions = np.linalg.eigh(np.cov(patches, rowvar=False))
    whiten = (directions / np.sqrt(variances + _WHITENING_FLOOR)) @ directions.T
    chosen = (patches[:num_filters] - mean) @ whiten
    filters = (whiten @ (chosen / np.linalg.norm(chosen, axis=1, keepdims=True)).T).astype(np.float32)
    mean = mean.astype(np.float32)

    responses = _responses(images, mean, filters)
    center = responses.mean(0)
    responses -= center
    _, directions = np.linalg.eigh(responses.T @ responses)
    components = np.ascontiguousarray(directions[:, ::-1][:, :num_features])
    return FeatureMap(mean, filters, center, components), responses @ components


def _random_patches(images: Images, rng: np.random.Generator) -> Float[np.ndarray, "patches pixels"]:
    """Patches of random images at random places, normalised, in random order."""
    height, width = images.shape[1:3]
    image = rng.integers(len(images), size=_NUM_PATCHES_SEEN)
    top = rng.integers(height - _PATCH + 1, size=_NUM_PATCHES_SEEN)
    left = rng.integers(width - _PATCH + 1, size=_NUM_PATCHES_SEEN)
    offset = np.arange(_PATCH)
    rows = (top[:, None] + offset)[:, :, None]
    columns = (left[:, None] + offset)[:, None, :]
    return _normalised(images[image[:, None, None], rows, columns])


def _responses(
    images: Images, mean: Float[np.ndarray, " pixels"], filters: Float[np.ndarray, "pixels filters"]
) -> Float[np.ndarray, "images responses"]:
    """Both responses of every filter, averaged over each quarter of the image."""
    blocks = []
    for start in range(0, len(images), _BLOCK):
        windows = np.lib.stride_tricks.sliding_window_view(
            images[start : start + _BLOCK], (_PATCH, _PATCH), axis=(1, 2)
        )[:, ::_STRIDE, ::_STRIDE]
        values = (_normalised(np.moveaxis(windows, 3, -1)) - mean) @ filters
        two_sided = np.concatenate([np.maximum(sign * values - _THRESHOLD, 0) for sign in (1, -1)], axis=-1)
        halves = [np.array_split(half, 2, axis=2) for half in np.array_split(two_sided, 2, axis=1)]
        blocks.append(np.concatenate([quarter.mean((1, 2)) for half in halves for quarter in half], axis=-1))
    return np.concatenate(blocks)


def _normalised(patches: np.ndarray) -> Float[np.ndarray, "... pixels"]:
    """Patches ``[..., 6, 6, 3]`` as rows of brightness zero and contrast one."""
    flat = patches.reshape(*patches.shape[:-3], -1).astype(np.float32)
    flat -= flat.mean(-1, keepdims=True)
    return flat / np.sqrt(flat.var(-1, keepdims=True) + _CONTRAST_FLOOR)
