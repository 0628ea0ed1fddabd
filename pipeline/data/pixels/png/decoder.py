"""Decodes plain PNG files to grey levels and colours.

A plain PNG (up to 8 bits a channel or colours of 16, without interlace or a transparent colour)
takes a fraction of Pillow's time: libdeflate inflates the file in one call, and compiled kernels
undo the filters and convert the channels by Pillow's own formula. Of 16 bits, the grey level is
that of the high bytes, as in Pillow, and colours are rounded.
"""

import struct
import zlib

import deflate
import numpy as np
from PIL import Image

from pipeline.data.base import Decoded, Pixels, in_channels
from pipeline.data.pixels.png.chunks import START, TEXTS, has_checksum, may_turn
from pipeline.data.pixels.png.rows import (
    COLOURED,
    DAMAGED,
    convert_to_grey,
    unfilter,
    unfilter_colours,
    unpack,
)
from pipeline.data.pixels.transparency import OPAQUE, blend, change_of, put_on_paper

LONGEST_SIDE = 65535

# Of PNG's colour types: the channels, and Pillow's mode.
_LAYOUTS = {0: (1, "L"), 3: (1, "P"), 4: (2, "LA"), 2: (3, "RGB"), 6: (4, "RGBA")}
# The bits a channel that are decoded here.
_DEPTHS = {0: (1, 2, 4, 8), 3: (1, 2, 4, 8), 4: (8,), 2: (8, 16), 6: (8, 16)}
_PALETTE = 3  # the colour type
# Chunks that change no pixel, with the size that Pillow requires.
_HARMLESS = {
    **{b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7},
    **{b"bKGD": None, b"tEXt": None, b"zTXt": None, b"iTXt": None, b"iCCP": None},
}


def decode_plain_png(data: bytes | bytearray) -> Decoded | None:
    """Decode a plain PNG, and return None for others and for damaged ones."""
    if len(data) < 45 or data[:16] != START:
        return None
    width, height, depth, colour, *methods, crc = struct.unpack_from(">IIBBBBBI", data, 16)
    if depth not in _DEPTHS.get(colour, ()) or any(methods) or zlib.crc32(data[12:29]) != crc:
        return None
    pixels = width * height
    if max(width, height) > LONGEST_SIDE or not 0 < pixels <= (Image.MAX_IMAGE_PIXELS or pixels):
        return None
    parts: list[memoryview] = []
    palette: memoryview | None = None
    view = memoryview(data)
    position, before = 33, b"IHDR"
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + size
        if kind == b"IDAT" and (not parts or before == b"IDAT"):
            parts.append(view[start:end])
        elif kind == b"IEND":
            if (palette is None) == (colour == _PALETTE):
                return None
            return _decode_rows(b"".join(parts), height, width, depth, colour, palette)
        elif not has_checksum(data, start, end):
            return None
        elif kind == b"PLTE" and not parts and palette is None and size in range(3, 769, 3):
            palette = view[start:end]
        elif (
            kind not in _HARMLESS
            or _HARMLESS[kind] not in (None, size)
            or (kind in TEXTS and may_turn(view[start:end]))
        ):
            return None
        position, before = end + 4, kind
    return None


def _decode_rows(
    compressed: bytes,
    height: int,
    width: int,
    depth: int,
    colour_type: int,
    palette: memoryview | None,
) -> Decoded | None:
    """Decode a plain PNG's data of `depth` bits a channel, and return None if they are damaged.

    `palette` are the red, green and blue of the colours that pixels number, if they do.
    """
    channels, mode = _LAYOUTS[colour_type]
    stride = 1 + -(-width * channels * depth // 8)
    try:
        inflated = deflate.zlib_decompress(compressed, height * stride)
    except deflate.DeflateError:
        return None
    if len(inflated) != height * stride:
        return None
    rows = np.frombuffer(inflated, np.uint8).reshape(height, stride)
    if depth == 8 and mode == "RGB":
        return _decode_colours(rows, width)
    values = np.empty((height, stride - 1), np.uint8)
    if not unfilter(rows, max(channels * depth // 8, 1), values):
        return None
    if depth < 8:
        packed, values = values, np.empty((height, width), np.uint8)
        unpack(packed, depth, values)
    if palette is not None:
        return _look_up(values, np.frombuffer(palette, np.uint8).reshape(-1, 3))
    if channels == 1:
        top = 255 // ((1 << depth) - 1)  # of 1, 2 and 4 bits, the greatest value is white
        grey = values if top == 1 else values * np.uint8(top)
        return Decoded(grey, "1" if depth == 1 else mode)
    colour = values.reshape(height, width, channels * depth // 8)
    if depth == 16:
        words = values.view(">u2").reshape(height, width, channels)
        colour = np.ascontiguousarray(colour[:, :, ::2])
    grey = np.ascontiguousarray(colour[:, :, 0]) if channels < 3 else _luma_of(colour)
    paper = put_on_paper(grey, colour[:, :, -1]) if channels % 2 == 0 else OPAQUE
    if channels < 3:
        return Decoded(grey, mode, change_of(paper))
    if depth == 16:
        colour, mode = np.rint(words / 257).astype(np.uint8), f"{mode};16"
    colour = colour[:, :, :3] if paper == OPAQUE else blend(colour, paper)
    return Decoded(grey, mode, change_of(paper), colour)


def _decode_colours(rows: Pixels, width: int) -> Decoded | None:
    """Decode filtered rows of red, green and blue; return None for an unknown filter."""
    grey = np.empty((len(rows), width), np.uint8)
    colour = np.empty((len(rows), width, 3), np.uint8)
    outcome = unfilter_colours(rows, grey, colour.reshape(len(rows), -1))
    if outcome == DAMAGED:
        return None
    return Decoded(grey, "RGB", (), colour if outcome == COLOURED else in_channels(grey))


def _look_up(numbers: Pixels, palette: Pixels) -> Decoded | None:
    """Return the colours of a palette (n, 3) by their numbers (h, w); None for one it lacks."""
    if numbers.max() >= len(palette):
        return None
    grey = _luma_of(palette[None])[0]
    if (palette == grey[:, None]).all():
        return Decoded(grey.take(numbers), "P")
    colour = palette.take(numbers, axis=0)
    is_grey = (colour == colour[:, :, :1]).all()
    return Decoded(grey.take(numbers), "P", (), None if is_grey else colour)


def _luma_of(colour: Pixels) -> Pixels:
    """Return the luma (h, w) of contiguous colours (h, w, 3 or 4)."""
    grey = np.empty(colour.shape[:2], np.uint8)
    convert_to_grey(colour, grey)
    return grey
