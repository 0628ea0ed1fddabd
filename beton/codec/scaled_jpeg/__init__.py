"""Baseline JPEG files at the scales 1/2, 1/4 and 1/8, with the pixels of libjpeg-turbo.

Entropy decoding takes most of the time of a decoder at reduced scale. This one is faster than
libjpeg-turbo's, and only decodes the pixels of a window. It follows the standard (ITU-T T.81); what
libjpeg computes at reduced scale is described in `idct` and `colour`. Files that are unusual or
damaged in any way are left to libjpeg-turbo.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor

import numpy as np

from beton.arrays import Array, Uint8Array
from beton.codec.scaled_jpeg import colour, entropy, idct
from beton.codec.scaled_jpeg.headers import Header, read_header
from beton.codec.scaled_jpeg.huffman import Huffman, make_tables

CACHED = 32  # plans
ROUNDING = 1e-6  # pixels: a window's pixels are found with rounded numbers
MAX_PIXELS = 1 << 22  # of an image: scratch memory is up to 30 MB a thread
ZIGZAG = sorted(
    range(64), key=lambda at: (at // 8 + at % 8, (at if (at // 8 + at % 8) % 2 else at % 8))
)
PLACES = {  # in zigzag order, of the frequencies that a transform uses
    side: np.array([ZIGZAG.index(8 * v + u) for v in used for u in used], np.uint64)
    for side, used in idct.FREQUENCIES.items()
}


class _Memory(threading.local):
    """Scratch memory of a thread, which grows: new memory for each image costs page faults."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def get(self, name: str, size: int, dtype: type[np.generic]) -> Array:
        """Return an array (size,) of any values, valid until the next call with this name."""
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = np.empty(size, dtype)
        return array[:size]


@dataclass(frozen=True)
class _Plan:
    """What is the same for all images of one kind at one scale."""

    rows: int  # of MCUs
    columns: int
    blocks: int  # of an MCU
    interval: int  # MCUs between restart markers
    tables: Huffman
    counts: Array  # the components of `entropy.decode`
    components: Array  # those of `idct.transform`, with their places and factors
    places: tuple[Array, ...]
    factors: tuple[Array, ...]
    sides: tuple[tuple[int, int, int], ...]  # blocks across and down an MCU, pixels of a block


_memory = _Memory()


def decode(
    data: Uint8Array,
    size: tuple[int, int],
    reduction: int,
    window: Sequence[float],
    is_intact: bool,
    out: Uint8Array,
) -> bool:
    """Decode the window of a JPEG file at the scale 1 / reduction; return whether it is handled.

    `size` is (height, width) of the image; `window` is (left, top, width, height), in pixels of the
    reduced image. Its pixels, and perhaps others, are written to `out`, uint8 (h, w, 3), of the
    whole reduced image; so may some be if the file is not handled. Of a file that `is_intact`, what
    follows the window is not read.
    """
    found = read_header(data)
    if found is None or size != (found[0].height, found[0].width) or size[0] * size[1] > MAX_PIXELS:
        return False
    header, start = found
    plan = _plan(header, reduction)
    if plan is None:
        return False
    across, down, side = plan.sides[0]  # of luma
    is_wide = across > down
    left, top, width, height = window
    high, wide = side * down, side * across  # pixels of an MCU
    first_row, end_row = _units(top, height, high, plan.rows)
    first_column, end_column = 0, plan.columns
    if not is_wide:  # pixels do not depend on neighbours
        first_column, end_column = _units(left, width, wide, plan.columns)
    rows, columns = end_row - first_row, end_column - first_column
    count = 1 + 64 * plan.blocks * rows * columns + entropy.MARGIN
    coefficients = _memory.get("coefficients", count, np.int16)
    if not entropy.decode(
        data,
        start,
        plan.interval,
        (plan.rows, plan.columns),
        (first_row, end_row, first_column, end_column),
        is_intact,
        plan.counts,
        plan.tables.entries,
        plan.tables.skips,
        plan.tables.codes,
        _memory.get("bytes", data.size + entropy.PADDING, np.uint8),
        coefficients,
    ):
        return False
    planes = []
    for number, (across, down, side) in enumerate(plan.sides):
        padded = -(-columns * across // idct.LANES) * idct.LANES * side
        shape = rows * down * side, padded
        planes.append(_memory.get(f"plane {number}", shape[0] * shape[1], np.uint8).reshape(shape))
    luma, blue, red = planes
    if not idct.transform(
        coefficients,
        (rows, columns),
        plan.blocks,
        plan.components,
        plan.places,
        plan.factors,
        (luma, blue, red),
    ):
        return False
    y, x = first_row * high, first_column * wide
    pixels = min(end_row * high, out.shape[0]) - y, min(end_column * wide, out.shape[1]) - x
    half = -(-out.shape[1] // 2) if is_wide else 0
    colour.convert(luma, blue, red, half, reduction < 8, (y, x), pixels, out)
    return True


@lru_cache(CACHED)
def _plan(header: Header, reduction: int) -> _Plan | None:
    """Return the plan for images with a header; None if their tables are not valid."""
    tables = make_tables(header.huffman, header.selectors)
    if tables is None:
        return None
    across, down = header.sampling
    side = 8 // reduction
    chroma_side = 2 * side if across == down == 2 else side
    components, factors, sides = [], [], []
    first = 0
    for number in range(3):
        blocks = (across, down) if number == 0 else (1, 1)
        pixels = side if number == 0 else chroma_side
        scaled = header.quantisation[number, PLACES[pixels]]
        factors.append((scaled * idct.PRESCALE + 2048) >> 12 if pixels == 8 else scaled)
        components.append((first, *blocks, pixels))
        sides.append((*blocks, pixels))
        first += blocks[0] * blocks[1]
    rows, columns = -(-header.height // (8 * down)), -(-header.width // (8 * across))
    interval = header.restart_interval or rows * columns
    counts = [(a * d, pair) for (a, d, _), pair in zip(sides, tables.pairs, strict=True)]
    return _Plan(
        rows,
        columns,
        first,
        interval,
        tables,
        np.array(counts),
        np.array(components),
        tuple(PLACES[pixels] for _, _, pixels in sides),
        tuple(factors),
        tuple(sides),
    )


def _units(start: float, length: float, unit: int, units: int) -> tuple[int, int]:
    """Return the first and the end of the units that pixels of a window are in."""
    first, end = floor(start - ROUNDING), ceil(start + length + ROUNDING)
    return max(first // unit, 0), min(-(-end // unit), units)
