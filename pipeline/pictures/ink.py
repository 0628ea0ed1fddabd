"""The ink of an image: photograph, scan or drawing → how much of each pixel is ink.

1. Colours are projected on the line along which the fine structure of the image varies most, so
   that coloured ink shows on paper of the same luma (a principal component).
2. The polarity is that of `pipeline.data.pixels.polarity`, decided for this image alone.
3. The paper is one level if the levels form two clusters. Else it is estimated around every pixel,
   by a morphological closing: strokes are narrower than the structuring element, shadows are not.
4. The distance from the paper, relative to that of the ink's core, becomes ink from 0 to 1, and
   noise becomes paper. Lines across the whole image are those of ruled paper; they are removed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.data.base import Decoded, Pixels
from pipeline.data.pixels.measures import measure, read_measures
from pipeline.data.pixels.polarity import DARK, LIGHT, shows_ink
from pipeline.pictures.characters import Box
from pipeline.pictures.errors import PictureError
from pipeline.pictures.specks import without_specks
from pipeline.pictures.table import find_page, otsu

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

BLANK = "blank: no ink found"
BLANK_LEVELS = 14  # grey levels: compression leaves less on blank paper
BLANK_DEVIATIONS = 6  # of the noise, which ink exceeds
LEAST_SIDE = 200  # pixels of the longest side: smaller images are enlarged
COARSE = 160  # pixels of the longest side in which paper is estimated
REACH = 0.28  # of the shorter side: the structuring element, wider than any stroke
EDGE_SHADOW = 0.15  # fraction of the image's edge that a shadow covers at least
EVEN = 0.05  # deviation of even paper, relative to its distance from the ink
THINNEST = 0.025  # of the ink's longer side: the width of a pen
THIN_INK = 0.2  # of a pixel's ink that belongs to a stroke, however thin
DARKEST = 0.995  # of an object's pixels
THICK_LINE = 0.04  # of the image's side: what is thicker is no line
ROUNDS = 10  # of the surface's fit
SOFT, HARD = 0.15, 0.85  # of the ink's core: what becomes 0, and what becomes 1


class Ink(NamedTuple):
    """The ink of an image, float32 (h, w) from 0 to 1, in blocks of `block` pixels a side.

    (`top`, `left`) are the pixels by which the image was trimmed before. `thin` strokes were made
    thicker.
    """

    ink: Floats
    block: float
    top: int = 0
    left: int = 0
    thin: bool = False

    def box(self, box: Box) -> tuple[int, int, int, int]:
        """Return a box of blocks as (x, y, width, height) in pixels of the image."""
        sides = box.left, box.top, box.right - box.left, box.bottom - box.top
        x, y, width, height = (round(side * self.block) for side in sides)
        return self.left + x, self.top + y, width, height


def clean_ink(grey: Pixels, paper: int, longest: int, *, strokes: bool = True) -> Ink:
    """Return the ink of grey levels (h, w) on even paper, in at most `longest` pixels a side."""
    small, block = _resized(grey, longest)
    ink: Floats = np.abs(small - np.float32(paper)) / np.float32(max(paper, 255 - paper))
    return _thickened(Ink(ink, block)) if strokes else Ink(ink, block)


def find_ink(pixels: Pixels, longest: int, *, strokes: bool = True) -> Ink:
    """Return the ink of an image (h, w) or (h, w, 3), in at most `longest` pixels a side.

    `strokes` are full ink; other objects keep their shades, of which the darkest is 1.
    Raises PictureError for an image without ink.
    """
    small, block = _resized(without_specks(pixels), longest)
    page = find_page(small.mean(axis=2) if small.ndim == 3 else small)
    top, left = page.top, page.left
    small = small[top : page.bottom, left : page.right]
    levels = _project(small)
    if levels.max() - levels.min() < BLANK_LEVELS:
        raise PictureError(BLANK)
    if not _is_dark(levels):
        levels = levels.max() + levels.min() - levels
    distance = _distance(levels)
    noise = _deviation(distance)
    core = _core(distance)
    if strokes and core >= BLANK_DEVIATIONS * noise:
        distance = _without_lines(_without_lines(distance, noise).T, noise).T
        core = _core(distance)
    if core < BLANK_LEVELS or (strokes and core < BLANK_DEVIATIONS * noise):
        raise PictureError(BLANK)
    soft, hard = float(np.clip(3 * noise / core, SOFT, 0.4)), HARD
    if not strokes:
        core, soft, hard = float(np.quantile(distance, DARKEST)), 0.05, 1
    ink = ((distance / core - soft) / (hard - soft)).clip(0, 1).astype(np.float32)
    found = Ink(ink, block, round(top * block), round(left * block))
    return _thickened(found) if strokes else found


def _thickened(found: Ink) -> Ink:
    """Return ink whose strokes are at least THINNEST wide, which joins broken ones.

    Strokes of a hairline pen would fade in the few pixels of a network's input.
    """
    inked = found.ink > THIN_INK
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    if not len(rows):
        return found
    part = inked[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = ndimage.distance_transform_edt(np.pad(part, 1))
    pen = 2 * float(np.quantile(inside[inside > 0], 0.9)) - 1
    least = THINNEST * max(part.shape)
    if pen >= least:
        return found
    size = 1 + 2 * max(round((least - pen) / 2), 1)
    grown = ndimage.maximum_filter(np.minimum(found.ink / found.ink.max(), 1), size)
    ink: Floats = ndimage.uniform_filter(grown, 2).clip(0, 0.7) / np.float32(0.7)
    return found._replace(ink=ink, thin=True)


def _resized(pixels: Pixels, longest: int) -> tuple[Floats, float]:
    """Return an image in at most `longest` and not too few pixels, and the side of one of them."""
    most = max(pixels.shape[:2])
    if most >= LEAST_SIDE:
        factor = max(-(-most // longest), 1)
        return _shrink(pixels, factor), factor
    factor = -(-LEAST_SIDE // most)
    size = pixels.shape[1] * factor, pixels.shape[0] * factor
    larger = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.array(larger).astype(np.float32), 1 / factor


def _shrink(pixels: Pixels | Floats, factor: int) -> Floats:
    """Return the means of blocks of `factor` pixels a side; blocks at the edges are smaller."""
    values: Floats = pixels  # type: ignore[assignment]
    for axis in (0, 1) if factor > 1 else ():
        starts = np.arange(0, pixels.shape[axis], factor)
        counts = np.diff(np.append(starts, pixels.shape[axis])).astype(np.float32)
        shape = [1] * values.ndim
        shape[axis] = -1
        sums = np.add.reduceat(values, starts, axis=axis, dtype=np.float32)
        values = (sums / counts.reshape(shape)).astype(np.float32)
    return values.astype(np.float32, copy=False)


def _project(values: Floats) -> Floats:
    """Return colours (h, w, 3) on their principal line, in which most are positive: (h, w)."""
    if values.ndim == 2:
        return values
    fine = values - ndimage.uniform_filter(values, (*(max(s // 4, 3) for s in values.shape[:2]), 1))
    _, vectors = np.linalg.eigh(np.cov(fine.reshape(-1, 3).T.astype(np.float64)))
    line = vectors[:, -1]
    line = line * np.sign(line.sum() or 1)
    projected: Floats = values @ line.astype(np.float32)
    return projected - np.float32(min(projected.min(), 0))


def _is_dark(levels: Floats) -> bool:
    """Return whether the ink is darker than the paper."""
    low, high = float(levels.min()), float(levels.max())
    grey = np.rint((levels - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    measures = read_measures(measure(Decoded(grey), grey))
    dark, light = (bool(shows_ink(measures, ink)[0]) for ink in (DARK, LIGHT))
    if dark != light:
        return dark
    lobes, border = float(measures["lobes"][0]), float(measures["border_dark"][0])
    return lobes + (border - 0.5) < 0


def _distance(levels: Floats) -> Floats:
    """Return how much darker than the paper each pixel is, where ink is dark."""
    threshold = otsu(levels)
    above = levels > threshold
    if above.all() or not above.any():
        return np.zeros_like(levels)
    apart = float(levels[above].mean() - levels[~above].mean())
    if _unevenness(levels, above) < EVEN * apart and not _is_shadow(~above):
        return np.float32(np.median(levels[above])) - levels
    factor = max(-(-max(levels.shape) // COARSE), 1)
    around = _enlarge(_paper(_shrink(levels, factor)), levels.shape, factor)
    distance: Floats = (around - levels) * (around.max() / around)  # shadows weaken contrast
    # The closing follows the lightest of noisy paper, so that most paper is darker.
    return distance - np.float32(np.median(distance[distance < np.quantile(distance, 0.8)]))


def _unevenness(levels: Floats, paper: Mask) -> float:
    """Return the standard deviation of the level of paper, without its noise."""
    width = 0.03 * max(levels.shape)
    weights = ndimage.gaussian_filter(paper.astype(np.float32), width)
    smooth = ndimage.gaussian_filter(np.where(paper, levels, 0), width)
    return float((smooth[paper] / weights[paper]).std())


def _is_shadow(dark: Mask) -> bool:
    """Return whether a dark region is wider than any stroke and lies at the image's edge."""
    ring = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    if ring.mean() < EDGE_SHADOW:
        return False
    widest = ndimage.distance_transform_cdt(np.pad(dark, 1, mode="edge"), "chessboard").max()
    return bool(2 * widest > REACH * min(dark.shape))


