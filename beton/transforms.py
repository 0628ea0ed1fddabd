"""Transforms of images: random geometry of ink images, and normalization.

A transform is a parameter of an op, not an op: `ops.Resize(64, 64, jitter=Jitter(shear=0.1))`.
"""

import math
from dataclasses import dataclass

import numpy as np

from beton import rng
from beton.arrays import Array, Float64Array, Ids
from beton.codec.resizing import CENTRE, SHEAR, WINDOW_HEIGHT, WINDOW_WIDTH, X0, Y0


@dataclass(frozen=True)
class Jitter:
    """Random geometry, at no cost: the op samples a different window of the image.

    The window starts as the whole image. Its size is divided by a factor from `scale`, and its
    aspect ratio (width / height) is multiplied by a factor from `aspect`. It moves by up to
    `translate` (x, y), fractions of the image's width and height, in either direction. Its rows
    shear by up to `shear` source pixels per row about the image's middle row, in either direction.
    All values are uniform and independent for every sample.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    translate: tuple[float, float] = (0.0, 0.0)
    shear: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("aspect", self.aspect)):
            if not 0 < low <= high < math.inf:
                raise ValueError(f"jitter {name}: got {low, high}, expected 0 < low <= high")
        for name, strengths in (("translate", self.translate), ("shear", (self.shear,))):
            if not all(0 <= strength < math.inf for strength in strengths):
                raise ValueError(f"jitter {name}: got {strengths}, expected 0 or more")

    def geometry(self, key: rng.Key, ids: Ids, sizes: Array) -> Float64Array:
        """Return random windows (n, 6) for samples `ids` (n,) of `sizes` (n, 2) = (height, width).

        The columns are X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT, SHEAR and CENTRE of `resizing.resize`.
        """
        zoom, stretch, right, down, lean = rng.uniform(*key, ids, rng.JITTER, 5).T
        scale = self.scale[0] + zoom * (self.scale[1] - self.scale[0])
        aspect = self.aspect[0] + stretch * (self.aspect[1] - self.aspect[0])
        heights, widths = sizes.T
        window_widths = widths / scale * np.sqrt(aspect)
        window_heights = heights / scale / np.sqrt(aspect)
        geometry = full_geometry(sizes)
        across, along = self.translate
        geometry[:, X0] = (widths - window_widths) / 2 + (2 * right - 1) * across * widths
        geometry[:, Y0] = (heights - window_heights) / 2 + (2 * down - 1) * along * heights
        geometry[:, WINDOW_WIDTH] = window_widths
        geometry[:, WINDOW_HEIGHT] = window_heights
        geometry[:, SHEAR] = (2 * lean - 1) * self.shear
        return geometry


def full_geometry(sizes: Array, proportion: float | None = None) -> Float64Array:
    """Return windows (n, 6) that show whole images of `sizes` (n, 2) = (height, width).

    With a `proportion` (width / height), every window has it: the smallest one that contains the
    image, in its middle. The window of an image that has the proportion is the image itself.
    """
    heights, widths = sizes.T
    geometry = np.zeros((len(sizes), 6))
    geometry[:, WINDOW_HEIGHT], geometry[:, WINDOW_WIDTH] = heights, widths
    geometry[:, CENTRE] = heights / 2
    if proportion is not None:
        own = widths / heights  # compared as quotients, so that equal proportions are equal
        geometry[:, WINDOW_HEIGHT] = np.where(own > proportion, widths / proportion, heights)
        geometry[:, WINDOW_WIDTH] = np.where(own < proportion, heights * proportion, widths)
        geometry[:, X0] = (widths - geometry[:, WINDOW_WIDTH]) / 2
        geometry[:, Y0] = (heights - geometry[:, WINDOW_HEIGHT]) / 2
    return geometry


def coverage(sizes: Array, geometry: Float64Array, height: int, width: int) -> Array:
    """Return how much of each pixel the image covers: float64 (n, height, width), from 0 to 1.

    `geometry` (n, 6) are windows without shear on images of `sizes` (n, 2), shown in `height` and
    `width` pixels. The rest of a pixel shows what is outside the image.
    """
    parts = []
    for size, start, window, pixels in (
        (sizes[:, 0], geometry[:, Y0], geometry[:, WINDOW_HEIGHT], height),
        (sizes[:, 1], geometry[:, X0], geometry[:, WINDOW_WIDTH], width),
    ):
        edges = start[:, None] + window[:, None] * np.arange(pixels + 1) / pixels
        inside = np.diff(np.clip(edges, 0, size[:, None]), axis=1)
        parts.append(inside * pixels / window[:, None])
    rows, columns = parts
    return rows[:, :, None] * columns[:, None, :]


@dataclass(frozen=True)
class Normalize:
    """Normalization to float32: (grey level - mean) / std, both in grey levels, 0 to 255."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"normalize std: got {self.std}, expected more than 0")


@dataclass(frozen=True)
class RgbNormalize:
    """Normalization to float32 per channel (red, green, blue), in grey levels, 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3:
            got = f"{len(self.mean)} means, {len(self.std)} deviations"
            raise ValueError(f"normalize: got {got}, expected 3 of each")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"normalize mean: got {self.mean}, expected finite numbers")
        if not all(0 < std < math.inf for std in self.std):
            raise ValueError(f"normalize std: got {self.std}, expected more than 0")
