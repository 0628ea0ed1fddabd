"""The compiled kernels from a payload's bytes to runs; `beton.codec.ink` explains both.

Positions are unsigned: numba then leaves out the code for negative indices.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton.arrays import RunArray, Uint8Array
from beton.codec.pixels import find_runs
from beton.jit import inlined, kernel, signed, unsigned

Numbers = NDArray[np.uint64]
Position = Any  # uint64

RAW, FLAT, GREY = 0, 1, 2
SOFT = 14  # the most pixels of a soft edge
PAIRS = 255  # the first byte of a span of (value, length) pairs
ONE = np.uint64(1)
COORDINATE = np.uint64(0xFFFF)  # the bits of a coordinate in a run's number

DAMAGES = {
    -1: "the payload ends early or has extra bytes",
    -2: "a run is outside the image or out of order",
    -3: "the number of runs differs from the metadata",
    -4: "the record was changed in place while the file was open",
}


@inlined
def _run(row: int, start: int, end: int, value: int) -> Position:
    """Return a run as one number: uint16 (4,) in little-endian memory."""
    low = unsigned(row) | unsigned(start) << unsigned(16)
    return low | unsigned(end) << unsigned(32) | unsigned(value) << unsigned(48)


@inlined
def numbers_of(runs: RunArray) -> Numbers:
    """Return runs (n, 4) as numbers of `_run`: uint64 (n,) in the same memory."""
    return runs.reshape(runs.size).view(np.uint64)


@inlined
def _get_varint(data: Uint8Array, at: Position, stop: Position) -> tuple[int, Position]:
    """Return (number, position after it); the number is -1 if the stream is damaged."""
    number = 0
    for shift in range(0, 21, 7):
        if at >= stop:
            return -1, at
        byte = signed(data[at])
        at += ONE
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    return -1, at


@inlined
def _get_difference(
    data: Uint8Array, at: Position, stop: Position, old: int
) -> tuple[int, Position]:
    """Return (new value, position after it); the value is -1 if the stream ends early."""
    if at >= stop:
        return -1, at
    byte = signed(data[at])
    if byte != 0:
        return old + byte - 128, at + ONE
    if at + unsigned(3) > stop:
        return -1, at
    high = signed(data[at + unsigned(2)])
    return signed(data[at + ONE]) | high << 8, at + unsigned(3)


@kernel
def _unpack_values(
    data: Uint8Array,
    at: Position,
    stop: Position,
    ink: int,
    runs: Numbers,
    n: int,
    row: int,
    a: int,
    b: int,
) -> tuple[int, Position]:
    """Read the values of span [a, b) into runs, from number n.

    Returns (runs written so far, position), or (a negative key of `DAMAGES`, position).
    """
    if at >= stop:
        return -1, at
    head = signed(data[at])
    at += ONE
    left, right = head >> 4, head & 15
    if head != PAIRS and (left > SOFT or right > SOFT or left + right > b - a):
        return -2, at
    before = -1  # the value of the run before; equal neighbours are one run
    start = x = a
    while x < b:
        end = x + 1
        value = ink
        if head == PAIRS or x < a + left or x >= b - right:
            if at >= stop:
                return -1, at
            value = signed(data[at])
            at += ONE
            if head == PAIRS:
                length, at = _get_varint(data, at, stop)
                end = x + length
        else:
            end = b - right
        if end <= x or end > b:
            return -2, at
        if value != before:
            if n == signed(runs.size):
                return -3, at
            start = x
            n += 1
        runs[unsigned(n - 1)] = _run(row, start, end, value)
        before = value
        x = end
    return n, at


@kernel
def unpack(
    data: Uint8Array,
    start: int,
    size: int,
    mode: int,
    background: int,
    ink: int,
    height: int,
    width: int,
    runs: RunArray,
) -> int:
    """Read the payload data[start : start + size] into `runs` and check every bound.

    `runs` is uint16 (n, 4), n the number of runs in the metadata. Returns n, or a negative key of
    `DAMAGES`.
    """
    total = runs.shape[0]
    if mode == RAW:
        image = data[start : start + size].reshape((height, width))
        return total if find_runs(image, background, runs) == total else -3
    at = unsigned(start)
    stop = at + unsigned(size)
    value_at = value_stop = stop
    if mode == GREY:
        if size < 4:
            return -1
        length = 0
        for k in range(4):
            length |= signed(data[start + k]) << (8 * k)
        at += unsigned(4)
        if unsigned(length) > stop - at:
            return -1
        value_at = stop = at + unsigned(length)
    numbers = numbers_of(runs)
    spans = np.empty(width + 1, np.int64)  # starts and ends of the row above
    n = 0  # runs written
    row = 0
    while at < stop:
        skip, at = _get_varint(data, at, stop)
        rows, at = _get_varint(data, at, stop)
        count, at = _get_varint(data, at, stop)
        if skip < 0 or rows < 1 or count < 1:
            return -1
        row += skip
        if row + rows > height or 2 * count > width + 1:
            return -2
        for r in range(rows):
            end = -1  # of the previous span; spans do not touch
            for span in range(count):
                k = unsigned(2 * span)
                if r == 0:
                    gap, at = _get_varint(data, at, stop)
                    length, at = _get_varint(data, at, stop)
                    if gap < 0 or length < 0:
                        return -1
                    a = max(end, 0) + gap
                    b = a + length
                else:
                    a, at = _get_difference(data, at, stop, spans[k])
                    if a < 0:
                        return -1 if at >= stop else -2
                    b, at = _get_difference(data, at, stop, spans[k + ONE])
                if a <= end or b <= a or b > width:
                    return -2
                spans[k] = a
                spans[k + ONE] = end = b
                if mode == FLAT:
                    if n == total:
                        return -3
                    numbers[unsigned(n)] = _run(row + r, a, b, ink)
                    n += 1
                else:
                    n, value_at = _unpack_values(
                        data, value_at, value_stop, ink, numbers, n, row + r, a, b
                    )
                    if n < 0:
                        return n
        row += rows
    if n != total:
        return -3
    if value_at != value_stop:
        return -1
    return n
