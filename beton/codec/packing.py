"""The compiled kernels of the ink encoder: counts of values, and runs to bytes.

`beton.codec.ink` explains runs and their bytes, and calls these kernels.
"""

from typing import Any

import numpy as np

from beton.arrays import Int64Array, RunArray, Uint8Array
from beton.jit import kernel

SOFT = 14  # the most pixels of a soft edge
PAIRS = 255  # the first byte of a span of (value, length) pairs


@kernel
def _wide(number: Any) -> Any:
    """Convert a byte or a coordinate to int64, so that differences do not wrap around."""
    return np.int64(number)


@kernel
def count_equal(flat: Uint8Array, value: int) -> int:
    """Return the number of pixels with a value."""
    count = 0
    for i in range(flat.size):
        count += flat[i] == value
    return count


@kernel
def histogram(flat: Uint8Array) -> Int64Array:
    """Return the number of pixels with each value: int64 (256,)."""
    counts = np.zeros(256, np.int64)
    for i in range(flat.size):
        counts[flat[i]] += 1
    return counts


@kernel
def _put_varint(out: Uint8Array, at: int, number: int) -> int:
    while number >= 128:
        out[at] = (number & 127) | 128
        number >>= 7
        at += 1
    out[at] = number
    return at + 1


@kernel
def _put_difference(out: Uint8Array, at: int, new: int, old: int) -> int:
    difference = new - old
    if -127 <= difference <= 127:
        out[at] = difference + 128
        return at + 1
    out[at] = 0
    out[at + 1] = new & 255
    out[at + 2] = new >> 8
    return at + 3


@kernel
def _spans_of_row(runs: RunArray, i: int, spans: Int64Array) -> tuple[int, int]:
    """Merge adjacent runs of the row of run i to spans; return (spans, first run after the row)."""
    row = runs[i, 0]
    n = 0
    while i < runs.shape[0] and runs[i, 0] == row:
        if n > 0 and runs[i, 1] == spans[n - 1, 1]:
            spans[n - 1, 1] = runs[i, 2]
        else:
            spans[n, 0] = runs[i, 1]
            spans[n, 1] = runs[i, 2]
            n += 1
        i += 1
    return n, i


@kernel
def pack_spans(runs: RunArray, out: Uint8Array, at: int) -> int:
    """Write the span stream to `out` from `at`; return its end, or -1 if `out` is full."""
    total = runs.shape[0]
    longest = 0
    first = 0
    for i in range(total):
        if runs[i, 0] != runs[first, 0]:
            first = i
        longest = max(longest, i - first + 1)
    above = np.empty((longest, 2), np.int64)
    spans = np.empty((longest, 2), np.int64)
    end_row = 0  # the row after the previous segment
    i = 0
    while i < total:
        top = _wide(runs[i, 0])
        n, following = _spans_of_row(runs, i, spans)
        # Count the next rows with as many spans: the segment's height precedes its rows.
        rows = 1
        j = following
        while j < total and runs[j, 0] == top + rows:
            m, j = _spans_of_row(runs, j, above)
            if m != n:
                break
            rows += 1
        if at + 15 > out.size:
            return -1
        at = _put_varint(out, at, top - end_row)
        at = _put_varint(out, at, rows)
        at = _put_varint(out, at, n)
        end = 0
        for k in range(n):
            if at + 15 > out.size:
                return -1
            at = _put_varint(out, at, spans[k, 0] - end)
            at = _put_varint(out, at, spans[k, 1] - spans[k, 0])
            end = spans[k, 1]
        i = following
        for _ in range(1, rows):
            above[:n] = spans[:n]
            n, i = _spans_of_row(runs, i, spans)
            for k in range(n):
                if at + 15 > out.size:
                    return -1
                at = _put_difference(out, at, spans[k, 0], above[k, 0])
                at = _put_difference(out, at, spans[k, 1], above[k, 1])
        end_row = top + rows
    return at


@kernel
def pack_values(runs: RunArray, ink: int, out: Uint8Array, at: int) -> int:
    """Write the value stream to `out` from `at`; return its end, or -1 if `out` is full."""
    total = runs.shape[0]
    first = 0
    while first < total:
        stop = first + 1  # the span has the runs first to stop - 1
        while (
            stop < total and runs[stop, 0] == runs[first, 0] and runs[stop, 1] == runs[stop - 1, 2]
        ):
            stop += 1
        solid = -1  # the run of ink, if the span has one
        inks = 0
        for i in range(first, stop):
            if runs[i, 3] == ink:
                solid = i
                inks += 1
        if at + 2 * SOFT + 1 > out.size:
            return -1
        begin, end = _wide(runs[first, 1]), _wide(runs[stop - 1, 2])
        left = _wide(runs[solid, 1]) - begin if inks else end - begin
        right = end - _wide(runs[solid, 2]) if inks else 0
        if inks <= 1 and left <= SOFT and right <= SOFT:
            out[at] = left << 4 | right
            at += 1
            for i in range(first, stop):
                if i != solid:
                    for _ in range(runs[i, 1], runs[i, 2]):
                        out[at] = runs[i, 3]
                        at += 1
        else:
            out[at] = PAIRS
            at += 1
            for i in range(first, stop):
                if at + 4 > out.size:
                    return -1
                out[at] = runs[i, 3]
                at = _put_varint(out, at + 1, _wide(runs[i, 2]) - _wide(runs[i, 1]))
        first = stop
    return at
