"""Polygons with soft edges: outlines as points, and a compiled kernel that fills them.

Coordinates are rounded to 1/64 pixel and a pixel's coverage is a count of points inside, so that an
image is the same on every machine.
"""

import math

import numpy as np
from numpy.typing import NDArray

from beton.jit import kernel
from pipeline.data.base import Floats

SAMPLES = 4  # per side of a pixel
_SUBPIXELS = 64


@kernel
def _count_inside(points: Floats, counts: NDArray[np.int64]) -> None:
    """Add to `counts` (h, w) how many of each pixel's SAMPLES × SAMPLES points are inside.

    `points` (n, 2) are the corners x, y, in pixels from the top left corner. A point is inside if
    a ray from it crosses the outline an odd number of times.
    """
    height, width = counts.shape
    n = len(points)
    crossings = np.empty(n)
    for row in range(height * SAMPLES):
        y = (row + 0.5) / SAMPLES
        found = 0
        for i in range(n):
            x0, y0 = points[i - 1, 0], points[i - 1, 1]
            x1, y1 = points[i, 0], points[i, 1]
            if (y0 <= y) != (y1 <= y):
                crossings[found] = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                found += 1
        ordered = np.sort(crossings[:found])
        for k in range(0, found - 1, 2):
            # The samples whose centres lie between two crossings.
            first = max(0, math.ceil(ordered[k] * SAMPLES - 0.5))
            last = min(width * SAMPLES, math.ceil(ordered[k + 1] * SAMPLES - 0.5))
            for column in range(first, last):
                counts[row // SAMPLES, column // SAMPLES] += 1


def fill(points: Floats, height: int, width: int) -> Floats:
    """Return the coverage of pixels by the polygon with the corners (n, 2): float64 (h, w)."""
    counts = np.zeros((height, width), np.int64)
    _count_inside(np.round(points * _SUBPIXELS) / _SUBPIXELS, counts)
    return counts / SAMPLES**2


def rounded(points: Floats, rounds: int = 2) -> Floats:
    """Return the outline (n, 2) with its corners cut `rounds` times, by Chaikin's algorithm."""
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1)
        points = cut.reshape(-1, 2)
    return points


def turned(points: Floats, sine: float, cosine: float) -> Floats:
    """Return the points (n, 2) rotated around the origin, from x towards y."""
    x, y = points[:, 0], points[:, 1]
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], 1)
