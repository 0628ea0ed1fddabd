"""Shape statistics of pages, and whether synthetic pages agree with real ones.

A sample's statistics depend on its writers. So each statistic of real pages gets a 95 % interval by
the cluster bootstrap, which resamples whole writers. Synthetic pages agree with the real ones where
their statistics lie within these intervals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from pipeline.data.base import Floats, Ints, Pixels, Source

RESAMPLES = 2000  # of writers, for an interval
STATISTICS = (
    "stroke width, px",
    "ink, % of the page",
    "box width, px",
    "box height, px",
    "box centre, x, px",
    "box centre, y, px",
    "width / height",
)


def measure_page(page: Pixels) -> Floats:
    """Return the STATISTICS of a page, uint8 (h, w), black on white: float64 (7,).

    The stroke width is four times the mean distance from the ink to its edge, which is exact for a
    straight stroke. Raises ValueError for a page without ink.
    """
    ink = page < 128
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        raise ValueError("page: got no ink, expected some")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = np.pad(ink[top:bottom, left:right], 1)
    depth = distance_transform_edt(box)[box].mean() - 0.25  # measured from pixels' centres
    width, height = right - left, bottom - top
    x, y = (left + right) / 2, (top + bottom) / 2
    return np.array([4 * depth, 100 * ink.mean(), width, height, x, y, width / height])


def measure(source: Source, progress: Callable[[int], None]) -> Floats:
    """Return the STATISTICS of each page of a source: float64 (n, 7)."""
    pages = []
    for index in range(len(source)):
        pages.append(measure_page(source.image(index)))
        progress(1)
    return np.array(pages)


class Estimate(NamedTuple):
    """A statistic of the real sample, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A statistic's mean and standard deviation (spread), of real and of synthetic pages."""

    statistic: str
    real_mean: Estimate
    real_spread: Estimate
    mean: float
    spread: float

    @property
    def agrees(self) -> bool:
        """Whether both synthetic values lie within the real intervals."""
        pairs = ((self.mean, self.real_mean), (self.spread, self.real_spread))
        return all(real.low <= value <= real.high for value, real in pairs)


def compare(real: Floats, writers: Ints, synthetic: Floats) -> list[Comparison]:
    """Compare statistics of real pages (n, 7) by `writers` (n,) with those of synthetic (m, 7)."""
    of_writer = [real[writers == writer] for writer in np.unique(writers)]
    shape = (RESAMPLES, len(of_writer))
    chosen = np.random.default_rng(0).integers(len(of_writer), size=shape)
    samples = [np.concatenate([of_writer[i] for i in row]) for row in chosen]
    means = np.array([sample.mean(axis=0) for sample in samples])
    spreads = np.array([sample.std(axis=0) for sample in samples])
    return [
        Comparison(
            name,
            _estimate(real[:, i].mean(), means[:, i]),
            _estimate(real[:, i].std(), spreads[:, i]),
            float(synthetic[:, i].mean()),
            float(synthetic[:, i].std()),
        )
        for i, name in enumerate(STATISTICS)
    ]


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))
