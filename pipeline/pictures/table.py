"""The page of paper in a photograph that also shows the dark table around it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.pictures.characters import Box

Floats = NDArray[np.float32]

LEAST_IMAGE = 24  # pixels of the shorter side
SURROUNDED = 0.6  # of the image's edge that is table
PAGE_SIDE = 0.25  # of each side of the image: the least side of a page
DARK_PAGE, DARK_TABLE = 0.4, 0.8  # most of a page that is dark, and least of the table
SOFT_EDGE = 0.006  # of the image: the edge of a page may be slanted or soft
BOUNDED = 3  # sides of a page that is the smaller part: what is lit beside a shadow has fewer
BAND, STEP = 0.02, 0.4  # of the image, and of the contrast: light falls off more slowly
FULL_LINE = 0.5  # of a side of the page's box: a line across the page is as light


def find_page(grey: Floats) -> Box:
    """Return the box of a page on a dark table, or of the whole image (h, w).

    The page is the largest light region, that fills most of its box: white strokes on a blackboard
    do not.
    """
    height, width = grey.shape
    whole = Box(0, height, 0, width)
    if min(height, width) < LEAST_IMAGE or grey.min() == grey.max():
        return whole
    dark = grey < otsu(grey)
    ring = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    if ring.mean() < SURROUNDED:
        return whole
    labels, _ = ndimage.label(~dark)
    page = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    box = _bounds(page)
    if box is None:
        return whole
    bounded = sum((box.top > 0, box.bottom < height, box.left > 0, box.right < width))
    if dark.mean() > 0.5 and bounded < BOUNDED:
        return whole
    inner = dark[box.top : box.bottom, box.left : box.right]
    around = np.ones_like(dark)
    around[box.top : box.bottom, box.left : box.right] = False
    small = inner.shape[0] < PAGE_SIDE * height or inner.shape[1] < PAGE_SIDE * width
    if small or inner.mean() > DARK_PAGE or not around.any() or dark[around].mean() < DARK_TABLE:
        return whole
    apart = float(grey[~dark].mean() - grey[dark].mean())
    if _step(grey, box) < STEP * apart:
        return whole
    edge = max(round(SOFT_EDGE * min(height, width)), 1)
    return Box(
        box.top + edge if box.top else 0,
        box.bottom - edge if box.bottom < height else height,
        box.left + edge if box.left else 0,
        box.right - edge if box.right < width else width,
    )


def _step(grey: Floats, box: Box) -> float:
    """Return how much lighter a page (h, w) is than what surrounds it, at its softest edge."""
    away = max(round(BAND * min(grey.shape)), 2)
    steps = []
    for levels, first, last, start, stop in (
        (grey, box.top, box.bottom, box.left, box.right),
        (grey.T, box.left, box.right, box.top, box.bottom),
    ):
        lines = levels[:, start:stop]
        if first:
            steps.append(np.median(lines[first + away] - lines[max(first - away, 0)]))
        if last < len(lines):
            outside = min(last - 1 + away, len(lines) - 1)
            steps.append(np.median(lines[last - 1 - away] - lines[outside]))
    return float(min(steps))


def _bounds(page: NDArray[np.bool_]) -> Box | None:
    """Return the box of the lines that lie in the page for the most part, None without any."""
    sides: list[int] = []
    for axis in (1, 0):
        filled = np.flatnonzero(page.any(axis=1 - axis))
        extent = max(int(np.ptp(filled)) + 1, 1) if len(filled) else 1
        full = np.flatnonzero(page.sum(axis=axis) > FULL_LINE * extent)
        if not len(full):
            return None
        sides += [int(full[0]), int(full[-1]) + 1]
    return Box(*sides)


def otsu(values: Floats) -> float:
    """Return the threshold that separates two classes best (Otsu 1979)."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between[:-1]))])
