"""Kernels for the rows of PNG files: they undo the filters and convert colours to grey levels.

A page is mostly paper, where a row repeats the row above. The kernels undo the filters in one row,
whose bytes stay where the file repeats them, and convert the others to grey levels alone.
"""

import numpy as np

from beton.jit import kernel
from pipeline.data.base import Pixels

DAMAGED, GREY, COLOURED = range(3)
_BLOCK = 192  # bytes of a row that are inspected at once: whole pixels of 1, 2, 3, 4, 6 or 8 bytes


@kernel
def _is_zero(row: Pixels) -> bool:
    # Most filtered bytes are; without an early exit, the loop compiles to vector instructions.
    found = np.uint8(0)
    for i in range(row.size):
        found |= row[i]
    return bool(found == 0)


@kernel
def _copy(source: Pixels, target: Pixels) -> None:
    for i in range(source.size):
        target[i] = source[i]


@kernel
def _paeth(left: np.int32, above: np.int32, corner: np.int32) -> np.int32:
    """Return the neighbour that is nearest to left + above - corner."""
    to_left, to_above = abs(above - corner), abs(left - corner)
    to_corner = abs(left + above - corner - corner)
    nearest = above if to_above <= to_corner else corner
    return left if to_left <= to_above and to_left <= to_corner else nearest


@kernel
def _next_row(row: Pixels, line: Pixels, step: int) -> tuple[int, int]:
    """Replace the bytes of a row, `line` (n,), by those of the next one: undo its filter.

    `row` (1 + n,) is the next one with its filter's number and filtered bytes, `step` are the bytes
    a pixel. Returns where bytes that changed start and end; a negative start for an unknown filter.
    """
    kind, size = row[0], line.size
    body = row[1:]
    if kind == 0:
        _copy(body, line)
    elif kind == 1:
        for c in range(step):
            left = np.uint8(0)
            for x in range(c, size, step):
                left = np.uint8(left + body[x])
                line[x] = left
    elif kind == 3:
        for c in range(step):
            before = np.uint32(0)
            for x in range(c, size, step):
                mean = (before + np.uint32(line[x])) >> np.uint32(1)
                before = (mean + np.uint32(body[x])) & np.uint32(255)
                line[x] = before
    elif kind in (2, 4):
        return _add_to_above(body, line, step, kind == 4)
    else:
        return -1, -1
    return 0, size


@kernel
def _add_to_above(body: Pixels, line: Pixels, step: int, is_paeth: bool) -> tuple[int, int]:
    """Undo the filter Up, or Paeth, as `_next_row` does, and skip blocks that repeat the row above.

    Paeth's filter predicts the row above, too, from where a pixel equals the one above it on.
    """
    if _is_zero(body):
        return 0, 0
    first, last = body.size, 0
    corners = np.zeros(step, np.uint8)  # the pixel above the one before the block
    for x in range(0, body.size, _BLOCK):
        block, part = body[x : x + _BLOCK], line[x : x + _BLOCK]
        repeats = True
        for c in range(step if is_paeth else 0):
            repeats &= corners[c] == (line[x - step + c] if x else 0)
        if repeats and _is_zero(block):
            _copy(part[-step:], corners)
            continue
        first, last = min(first, x), x + block.size
        if not is_paeth:
            for i in range(block.size):
                part[i] += block[i]
            continue
        for c in range(step):
            left = np.int32(line[x - step + c] if x else 0)
            corner = np.int32(corners[c])
            for i in range(c, block.size, step):
                above = np.int32(part[i])
                left = (_paeth(left, above, corner) + np.int32(block[i])) & np.int32(255)
                corner = above
                part[i] = left
            corners[c] = corner
    return first, last


@kernel
def unfilter(rows: Pixels, step: int, out: Pixels) -> bool:
    """Undo PNG's filters; return False for an unknown one.

    `rows` (h, 1 + n) begin with their filter's number; `step` is the bytes a pixel. Writes the
    rows without filters to `out` (h, n).
    """
    line = np.zeros(out.shape[1], np.uint8)
    for y in range(len(rows)):
        start, _ = _next_row(rows[y], line, step)
        if start < 0:
            return False
        _copy(line, out[y])
    return True


@kernel
def unfilter_colours(rows: Pixels, grey: Pixels, colour: Pixels) -> int:
    """Undo the filters of red, green and blue (h, 1 + 3 * w), and write the luma to `grey` (h, w).

    Returns DAMAGED for an unknown filter, GREY if the channels are equal everywhere, and
    otherwise COLOURED, with the colours in `colour` (h, 3 * w).
    """
    line = np.zeros(colour.shape[1], np.uint8)
    outcome = GREY
    grey[0] = 0
    for y in range(len(rows)):
        start, end = _next_row(rows[y], line, 3)
        if start < 0:
            return DAMAGED
        out = grey[y]
        if y > 0:
            _copy(grey[y - 1], out)
        differing = np.uint8(0)
        for x in range(start // 3, end // 3):
            red = line[3 * x]
            differing |= (red ^ line[3 * x + 1]) | (red ^ line[3 * x + 2])
            out[x] = _luma(line, 3 * x)
        if differing != 0 and outcome == GREY:
            outcome = COLOURED
            for i in range(y):
                for x in range(colour.shape[1]):
                    colour[i, x] = grey[i, x // 3]
        if outcome == COLOURED:
            _copy(line, colour[y])
    return outcome


@kernel
def _luma(row: Pixels, i: int) -> np.uint8:
    """Return the luma of red, green and blue at row[i]: ITU-R 601-2 in units of 2^-16."""
    red, green, blue = np.uint32(row[i]), np.uint32(row[i + 1]), np.uint32(row[i + 2])
    weighed = red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471)
    return np.uint8((weighed + np.uint32(0x8000)) >> np.uint32(16))


@kernel
def convert_to_grey(colour: Pixels, out: Pixels) -> None:
    """Write the luma of contiguous colours (h, w, 3 or 4) into `out` (h, w)."""
    height, width = out.shape
    for y in range(height):
        row = colour[y].reshape(-1)
        if colour.shape[2] == 3:  # a constant step lets the compiler use vector instructions
            for x in range(width):
                out[y, x] = _luma(row, 3 * x)
        else:
            for x in range(width):
                out[y, x] = _luma(row, 4 * x)


@kernel
def unpack(packed: Pixels, depth: int, out: Pixels) -> None:
    """Write the numbers of 1, 2 or 4 bits, high bits first, of rows (h, bytes) to `out` (h, w)."""
    mask = (1 << depth) - 1
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            bit = x * depth
            out[y, x] = (np.int64(packed[y, bit >> 3]) >> (8 - depth - (bit & 7))) & mask
