"""The pen: lines of varying width, drawn into pictures by compiled kernels.

A line is drawn as its segments, each the hull of two circles; a pixel is covered as far as its
middle lies inside the edge, by half a pixel on either side.
"""

import math

import numpy as np
from numpy.typing import NDArray

from beton.jit import kernel

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@kernel
def draw_strokes(line: Floats, starts: NDArray[np.int64], soft: bool, cover: Pixels) -> None:
    """Draw strokes into `cover` (h, w), whose values grow up to 255, full ink.

    `line` (n, 3) are x, y and the pen's radius, in pixels from the top left corner; the strokes
    begin at `starts` (s + 1,). `soft` draws the pixels at an edge partly covered, otherwise those
    whose middles are inside are full.
    """
    height, width = cover.shape
    for stroke in range(starts.size - 1):
        for i in range(starts[stroke], starts[stroke + 1] - 1):
            x0, y0, r0 = line[i, 0], line[i, 1], line[i, 2]
            dx, dy, dr = line[i + 1, 0] - x0, line[i + 1, 1] - y0, line[i + 1, 2] - r0
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


PAGE_SHAPE = (900, 1200)  # pixels: a page's height and width
PIXELS_PER_UNIT = 23.4  # pixels of a page to a unit of glyphs.txt
MAX_OFFSET = (62, 110)  # pixels, down and across: how far from the page's middle a character may be
DIGIT_SIZE, DIGIT_BOX = (
    28,
    20,
)  # pixels: a digit's picture, and the square in it that the digit fits into
_SUBPIXELS = 64  # parts of a pixel that places are rounded to, so that every machine draws the same


def draw_page(line: Floats, starts: NDArray[np.int64], place: Floats, grey: bool) -> Pixels:
    """Draw a character on a page, black on white: uint8 PAGE_SHAPE.

    `line` (n, 3) is in units of glyphs.txt, `place` (2,) in [0, 1) says where it is set down. Two
    values unless `grey`.
    """
    low, high = _box(line)
    middle = np.array(PAGE_SHAPE[::-1]) / 2 + (2 * place - 1) * MAX_OFFSET[::-1]
    # Only the part of the page around the character is drawn on.
    half = np.minimum(
        np.ceil((high - low) * PIXELS_PER_UNIT / 2).astype(int) + 2, np.array(PAGE_SHAPE[::-1]) // 2
    )
    corner = np.clip(middle.astype(int) - half, 0, np.array(PAGE_SHAPE[::-1]) - 2 * half)
    cover = np.zeros(2 * half[::-1], np.uint8)
    draw_strokes(
        _to_pixels(line, PIXELS_PER_UNIT, middle - corner - (low + high) / 2 * PIXELS_PER_UNIT),
        starts,
        grey,
        cover,
    )
    image = np.full(PAGE_SHAPE, 255, np.uint8)
    x, y = corner
    image[y : y + cover.shape[0], x : x + cover.shape[1]] -= cover
    return image


def draw_digit(line: Floats, starts: NDArray[np.int64]) -> Pixels:
    """Draw a digit as MNIST has them, white on black: uint8 (DIGIT_SIZE, DIGIT_SIZE).

    It fits into DIGIT_BOX pixels, keeps its proportions, and has its centre of mass in the middle (LeCun,
    Cortes and Burges, http://yann.lecun.com/exdb/mnist).
    """
    low, high = _box(line)
    scale = DIGIT_BOX / (high - low).max()
    cover = np.zeros((2 * DIGIT_SIZE, 2 * DIGIT_SIZE), np.uint8)
    draw_strokes(
        _to_pixels(line, scale, DIGIT_SIZE - (low + high) / 2 * scale), starts, True, cover
    )
    ink = cover.sum(dtype=np.int64)
    places = np.arange(2 * DIGIT_SIZE)
    top, left = (
        (2 * int(cover.sum(axis=axis, dtype=np.int64) @ places) + ink) // (2 * ink)
        - DIGIT_SIZE // 2
        for axis in (1, 0)
    )
    return cover[top : top + DIGIT_SIZE, left : left + DIGIT_SIZE]


def _box(line: Floats) -> tuple[Floats, Floats]:
    """Return the corners (2,) of the box around what is drawn."""
    radii = line[:, 2:]
    return (line[:, :2] - radii).min(axis=0), (line[:, :2] + radii).max(axis=0)


def _to_pixels(line: Floats, scale: float, shift: Floats) -> Floats:
    """Return the line in pixels."""
    placed = line * scale
    placed[:, :2] += shift
    return np.round(placed * _SUBPIXELS) / _SUBPIXELS
