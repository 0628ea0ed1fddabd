"""The kernels of inverse DCTs at reduced scale, in libjpeg's fixed-point arithmetic.

A block of 8×8 coefficients becomes 8, 4, 2 or 1 pixels a side. The 8×8 transform is that of Arai,
Agui and Nakajima, which libjpeg calls fast; the others are libjpeg's reduced transforms. They use
only some frequencies, and their sums are rounded after the columns and again after the rows.

16 blocks at a time are transformed, in vector instructions. Implementations of libjpeg differ in
how numbers overflow, so a block with numbers that 16 bits may not hold is not decoded here.
"""

from typing import Any

import numpy as np

from beton.arrays import Array, Int64Array, Uint8Array
from beton.jit import kernel

LANES = 16  # blocks
FREQUENCIES = {  # of rows and columns, by the pixels a side
    1: (0,),
    2: (0, 1, 3, 5, 7),
    4: (0, 1, 2, 3, 5, 6, 7),
    8: (0, 1, 2, 3, 4, 5, 6, 7),
}
_SCALES = np.array([1, *(np.cos(np.arange(1, 8) * np.pi / 16) * np.sqrt(2))])
# Factors of the 8×8 transform, which it has in common with the quantisation; 14 bits.
PRESCALE = np.rint(16384 * np.outer(_SCALES, _SCALES)).astype(np.int32).reshape(64)
I32 = Any


@kernel
def _excess(number: I32, bits: int) -> I32:
    """Return 0 if a number is a signed one of that many bits, nonzero otherwise."""
    return np.int32((number + (1 << (bits - 1))) >> bits)


@kernel
def _pixel(value: I32) -> Any:
    return np.uint8(min(max(value + 128, 0), 255))


@kernel
def _pair(d0: I32, d1: I32, d3: I32, d5: I32, d7: I32, shift: int) -> tuple[I32, I32]:
    """Return two samples of a row or column of frequencies 0, 1, 3, 5 and 7."""
    even = np.int32(d0 << 15) + (1 << (shift - 1))
    odd = np.int32(d1 * 29692 - d3 * 10426 + d5 * 6967 - d7 * 5906)
    return np.int32(np.int32(even + odd) >> shift), np.int32(np.int32(even - odd) >> shift)


@kernel
def _four(
    d0: I32, d1: I32, d2: I32, d3: I32, d5: I32, d6: I32, d7: I32, shift: int
) -> tuple[I32, I32, I32, I32]:
    """Return four samples of a row or column of all frequencies but 4."""
    base = np.int32(d0 << 14) + (1 << (shift - 1))
    even = np.int32(d2 * 15137 - d6 * 6270)
    outer = np.int32(d1 * 20995 + d3 * 7373 - d5 * 4926 - d7 * 4176)
    inner = np.int32(d1 * 8697 - d3 * 17799 + d5 * 11893 - d7 * 1730)
    high, low = np.int32(base + even), np.int32(base - even)
    return (
        np.int32(np.int32(high + outer) >> shift),
        np.int32(np.int32(low + inner) >> shift),
        np.int32(np.int32(low - inner) >> shift),
        np.int32(np.int32(high - outer) >> shift),
    )


@kernel
def _eight(
    d0: I32, d1: I32, d2: I32, d3: I32, d4: I32, d5: I32, d6: I32, d7: I32
) -> tuple[I32, I32, I32, I32, I32, I32, I32, I32, I32]:
    """Return eight samples of a row or column, and the excess of what is multiplied."""
    sum04, difference04 = np.int32(d0 + d4), np.int32(d0 - d4)
    sum26, difference26 = np.int32(d2 + d6), np.int32(d2 - d6)
    turned = np.int32(np.int32(np.int32(difference26 * 362) >> 8) - sum26)
    e0, e3 = np.int32(sum04 + sum26), np.int32(sum04 - sum26)
    e1, e2 = np.int32(difference04 + turned), np.int32(difference04 - turned)
    z13, z10 = np.int32(d5 + d3), np.int32(d5 - d3)
    z11, z12 = np.int32(d1 + d7), np.int32(d1 - d7)
    both, across = np.int32(z10 + z12), np.int32(z11 - z13)
    excess = (
        _excess(difference26, 14)
        | _excess(z10, 14)
        | _excess(z12, 14)
        | _excess(both, 14)
        | _excess(across, 14)
    )
    z5 = np.int32(np.int32(both * 473) >> 8)
    o7 = np.int32(z11 + z13)
    o6 = np.int32(np.int32(np.int32(z10 * -669) >> 8) + z5 - o7)
    o5 = np.int32(np.int32(np.int32(across * 362) >> 8) - o6)
    o4 = np.int32(np.int32(np.int32(z12 * 277) >> 8) - z5 + o5)
    return (
        np.int32(e0 + o7),
        np.int32(e1 + o6),
        np.int32(e2 + o5),
        np.int32(e3 - o4),
        np.int32(e3 + o4),
        np.int32(e2 - o5),
        np.int32(e1 - o6),
        np.int32(e0 - o7),
        np.int32(excess),
    )


