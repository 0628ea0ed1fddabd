"""The pen: a compiled kernel renders strokes of varying width.

Each segment of a stroke is the convex hull of two circles. A pixel's coverage grows from 0 to 1
while its centre moves from half a pixel outside the edge to half a pixel inside.
"""

import math

import numpy as np
from numpy.typing import NDArray

from beton.jit import kernel
from pipeline.data.base import Floats, Pixels


@kernel
def draw_strokes(points: Floats, starts: NDArray[np.int64], soft: bool, cover: Pixels) -> None:
    """Draw strokes into `cover` (h, w), in which 255 is full ink; no value decreases.

    `points` (n, 3) are x, y and the pen's radius, in pixels from the top left corner; `starts`
    (s + 1,) are the strokes' first points. Edge pixels are partly covered if `soft`, else a pixel
    is covered if its centre is inside.
    """
    height, width = cover.shape
    for stroke in range(starts.size - 1):
        for i in range(starts[stroke], starts[stroke + 1] - 1):
            x0, y0, r0 = points[i, 0], points[i, 1], points[i, 2]
            dx, dy, dr = points[i + 1, 0] - x0, points[i + 1, 1] - y0, points[i + 1, 2] - r0
            square = dx * dx + dy * dy
            reach = max(r0, r0 + dr) + 1
            left = max(0, math.floor(min(x0, x0 + dx) - reach))
            right = min(width, math.ceil(max(x0, x0 + dx) + reach))
            top = max(0, math.floor(min(y0, y0 + dy) - reach))
            bottom = min(height, math.ceil(max(y0, y0 + dy) + reach))
            for y in range(top, bottom):
                for x in range(left, right):
                    px, py = x + 0.5 - x0, y + 0.5 - y0
                    t = 0.0
                    if square > 0:
                        t = min(1.0, max(0.0, (px * dx + py * dy) / square))
                    ex, ey = px - t * dx, py - t * dy
                    radius = r0 + t * dr
                    distance = ex * ex + ey * ey
                    if soft:
                        if distance < (radius + 0.5) * (radius + 0.5):
                            inside = 255 * min(1.0, radius + 0.5 - math.sqrt(distance))
                            cover[y, x] = max(cover[y, x], np.uint8(inside + 0.5))
                    elif distance <= radius * radius:
                        cover[y, x] = 255


PAGE_SHAPE = (900, 1200)  # height and width in pixels
_PAGE_SIZE = np.array(PAGE_SHAPE[::-1])  # width and height
SCALE = 23.4  # pixels of a page per unit of glyphs.txt
MAX_OFFSET = (62, 110)  # pixels, vertical and horizontal: from a character to the page's centre
DIGIT_SIZE, DIGIT_BOX = 28, 20  # pixels: a digit's image, and the square that the digit fits into
BORDER, ZOOM = 2, 3  # of a character in EMNIST's format: its margin, and pixels drawn per pixel
# Along each axis: a Gaussian blur with a deviation of 1 drawn pixel, and then the mean of a pixel.
_WEIGHTS = np.convolve((1, 4, 6, 4, 1), np.ones(ZOOM, np.int64))
BLUR_REACH = 5  # drawn pixels of both sides together: the blur's 2 and the pen's soft edge
_SUBPIXELS = 64  # coordinates are rounded to 1/64 pixel, for the same image on every machine


