"""Ink: single-channel 8-bit pictures stored as runs, and resized without being unpacked.

A page of handwriting is one background value and some hundred *runs*: maximal horizontal stretches
of one other value. Runs travel as a (n, 4) uint16 array of (row, start, end, value), sorted by row
and start, `end` exclusive. This module turns pictures into runs and back, runs into bytes and back,
and runs into pictures of another size; it knows arrays only, no files and no threads.

Payload of a picture, by mode:

- `RAW` (0): height * width bytes, row by row. For pictures that runs do not suit.
- `FLAT` (1): every run has one value, which the metadata holds; the payload is the span stream.
- `GREY` (2): the length of the span stream (uint32, little-endian), the span stream, the value
  stream.

A *span* is a maximal stretch of pixels that are not background: one run in `FLAT`, one or more
adjoining runs in `GREY`. The span stream is a sequence of segments; a segment is a block of
consecutive rows with the same number of spans, at least one:

    varint  rows skipped since the end of the previous segment (rows without ink, or none)
    varint  rows of the segment (>= 1)
    varint  spans in each of its rows (>= 1)
    first row, per span:  varint gap since the end of the span before it, varint length
    other rows, per span: the differences of start and of end from the span above, a byte each:
                          difference + 128, or 0 and the new value itself as uint16, little-endian

A varint is LEB128 of at most three bytes. Neighbouring rows resemble each other, so a run costs two
bytes nearly always: about a fifth of the page's PNG.

The value stream gives the pixels of the spans, in order. An anti-aliased stroke is solid ink
between two soft edges, so a span begins with a byte (left << 4 | right), each at most 14: the
values of that many pixels at its left and at its right end follow, and all between has the value
`ink` of the metadata. A span of another kind begins with 255, and pairs (value byte, varint length)
follow until the span is covered.

Runs are trusted by the resize kernels, so `unpack` checks each bound while it reads.
"""

from dataclasses import dataclass

import numpy as np

from beton.arrays import RunArray, Uint8Array
from beton.errors import FormatError
from beton.kernels import (
    DAMAGES,
    count_equal,
    count_runs,
    find_runs,
    histogram,
    pack_spans,
    pack_values,
    paint,
    unpack,
)
from beton.kernels import FLAT as FLAT
from beton.kernels import GREY as GREY
from beton.kernels import RAW as RAW

MODES = ("auto", "runs", "raw")
LIMIT = 65535  # pixels a side
LONGEST_RUN = 30  # bytes: alone in its segment, and as a soft span
SLACK = 64  # bytes that packing wants to have left before each span


@dataclass(frozen=True)
class Encoded:
    """A picture as it is stored: the numbers that go into its metadata, and its payload."""

    mode: int
    background: int
    ink: int
    runs: int
    height: int
    width: int
    payload: bytes


def encode(image: Uint8Array, mode: str = "auto") -> Encoded:
    """Store a uint8 (h, w) picture, 1 to 65535 pixels a side, losslessly.

    `mode` is "runs", "raw", or "auto" for whichever takes fewer bytes. The background is the most
    frequent value. Raises ValueError for another shape, dtype or mode.
    """
    if mode not in MODES:
        raise ValueError(f"ink mode: got {mode!r}, expected one of {', '.join(MODES)}")
    if image.dtype != np.uint8 or image.ndim != 2:
        raise ValueError(f"ink picture: got {image.dtype} {image.shape}, expected uint8 (h, w)")
    if not (1 <= image.shape[0] <= LIMIT and 1 <= image.shape[1] <= LIMIT):
        raise ValueError(f"ink picture: got {image.shape}, expected 1 to {LIMIT} pixels a side")
    image = np.ascontiguousarray(image)
    height, width = image.shape
    background = _most_frequent(image)
    count = count_runs(image, background)
    # A run takes a byte or more, so noise need not be packed to be refused.
    if mode == "runs" or (mode == "auto" and count < image.size):
        runs = np.empty((count, 4), np.uint16)
        find_runs(image, background, runs)
        if mode == "runs":
            return encode_runs(runs, height, width, background)
        encoded = _pack(runs, height, width, background, image.size + SLACK)
        if encoded is not None and len(encoded.payload) < image.size:
            return encoded
    return Encoded(RAW, background, 0, count, height, width, image.tobytes())


def encode_runs(runs: RunArray, height: int, width: int, background: int) -> Encoded:
    """Store a picture given as runs (n, 4): maximal, sorted, within (height, width)."""
    encoded = _pack(runs, height, width, background, SLACK + LONGEST_RUN * len(runs))
    assert encoded is not None
    return encoded


def _pack(runs: RunArray, height: int, width: int, background: int, room: int) -> Encoded | None:
    """Store runs in at most `room` bytes, of which the last few may stay unused, or not at all."""
    values = runs[:, 3]
    flat = len(runs) == 0 or bool((values == values[0]).all())
    payload = np.empty(min(room, SLACK + LONGEST_RUN * len(runs)), np.uint8)
    if flat:
        ink = int(values[0]) if len(runs) else 0
        size = pack_spans(runs, payload, 0)
    else:
        lengths = runs[:, 2].astype(np.int64) - runs[:, 1]
        ink = int(np.bincount(values, weights=lengths).argmax())
        size = pack_spans(runs, payload, 4)
        payload[:4] = np.array([max(size, 4) - 4], "<u4").view(np.uint8)
        size = pack_values(runs, ink, payload, size) if size >= 0 else size
    if size < 0:
        return None
    data = payload[:size].tobytes()
    return Encoded(FLAT if flat else GREY, background, ink, len(runs), height, width, data)


def read_runs(encoded: Encoded) -> RunArray:
    """Return the runs (n, 4) of a stored picture. Raises FormatError if its payload is damaged."""
    data = np.frombuffer(encoded.payload, np.uint8)
    runs = np.empty((encoded.runs, 4), np.uint16)
    status = unpack(
        data,
        0,
        len(data),
        encoded.mode,
        encoded.background,
        encoded.ink,
        encoded.height,
        encoded.width,
        runs,
    )
    if status < 0:
        raise FormatError(DAMAGES[status])
    return runs


def decode(encoded: Encoded) -> Uint8Array:
    """Return the uint8 (h, w) picture. Raises FormatError if its payload is damaged."""
    if encoded.mode == RAW:
        pixels = np.frombuffer(encoded.payload, np.uint8)
        return pixels.reshape(encoded.height, encoded.width).copy()
    image = np.full((encoded.height, encoded.width), encoded.background, np.uint8)
    paint(read_runs(encoded), image)
    return image


def _most_frequent(image: Uint8Array) -> int:
    flat = image.reshape(-1)
    corner = int(flat[0])
    if 2 * count_equal(flat, corner) > flat.size:  # a page: no histogram needed
        return corner
    return int(histogram(flat).argmax())