@kernel
def _transform_1(x: Array, q: Array, out: Uint8Array) -> I32:
    excess = np.int32(0)
    for i in range(LANES):
        dc = np.int32(x[i] * q[0])
        value = np.int32((dc + 4) >> 3)
        excess |= _excess(dc, 13) | _excess(value, 10)
        out[i] = _pixel(value)
    return excess


@kernel
def _transform_2(x: Array, q: Array, work: Array, out: Uint8Array, stride: int) -> I32:
    excess = np.int32(0)
    for j in range(5):
        for i in range(LANES):
            at = LANES * j + i
            d0 = np.int32(x[at] * q[j])
            d1 = np.int32(x[at + 5 * LANES] * q[j + 5])
            d3 = np.int32(x[at + 10 * LANES] * q[j + 10])
            d5 = np.int32(x[at + 15 * LANES] * q[j + 15])
            d7 = np.int32(x[at + 20 * LANES] * q[j + 20])
            excess |= _excess(d0, 13) | _excess(d1, 13) | _excess(d3, 13)
            excess |= _excess(d5, 13) | _excess(d7, 13)
            a, b = _pair(d0, d1, d3, d5, d7, 13)
            excess |= _excess(a, 15) | _excess(b, 15)
            work[at] = a
            work[at + 5 * LANES] = b
    for k in range(2):
        w = work[5 * LANES * k : 5 * LANES * (k + 1)]
        row = out[k * stride : k * stride + 2 * LANES]
        for i in range(LANES):
            a, b = _pair(
                w[i], w[i + LANES], w[i + 2 * LANES], w[i + 3 * LANES], w[i + 4 * LANES], 20
            )
            excess |= _excess(a, 10) | _excess(b, 10)
            row[2 * i] = _pixel(a)
            row[2 * i + 1] = _pixel(b)
    return excess


@kernel
def _transform_4(x: Array, q: Array, work: Array, out: Uint8Array, stride: int) -> I32:
    excess = np.int32(0)
    for j in range(7):
        for i in range(LANES):
            at = LANES * j + i
            d0 = np.int32(x[at] * q[j])
            d1 = np.int32(x[at + 7 * LANES] * q[j + 7])
            d2 = np.int32(x[at + 14 * LANES] * q[j + 14])
            d3 = np.int32(x[at + 21 * LANES] * q[j + 21])
            d5 = np.int32(x[at + 28 * LANES] * q[j + 28])
            d6 = np.int32(x[at + 35 * LANES] * q[j + 35])
            d7 = np.int32(x[at + 42 * LANES] * q[j + 42])
            excess |= _excess(d0, 13) | _excess(d1, 13) | _excess(d2, 13) | _excess(d3, 13)
            excess |= _excess(d5, 13) | _excess(d6, 13) | _excess(d7, 13)
            a, b, c, d = _four(d0, d1, d2, d3, d5, d6, d7, 12)
            excess |= _excess(a, 15) | _excess(b, 15) | _excess(c, 15) | _excess(d, 15)
            work[at] = a
            work[at + 7 * LANES] = b
            work[at + 14 * LANES] = c
            work[at + 21 * LANES] = d
    for k in range(4):
        w = work[7 * LANES * k : 7 * LANES * (k + 1)]
        row = out[k * stride : k * stride + 4 * LANES]
        for i in range(LANES):
            a, b, c, d = _four(
                w[i],
                w[i + LANES],
                w[i + 2 * LANES],
                w[i + 3 * LANES],
                w[i + 4 * LANES],
                w[i + 5 * LANES],
                w[i + 6 * LANES],
                19,
            )
            excess |= _excess(a, 10) | _excess(b, 10) | _excess(c, 10) | _excess(d, 10)
            row[4 * i] = _pixel(a)
            row[4 * i + 1] = _pixel(b)
            row[4 * i + 2] = _pixel(c)
            row[4 * i + 3] = _pixel(d)
    return excess


