"""The compiled kernels that resize images given as runs."""

from typing import Any

import numpy as np

from beton.arrays import Array, Float64Array, Int64Array, RunArray, Uint8Array
from beton.codec.unpacking import COORDINATE, ONE, Numbers, numbers_of
from beton.jit import kernel, signed, unsigned

EXACT = 1 << 22  # the most equal parts of an output pixel that `resize_exactly` divides by
SHIFT = 54

# Columns of `geometry`: the window of the source that `resize` maps to the output.
X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT, SHEAR, CENTRE = range(6)


@kernel
def _fill(out: Array, value: Any) -> None:
    flat = out.reshape(out.size)
    for i in range(flat.size):
        flat[i] = value


@kernel
def resize(
    runs: RunArray,
    background: int,
    geometry: Float64Array,
    gain: float,
    offset: float,
    sums: Float64Array,
    out: Array,
) -> None:
    """Area-average an image given as runs (n, 4) into out (H, W), uint8 or float32.

    `geometry` (6,) has the columns X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT, SHEAR and CENTRE, in source
    pixels: this window of the source fills the output, its rows shifted by shear * (row centre -
    centre). Outside the image is background. A pixel is stored as value * gain + offset, cast to
    the dtype of `out`: (1, 0.5) rounds to uint8. `sums` is a scratch array of W + 2 zeros, and
    zeros again afterwards.

    Box filtering is linear in the runs. Along an output row, the coverage of a run [a, b) is the
    cumulative sum of four numbers: +1 at a and -1 at b, each split over two neighbouring columns in
    proportion to its position. So the cost is O(runs + pixels touched).
    """
    height, width = out.shape
    x0, y0, window_width, window_height, shear, centre = geometry
    across = width / window_width
    rows = window_height / height  # source rows in an output row
    ground, right = float(background), float(width)
    _fill(out, out.dtype.type(background * gain + offset))
    numbers = numbers_of(runs)
    total = unsigned(numbers.size)
    first = unsigned(0)
    for j in range(height):
        top = y0 + j * rows
        bottom = y0 + (j + 1) * rows
        while first < total and float(signed(numbers[first] & COORDINATE)) + 1.0 <= top:
            first += ONE
        low, high = unsigned(width + 1), unsigned(0)
        k = first
        seen = -1.0  # the row that `share` and `shift` are of
        share = shift = 0.0
        while k < total:
            run = numbers[k]
            row = float(signed(run & COORDINATE))
            if row != seen:
                if row >= bottom:
                    break
                share = (min(row + 1.0, bottom) - max(row, top)) / rows
                shift = x0 + shear * (row + 0.5 - centre)
                seen = row
            start = float(signed(run >> unsigned(16) & COORDINATE))
            end = float(signed(run >> unsigned(32) & COORDINATE))
            a = min(max((start - shift) * across, 0.0), right)
            b = min(max((end - shift) * across, 0.0), right)
            if b > a:
                weight = share * (float(signed(run >> unsigned(48))) - ground)
                ia, ib = unsigned(signed(a)), unsigned(signed(b))
                part = weight * (a - signed(a))
                sums[ia] += weight - part
                sums[ia + ONE] += part
                part = weight * (b - signed(b))
                sums[ib] -= weight - part
                sums[ib + ONE] -= part
                low = min(low, ia)
                high = max(high, ib)
            k += ONE
        running = 0.0
        line = out[j]
        for i in range(low, min(high + unsigned(2), unsigned(width))):
            running += sums[i]
            sums[i] = 0.0
            line[i] = out.dtype.type(min(max(ground + running, 0.0), 255.0) * gain + offset)
        sums[width:] = 0.0


@kernel
def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@kernel
def parts_of_pixel(height: int, width: int, out_height: int, out_width: int) -> int:
    """Return the number of parts in which source pixels divide the area of each output pixel."""
    return (height // _gcd(height, out_height)) * (width // _gcd(width, out_width))


@kernel
def set_columns(width: int, out_width: int, columns: Numbers) -> None:
    """Set columns[x], x from 0 to width, to x in output pixels: whole << 32 | parts of a pixel."""
    divisor = _gcd(width, out_width)
    parts, step = width // divisor, out_width // divisor
    whole = part = 0
    for x in range(width + 1):
        columns[x] = unsigned(whole) << unsigned(32) | unsigned(part)
        part += step
        whole += part // parts
        part %= parts


@kernel
def resize_exactly(
    runs: RunArray,
    background: int,
    height: int,
    width: int,
    columns: Numbers,
    sums: Int64Array,
    out: Uint8Array,
) -> None:
    """Do what `resize` does to a whole image of (height, width), in integers: out (H, W) uint8.

    `columns` is that of `set_columns`, `sums` a scratch array of W + 2 zeros. `parts_of_pixel` is
    odd and less than `EXACT`. Then no mean is halfway between two levels, so that the float64 of
    `resize`, whose error is far below the distance to the next half, rounds to the same bytes.

    Sums are twice the mean, in parts of a pixel, so that a half is a whole number too. A division
    by a constant is a multiplication by its reciprocal (Granlund and Montgomery 1994, "Division by
    invariant integers using multiplication").
    """
    out_height, out_width = out.shape
    divisor = _gcd(height, out_height)
    row_parts, row_step = height // divisor, out_height // divisor
    column_parts = width // _gcd(width, out_width)
    parts = row_parts * column_parts
    base = (2 * background + 1) * parts
    reciprocal = unsigned((1 << SHIFT) // (2 * parts) + 1)
    _fill(out, np.uint8(background))
    numbers = numbers_of(runs)
    total = unsigned(numbers.size)
    first = unsigned(0)
    for j in range(out_height):
        top = j * row_parts
        bottom = top + row_parts
        while first < total and (signed(numbers[first] & COORDINATE) + 1) * row_step <= top:
            first += ONE
        low, high = unsigned(out_width + 1), unsigned(0)
        k = first
        while k < total:
            run = numbers[k]
            y = signed(run & COORDINATE) * row_step
            if y >= bottom:
                break
            rows = min(y + row_step, bottom) - max(y, top)
            weight = 2 * rows * (signed(run >> unsigned(48)) - background)
            a = columns[run >> unsigned(16) & COORDINATE]
            b = columns[run >> unsigned(32) & COORDINATE]
            ia, ib = a >> unsigned(32), b >> unsigned(32)
            part = weight * signed(a & unsigned(0xFFFFFFFF))
            sums[ia] += weight * column_parts - part
            sums[ia + ONE] += part
            part = weight * signed(b & unsigned(0xFFFFFFFF))
            sums[ib] -= weight * column_parts - part
            sums[ib + ONE] -= part
            low = min(low, ia)
            high = max(high, ib)
            k += ONE
        running = base
        line = out[j]
        i, stop = low, min(high + unsigned(2), unsigned(out_width))
        while i < stop:
            running += sums[i]
            sums[i] = 0
            line[i] = np.uint8(unsigned(running) * reciprocal >> unsigned(SHIFT))
            i += ONE
        sums[out_width:] = 0
