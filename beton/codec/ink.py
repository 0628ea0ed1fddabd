"""Lossless compression of single-channel 8-bit images as runs of ink.

A handwriting image has one background value and some hundred *runs*: maximal horizontal stretches
of one other value. In memory, runs are a uint16 (n, 4) array of (row, start, end, value), sorted by
row and start; `end` is exclusive. This module converts images to runs and payload bytes, and back.

The payload of an image depends on its mode:

- `RAW` (0): height * width bytes, row by row, for images with too many runs.
- `FLAT` (1): the span stream. All runs have the same value, which is in the metadata.
- `GREY` (2): the length of the span stream (uint32, little-endian), the span stream, and the value
  stream.

A *span* is a maximal stretch of pixels that are not background: one run in `FLAT`, one or more
adjacent runs in `GREY`. The span stream is a sequence of segments. A segment is a block of
consecutive rows with the same number of spans, at least one:

    varint  rows without ink since the end of the previous segment
    varint  rows of the segment (>= 1)
    varint  spans in each row (>= 1)
    first row, per span:  varint gap since the end of the previous span, varint length
    other rows, per span: the differences of start and end from the span above, one byte each:
                          difference + 128, or 0 and the new value as uint16, little-endian

A varint is LEB128 of at most three bytes. Neighbouring rows are similar, so nearly every run takes
two bytes: about a fifth of the image's PNG.

The value stream has the pixels of the spans, in order. An anti-aliased stroke is solid ink between
two soft edges, so a span begins with a byte (left << 4 | right), each at most 14. The values of
`left` and `right` pixels at its ends follow, and the pixels between have the value `ink`
of the metadata. Any other span begins with 255, followed by pairs (value byte, varint length) until
the span is complete.

The kernels trust runs, so `unpack` checks every bound while it reads.
"""

from dataclasses import dataclass

import numpy as np

from beton.arrays import RunArray, Uint8Array
from beton.codec import packing
from beton.codec.pixels import count_runs, find_runs, paint
from beton.codec.unpacking import DAMAGES, FLAT, GREY, RAW, unpack
from beton.errors import FormatError

MODES = ("auto", "runs", "raw")
LIMIT = 65535  # pixels per side
LONGEST_RUN = 30  # bytes of the largest packed run: alone in its segment, and a soft span
SLACK = 64  # free bytes that packing requires before each span


@dataclass(frozen=True)
class Encoded:
    """An encoded image: the numbers in its metadata, and its payload."""

    mode: int
    background: int
    ink: int
    runs: int
    height: int
    width: int
    payload: bytes


def encode(image: Uint8Array, mode: str = "auto") -> Encoded:
    """Encode a uint8 (h, w) image of 1 to 65535 pixels per side, losslessly.

    `mode` is "runs", "raw", or "auto": whichever takes fewer bytes. The background is the most
    frequent value. Raises ValueError for another shape, dtype or mode.
    """
    if mode not in MODES:
        raise ValueError(f"ink mode: got {mode!r}, expected one of {', '.join(MODES)}")
    if image.dtype != np.uint8 or image.ndim != 2:
        raise ValueError(f"ink image: got {image.dtype} {image.shape}, expected uint8 (h, w)")
    if not (1 <= image.shape[0] <= LIMIT and 1 <= image.shape[1] <= LIMIT):
        raise ValueError(f"ink image: got {image.shape}, expected 1 to {LIMIT} pixels per side")
    image = np.ascontiguousarray(image)
    height, width = image.shape
    background = _most_frequent(image)
    count = count_runs(image, background)
    # A run takes at least one byte, so images of noise are not packed at all.
    if mode == "runs" or (mode == "auto" and count < image.size):
        runs = np.empty((count, 4), np.uint16)
        find_runs(image, background, runs)
        room = SLACK + LONGEST_RUN * count
        if mode == "auto":
            room = min(room, SLACK + image.size)
        encoded = _pack(runs, height, width, background, room)
        if encoded is not None and (mode == "runs" or len(encoded.payload) < image.size):
            return encoded
    assert mode != "runs"
    return Encoded(RAW, background, 0, count, height, width, image.tobytes())


def _pack(runs: RunArray, height: int, width: int, background: int, room: int) -> Encoded | None:
    """Encode runs in at most `room` bytes; return None if they may not fit."""
    values = runs[:, 3]
    payload = np.empty(room, np.uint8)
    if len(runs) == 0 or (values == values[0]).all():
        ink = int(values[0]) if len(runs) else 0
        mode, size = FLAT, packing.pack_spans(runs, payload, 0)
    else:
        lengths = runs[:, 2].astype(np.int64) - runs[:, 1]
        ink = int(np.bincount(values, weights=lengths).argmax())
        mode, size = GREY, packing.pack_spans(runs, payload, 4)
        payload[:4] = np.array([max(size, 4) - 4], "<u4").view(np.uint8)
        size = packing.pack_values(runs, ink, payload, size) if size >= 0 else size
    if size < 0:
        return None
    return Encoded(mode, background, ink, len(runs), height, width, payload[:size].tobytes())


def read_runs(encoded: Encoded) -> RunArray:
    """Return the runs (n, 4) of an encoded image. Raises FormatError if its payload is damaged."""
    data = np.frombuffer(encoded.payload, np.uint8)
    runs = np.empty((encoded.runs, 4), np.uint16)
    numbers = encoded.mode, encoded.background, encoded.ink, encoded.height, encoded.width
    status = unpack(data, 0, len(data), *numbers, runs)
    if status < 0:
        raise FormatError(DAMAGES[status])
    return runs


def decode(encoded: Encoded) -> Uint8Array:
    """Return the uint8 (h, w) image. Raises FormatError if its payload is damaged."""
    if encoded.mode == RAW:
        pixels = np.frombuffer(encoded.payload, np.uint8)
        return pixels.reshape(encoded.height, encoded.width).copy()
    image = np.full((encoded.height, encoded.width), encoded.background, np.uint8)
    paint(read_runs(encoded), image)
    return image


def _most_frequent(image: Uint8Array) -> int:
    flat = image.reshape(-1)
    corner = int(flat[0])
    if 2 * packing.count_equal(flat, corner) > flat.size:  # most images: no histogram needed
        return corner
    return int(packing.histogram(flat).argmax())
