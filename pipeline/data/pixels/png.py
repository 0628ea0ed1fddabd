"""Decodes plain PNG files to grey levels and colours, and removes what is no pixel from others.

A plain PNG (8 bits a channel or colours of 16, no palette, not interlaced) takes a seventh of
Pillow's time: libdeflate inflates the file in one call, and compiled kernels undo the filters and
convert the channels by Pillow's own formula. Of 16 bits, the grey level is that of the high bytes,
as in Pillow, and colours are rounded.
"""

import struct
import zlib
from collections.abc import Iterator

import deflate
import numpy as np
from PIL import Image

from beton.jit import kernel
from pipeline.data.base import Decoded, Pixels
from pipeline.data.pixels.transparency import OPAQUE, blend, change_of, put_on_paper

LONGEST_SIDE = 65535
SYNTHETIC_MARK = "inkrun's generator, synthetic"  # of a PNG file's tEXt chunk "Source"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_START = _SIGNATURE + b"\0\0\0\rIHDR"
# Of PNG's colour types: the channels, and Pillow's mode.
_LAYOUTS = {0: (1, "L"), 4: (2, "LA"), 2: (3, "RGB"), 6: (4, "RGBA")}
# Chunks that change no pixel, with the size that Pillow requires.
_HARMLESS = {
    **{b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7},
    **{b"bKGD": None, b"tEXt": None, b"zTXt": None, b"iTXt": None, b"iCCP": None},
}
# Texts and profiles, of which some inflate to more than Pillow accepts.
_SKIPPED = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_LONGEST_EXIF = 1 << 16  # bytes of a text that may hold an orientation
_EXIF_TEXT, _XMP_ORIENTATION = b"Raw profile type exif\0", b"tiff:Orientation"


def is_marked_synthetic(data: bytes | bytearray) -> bool:
    """Return whether a file is a PNG with SYNTHETIC_MARK."""
    return data.startswith(_START) and b"tEXtSource\0" + SYNTHETIC_MARK.encode() in data[:256]


def without_texts(data: bytes | bytearray) -> bytes | bytearray:
    """Return a PNG file without its texts and colour profile, which are not inflated.

    A text that may hold the orientation stays, and so does a damaged chunk, for Pillow to reject.
    """
    parts = [memoryview(data)[: len(_SIGNATURE)]]
    removed = False
    for kind, start, end in _chunks(data):
        body = memoryview(data)[start:end]
        if kind in _SKIPPED and not _may_turn(body) and _has_checksum(data, start, end):
            removed = True
        else:
            parts.append(memoryview(data)[start - 8 : end + 4])
    return b"".join(parts) if removed else data


