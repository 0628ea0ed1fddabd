"""The kernel that decodes a window of a JPEG, one row of MCUs after the other.

A row's coefficients become pixels at once, so that they stay in the CPU's nearest caches.
"""

import numpy as np

from beton.arrays import Array, Int64Array, Uint8Array
from beton.codec.scaled_jpeg.colour import convert
from beton.codec.scaled_jpeg.entropy import BLOCK_NUMBERS, PADDING, read, skip, unstuff
from beton.codec.scaled_jpeg.idct import transform
from beton.codec.vectors import LANES
from beton.jit import kernel


@kernel
def _vectors(blocks: int) -> int:
    return (blocks + LANES - 1) // LANES


@kernel
def _plane(component: Int64Array, height: int, width: int) -> tuple[int, int]:
    """Return the shape of a component's plane for rows and columns of MCUs."""
    across, down, _, side = component
    return height * down * side, _vectors(width * across) * LANES * side


@kernel
def _finish(
    planes: tuple[Uint8Array, Uint8Array, Uint8Array],
    components: Int64Array,
    first: tuple[int, int],
    count: tuple[int, int],
    out: Uint8Array,
) -> None:
    """Write the pixels of `count` rows and columns of MCUs, of which `first` is the first one."""
    across, down, _, side = components[0]
    high, wide = down * side, across * side
    is_wide = across * side > components[1, 3]
    is_tall = down * side > components[1, 3]
    is_smooth = side > 1 and out.shape[1] > 4  # as libjpeg decides it
    corner, size = (first[0] * high, first[1] * wide), (count[0] * high, count[1] * wide)
    convert(planes, is_wide, is_tall, is_smooth, corner, size, out)


@kernel
def decode(
    data: Uint8Array,
    start: int,
    interval: int,
    shape: tuple[int, int],
    window: tuple[int, int, int, int],
    is_intact: bool,
    components: Int64Array,
    factors: tuple[Array, ...],
    entries: Array,
    skips: Array,
    codes: Array,
    out: Uint8Array,
) -> bool:
    """Write the pixels of a window of MCUs to out (h, w, 3); return whether all data is regular.

    There is a restart marker after each `interval` MCUs. `shape` are the rows and columns of MCUs
    of the image, `window` first and end of the window's rows, then of its columns. Data that
    `is_intact` is not decoded after the window. `components` (3, 4) has the blocks of each
    component across and down an MCU, its pair of Huffman tables, and the pixels a side of its
    blocks. `factors`, int64 (n,), are those of the frequencies in a block. The tables are those of
    `Huffman`.
    """
    rows, columns = shape
    top, bottom, left, right = window
    clean = np.empty(data.size + PADDING, np.uint8)
    parts = (rows * columns + interval - 1) // interval
    starts = np.empty(parts + 1, np.int64)
    if not unstuff(data, start, starts, clean):
        return False
    # The coefficients of a row of MCUs. For each component: where its first row of blocks begins,
    # and the numbers of a row, with room for what is written behind its last block.
    regions = np.empty((3, 2), np.int64)
    size = 0
    for c in range(3):
        across, down, _, _ = components[c]
        regions[c, 0] = size
        regions[c, 1] = (_vectors((right - left) * across) + 1) * BLOCK_NUMBERS
        size += down * regions[c, 1]
    coefficients = np.empty(LANES + size, np.int16)  # the first LANES numbers are not used
    work = np.empty(BLOCK_NUMBERS, np.int32)
    height, width = bottom - top, right - left
    planes = (
        np.empty(_plane(components[0], height, width), np.uint8),
        np.empty(_plane(components[1], height, width), np.uint8),
        np.empty(_plane(components[2], height, width), np.uint8),
    )
    predicted = np.zeros(3, np.int64)
    mcu = 0
    for part in range(parts):
        reader = np.uint64(starts[part]), np.uint64(0), np.uint64(0)
        end = np.uint64(starts[part + 1])
        predicted[:] = 0
        last = min((part + 1) * interval, rows * columns)
        while mcu < last:
            y, x = mcu // columns, mcu % columns
            is_inside = top <= y < bottom and left <= x < right
            until = columns
            if is_inside:
                until = right
            elif top <= y < bottom and x < left:
                until = left
            length = min(until - x, last - mcu)
            if is_inside:
                if x == left:
                    coefficients[:] = 0
                is_valid, reader = read(
                    length,
                    x - left,
                    reader,
                    end + np.uint64(8),
                    clean,
                    components,
                    regions,
                    predicted,
                    entries,
                    codes,
                    coefficients,
                )
            else:
                is_valid, reader = skip(
                    length,
                    reader,
                    end + np.uint64(8),
                    clean,
                    components,
                    predicted,
                    entries,
                    skips,
                    codes,
                )
            if not is_valid:
                return False
            if is_inside and x + length == right:
                for c in range(3):
                    _, down, _, side = components[c]
                    for row in range(down):
                        first = LANES + regions[c, 0] + row * regions[c, 1]
                        to = ((y - top) * down + row) * side
                        strip = planes[c][to : to + side]
                        if not transform(coefficients[first:], side, factors[c], work, strip):
                            return False
            mcu += length
            if is_intact and (bottom - 1) * columns + right <= mcu < rows * columns:
                _finish(planes, components, (top, left), (height, width), out)
                return True
        if end * np.uint64(8) - (reader[0] * np.uint64(8) - reader[2]) >= np.uint64(8):
            return False
    _finish(planes, components, (top, left), (height, width), out)
    return True
