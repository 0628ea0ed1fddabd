"""The framing of a dataset's images of ink: where on an image the ink is, and how large.

Images of other origin are brought into this framing before a network sees them. It is measured once
the training ends, so that a run needs its dataset no more.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beton.loader import Loader
from beton.ops import Resize
from beton.reader import Reader
from pipeline.loading.dataset import PixelRules, paper_greys, split_indices
from pipeline.loading.writer_scale import INK_THRESHOLD, SIDE, TALL_QUANTILE

MOST_IMAGES = 1024  # to measure


class Range(NamedTuple):
    """A low, a typical and a high value: the quantiles 0.5 %, 50 % and 99.5 %."""

    low: float
    typical: float
    high: float


@dataclass(frozen=True)
class Framing:
    """Where the ink of a dataset's images is.

    `size` is the longer side of the ink's box, as a fraction of the image's height. `x` and `y` are
    the centre of the box, or with `by_mass` the centre of the ink's mass, as fractions of the
    image's width and height. `tall` is the height of tall characters, and `pen` the width of
    strokes, as fractions of the image's height; `pen` is None for runs of earlier versions.
    `pixels` is the height of the images.
    """

    size: Range
    x: Range
    y: Range
    by_mass: bool
    tall: float
    pixels: int
    pen: Range | None = None

    @classmethod
    def of(cls, file: Reader, split: str = "train") -> "Framing | None":
        """Measure the framing of a split; None for images in colour, and without ink."""
        if PixelRules.of(file).colour == "rgb":
            return None
        indices = split_indices(file, split, MOST_IMAGES)
        papers, records = paper_greys(file).astype(np.int16), file.column("image").metadata
        proportions = records["width"] / records["height"]
        found = []
        op = {"image": Resize(SIDE, SIDE)}
        with Loader(file, 64, op, order="sequential", indices=indices) as loader:
            for batch in loader:
                ids = batch.ids[batch.valid]
                pages = batch["image"][batch.valid].astype(np.int16)
                ink = np.abs(pages - papers[ids, None, None])
                for one, id_ in zip(ink, ids.tolist(), strict=True):
                    if (place := _place(one, proportions[id_])) is not None:
                        found.append(place)
        if not found:
            return None
        height, size, box_x, box_y, mass_x, mass_y, pen = np.array(found).T
        by_mass = bool(mass_x.var() + mass_y.var() < box_x.var() + box_y.var())
        x, y = (mass_x, mass_y) if by_mass else (box_x, box_y)
        size_range, x_range, y_range, pen_range = (
            Range(*np.quantile(values, (0.005, 0.5, 0.995)).tolist())
            for values in (size, x, y, pen)
        )
        tall = float(np.quantile(height, TALL_QUANTILE))
        pixels = int(np.median(records["height"][indices]))
        return cls(size_range, x_range, y_range, by_mass, tall, pixels, pen_range)


def stroke_width(ink: NDArray[Any], wide: float = 1.0) -> float:
    """Return the mean width of strokes in ink (h, w), in heights of a pixel, which is `wide` wide.

    A stroke of ink 1 has two edges, each of total variation 1 per length, so the width is twice the
    ink over the total variation. Soft edges change neither.
    """
    down, across = np.gradient(ink.astype(np.float32))
    return float(2 * ink.sum() / np.hypot(down, across / wide).sum())


def _place(ink: NDArray[np.int16], proportion: float) -> tuple[float, ...] | None:
    """Return height, size, centres and pen of ink (SIDE, SIDE), as fractions; None without ink."""
    inked = ink > INK_THRESHOLD
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    if not len(rows):
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = (bottom - top) / SIDE, (right - left) / SIDE * proportion
    weights = ink / ink.sum()
    middles = (np.arange(SIDE) + 0.5) / SIDE
    return (
        height,
        max(height, width),
        (left + right) / 2 / SIDE,
        (top + bottom) / 2 / SIDE,
        float(weights.sum(axis=0) @ middles),
        float(weights.sum(axis=1) @ middles),
        stroke_width(ink, proportion) / SIDE,
    )
