"""Baseline JPEG files at the scales 1/2, 1/4 and 1/8, with the pixels of libjpeg-turbo.

Entropy decoding takes most of the time of a decoder at reduced scale. This one is faster than
libjpeg-turbo's, and only decodes the pixels of a window. It follows the standard (ITU-T T.81); what
libjpeg computes at reduced scale is described in `idct` and `colour`. Files that are unusual or
damaged in any way are left to libjpeg-turbo.
"""

import threading
from collections.abc import Sequence

import numpy as np

from beton.arrays import Array, Uint8Array
from beton.codec.scaled_jpeg import colour, entropy, idct
from beton.codec.scaled_jpeg.headers import Header, read_header
from beton.codec.scaled_jpeg.huffman import make_tables

REDUCTIONS = (2, 4, 8)
LARGEST = 1 << 25  # pixels of an image, so that scratch memory stays small
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


_memory = _Memory()


def decode(
    data: Uint8Array,
    size: tuple[int, int],
    reduction: int,
    window: Sequence[float],
    out: Uint8Array,
) -> bool:
    """Decode the window of a JPEG file at the scale 1 / reduction; return whether it is handled.

    `size` is (height, width) of the image, `window` (left, top, width, height) is in pixels of the
    reduced image. Pixels outside it and its neighbours are not written to `out`, uint8 (h, w, 3). If
    the file is not handled, some pixels may be written.
    """
    found = read_header(data)
    if found is None or size != (found[0].height, found[0].width) or size[0] * size[1] > LARGEST:
        return False
    header, start = found
    tables = make_tables(header.huffman, header.selectors)
    if tables is None:
        return False
    across, down = header.sampling
    side = 8 // reduction
    chroma_side = 2 * side if across == down == 2 else side
    rows, columns = -(-size[0] // (8 * down)), -(-size[1] // (8 * across))
    is_wide = across > down
    left, top, width, height = window
    unit_down, unit_across = side * down, side * across
    first_row, end_row = _units(top, height, unit_down, rows)
    first_column, end_column = (
        (0, columns) if is_wide else _units(left, width, unit_across, columns)
    )
    mcus = np.array([rows, columns, first_row, end_row, first_column, end_column])
    blocks = across * down + 2
    components = np.array([[across * down, tables.pairs[0]], [1, tables.pairs[1]], [1, tables.pairs[2]]])
    window_rows, window_columns = end_row - first_row, end_column - first_column
    count = 1 + 64 * blocks * window_rows * window_columns + entropy.MARGIN
    coefficients = _memory.get("coefficients", count, np.int16)
    clean = _memory.get("bytes", data.size + entropy.PADDING, np.uint8)
    if not entropy.decode(
        data,
        start,
        header.restart_interval or rows * columns,
        mcus,
        components,
        tables.entries,
        tables.skips,
        tables.codes,
        clean,
        coefficients,
    ):
        return False
    planes = []
    for c in range(3):
        one = (down, across) if c == 0 else (1, 1)
        first = 0 if c == 0 else across * down + c - 1
        pixels = side if c == 0 else chroma_side
        shape = np.array([window_rows, window_columns, blocks, first, *one])
        padded = -(-window_columns * one[1] // idct.LANES) * idct.LANES * pixels
        high = window_rows * one[0] * pixels
        plane = _memory.get(f"plane {c}", high * padded, np.uint8).reshape(high, padded)
        places = PLACES[pixels]
        factors = header.quantisation[c, places]
        if pixels == 8:
            factors = (factors * idct.PRESCALE + 2048) >> 12
        if not idct.transform(coefficients, shape, places, factors, pixels, plane):
            return False
        planes.append(plane)
    small_height, small_width = out.shape[:2]
    y0, x0 = first_row * unit_down, first_column * unit_across
    area = np.array(
        [
            y0,
            x0,
            min(end_row * unit_down, small_height) - y0,
            min(end_column * unit_across, small_width) - x0,
        ]
    )
    colour.convert(*planes, is_wide, reduction < 8, -(-small_width // 2), area, out)
    return True


def _units(start: float, length: float, unit: int, units: int) -> tuple[int, int]:
    """Return the first and the end of the units that pixels and their neighbours are in."""
    return max(int(start - 1) // unit, 0), min(int(start + length + 1) // unit + 1, units)
