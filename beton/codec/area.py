"""The compiled kernels that area-average windows of colour images.

The box filter is separable. For an output row, the source rows that it covers are added up, each
times its weight, in vector instructions; the columns of this one sum are then averaged. So every
source row is read once, or twice where it straddles two output rows, and there is no intermediate
image. Weights and sums are float32, added in the order of rows and of columns: equal inputs give
equal bits.
"""

import numpy as np

from beton.arrays import Array, Float64Array, Ids, Int64Array, Uint8Array
from beton.jit import kernel


@kernel
def _cover(start: float, size: float, pixels: int, first: Array, weights: Array) -> None:
    """Compute which of `pixels` source pixels each of the cells of a window covers.

    Cell j covers the pixels from first[j] to first[j + 1] - 1, and the pixel first[j + 1] too if it
    straddles the edge: weights (cells, taps) are the fractions of the cell, padded with zeros.
    """
    cells = weights.shape[0]
    for j in range(cells):
        low = max(start + size * j / cells, 0.0)
        high = min(start + size * (j + 1) / cells, float(pixels))
        at = min(int(low), pixels - 1)
        first[j] = at
        for k in range(weights.shape[1]):
            overlap = min(high, at + k + 1.0) - max(low, float(at + k))
            weights[j, k] = max(overlap, 0.0) / (high - low)


@kernel
def _taps(weights: Array) -> int:
    """Return how many leading weights of a row are not all zero: the taps of a cell."""
    n = weights.size
    while n > 1 and weights[n - 1] == 0:
        n -= 1
    return n


@kernel
def _start(sums: Array, row: Array, weight: np.float32) -> None:
    for x in range(row.size):
        sums[x] = weight * np.float32(row[x])


@kernel
def _add(sums: Array, row: Array, weight: np.float32) -> None:
    for x in range(row.size):
        sums[x] += weight * np.float32(row[x])


@kernel
def _average_3(
    sums: Array, first: Array, weights: Array, gain: Array, offset: Array, out: Array
) -> None:
    """Do what `_average` does for cells of at most 3 taps, without branches."""
    for x in range(out.shape[0]):
        at = first[x]
        a = weights[x, 0]
        b = weights[x, 1]
        c = weights[x, 2]
        red = a * sums[at] + b * sums[at + 3] + c * sums[at + 6]
        green = a * sums[at + 1] + b * sums[at + 4] + c * sums[at + 7]
        blue = a * sums[at + 2] + b * sums[at + 5] + c * sums[at + 8]
        out[x, 0] = out.dtype.type(red * gain[0] + offset[0])
        out[x, 1] = out.dtype.type(green * gain[1] + offset[1])
        out[x, 2] = out.dtype.type(blue * gain[2] + offset[2])


@kernel
def _average(
    sums: Array,
    first: Array,
    weights: Array,
    count: Array,
    gain: Array,
    offset: Array,
    out: Array,
) -> None:
    for x in range(out.shape[0]):
        at = first[x]
        red = np.float32(0)
        green = np.float32(0)
        blue = np.float32(0)
        for k in range(count[x]):
            weight = weights[x, k]
            red += weight * sums[at]
            green += weight * sums[at + 1]
            blue += weight * sums[at + 2]
            at += 3
        out[x, 0] = out.dtype.type(red * gain[0] + offset[0])
        out[x, 1] = out.dtype.type(green * gain[1] + offset[1])
        out[x, 2] = out.dtype.type(blue * gain[2] + offset[2])


@kernel
def resize(
    data: Uint8Array,
    pointers: Ids,
    sizes: Int64Array,
    windows: Float64Array,
    rows: Ids,
    gain: Array,
    offset: Array,
    out: Array,
) -> None:
    """Area-average windows of images into rows of out (b, H, W, 3), uint8 or float32.

    Image i has sizes[i] = (height, width) and its pixels at data[pointers[i]:]; windows (n, 4) are
    (X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT), as in `codec.resizing`, inside the image. The result is
    out[rows[i]]. A value of channel c is stored as value * gain[c] + offset[c], float32, cast to
    the dtype of `out`: (1, 0.5) rounds to uint8.
    """
    cells_down, cells_across = out.shape[1], out.shape[2]
    taps_down = 2
    taps_across = 2
    widest = 0
    for i in range(rows.size):
        _, _, window_width, window_height = windows[i]
        taps_down = max(taps_down, int(window_height / cells_down) + 3)
        taps_across = max(taps_across, int(window_width / cells_across) + 3)
        widest = max(widest, sizes[i, 1])
    top = np.empty(cells_down, np.int64)
    left = np.empty(cells_across, np.uint32)
    down = np.empty((cells_down, taps_down), np.float32)
    across = np.empty((cells_across, taps_across), np.float32)
    count = np.empty(cells_across, np.int64)
    sums = np.zeros(3 * widest + 9, np.float32)
    for i in range(rows.size):
        height, width = sizes[i]
        image = data[pointers[i] : pointers[i] + 3 * height * width].reshape((height, 3 * width))
        x0, y0, window_width, window_height = windows[i]
        _cover(y0, window_height, height, top, down)
        _cover(x0, window_width, width, left, across)
        begin = 3 * left[0]
        taps = 1
        for x in range(cells_across):
            count[x] = _taps(across[x])
            taps = max(taps, count[x])
            left[x] = 3 * left[x] - begin
        end = begin + left[-1] + 3 * count[-1]
        for y in range(cells_down):
            total = sums[: end - begin]
            _start(total, image[top[y], begin:end], down[y, 0])
            for k in range(1, _taps(down[y])):
                _add(total, image[top[y] + k, begin:end], down[y, k])
            if taps <= 3:
                _average_3(sums, left, across, gain, offset, out[rows[i], y])
            else:
                _average(sums, left, across, count, gain, offset, out[rows[i], y])