@kernel
def _transform_8(x: Array, q: Array, work: Array, out: Uint8Array, stride: int) -> I32:
    excess = np.int32(0)
    for j in range(8):
        for i in range(LANES):
            at = LANES * j + i
            a, b, c, d, e, f, g, h, more = _eight(
                np.int32(x[at] * q[j]),
                np.int32(x[at + 8 * LANES] * q[j + 8]),
                np.int32(x[at + 16 * LANES] * q[j + 16]),
                np.int32(x[at + 24 * LANES] * q[j + 24]),
                np.int32(x[at + 32 * LANES] * q[j + 32]),
                np.int32(x[at + 40 * LANES] * q[j + 40]),
                np.int32(x[at + 48 * LANES] * q[j + 48]),
                np.int32(x[at + 56 * LANES] * q[j + 56]),
            )
            excess |= more
            work[at] = a
            work[at + 8 * LANES] = b
            work[at + 16 * LANES] = c
            work[at + 24 * LANES] = d
            work[at + 32 * LANES] = e
            work[at + 40 * LANES] = f
            work[at + 48 * LANES] = g
            work[at + 56 * LANES] = h
    for k in range(8):
        w = work[8 * LANES * k : 8 * LANES * (k + 1)]
        row = out[k * stride : k * stride + 8 * LANES]
        for i in range(LANES):
            a, b, c, d, e, f, g, h, more = _eight(
                w[i],
                w[i + LANES],
                w[i + 2 * LANES],
                w[i + 3 * LANES],
                w[i + 4 * LANES],
                w[i + 5 * LANES],
                w[i + 6 * LANES],
                w[i + 7 * LANES],
            )
            for pixel, value in enumerate((a, b, c, d, e, f, g, h)):
                excess |= _excess(value, 15)
                row[8 * i + pixel] = _pixel(np.int32(value >> 5))
            excess |= more
    return excess


@kernel
def _gather(
    coefficients: Array,
    order: Array,
    first: int,
    mcu: int,
    across: int,
    columns: int,
    chunk: int,
    x: Array,
) -> None:
    """Copy a chunk of blocks of a row to x (frequencies * LANES,)."""
    for lane in range(LANES):
        column = min(chunk * LANES + lane, columns - 1)
        inner = across - 1  # across is 1 or 2
        at = np.uint64(first + 64 * ((column >> inner) * mcu + (column & inner)))
        for slot in range(order.size):
            x[slot * LANES + lane] = coefficients[at + order[slot]]


@kernel
def _fill_plane(
    coefficients: Array,
    mcus: tuple[int, int],
    blocks: int,
    component: Array,
    places: Array,
    factors: Array,
    plane: Uint8Array,
) -> bool:
    rows, columns = mcus
    first, across, down, side = component
    chunks = plane.shape[1] // (LANES * side)
    stride = plane.shape[1]
    out = plane.reshape(plane.size)
    work = np.empty(64 * LANES, np.int32)
    x = np.empty(64 * LANES, np.int16)
    excess = np.int32(0)
    for row in range(rows * down):
        start = 1 + 64 * (row // down * columns * blocks + first + row % down * across)
        for chunk in range(chunks):
            _gather(coefficients, places, start, blocks, across, columns * across, chunk, x)
            pixels = out[row * side * stride + chunk * LANES * side :]
            if side == 8:
                excess |= _transform_8(x, factors, work, pixels, stride)
            elif side == 4:
                excess |= _transform_4(x, factors, work, pixels, stride)
            elif side == 2:
                excess |= _transform_2(x, factors, work, pixels, stride)
            else:
                excess |= _transform_1(x, factors, pixels)
    return bool(excess == 0)


@kernel
def transform(
    coefficients: Array,
    mcus: tuple[int, int],
    blocks: int,
    components: Int64Array,
    places: tuple[Array, ...],
    factors: tuple[Array, ...],
    planes: tuple[Uint8Array, ...],
) -> bool:
    """Fill the planes of three components; return whether all blocks can be transformed.

    `coefficients` are those of `entropy.decode`, of rows and columns of `mcus` with `blocks` each.
    `components` (3, 4) has the number of each component's first block, its blocks across and down
    an MCU, and the pixels a side of a block. places, uint64, and factors, int32 (n,), are those of
    the frequencies in a block. A plane is uint8 (rows of blocks * side, columns of blocks, rounded
    up to multiples of LANES, * side).
    """
    for number in range(3):
        component = components[number]
        if not _fill_plane(
            coefficients,
            mcus,
            blocks,
            component,
            places[number],
            factors[number],
            planes[number],
        ):
            return False
    return True
