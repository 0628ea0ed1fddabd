"""The kernels of inverse DCTs, in libjpeg's fixed-point arithmetic.

A block of 8×8 coefficients becomes 8, 4, 2 or 1 pixels a side. The 8×8 transform is that of Arai,
Agui and Nakajima, which libjpeg calls fast; the others are libjpeg's reduced transforms. They use
only some frequencies, and their sums are rounded after the columns and again after the rows.

16 blocks at a time are transformed, in vector instructions. Implementations of libjpeg differ in
how numbers overflow, so a block with numbers that 16 bits may not hold is not decoded here.
"""

import numpy as np

from beton.arrays import Array, Uint8Array
from beton.codec.vectors import LANES, Vector, is_zero, load, store, store_pixels, vector
from beton.jit import inlined, kernel

FREQUENCIES = {  # of rows and columns, by the pixels a side
    1: (0,),
    2: (0, 1, 3, 5, 7),
    4: (0, 1, 2, 3, 5, 6, 7),
    8: (0, 1, 2, 3, 4, 5, 6, 7),
}
_SCALES = np.array([1, *(np.cos(np.arange(1, 8) * np.pi / 16) * np.sqrt(2))])
# Factors of the 8×8 transform, which it has in common with the quantisation; 14 bits.
PRESCALE = np.rint(16384 * np.outer(_SCALES, _SCALES)).astype(np.int32).reshape(64)
ZIGZAG = sorted(
    range(64), key=lambda at: (at // 8 + at % 8, (at if (at // 8 + at % 8) % 2 else at % 8))
)
PLACES = {  # in zigzag order, of the frequencies that a transform uses
    side: np.array([ZIGZAG.index(8 * v + u) for v in used for u in used])
    for side, used in FREQUENCIES.items()
}
PLACES_2, PLACES_4, PLACES_8 = (PLACES[side] * LANES for side in (2, 4, 8))
CENTRE = 128  # of the pixels


@inlined
def _biased(number: Vector, bits: int) -> Vector:
    """Return a number that has no bits above `bits` if `number`, with its sign, fits into them.

    The results of several numbers are combined by `|`, before one test of the higher bits.
    """
    return number + (1 << (bits - 1))


@inlined
def _pair(
    d0: Vector, d1: Vector, d3: Vector, d5: Vector, d7: Vector, shift: int
) -> tuple[Vector, Vector]:
    """Return two samples of a row or column of frequencies 0, 1, 3, 5 and 7."""
    even = (d0 << 15) + (1 << (shift - 1))
    odd = d1 * 29692 - d3 * 10426 + d5 * 6967 - d7 * 5906
    return (even + odd) >> shift, (even - odd) >> shift


@inlined
def _four(
    d0: Vector, d1: Vector, d2: Vector, d3: Vector, d5: Vector, d6: Vector, d7: Vector, shift: int
) -> tuple[Vector, Vector, Vector, Vector]:
    """Return four samples of a row or column of all frequencies but 4."""
    base = (d0 << 14) + (1 << (shift - 1))
    even = d2 * 15137 - d6 * 6270
    outer = d1 * 20995 + d3 * 7373 - d5 * 4926 - d7 * 4176
    inner = d1 * 8697 - d3 * 17799 + d5 * 11893 - d7 * 1730
    high, low = base + even, base - even
    return (
        (high + outer) >> shift,
        (low + inner) >> shift,
        (low - inner) >> shift,
        (high - outer) >> shift,
    )


@inlined
def _eight(
    d0: Vector,
    d1: Vector,
    d2: Vector,
    d3: Vector,
    d4: Vector,
    d5: Vector,
    d6: Vector,
    d7: Vector,
) -> tuple[Vector, Vector, Vector, Vector, Vector, Vector, Vector, Vector, Vector]:
    """Return eight samples of a row or column, and the bits of what is multiplied."""
    sum04, difference04 = d0 + d4, d0 - d4
    sum26, difference26 = d2 + d6, d2 - d6
    turned = (difference26 * 362 >> 8) - sum26
    e0, e3 = sum04 + sum26, sum04 - sum26
    e1, e2 = difference04 + turned, difference04 - turned
    z13, z10 = d5 + d3, d5 - d3
    z11, z12 = d1 + d7, d1 - d7
    both, across = z10 + z12, z11 - z13
    multiplied = _biased(difference26, 14) | _biased(z10, 14) | _biased(z12, 14)
    multiplied = multiplied | _biased(both, 14) | _biased(across, 14)
    z5 = both * 473 >> 8
    o7 = z11 + z13
    o6 = (z10 * -669 >> 8) + z5 - o7
    o5 = (across * 362 >> 8) - o6
    o4 = (z12 * 277 >> 8) - z5 + o5
    return (
        e0 + o7,
        e1 + o6,
        e2 + o5,
        e3 - o4,
        e3 + o4,
        e2 - o5,
        e1 - o6,
        e0 - o7,
        multiplied,
    )


@kernel
def _transform_1(x: Array, factors: Array, out: Uint8Array) -> Vector:
    dc = load(x, 0) * factors[0]
    value = (dc + 4) >> 3
    store_pixels(out, 0, (value + CENTRE,))
    return _biased(dc, 13) >> 13 | _biased(value, 10) >> 10


@kernel
def _transform_2(x: Array, factors: Array, work: Array, out: Uint8Array, stride: int) -> Vector:
    excess = vector(0)
    for j in range(5):
        d0 = load(x, PLACES_2[j]) * factors[j]
        d1 = load(x, PLACES_2[j + 5]) * factors[j + 5]
        d3 = load(x, PLACES_2[j + 10]) * factors[j + 10]
        d5 = load(x, PLACES_2[j + 15]) * factors[j + 15]
        d7 = load(x, PLACES_2[j + 20]) * factors[j + 20]
        a, b = _pair(d0, d1, d3, d5, d7, 13)
        scaled = _biased(d0, 13) | _biased(d1, 13) | _biased(d3, 13) | _biased(d5, 13)
        scaled = scaled | _biased(d7, 13)
        samples = _biased(a, 15) | _biased(b, 15)
        excess = excess | scaled >> 13 | samples >> 15
        for k, sample in enumerate((a, b)):
            store(work, (5 * k + j) * LANES, sample)
    for k in range(2):
        row = 5 * LANES * k
        v0 = load(work, row)
        v1 = load(work, row + LANES)
        v2 = load(work, row + 2 * LANES)
        v3 = load(work, row + 3 * LANES)
        v4 = load(work, row + 4 * LANES)
        a, b = _pair(v0, v1, v2, v3, v4, 20)
        samples = _biased(a, 10) | _biased(b, 10)
        excess = excess | samples >> 10
        pixels = (a + CENTRE, b + CENTRE)
        store_pixels(out, k * stride, pixels)
    return excess


@kernel
def _transform_4(x: Array, factors: Array, work: Array, out: Uint8Array, stride: int) -> Vector:
    excess = vector(0)
    for j in range(7):
        d0 = load(x, PLACES_4[j]) * factors[j]
        d1 = load(x, PLACES_4[j + 7]) * factors[j + 7]
        d2 = load(x, PLACES_4[j + 14]) * factors[j + 14]
        d3 = load(x, PLACES_4[j + 21]) * factors[j + 21]
        d5 = load(x, PLACES_4[j + 28]) * factors[j + 28]
        d6 = load(x, PLACES_4[j + 35]) * factors[j + 35]
        d7 = load(x, PLACES_4[j + 42]) * factors[j + 42]
        a, b, c, d = _four(d0, d1, d2, d3, d5, d6, d7, 12)
        scaled = _biased(d0, 13) | _biased(d1, 13) | _biased(d2, 13) | _biased(d3, 13)
        scaled = scaled | _biased(d5, 13) | _biased(d6, 13) | _biased(d7, 13)
        samples = _biased(a, 15) | _biased(b, 15) | _biased(c, 15) | _biased(d, 15)
        excess = excess | scaled >> 13 | samples >> 15
        for k, sample in enumerate((a, b, c, d)):
            store(work, (7 * k + j) * LANES, sample)
    for k in range(4):
        row = 7 * LANES * k
        v0 = load(work, row)
        v1 = load(work, row + LANES)
        v2 = load(work, row + 2 * LANES)
        v3 = load(work, row + 3 * LANES)
        v4 = load(work, row + 4 * LANES)
        v5 = load(work, row + 5 * LANES)
        v6 = load(work, row + 6 * LANES)
        a, b, c, d = _four(v0, v1, v2, v3, v4, v5, v6, 19)
        samples = _biased(a, 10) | _biased(b, 10) | _biased(c, 10) | _biased(d, 10)
        excess = excess | samples >> 10
        pixels = (a + CENTRE, b + CENTRE, c + CENTRE, d + CENTRE)
        store_pixels(out, k * stride, pixels)
    return excess


@kernel
def _transform_8(x: Array, factors: Array, work: Array, out: Uint8Array, stride: int) -> Vector:
    excess = vector(0)
    for j in range(8):
        d0 = load(x, PLACES_8[j]) * factors[j]
        d1 = load(x, PLACES_8[j + 8]) * factors[j + 8]
        d2 = load(x, PLACES_8[j + 16]) * factors[j + 16]
        d3 = load(x, PLACES_8[j + 24]) * factors[j + 24]
        d4 = load(x, PLACES_8[j + 32]) * factors[j + 32]
        d5 = load(x, PLACES_8[j + 40]) * factors[j + 40]
        d6 = load(x, PLACES_8[j + 48]) * factors[j + 48]
        d7 = load(x, PLACES_8[j + 56]) * factors[j + 56]
        a, b, c, d, e, f, g, h, multiplied = _eight(d0, d1, d2, d3, d4, d5, d6, d7)
        excess = excess | multiplied >> 14
        for k, sample in enumerate((a, b, c, d, e, f, g, h)):
            store(work, (8 * k + j) * LANES, sample)
    for k in range(8):
        row = 8 * LANES * k
        v0 = load(work, row)
        v1 = load(work, row + LANES)
        v2 = load(work, row + 2 * LANES)
        v3 = load(work, row + 3 * LANES)
        v4 = load(work, row + 4 * LANES)
        v5 = load(work, row + 5 * LANES)
        v6 = load(work, row + 6 * LANES)
        v7 = load(work, row + 7 * LANES)
        a, b, c, d, e, f, g, h, multiplied = _eight(v0, v1, v2, v3, v4, v5, v6, v7)
        samples = _biased(a, 15) | _biased(b, 15) | _biased(c, 15) | _biased(d, 15)
        samples = samples | _biased(e, 15) | _biased(f, 15) | _biased(g, 15) | _biased(h, 15)
        excess = excess | multiplied >> 14 | samples >> 15
        pixels = (
            (a >> 5) + CENTRE,
            (b >> 5) + CENTRE,
            (c >> 5) + CENTRE,
            (d >> 5) + CENTRE,
            (e >> 5) + CENTRE,
            (f >> 5) + CENTRE,
            (g >> 5) + CENTRE,
            (h >> 5) + CENTRE,
        )
        store_pixels(out, k * stride, pixels)
    return excess


@kernel
def transform(
    coefficients: Array, side: int, factors: Array, work: Array, pixels: Uint8Array
) -> bool:
    """Write the pixels of a row of blocks; return whether all blocks can be transformed.

    `coefficients`, int16 (n,), are those of the blocks in zigzag order: LANES numbers for each
    coefficient of the first LANES blocks, then those of the next ones. factors, int64 (n,), are
    those of the frequencies that a transform to `side` pixels uses. `pixels` is uint8 (side,
    columns of blocks, rounded up to a multiple of LANES, * side), contiguous, and `work` memory,
    int32 (64 * LANES,).
    """
    stride = pixels.shape[1]
    flat = pixels.reshape(pixels.size)
    excess = vector(0)
    for chunk in range(stride // (LANES * side)):
        x = coefficients[64 * LANES * chunk :]
        out = flat[LANES * side * chunk :]
        if side == 8:
            excess = excess | _transform_8(x, factors, work, out, stride)
        elif side == 4:
            excess = excess | _transform_4(x, factors, work, out, stride)
        elif side == 2:
            excess = excess | _transform_2(x, factors, work, out, stride)
        else:
            excess = excess | _transform_1(x, factors, out)
    return is_zero(excess)
