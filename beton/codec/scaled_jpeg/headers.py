"""The segments of a JPEG file before its entropy-coded data (ITU-T T.81, annex B)."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from beton.arrays import Array, Uint8Array

SOI, SOF0, DHT, SOS, DQT, DRI, APP0, APP14, COM = (
    *(0xD8, 0xC0, 0xC4, 0xDA, 0xDB, 0xDD),
    *(0xE0, 0xEE, 0xFE),
)
APPLICATION = range(APP0, 0xF0)
KNOWN = {SOF0, DHT, SOS, DQT, DRI, COM, *APPLICATION}
LUMA_SAMPLINGS = ((2, 2), (2, 1), (1, 1))  # horizontal and vertical; those of chroma are (1, 1)
LONGEST = 1 << 18  # bytes of all segments; some files have thumbnails in them
CACHED = 32  # headers

Segments = list[tuple[int, bytes]]  # marker, content


@dataclass(frozen=True, eq=False)
class Header:
    """A baseline image in YCbCr, with 8 bits and one scan.

    `quantisation` is int32 (3, 64), per component in zigzag order. `huffman` has the contents of
    all DHT segments; `selectors` are the numbers of the DC and the AC table of each component.
    """

    height: int
    width: int
    sampling: tuple[int, int]  # of luma
    restart_interval: int  # MCUs; 0: no restart markers
    quantisation: Array
    huffman: tuple[bytes, ...]
    selectors: tuple[tuple[int, int], ...]


def read_header(data: Uint8Array) -> tuple[Header, int] | None:
    """Return the header of a file and the position of its entropy-coded data.

    None if a segment is damaged, or unusual in any way.
    """
    view = data.data  # its items are found faster than those of an array
    at = 2
    while at + 4 <= min(len(view), LONGEST) and view[at] == 0xFF:
        marker = view[at + 1]
        at += 2 + (view[at + 2] << 8 | view[at + 3])
        if marker == SOS and at <= len(view):
            header = _parse(bytes(view[:at]))
            return None if header is None else (header, at)
    return None


@lru_cache(CACHED)
def _parse(start: bytes) -> Header | None:
    """Return the header of files that begin with `start`, as those of a dataset often do."""
    segments = _split(start)
    if segments is None:
        return None
    contents = dict(segments)
    frame, scan = contents.get(SOF0, b""), contents[SOS]
    markers = [marker for marker, _ in segments]
    if not KNOWN.issuperset(markers) or markers.count(SOF0) != 1 or markers.count(DRI) > 1:
        return None
    if len(frame) != 15 or frame[0] != 8 or frame[5] != 3:
        return None
    identities, samplings, tables = frame[6::3], frame[7::3], frame[8::3]
    luma = samplings[0] >> 4, samplings[0] & 15
    if luma not in LUMA_SAMPLINGS or samplings[1:] != b"\x11\x11" or len(set(identities)) != 3:
        return None
    if len(scan) != 10 or scan[0] != 3 or scan[1:7:2] != identities or scan[7:] != b"\0\x3f\0":
        return None
    if not _is_ycbcr(segments, identities):
        return None
    quantisation = _quantisation(segments)
    interval = contents.get(DRI, b"\0\0")
    if quantisation is None or not set(tables) <= quantisation.keys() or len(interval) != 2:
        return None
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    return Header(
        height,
        width,
        luma,
        int.from_bytes(interval, "big"),
        np.array([list(quantisation[number]) for number in tables], np.int32),
        tuple(content for marker, content in segments if marker == DHT),
        tuple((byte >> 4, byte & 15) for byte in scan[2:7:2]),
    )


def _split(start: bytes) -> Segments | None:
    """Return the segments up to SOS; None if there are other bytes between them."""
    if start[:2] != bytes([0xFF, SOI]):
        return None
    segments = []
    at = 2
    while at < len(start):
        length = int.from_bytes(start[at + 2 : at + 4], "big")
        if start[at] != 0xFF or length < 2:
            return None
        segments.append((start[at + 1], start[at + 4 : at + 2 + length]))
        at += 2 + length
    return segments


def _is_ycbcr(segments: Segments, identities: bytes) -> bool:
    """Return whether libjpeg-turbo takes the components for YCbCr, without a doubt or warning."""
    marked = False
    for marker, content in segments:
        if marker == APP0 and content.startswith(b"JFIF\0"):
            if len(content) < 14 or content[5] != 1:  # the major version
                return False
            marked = True
        elif marker == APP14 and content.startswith(b"Adobe"):
            if len(content) < 12 or content[11] != 1:  # the transform: YCbCr
                return False
            marked = True
    return marked or identities == b"\1\2\3"


def _quantisation(segments: Segments) -> dict[int, bytes] | None:
    """Return the tables by number, each of 64 bytes in zigzag order; None if some have 16 bits."""
    tables = {}
    for marker, content in segments:
        if marker == DQT:
            if len(content) % 65 or any(number > 3 for number in content[::65]):
                return None
            for at in range(0, len(content), 65):
                tables[content[at]] = content[at + 1 : at + 65]
    return tables
