"""Windows of baseline JPEG files at the scales 1, 1/2, 1/4 and 1/8, with libjpeg-turbo's pixels.

Entropy decoding takes most of the time of a decoder. This one is faster than libjpeg-turbo's, and
only decodes the pixels of a window. It follows the standard (ITU-T T.81); what libjpeg computes at
each scale is described in `idct` and `colour`. Files that are unusual or damaged in any way are
left to libjpeg-turbo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor

import numpy as np

from beton.arrays import Array, Uint8Array
from beton.codec.scaled_jpeg import idct, window
from beton.codec.scaled_jpeg.headers import Header, read_header
from beton.codec.scaled_jpeg.huffman import Huffman, make_tables

CACHED = 32  # plans
ROUNDING = 1e-6  # pixels: a window's pixels are found with rounded numbers
MAX_PIXELS = 1 << 22  # of an image


@dataclass(frozen=True)
class _Plan:
    """What is the same for all images of one kind at one scale."""

    shape: tuple[int, int]  # rows and columns of MCUs
    pixels: tuple[int, int]  # of an MCU, down and across
    reach: int  # pixels beyond a window, from which its colours are interpolated
    interval: int  # MCUs between restart markers
    tables: Huffman
    components: Array  # those of `window.decode`, with their factors
    factors: tuple[Array, ...]


def decode(
    data: Uint8Array,
    size: tuple[int, int],
    reduction: int,
    part: Sequence[float],
    is_intact: bool,
    out: Uint8Array,
) -> bool:
    """Decode a part of a JPEG file at the scale 1 / reduction; return whether it is handled.

    `size` is (height, width) of the image; `part` is (left, top, width, height), in pixels of the
    reduced image. Its pixels, and perhaps others, are written to `out`, uint8 (h, w, 3), of the
    whole reduced image; so may some be if the file is not handled. Of a file that `is_intact`, what
    follows the part is not read.
    """
    found = read_header(data)
    if found is None or size != (found[0].height, found[0].width):
        return False
    if not 1 <= size[0] * size[1] <= MAX_PIXELS:
        return False
    header, start = found
    plan = _plan(header, reduction)
    if plan is None:
        return False
    left, top, width, height = part
    down = _units(top, height, plan.pixels[0], plan.shape[0], plan.reach)
    across = _units(left, width, plan.pixels[1], plan.shape[1], plan.reach)
    return window.decode(
        data,
        start,
        plan.interval,
        plan.shape,
        (*down, *across),
        is_intact,
        plan.components,
        plan.factors,
        plan.tables.entries,
        plan.tables.skips,
        plan.tables.codes,
        out,
    )


@lru_cache(CACHED)
def _plan(header: Header, reduction: int) -> _Plan | None:
    """Return the plan for images with a header; None if their tables are not valid."""
    tables = make_tables(header.huffman, header.selectors)
    if tables is None:
        return None
    across, down = header.sampling
    side = 8 // reduction
    chroma_side = min(2 * side, 8) if across == down == 2 else side
    components = np.array(
        [
            (across, down, tables.pairs[0], side),
            (1, 1, tables.pairs[1], chroma_side),
            (1, 1, tables.pairs[2], chroma_side),
        ]
    )
    factors = []
    for table, pixels in zip(header.quantisation, components[:, 3].tolist(), strict=True):
        scaled = table[idct.PLACES[pixels]]
        scaled = (scaled * idct.PRESCALE + 2048) >> 12 if pixels == 8 else scaled
        factors.append(scaled.astype(np.int64))
    rows, columns = -(-header.height // (8 * down)), -(-header.width // (8 * across))
    return _Plan(
        (rows, columns),
        (side * down, side * across),
        2 if across * side > chroma_side else 0,
        header.restart_interval or rows * columns,
        tables,
        components,
        tuple(factors),
    )


def _units(start: float, length: float, unit: int, units: int, reach: int) -> tuple[int, int]:
    """Return the first and the end of the units that pixels of a window are in, or near it."""
    first, end = floor(start - ROUNDING) - reach, ceil(start + length + ROUNDING) + reach
    return max(first // unit, 0), min(-(-end // unit), units)