def draw_page(points: Floats, starts: NDArray[np.int64], place: Floats, grey: bool) -> Pixels:
    """Draw a character on a page, black on white: uint8 PAGE_SHAPE.

    `points` (n, 3) are in units of glyphs.txt; `place` (2,) in [0, 1) is the position, horizontal
    and vertical. Pixels are 0 or 255 unless `grey`.
    """
    low, high = _box(points)
    middle = _PAGE_SIZE / 2 + (2 * place - 1) * MAX_OFFSET[::-1]
    # Strokes are drawn into the character's box alone.
    half = np.minimum(np.ceil((high - low) * SCALE / 2).astype(int) + 2, _PAGE_SIZE // 2)
    corner = np.clip(middle.astype(int) - half, 0, _PAGE_SIZE - 2 * half)
    cover = np.zeros(2 * half[::-1], np.uint8)
    shift = middle - corner - (low + high) / 2 * SCALE
    draw_strokes(_to_pixels(points, SCALE, shift), starts, grey, cover)
    image = np.full(PAGE_SHAPE, 255, np.uint8)
    x, y = corner
    image[y : y + cover.shape[0], x : x + cover.shape[1]] -= cover
    return image


def draw_digit(points: Floats, starts: NDArray[np.int64]) -> Pixels:
    """Draw a digit in MNIST's format, white on black: uint8 (DIGIT_SIZE, DIGIT_SIZE).

    The digit keeps its proportions, fits into a square of DIGIT_BOX pixels, and has its centre of
    mass at the image's centre (LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist).
    """
    cover = _draw_fitted(points, starts, 2 * DIGIT_SIZE, DIGIT_BOX)
    ink = cover.sum(dtype=np.int64)
    pixels = np.arange(2 * DIGIT_SIZE)
    moments = (int(cover.sum(axis=axis, dtype=np.int64) @ pixels) for axis in (1, 0))
    top, left = ((2 * moment + ink) // (2 * ink) - DIGIT_SIZE // 2 for moment in moments)
    return cover[top : top + DIGIT_SIZE, left : left + DIGIT_SIZE]


def draw_character(points: Floats, starts: NDArray[np.int64]) -> Pixels:
    """Draw a character in EMNIST's format, white on black: uint8 (DIGIT_SIZE, DIGIT_SIZE).

    EMNIST blurs a binary character, crops it, centres it in a square that keeps its proportions,
    adds a border of 2 pixels and scales the square to 28×28 (Cohen, Afshar, Tapson and van Schaik
    2017, "EMNIST: an extension of MNIST to handwritten letters"). Here the character is drawn in
    this frame at ZOOM times the size, then blurred and reduced at once. All sums are of whole
    numbers.
    """
    side, fit = ZOOM * DIGIT_SIZE, ZOOM * (DIGIT_SIZE - 2 * BORDER) - BLUR_REACH
    image = np.empty((DIGIT_SIZE, DIGIT_SIZE), np.uint8)
    _reduce(_draw_fitted(points, starts, side, fit), _WEIGHTS, ZOOM, image)
    return image


@kernel
def _reduce(cover: Pixels, weights: NDArray[np.int64], zoom: int, image: Pixels) -> None:
    """Set `image` (h, w) to weighted means of `cover` (zoom h, zoom w), rounded.

    A pixel's mean covers n × n pixels around its square, as `weights` (n,) along both axes.
    """
    height, width = image.shape
    reach = (weights.size - zoom) // 2
    total = weights.sum() ** 2
    rows = np.zeros((cover.shape[0], width), np.int64)
    for y in range(cover.shape[0]):
        for x in range(width):
            for i in range(weights.size):
                column = zoom * x - reach + i
                if 0 <= column < cover.shape[1]:
                    rows[y, x] += weights[i] * np.int64(cover[y, column])
    for y in range(height):
        for x in range(width):
            mean = total // 2
            for i in range(weights.size):
                row = zoom * y - reach + i
                if 0 <= row < cover.shape[0]:
                    mean += weights[i] * rows[row, x]
            image[y, x] = mean // total


def _draw_fitted(points: Floats, starts: NDArray[np.int64], side: int, fit: int) -> Pixels:
    """Draw a character in the middle of an image, uint8 (side, side), its longer side `fit`."""
    low, high = _box(points)
    scale = fit / (high - low).max()
    cover = np.zeros((side, side), np.uint8)
    draw_strokes(_to_pixels(points, scale, (side - (low + high) * scale) / 2), starts, True, cover)
    return cover


def _box(points: Floats) -> tuple[Floats, Floats]:
    """Return two opposite corners (2,) of the box around the ink."""
    radii = points[:, 2:]
    return (points[:, :2] - radii).min(axis=0), (points[:, :2] + radii).max(axis=0)


def _to_pixels(points: Floats, scale: float, shift: Floats) -> Floats:
    """Return the points scaled and shifted to pixels."""
    placed = points * scale
    placed[:, :2] += shift
    return np.round(placed * _SUBPIXELS) / _SUBPIXELS
