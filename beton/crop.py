"""Crops: which window of a colour image an op shows.

A crop is a parameter of an op: `ops.RgbResize(224, 224, crop=RandomResizedCrop())`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from beton import rng
from beton.arrays import Array, Float64Array, Ids, Int64Array
from beton.codec.resizing import WINDOW_HEIGHT, WINDOW_WIDTH, X0, Y0
from beton.jit import kernel

TRIES = 10  # windows that RandomResizedCrop draws before it takes a centred one
PER_TRY = 4  # random numbers: area, aspect ratio, x, y


class Crop(Protocol):
    """A choice of windows: hashable, comparable, and defined by its arguments."""

    def windows(self, key: rng.Key, ids: Ids, sizes: Array, proportion: float, /) -> Float64Array:
        """Return windows (n, 4) of images `ids` (n,) of `sizes` (n, 2) = (height, width).

        The columns are X0, Y0, WINDOW_WIDTH and WINDOW_HEIGHT, in pixels of the image; a window is
        inside its image. `proportion` is width / height of the output.
        """
        ...


@dataclass(frozen=True)
class CentreCrop(Crop):
    """The largest centred window that has the output's proportion, its sides times `fraction`."""

    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"crop fraction: got {self.fraction}, expected above 0, at most 1")

    def windows(self, _key: rng.Key, _ids: Ids, sizes: Array, proportion: float, /) -> Float64Array:
        """Return windows that depend only on `sizes` and `proportion`."""
        heights, widths = np.asarray(sizes, np.float64).T
        own = widths / heights  # compared as quotients, so that equal proportions are equal
        windows = np.empty((len(sizes), 4))
        windows[:, WINDOW_WIDTH] = np.where(own > proportion, heights * proportion, widths)
        windows[:, WINDOW_HEIGHT] = np.where(own < proportion, widths / proportion, heights)
        windows[:, WINDOW_WIDTH : WINDOW_HEIGHT + 1] *= self.fraction
        windows[:, X0] = (widths - windows[:, WINDOW_WIDTH]) / 2
        windows[:, Y0] = (heights - windows[:, WINDOW_HEIGHT]) / 2
        return windows


@dataclass(frozen=True)
class RandomResizedCrop(Crop):
    """A random window for every sample and epoch, distributed as in torchvision.

    The window's area is a uniform fraction `scale` of the image, its width / height is log-uniform
    in `ratio`, and its sides and position are whole pixels. If ten such windows do not fit into the
    image, the window is the largest centred one with a width / height in `ratio`.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"crop scale: got {self.scale}, expected 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(f"crop ratio: got {self.ratio}, expected 0 < low <= high")

    def windows(self, key: rng.Key, ids: Ids, sizes: Array, _proportion: float, /) -> Float64Array:
        """Return random windows; the output's proportion has no effect on them."""
        numbers = rng.uniform(*key, ids, rng.CROP, TRIES * PER_TRY)
        windows = np.empty((len(ids), 4))
        _random_windows(np.asarray(sizes, np.int64), numbers, *self.scale, *self.ratio, windows)
        return windows


@kernel
def _random_windows(
    sizes: Int64Array,
    numbers: Float64Array,
    smallest: float,
    largest: float,
    narrowest: float,
    widest: float,
    windows: Float64Array,
) -> None:
    """Fill windows (n, 4) from uniform `numbers` (n, 40)."""
    low = math.log(narrowest)
    high = math.log(widest)
    for i in range(sizes.shape[0]):
        height, width = sizes[i]
        found = False
        left = 0.0
        top = 0.0
        for k in range(0, TRIES * PER_TRY, PER_TRY):
            area = height * width * (smallest + numbers[i, k] * (largest - smallest))
            aspect = math.exp(low + numbers[i, k + 1] * (high - low))
            w = np.rint(math.sqrt(area * aspect))
            h = np.rint(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left = math.floor(numbers[i, k + 2] * (width - w + 1))
                top = math.floor(numbers[i, k + 3] * (height - h + 1))
                found = True
                break
        if not found:
            w = float(width)
            h = float(height)
            if width < narrowest * height:
                h = max(np.rint(width / narrowest), 1.0)
            elif width > widest * height:
                w = max(np.rint(height * widest), 1.0)
            left = (width - w) // 2
            top = (height - h) // 2
        for column, value in enumerate((left, top, w, h)):  # X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT
            windows[i, column] = value