def _chunks(data: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and end of each chunk's body; the last may end beyond the file."""
    position = len(_SIGNATURE)
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + size
        yield kind, position + 8, end
        position = end + 4


def _has_checksum(data: bytes | bytearray, start: int, end: int) -> bool:
    """Return whether the checksum after the body of a chunk is that of its kind and body."""
    view = memoryview(data)
    return view[end : end + 4] == zlib.crc32(view[start - 4 : end]).to_bytes(4, "big")


def _may_turn(body: memoryview) -> bool:
    """Return whether a text may hold the orientation of the image."""
    if len(body) > _LONGEST_EXIF:
        return False
    text = body.tobytes()
    return text.startswith(_EXIF_TEXT) or _XMP_ORIENTATION in text


def decode_plain_png(data: bytes | bytearray) -> Decoded | None:
    """Decode a plain PNG, and return None for others and for damaged ones."""
    if len(data) < 45 or data[:16] != _START:
        return None
    width, height, depth, colour, *methods, crc = struct.unpack_from(">IIBBBBBI", data, 16)
    if depth not in (8, 16) or any(methods) or zlib.crc32(data[12:29]) != crc:
        return None
    if colour not in _LAYOUTS or (depth == 16 and _LAYOUTS[colour][0] < 3):
        return None
    pixels = width * height
    if max(width, height) > LONGEST_SIDE or not 0 < pixels <= (Image.MAX_IMAGE_PIXELS or pixels):
        return None
    parts: list[memoryview] = []
    view = memoryview(data)
    position, before = 33, b"IHDR"
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + size
        if kind == b"IDAT" and (not parts or before == b"IDAT"):
            parts.append(view[start:end])
        elif kind == b"IEND":
            return _decode_rows(b"".join(parts), height, width, depth // 8, *_LAYOUTS[colour])
        elif (
            kind not in _HARMLESS
            or _HARMLESS[kind] not in (None, size)
            or not _has_checksum(data, start, end)
            or (kind in _SKIPPED and _may_turn(view[start:end]))
        ):
            return None
        position, before = end + 4, kind
    return None


def _decode_rows(
    compressed: bytes, height: int, width: int, depth: int, channels: int, mode: str
) -> Decoded | None:
    """Decode a plain PNG's data of `depth` bytes a channel, and return None if they are damaged."""
    stride = 1 + width * channels * depth
    try:
        inflated = deflate.zlib_decompress(compressed, height * stride)
    except deflate.DeflateError:
        return None
    if len(inflated) != height * stride:
        return None
    rows = np.frombuffer(inflated, np.uint8).reshape(height, stride)
    if not _unfilter(rows, channels * depth):
        return None
    words = rows[:, 1:]
    if depth == 2:  # the first byte of a row is its filter
        rows = np.ascontiguousarray(rows[:, [0, *range(1, stride, 2)]])
    if channels < 3:
        grey = np.ascontiguousarray(rows[:, 1::channels])
    else:
        grey = np.empty((height, width), np.uint8)
        _convert_to_grey(rows, channels, grey)
    paper = put_on_paper(grey, rows[:, channels::channels]) if channels % 2 == 0 else OPAQUE
    if channels < 3:
        return Decoded(grey, mode, change_of(paper))
    colour = rows[:, 1:].reshape(height, width, channels)  # a view: colours are not always needed
    if depth == 2:
        values = np.ascontiguousarray(words).view(">u2").reshape(height, width, channels)
        colour, mode = np.rint(values / 257).astype(np.uint8), f"{mode};16"
    colour = colour[:, :, :3] if paper == OPAQUE else blend(colour, paper)
    return Decoded(grey, mode, change_of(paper), colour)


@kernel
def _unfilter(rows: Pixels, step: int) -> bool:
    """Undo PNG's filters in place. Returns False for an unknown filter.

    `rows` (h, 1 + w * step) begin with their filter's number; `step` is the bytes a pixel.
    """
    height, stride = rows.shape
    for y in range(height):
        kind = rows[y, 0]
        if kind > 4:
            return False
        if kind == 1 or (kind == 4 and y == 0):
            for x in range(1 + step, stride):
                rows[y, x] += rows[y, x - step]
        elif kind == 2 and y > 0:
            for x in range(1, stride):
                rows[y, x] += rows[y - 1, x]
        elif kind == 3:
            for x in range(1, stride):
                left = np.uint32(rows[y, x - step]) if x > step else np.uint32(0)
                above = np.uint32(rows[y - 1, x]) if y > 0 else np.uint32(0)
                rows[y, x] += np.uint8((left + above) >> np.uint32(1))
        elif kind == 4:
            for x in range(1, 1 + step):
                rows[y, x] += rows[y - 1, x]
            for x in range(1 + step, stride):
                left_, above_ = np.int32(rows[y, x - step]), np.int32(rows[y - 1, x])
                corner = np.int32(rows[y - 1, x - step])
                # The first two cases agree with Paeth's rule and make blank paper fast.
                if above_ == corner:
                    nearest = left_
                elif left_ == corner:
                    nearest = above_
                else:
                    to_left, to_above = abs(above_ - corner), abs(left_ - corner)
                    to_corner = abs(left_ + above_ - corner - corner)
                    nearest = above_ if to_above <= to_corner else corner
                    if to_left <= to_above and to_left <= to_corner:
                        nearest = left_
                rows[y, x] += np.uint8(nearest)
    return True


@kernel
def _luma(row: Pixels, i: int) -> np.uint8:
    """Return the luma of red, green and blue at row[i]: ITU-R 601-2 in units of 2^-16."""
    red, green, blue = np.uint32(row[i]), np.uint32(row[i + 1]), np.uint32(row[i + 2])
    weighed = red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471)
    return np.uint8((weighed + np.uint32(0x8000)) >> np.uint32(16))


@kernel
def _convert_to_grey(rows: Pixels, step: int, out: Pixels) -> None:
    """Write the luma of unfiltered rows (h, 1 + w * step), `step` 3 or 4, into `out` (h, w)."""
    height, width = out.shape
    for y in range(height):
        row = rows[y, 1:]
        if step == 3:  # a constant step lets the compiler use vector instructions
            for x in range(width):
                out[y, x] = _luma(row, 3 * x)
        else:
            for x in range(width):
                out[y, x] = _luma(row, 4 * x)
