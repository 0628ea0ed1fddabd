"""How synthetic pages compare with real ones: measures of shape, and whether they agree.

A set's figures depend on who happened to write it, so a real sample gives an interval: what the
figure would have been with other writers, by drawing as many writers anew from the sample's (the
cluster bootstrap). Synthetic pages agree where theirs lies within.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from pipeline.data.sources.base import Ints, Pixels

Floats = NDArray[np.float64]

DRAWS = 2000  # of writers, for an interval
MEASURES = (
    "stroke width, px",
    "ink, % of the page",
    "box width, px",
    "box height, px",
    "box centre, x, px",
    "box centre, y, px",
    "width / height",
)


def measure(page: Pixels) -> Floats:
    """Return the MEASURES of a page, uint8 (h, w), black on white: float64 (7,).

    The width of a stroke is four times the mean distance of its ink from the edge, as for a
    straight one. Raises ValueError for a page without ink.
    """
    ink = page < 128
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        raise ValueError("page: got no ink, expected some")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = np.pad(ink[top:bottom, left:right], 1)
    depth = distance_transform_edt(box)[box].mean() - 0.25  # counted from the middles of pixels
    width, height = right - left, bottom - top
    return np.array(
        [
            4 * depth,
            100 * ink.mean(),
            width,
            height,
            (left + right) / 2,
            (top + bottom) / 2,
            width / height,
        ]
    )


class Range(NamedTuple):
    """A figure of the real sample, and the 95 % interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A measure's mean and standard deviation, real and synthetic."""

    measure: str
    real_mean: Range
    real_spread: Range
    mean: float
    spread: float

    @property
    def agrees(self) -> bool:
        """Whether both synthetic figures lie within the real ones' intervals."""
        mean, spread = self.real_mean, self.real_spread
        return mean.low <= self.mean <= mean.high and spread.low <= self.spread <= spread.high


def compare(real: Floats, writers: Ints, synthetic: Floats) -> list[Comparison]:
    """Compare measures of real pages (n, 7), by `writers` (n,), with synthetic ones' (m, 7)."""
    of_writer = [real[writers == writer] for writer in np.unique(writers)]
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(of_writer), size=(DRAWS, len(of_writer)))
    draws = [np.concatenate([of_writer[i] for i in writers_drawn]) for writers_drawn in chosen]
    means = np.array([draw.mean(axis=0) for draw in draws])
    spreads = np.array([draw.std(axis=0) for draw in draws])
    return [
        Comparison(
            name,
            _range(real[:, i].mean(), means[:, i]),
            _range(real[:, i].std(), spreads[:, i]),
            float(synthetic[:, i].mean()),
            float(synthetic[:, i].std()),
        )
        for i, name in enumerate(MEASURES)
    ]


def _range(value: float, draws: Sequence[float] | Floats) -> Range:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Range(float(value), float(low), float(high))
