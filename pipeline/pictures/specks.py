"""Removes isolated pixels: salt and pepper of a sensor, and dithered paper of one bit.

A pixel is isolated if at most one of its eight neighbours is like it. Thin strokes and their ends
have more of them.
"""

import numpy as np

from beton.jit import kernel
from pipeline.data.base import Pixels

UNLIKE = 60  # grey levels between a pixel and a neighbour
MANY = 0.003  # of an image's pixels that are isolated
ROWS = 100  # that are inspected
LEAST_SIDE = 100  # pixels: strokes of smaller images are as thin as specks


def without_specks(pixels: Pixels) -> Pixels:
    """Return an image (h, w) or (h, w, 3) without isolated pixels, if it has more than a few."""
    channels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if not has_specks(np.ascontiguousarray(channels[:, :, channels.shape[2] // 2])):
        return pixels
    cleaned = [_replaced(np.ascontiguousarray(one)) for one in np.moveaxis(channels, 2, 0)]
    return cleaned[0] if pixels.ndim == 2 else np.stack(cleaned, axis=2)


def has_specks(grey: Pixels) -> bool:
    """Return whether an image (h, w) has more than a few isolated pixels."""
    return min(grey.shape) >= LEAST_SIDE and _fraction(grey, max(grey.shape[0] // ROWS, 1)) > MANY


@kernel
def _alike(grey: Pixels, y: int, x: int) -> int:
    """Return how many of the eight neighbours are like a pixel."""
    here = np.int64(grey[y, x])
    count = 0
    for row in range(max(y - 1, 0), min(y + 2, grey.shape[0])):
        for column in range(max(x - 1, 0), min(x + 2, grey.shape[1])):
            count += int(abs(np.int64(grey[row, column]) - here) <= UNLIKE)
    return count - 1


@kernel
def _fraction(grey: Pixels, step: int) -> float:
    height, width = grey.shape
    count = 0
    total = 0
    for y in range(1, height - 1, step):
        for x in range(1, width - 1):
            if abs(np.int64(grey[y, x]) - np.int64(grey[y, x - 1])) > UNLIKE:
                count += int(_alike(grey, y, x) <= 1)
            total += 1
    return count / total if total else 0.0


@kernel
def _replaced(grey: Pixels) -> Pixels:
    """Return an image (h, w) whose isolated pixels have the median of their neighbours."""
    height, width = grey.shape
    result = grey.copy()
    around = np.empty(8, np.uint8)
    for y in range(height):
        for x in range(width):
            if _alike(grey, y, x) <= 1:
                count = 0
                for row in range(max(y - 1, 0), min(y + 2, height)):
                    for column in range(max(x - 1, 0), min(x + 2, width)):
                        if row != y or column != x:
                            around[count] = grey[row, column]
                            count += 1
                if count:
                    result[y, x] = np.sort(around[:count])[count // 2]
    return result
