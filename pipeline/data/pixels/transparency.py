"""Transparent images on paper.

Where the opaque ink is dark, paper is white; where it is light, paper is black. A page that is
itself opaque and lacks only corners is completed by its own kind of paper.
"""

import numpy as np

from beton.jit import kernel
from pipeline.data.base import Pixels
from pipeline.data.pixels.measures import ON_BLACK, ON_WHITE

OPAQUE = -1
PAGE_CONTRAST = 128  # grey levels between opaque pixels of a page: its ink and its paper


def change_of(paper: int) -> tuple[str, ...]:
    """Return what `put_on_paper` changed, given its result, as `Decoded.changes`."""
    return {OPAQUE: (), 0: (ON_BLACK,), 255: (ON_WHITE,)}[paper]


@kernel
def put_on_paper(grey: Pixels, alpha: Pixels) -> int:
    """Composite grey levels (h, w) on paper in place; return the paper, OPAQUE if none shows.

    A pixel becomes (g * a + paper * (255 - a) + 127) // 255. `paper` is 255 if the mean of g,
    weighted by a, is below 127.5, or if all of a is 0; else it is 0. It is the other way round if
    more than half of the image is opaque, by the sum of a, and its opaque pixels (a = 255) differ
    by 128 or more: these hold both the ink and most of its paper.
    """
    height, width = grey.shape
    opaque = 0
    for y in range(height):
        for x in range(width):
            opaque += alpha[y, x] == 255
    if opaque == grey.size:
        return OPAQUE
    covered = 0
    weighed = 0
    darkest = 255
    lightest = 0
    for y in range(height):
        for x in range(width):
            value, weight = int(grey[y, x]), int(alpha[y, x])
            covered += weight
            weighed += value * weight
            if weight == 255:
                darkest = min(darkest, value)
                lightest = max(lightest, value)
    is_white = 2 * weighed < 255 * covered or covered == 0
    if 2 * covered > 255 * grey.size and lightest - darkest >= PAGE_CONTRAST:
        is_white = not is_white
    paper = 255 if is_white else 0
    for y in range(height):
        for x in range(width):
            value, weight = int(grey[y, x]), int(alpha[y, x])
            grey[y, x] = (value * weight + paper * (255 - weight) + 127) // 255
    return paper


def blend(pixels: Pixels, paper: int) -> Pixels:
    """Composite colours with alpha (h, w, 4) on paper, as `put_on_paper` does: uint8 (h, w, 3)."""
    blended = np.empty((*pixels.shape[:2], 3), np.uint8)
    _blend(pixels, paper, blended)
    return blended


@kernel
def _blend(pixels: Pixels, paper: int, out: Pixels) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            weight = int(pixels[y, x, 3])
            for c in range(3):
                value = int(pixels[y, x, c])
                out[y, x, c] = (value * weight + paper * (255 - weight) + 127) // 255
