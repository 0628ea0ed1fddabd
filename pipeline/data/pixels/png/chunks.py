"""The chunks of PNG files, and the removal of texts and colour profiles."""

import struct
import zlib
from collections.abc import Iterator

SYNTHETIC_MARK = "inkrun's generator, synthetic"  # of a PNG file's tEXt chunk "Source"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
START = SIGNATURE + b"\0\0\0\rIHDR"
# Texts and profiles, of which some inflate to more than Pillow accepts.
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")

_LONGEST_EXIF = 1 << 16  # bytes of a text that may hold an orientation
_EXIF_TEXT, _XMP_ORIENTATION = b"Raw profile type exif\0", b"tiff:Orientation"


def is_marked_synthetic(data: bytes | bytearray) -> bool:
    """Return whether a file is a PNG with SYNTHETIC_MARK."""
    return data.startswith(START) and b"tEXtSource\0" + SYNTHETIC_MARK.encode() in data[:256]


def without_texts(data: bytes | bytearray) -> bytes | bytearray:
    """Return a PNG file without its texts and colour profile, which are not inflated.

    A text that may hold the orientation stays, and so does a damaged chunk, for Pillow to reject.
    """
    parts = [memoryview(data)[: len(SIGNATURE)]]
    removed = False
    for kind, start, end in _chunks(data):
        body = memoryview(data)[start:end]
        if kind in TEXTS and not may_turn(body) and has_checksum(data, start, end):
            removed = True
        else:
            parts.append(memoryview(data)[start - 8 : end + 4])
    return b"".join(parts) if removed else data


def _chunks(data: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and end of each chunk's body; the last may end beyond the file."""
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + size
        yield kind, position + 8, end
        position = end + 4


def has_checksum(data: bytes | bytearray, start: int, end: int) -> bool:
    """Return whether the checksum after the body of a chunk is that of its kind and body."""
    view = memoryview(data)
    return view[end : end + 4] == zlib.crc32(view[start - 4 : end]).to_bytes(4, "big")


def may_turn(body: memoryview) -> bool:
    """Return whether a text may hold the orientation of the image."""
    if len(body) > _LONGEST_EXIF:
        return False
    text = body.tobytes()
    return text.startswith(_EXIF_TEXT) or _XMP_ORIENTATION in text
