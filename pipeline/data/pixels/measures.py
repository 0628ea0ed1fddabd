"""Measures an image in one pass: what a dataset's survey and its polarity are computed from.

A record of fixed size describes an image, so that the records of a million images are one array.
All numbers are of the 8-bit pixels, except the range of deep values, which determines their scale.

An image's *threshold* is the middle between its dark and its light level. The levels are the values
of the n-th darkest and lightest pixel, n = (height + width) / 16, so that some defective pixels do
not move them and a dot on a page still does. The range of deep values is of the same pixels.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from beton.jit import kernel
from pipeline.data.base import Decoded, Grey, Pixels

Measures = NDArray[np.void]

DEPTHS = ("uint8", "uint16", "int32", "float32")
TURNED = "turned upright"
ON_WHITE, ON_BLACK = "composited on white paper", "composited on black paper"
UNREADABLE = "taken as upright, with an unreadable orientation"
CHANGES = (TURNED, ON_WHITE, ON_BLACK, UNREADABLE)  # bit i of `changes`

MEASURES = np.dtype(
    [
        ("hash", "<u8", (2,)),  # 128 bits of shape and pixels
        ("height", "<u4"),
        ("width", "<u4"),
        ("low", "<f8"),  # the range of values before they were scaled to 8 bits
        ("high", "<f8"),
        ("depth", "u1"),  # index into DEPTHS
        ("darkest", "u1"),
        ("lightest", "u1"),
        ("dark_level", "u1"),
        ("light_level", "u1"),
        ("background", "u1"),  # the most frequent value, which the .beton file stores
        ("dark_paper", "u1"),  # the most frequent value up to the threshold
        ("light_paper", "u1"),  # and above it
        ("dark", "<f4"),  # the fraction of pixels up to the threshold
        ("border_dark", "<f4"),  # the same of the outermost ring
        ("inner_dark", "<f4"),  # the same of a ring at a twelfth of the shorter side
        ("lobes", "<f4"),  # -1 for thin dark lines to 1 for thin light lines, whatever the light
        ("mode", "S8"),
        ("changes", "u1"),  # bits of CHANGES
    ]
)
_RECORD = struct.Struct("<QQII dd BBBBBBBB ffff 8s B")
assert _RECORD.size == MEASURES.itemsize


def measure(decoded: Decoded, pixels: Pixels) -> bytes:
    """Return the record, of dtype MEASURES, of a decoded image and its 8-bit pixels (h, w)."""
    pixels = np.ascontiguousarray(pixels)
    numbers = _describe(pixels)
    grey = decoded.grey
    depth = 0 if grey.dtype == np.uint8 else DEPTHS.index(grey.dtype.name)
    low, high = _range(grey) if depth else numbers[2:4]
    changes = 0
    for change in decoded.changes:
        changes |= 1 << CHANGES.index(change)
    return _RECORD.pack(
        *numbers[:2],
        *pixels.shape,
        low,
        high,
        depth,
        *numbers[2:],
        decoded.mode.encode()[:8],
        changes,
    )


def has_change(measures: Measures, change: str) -> NDArray[np.bool_]:
    """Return which images (n,) have a change, one of CHANGES."""
    has: NDArray[np.bool_] = (measures["changes"] & (1 << CHANGES.index(change))) != 0
    return has


def _range(grey: Grey) -> tuple[float, float]:
    """Return the n-th least and n-th greatest value, or both extremes if these are equal."""
    rank = max(1, sum(grey.shape) // 16)
    ordered = np.partition(grey.ravel(), (rank - 1, grey.size - rank))
    low, high = float(ordered[rank - 1]), float(ordered[grey.size - rank])
    return (low, high) if low < high else (float(grey.min()), float(grey.max()))


def read_measures(records: bytes) -> Measures:
    """Return concatenated records as an array (n,) of dtype MEASURES."""
    return np.frombuffer(records, MEASURES)


_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_THIRD, _FOURTH = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_EVERY_BYTE = np.uint64(0x0101010101010101)
_CENTRES = 1 << 14  # sampled pixels of `lobes`: enough for a fraction, and cheap in a large image


@kernel
def _mix(one: np.uint64, other: np.uint64, word: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return both halves of the hash after another word; each step is invertible."""
    one = (one ^ (word * _FIRST)) * _SECOND
    one = (one << np.uint64(31)) | (one >> np.uint64(33))
    other = (other + word * _THIRD) * _FOURTH
    other = (other << np.uint64(27)) | (other >> np.uint64(37))
    return one, other


