"""Colours of a dataset: whether it is stored in grey or in colour, and its channels' statistics.

The choice is the dataset's. Ink of one colour on paper, a sepia photograph and the noise of a
compressed grey scan have colours on one line in RGB: grey levels keep what they show. Colours off
the line are lost in grey. The line is that of the greatest variance over all pixels, where each
image counts alike. In experiments, the standard deviation from the line, in levels, was

- up to 5 for black ink, ink of one colour, sepia photographs and noisy scans in JPEG files;
- 9.5 for blue ink on photographed paper with shadows, and for pages in either blue or black ink;
- from 12.8 on for pale photographs, leaves on white paper, shapes of several colours, pages in ink
  of three colours, and red ink on paper with shadows.

Dark images deviate less, whatever they show. Therefore the fraction of the variance is limited too.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from beton.jit import kernel
from pipeline.data.base import Decoded, Pixels
from pipeline.data.pixels.measures import PAIRS, Measures

Colour = Literal["grey", "rgb"]
Mask = NDArray[np.bool_]
Three = tuple[float, float, float]

NOISE_LEVELS = 4.0  # deviation that compression causes
LINE_LEVELS, LINE_FRACTION = 10.0, 0.05  # the most that grey levels may lose
# Of the difference between channels, in levels: its root mean square, and its deviation.
CHROMA, CHROMA_SPREAD = 12.0, 4.0


@dataclass(frozen=True)
class Colours:
    """Colours of a dataset that shows any, or that is stored in colour.

    `in_colour` images show colours. `off_line` is the standard deviation of pixels from one line in
    RGB, in levels, `off_line_fraction` its part of the variance. If images are `stored` as "rgb",
    `mean` and `std` are those of the training images' channels, from 0 to 1, None without training
    images. `own_jpeg` images are stored as their own JPEG files, and `compressed` images as JPEG of
    `quality`.
    """

    stored: Colour
    in_colour: int
    off_line: float
    off_line_fraction: float
    mean: Three | None = None
    std: Three | None = None
    own_jpeg: int = 0
    compressed: int = 0
    quality: int | None = None

    @classmethod
    def of(cls, measures: Measures, stored: Colour, training: Mask) -> Self | None:
        """Describe the colours of images (n,); None if there are none, and none are stored."""
        in_colour = int(np.count_nonzero(shows_colour(measures)))
        if stored == "grey" and not in_colour:
            return None
        levels, fraction = off_line(measures)
        mean, std = channel_statistics(measures[training]) if stored == "rgb" else (None, None)
        own = int(measures["own_jpeg"].sum())
        return cls(stored, in_colour, levels, fraction, mean, std, own)


def in_colour(decoded: Decoded, grey: Pixels) -> Pixels:
    """Return the colours (h, w, 3) of an image; its 8-bit `grey` levels (h, w) in each, if grey."""
    if decoded.colour is not None and not decoded.repeats_grey:
        return np.ascontiguousarray(decoded.colour)
    colour = np.empty((*grey.shape, 3), np.uint8)
    _fill_channels(np.ascontiguousarray(grey), colour)
    return colour


@kernel
def _fill_channels(grey: Pixels, colour: Pixels) -> None:
    """Write grey levels (h, w) to each channel of `colour` (h, w, 3)."""
    for y in range(grey.shape[0]):
        row = colour[y].reshape(-1)
        for x in range(grey.shape[1]):
            for c in range(3):
                row[3 * x + c] = grey[y, x]


def choose_colour(measures: Measures) -> Colour:
    """Return how a dataset is stored: "grey" if its colours lie on one line in RGB, else "rgb"."""
    if not measures["has_channels"].any():
        return "grey"
    levels, fraction = off_line(measures)
    on_line = levels <= NOISE_LEVELS or (levels <= LINE_LEVELS and fraction <= LINE_FRACTION)
    return "grey" if on_line else "rgb"


def off_line(measures: Measures) -> tuple[float, float]:
    """Return how far images (n,) are from one line in RGB: the deviation, and its fraction.

    The deviation is in levels, the fraction that of the variance, 0 for images of one colour.
    """
    pixels = _pixel_counts(measures)[:, None]
    mean = (measures["sums"] / pixels).mean(0)
    second = np.empty((3, 3))
    for (i, j), value in zip(PAIRS, (measures["products"] / pixels).mean(0), strict=True):
        second[i, j] = second[j, i] = value
    variances = np.linalg.eigvalsh(second - np.outer(mean, mean)).clip(0)
    total, off = float(variances.sum()), float(variances[:2].sum())
    return off**0.5, off / total if total > 0 else 0.0


def shows_colour(measures: Measures) -> Mask:
    """Return which images (n,) show colours, more than a tint of the paper or noise does."""
    pixels = _pixel_counts(measures)
    mean = measures["sums"] / pixels[:, None]
    second = measures["products"] / pixels[:, None]
    # Of the three differences between two channels: their mean square, and their squared mean.
    square = 2 * (second[:, :3].sum(1) - second[:, 3:].sum(1)) / 3
    squared = 2 * ((mean**2).sum(1) - sum(mean[:, i] * mean[:, j] for i, j in PAIRS[3:])) / 3
    shown: Mask = (square >= CHROMA**2) | (square - squared >= CHROMA_SPREAD**2)
    return shown


def channel_statistics(measures: Measures) -> tuple[Three, Three] | tuple[None, None]:
    """Return the means and deviations of the channels over all pixels, from 0 to 1.

    They are computed from exact sums. A constant channel has the deviation 1 / 255, by which it can
    be divided. None for both without images.
    """
    if not len(measures):
        return None, None
    pixels = sum(_pixel_counts(measures).astype(np.int64).tolist())
    totals = [sum(column) for column in measures["sums"].T.tolist()]
    squares = [sum(column) for column in measures["products"].T[:3].tolist()]
    means = [total / (255 * pixels) for total in totals]
    # pixels² times the variance is a whole number, and so no digits cancel out.
    spreads = [
        isqrt((pixels * square - total * total) << 64) / (255 * pixels << 32)
        for total, square in zip(totals, squares, strict=True)
    ]
    least = 1 / 255
    return (
        (means[0], means[1], means[2]),
        (max(spreads[0], least), max(spreads[1], least), max(spreads[2], least)),
    )


def _pixel_counts(measures: Measures) -> NDArray[np.float64]:
    counts: NDArray[np.float64] = measures["height"].astype(np.float64) * measures["width"]
    return counts
