"""The kernel of colour: planes of Y, Cb and Cr to RGB, in libjpeg's fixed-point arithmetic."""

from typing import Any

import numpy as np

from beton.arrays import Array, Uint8Array
from beton.codec.vectors import LANES, load, store_pixels
from beton.jit import inlined, kernel


@inlined
def _rgb(luma: Any, blue: Any, red: Any) -> tuple[Any, Any, Any]:
    """Return red, green and blue, not limited to 0 to 255, of numbers or vectors."""
    blue, red = blue - 128, red - 128
    return (
        luma + (red * 91881 + 32768 >> 16),
        luma + (blue * -22554 - red * 46802 + 32768 >> 16),
        luma + (blue * 116130 + 32768 >> 16),
    )


@kernel
def _convert(y: Uint8Array, cb: Uint8Array, cr: Uint8Array, out: Uint8Array) -> None:
    """Write the pixels of rows (n,) to out (3 * n,)."""
    whole = y.size // LANES * LANES
    for x in range(0, whole, LANES):
        store_pixels(out, 3 * x, _rgb(load(y, x), load(cb, x), load(cr, x)))
    for x in range(whole, y.size):
        pixel = _rgb(np.int64(y[x]), np.int64(cb[x]), np.int64(cr[x]))
        for channel, value in enumerate(pixel):
            out[3 * x + channel] = np.uint8(min(max(value, 0), 255))


@kernel
def _double(
    near: Uint8Array,
    other: Uint8Array,
    width: int,
    is_smooth: bool,
    is_tall: bool,
    sums: Array,
    wide: Uint8Array,
) -> None:
    """Write two samples for each of the first `width` samples of a row `near`.

    If it `is_smooth`, they are interpolated: from a sample and its neighbour at 3 : 1, and if the
    rows are doubled too (`is_tall`), from the rows `near` and `other` at 3 : 1. `sums` is memory,
    int16 (width + 3 * LANES,), and `wide`, uint8 (2 * width + 2 * LANES,), has room for vectors.
    """
    if not is_smooth:
        for x in range(width):
            wide[2 * x] = wide[2 * x + 1] = near[x]
        return
    for x in range(width):
        sums[x + 1] = 3 * np.int16(near[x]) + np.int16(other[x]) if is_tall else np.int16(near[x])
    sums[0], sums[width + 1] = sums[1], sums[width]
    left, right, shift = (8, 7, 4) if is_tall else (1, 2, 2)
    for x in range(0, width, LANES):
        here = load(sums, x + 1) * 3
        before, after = load(sums, x), load(sums, x + 2)
        store_pixels(wide, 2 * x, (here + before + left >> shift, here + after + right >> shift))


@kernel
def convert(
    planes: tuple[Uint8Array, Uint8Array, Uint8Array],
    is_wide: bool,
    is_tall: bool,
    is_smooth: bool,
    corner: tuple[int, int],
    size: tuple[int, int],
    out: Uint8Array,
) -> None:
    """Write the pixels of the planes of Y, Cb and Cr to an image, out (h, w, 3).

    The planes have `size` (height, width) pixels. The upper left one is written at `corner`, (y,
    x); those outside of the image are left out. The samples of Cb and Cr are doubled across if
    the image `is_wide`, and down if it `is_tall`, by interpolation if it `is_smooth`.
    """
    luma, blues, reds = planes
    top, left = corner
    rows, columns = min(size[0], out.shape[0] - top), min(size[1], out.shape[1] - left)
    half = (columns + 1) // 2
    last = (rows + 1) // 2 - 1
    sums = np.empty(half + 3 * LANES, np.int16)
    wide = np.empty((2, 2 * half + 2 * LANES if is_wide else 0), np.uint8)
    stride = 3 * out.shape[1]
    flat = out.reshape(out.size)
    for row in range(rows):
        near, other = row, row
        if is_tall:
            near = row // 2
            other = min(max(near + 2 * (row % 2) - 1, 0), last)
        blue, red = blues[near], reds[near]
        if is_wide:
            _double(blue, blues[other], half, is_smooth, is_tall, sums, wide[0])
            _double(red, reds[other], half, is_smooth, is_tall, sums, wide[1])
            blue, red = wide[0], wide[1]
        start = (top + row) * stride + 3 * left
        line = flat[start : start + 3 * columns]
        _convert(luma[row, :columns], blue[:columns], red[:columns], line)