def _paper(levels: Floats) -> Floats:
    """Return the level of the paper around each of few pixels (h, w), where ink is dark.

    A quadratic surface takes out the fall of the light, so that the closing sees shadows alone.
    """
    y, x = (np.linspace(-1, 1, side) for side in levels.shape)
    y, x = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    values = levels.ravel().astype(np.float64)
    weights = np.ones_like(values)
    for _ in range(ROUNDS):  # least absolute deviations: ink is a minority
        weighted = terms * weights[:, None]
        surface = terms @ np.linalg.solve(weighted.T @ terms, weighted.T @ values)
        weights = 1 / np.maximum(abs(surface - values), 1)
    light = np.maximum(surface, 0.2 * surface.max()).reshape(levels.shape)
    size = max(round(REACH * min(levels.shape)), 3)
    closed = light * ndimage.grey_closing(levels / light, (size, size), mode="nearest")
    # The surface is wrong along the edge of a shadow; both closings are above the ink.
    closed = np.minimum(closed, ndimage.grey_closing(levels, (size, size), mode="nearest"))
    paper: Floats = ndimage.gaussian_filter(closed, 1.0, mode="nearest")
    return np.maximum(paper.astype(np.float32), 1)


def _enlarge(coarse: Floats, shape: tuple[int, ...], factor: int) -> Floats:
    """Return values of blocks of `factor` pixels a side, interpolated to `shape`."""
    if factor == 1:
        return coarse
    grids = [
        ((np.arange(side) + 0.5) / factor - 0.5).clip(0, n - 1)
        for side, n in zip(shape, coarse.shape, strict=True)
    ]
    points = np.meshgrid(*grids, indexing="ij")
    values: Floats = ndimage.map_coordinates(coarse, points, order=1, mode="nearest")
    return values


