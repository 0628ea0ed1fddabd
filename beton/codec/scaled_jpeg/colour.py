"""The kernel of colour: planes of Y, Cb and Cr to RGB, in libjpeg's fixed-point arithmetic."""

from typing import Any

import numpy as np

from beton.arrays import Int64Array, Uint8Array
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
def _widen(row: Uint8Array, width: int, wide: Uint8Array) -> None:
    """Double the first `width` samples of a row, at least 3; a neighbour counts a third."""
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
    is_wide: bool,
    is_smooth: bool,
    width: int,
    window: Int64Array,
    out: Uint8Array,
) -> None:
    """Write the pixels of planes to a window of an image, out (h, w, 3).

    `window` is (top, left, height, width) in the image; the planes begin there. If luma `is_wide`,
    cb and cr have `width` samples in a row, which are doubled, smoothly or not.
    """
    top, left, rows, columns = window
    wide_blue = np.empty(2 * width if is_wide else 0, np.uint8)
    wide_red = np.empty(wide_blue.size, np.uint8)
    stride = 3 * out.shape[1]
    flat = out.reshape(out.size)
    for row in range(rows):
        blue, red = cb[row], cr[row]
        if is_wide:
            if is_smooth and width > 2:
                _widen(blue, width, wide_blue)
                _widen(red, width, wide_red)
            else:
                for x in range(2 * width):
                    wide_blue[x], wide_red[x] = blue[x // 2], red[x // 2]
            blue, red = wide_blue, wide_red
        start = (top + row) * stride + 3 * left
        line = flat[start : start + 3 * columns]
        _convert(y[row, :columns], blue[:columns], red[:columns], line)
