"""The kernel of colour: planes of Y, Cb and Cr to RGB, in libjpeg's fixed-point arithmetic."""

from typing import Any

import numpy as np

from beton.arrays import Uint8Array
from beton.jit import kernel


@kernel
def _clamp(value: Any) -> Any:
    return np.uint8(min(max(value, 0), 255))


@kernel
def _convert(y: Uint8Array, cb: Uint8Array, cr: Uint8Array, out: Uint8Array) -> None:
    for x in range(y.size):
        luma = np.int32(y[x])
        blue = np.int32(cb[x]) - 128
        red = np.int32(cr[x]) - 128
        out[3 * x] = _clamp(np.int32(luma + np.int32(np.int32(91881 * red + 32768) >> 16)))
        green = np.int32(np.int32(-22554 * blue - 46802 * red + 32768) >> 16)
        out[3 * x + 1] = _clamp(np.int32(luma + green))
        out[3 * x + 2] = _clamp(np.int32(luma + np.int32(np.int32(116130 * blue + 32768) >> 16)))


@kernel
def _widen(row: Uint8Array, width: int, is_smooth: bool, wide: Uint8Array) -> None:
    """Double the first `width` samples of a row, by interpolation if it `is_smooth`."""
    if not is_smooth or width < 3:
        for x in range(2 * width):
            wide[x] = row[x // 2]
        return
    for x in range(1, width - 1):
        near = 3 * np.int32(row[x])
        wide[2 * x] = np.uint8((near + row[x - 1] + 1) >> 2)
        wide[2 * x + 1] = np.uint8((near + row[x + 1] + 2) >> 2)
    last = width - 1
    wide[0] = row[0]
    wide[1] = np.uint8((3 * np.int32(row[0]) + row[1] + 2) >> 2)
    wide[2 * last] = np.uint8((3 * np.int32(row[last]) + row[last - 1] + 1) >> 2)
    wide[2 * last + 1] = row[last]


@kernel
def convert(
    y: Uint8Array,
    cb: Uint8Array,
    cr: Uint8Array,
    half: int,
    is_smooth: bool,
    corner: tuple[int, int],
    size: tuple[int, int],
    out: Uint8Array,
) -> None:
    """Write the pixels of planes to a window of an image, out (h, w, 3).

    The window has its upper left pixel at `corner` and is of a `size`, both as (y, x); the planes
    begin there. Unless `half` is 0, it is the number of samples in a row of cb and cr, which are
    doubled, by interpolation if it `is_smooth`.
    """
    top, left = corner
    rows, columns = size
    wide_blue = np.empty(2 * half, np.uint8)
    wide_red = np.empty(2 * half, np.uint8)
    stride = 3 * out.shape[1]
    flat = out.reshape(out.size)
    for row in range(rows):
        blue, red = cb[row], cr[row]
        if half:
            _widen(blue, half, is_smooth, wide_blue)
            _widen(red, half, is_smooth, wide_red)
            blue, red = wide_blue, wide_red
        start = (top + row) * stride + 3 * left
        line = flat[start : start + 3 * columns]
        _convert(y[row, :columns], blue[:columns], red[:columns], line)