def _deviation(distance: Floats) -> float:
    """Return the standard deviation of the noise of paper, from the median of small distances."""
    away = abs(distance)
    values = away[away <= max(float(np.quantile(away, 0.8)), 1e-6)]
    return 1.8 * float(np.median(values))


def _core(distance: Floats) -> float:
    """Return the distance of the ink's core from the paper."""
    rank = max(sum(distance.shape) // 16, 1)
    top = float(np.partition(distance.ravel(), distance.size - rank)[distance.size - rank])
    return float(np.median(distance[distance >= 0.5 * top])) if top > 0 else 0.0


def _without_lines(distance: Floats, noise: float) -> Floats:
    """Return distances without horizontal lines that cross the whole image."""
    height, width = distance.shape
    if min(height, width) < 40:
        return distance
    quarter, median = np.quantile(distance, (0.25, 0.5), axis=1)
    edge = max(width // 25, 1)
    ends = np.minimum(distance[:, :edge].mean(1), distance[:, -edge:].mean(1))
    lines = (quarter > max(2 * noise, 4)) & (ends > max(2 * noise, 4))
    if not lines.any() or lines.mean() > 0.4:
        return distance
    result = distance.copy()
    labels, count = ndimage.label(ndimage.binary_dilation(lines))
    for number in range(1, count + 1):
        rows = np.flatnonzero(labels == number)
        if len(rows) > max(THICK_LINE * height, 4):  # a shadow, or the darker side of a fold
            continue
        top, bottom = rows[0] - 1, rows[-1] + 1
        if top < 0 or bottom >= height:
            between = np.zeros((len(rows), 1), np.float32)
        else:
            weights = ((rows - top) / (bottom - top))[:, None]
            between = distance[top] * (1 - weights) + distance[bottom] * weights
        strong = distance[rows] > 1.6 * np.maximum(median[rows], 0)[:, None] + 2 * noise
        result[rows] = np.maximum(between, np.where(strong, distance[rows], 0))
    return result