@kernel
def _ring_dark(pixels: Pixels, inset: int, threshold: int) -> float:
    """Return the fraction up to the threshold in the ring of pixels `inset` from the edge."""
    bottom, right = pixels.shape[0] - 1 - inset, pixels.shape[1] - 1 - inset
    count = 0
    total = 0
    for x in range(inset, right + 1):
        count += pixels[inset, x] <= threshold
        total += 1
        if bottom > inset:
            count += pixels[bottom, x] <= threshold
            total += 1
    for y in range(inset + 1, bottom):
        count += pixels[y, inset] <= threshold
        total += 1
        if right > inset:
            count += pixels[y, right] <= threshold
            total += 1
    return count / total


@kernel
def _lobes(pixels: Pixels) -> float:
    """Return the balance of cubed differences from four neighbours at an eighth of the side.

    A thin line differs more from its neighbours than they differ from it, and a cube weighs the
    greater difference. A constant slope of the light cancels out.
    """
    height, width = pixels.shape
    reach = min(height, width) // 8
    if reach == 0:
        return 0.0
    step = 1
    while (height // step) * (width // step) > _CENTRES:
        step += 1
    balance = 0.0
    total = 0.0
    for y in range(reach, height - reach, step):
        for x in range(reach, width - reach, step):
            across = np.int64(pixels[y, x - reach]) + np.int64(pixels[y, x + reach])
            along = np.int64(pixels[y - reach, x]) + np.int64(pixels[y + reach, x])
            difference = float(4 * np.int64(pixels[y, x]) - across - along)
            cube = difference * difference * difference
            balance += cube
            total += abs(cube)
    return balance / total if total > 0.0 else 0.0


@kernel
def _describe(
    pixels: Pixels,
) -> tuple[int, int, int, int, int, int, int, int, int, float, float, float, float]:
    """Return the fields of MEASURES that depend on contiguous pixels (h, w), in their order."""
    height, width = pixels.shape
    flat = pixels.reshape(-1)
    if flat.ctypes.data % 8:  # words must be aligned
        flat = flat.copy()
    whole = flat.size // 8
    words = flat[: 8 * whole].view(np.uint64)
    corner = np.uint64(flat[0]) * _EVERY_BYTE
    counts = np.zeros((4, 256), np.int64)  # of four tables, neighbours wait less for each other
    equal = 0
    one, other = _mix(_FOURTH, _FIRST, (np.uint64(height) << np.uint64(32)) | np.uint64(width))
    for i in range(whole):
        word = words[i]
        one, other = _mix(one, other, word)
        if word == corner:
            equal += 8
        else:
            for k in range(8):
                counts[k & 3, (word >> np.uint64(8 * k)) & np.uint64(255)] += 1
    last = np.uint64(0)
    for i in range(8 * whole, flat.size):
        last = (last << np.uint64(8)) | np.uint64(flat[i])
        counts[0, flat[i]] += 1
    one, other = _mix(one, other, last)
    one, other = _mix(one, other, np.uint64(flat.size))
    one ^= one >> np.uint64(32)
    other ^= other >> np.uint64(29)

    counts[0, flat[0]] += equal
    histogram = counts[0] + counts[1] + counts[2] + counts[3]
    darkest = 0
    while histogram[darkest] == 0:
        darkest += 1
    lightest = 255
    while histogram[lightest] == 0:
        lightest -= 1
    rank = max(1, (height + width) // 16)
    dark_level = darkest
    below = histogram[darkest]
    while below < rank and dark_level < lightest:
        dark_level += 1
        below += histogram[dark_level]
    light_level = lightest
    above = histogram[lightest]
    while above < rank and light_level > darkest:
        light_level -= 1
        above += histogram[light_level]
    if dark_level >= light_level:  # ink of some pixels only, on even paper
        dark_level, light_level = darkest, lightest
    threshold = (dark_level + light_level) // 2

    background = 0
    dark_paper = darkest
    light_paper = lightest
    dark = 0
    for value in range(darkest, lightest + 1):
        if histogram[value] > histogram[background]:
            background = value
        if value <= threshold:
            dark += histogram[value]
            if histogram[value] > histogram[dark_paper]:
                dark_paper = value
        elif histogram[value] >= histogram[light_paper]:
            light_paper = value
    inset = min(height, width) // 12
    if inset == 0 and min(height, width) > 2:
        inset = 1
    return (
        int(one),
        int(other),
        darkest,
        lightest,
        dark_level,
        light_level,
        background,
        dark_paper,
        light_paper,
        dark / flat.size,
        _ring_dark(pixels, 0, threshold),
        _ring_dark(pixels, inset, threshold),
        _lobes(pixels),
    )
