"""Measures an image in one pass: what a dataset's survey and its polarity are computed from.

A record of fixed size describes an image, so that the records of a million images are one array.
All numbers are of the 8-bit pixels, except the range of deep values, which determines their scale.

An image's *threshold* is the middle between its dark and its light level. The levels are the values
of the n-th darkest and lightest pixel, n = (height + width) / 16, so that some defective pixels do
not move them and a dot on a page still does. The range of deep values is of the same pixels.

Of an image in colour, exact sums over its pixels are measured too: with them, the mean and the
covariance of a dataset's colours do not depend on the order of its images.
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
DOUBTFUL = "decoded from JPEG data with a flaw"
PROFILED = "without their colour profile"
CHANGES = (TURNED, ON_WHITE, ON_BLACK, UNREADABLE, DOUBTFUL, PROFILED)  # bit i of `changes`

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
        ("sums", "<u8", (3,)),  # of red, green and blue over all pixels
        ("products", "<u8", (6,)),  # sums of the products PAIRS
        ("contrast", "u1"),  # the greatest range of values in a channel of the stored image
        ("has_channels", "u1"),  # whether the file has channels of colour
        ("own_jpeg", "u1"),  # whether the JPEG file is stored as it is
    ]
)
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # channels of each product
_RECORD = struct.Struct("<QQII dd BBBBBBBB ffff 8s B 9Q BBB")
assert _RECORD.size == MEASURES.itemsize


def measure(
    decoded: Decoded, pixels: Pixels, stored: Pixels | None = None, *, own_jpeg: bool = False
) -> bytes:
    """Return the record, of dtype MEASURES, of a decoded image and its 8-bit pixels (h, w).

    `stored` (h, w, 3) are the pixels of an image that is stored in colour, as its own JPEG file
    with `own_jpeg`. Else the image is stored as grey levels.
    """
    pixels = np.ascontiguousarray(pixels)
    *numbers, total, squares = _describe(pixels)
    sums, contrast = (total,) * 3 + (squares,) * 6, numbers[3] - numbers[2]
    coloured = None if decoded.repeats_grey else decoded.colour
    colour = coloured if stored is None else stored
    if colour is not None:
        colour = np.ascontiguousarray(colour)
        sums = tuple(_colour_sums(colour).tolist())
        if stored is not None:
            contrast = _widest_range(colour)
            numbers[:2] = _hash(colour.reshape(-1), *pixels.shape)
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
        *sums,
        contrast,
        decoded.colour is not None,
        own_jpeg,
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
def _hash(flat: Pixels, height: int, width: int) -> tuple[int, int]:
    """Return both halves of the hash of an image's contiguous values (n,), shape included.

    Words of 8 bytes that equal the first value's, most of a page, are counted instead of mixed. The
    first value's word before a number tells a count from a word.
    """
    if flat.ctypes.data % 8:  # words must be aligned
        flat = flat.copy()
    whole = flat.size // 8
    words = flat[: 8 * whole].view(np.uint64)
    corner = np.uint64(flat[0]) * _EVERY_BYTE
    one, other = _mix(_FOURTH, _FIRST, (np.uint64(height) << np.uint64(32)) | np.uint64(width))
    one, other = _mix(one, other, corner)
    equal = 0
    for i in range(whole):
        if words[i] == corner:
            equal += 1
            continue
        if equal > 0:
            one, other = _mix(one, other, corner)
            one, other = _mix(one, other, np.uint64(equal))
            equal = 0
        one, other = _mix(one, other, words[i])
    last = np.uint64(0)
    for i in range(8 * whole, flat.size):
        last = (last << np.uint64(8)) | np.uint64(flat[i])
    one, other = _mix(one, other, np.uint64(equal))
    one, other = _mix(one, other, last)
    one, other = _mix(one, other, np.uint64(flat.size))
    return int(one ^ (one >> np.uint64(32))), int(other ^ (other >> np.uint64(29)))


@kernel
def _colour_sums(colour: Pixels) -> NDArray[np.uint64]:
    """Return the sums and products of MEASURES (9,) of contiguous colours (h, w, 3)."""
    word = np.uint32  # holds the sums of a row: at most 65,535 pixels of 255 * 255
    height, width = colour.shape[:2]
    totals = np.zeros(9, np.uint64)
    for y in range(height):
        row = colour[y].reshape(-1)
        red, green, blue = word(0), word(0), word(0)
        rr, gg, bb = word(0), word(0), word(0)
        rg, rb, gb = word(0), word(0), word(0)
        for x in range(width):
            r, g, b = word(row[3 * x]), word(row[3 * x + 1]), word(row[3 * x + 2])
            red, green, blue = word(red + r), word(green + g), word(blue + b)
            rr, gg, bb = word(rr + r * r), word(gg + g * g), word(bb + b * b)
            rg, rb, gb = word(rg + r * g), word(rb + r * b), word(gb + g * b)
        totals[0] += red
        totals[1] += green
        totals[2] += blue
        totals[3] += rr
        totals[4] += gg
        totals[5] += bb
        totals[6] += rg
        totals[7] += rb
        totals[8] += gb
    return totals


@kernel
def _widest_range(colour: Pixels) -> int:
    """Return the greatest range of values in a channel of contiguous colours (h, w, 3)."""
    flat = colour.reshape(-1)
    r_low, g_low, b_low = flat[0], flat[1], flat[2]
    r_high, g_high, b_high = flat[0], flat[1], flat[2]
    for i in range(flat.size // 3):
        r, g, b = flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]
        r_low, g_low, b_low = min(r_low, r), min(g_low, g), min(b_low, b)
        r_high, g_high, b_high = max(r_high, r), max(g_high, g), max(b_high, b)
    return int(max(r_high - r_low, g_high - g_low, b_high - b_low))


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
) -> tuple[int, int, int, int, int, int, int, int, int, float, float, float, float, int, int]:
    """Return the fields of MEASURES that depend on contiguous pixels (h, w), in their order.

    The sum of the pixels and that of their squares follow.
    """
    height, width = pixels.shape
    flat = pixels.reshape(-1)
    if flat.ctypes.data % 8:  # words must be aligned
        flat = flat.copy()
    one, other = _hash(flat, height, width)
    whole = flat.size // 8
    words = flat[: 8 * whole].view(np.uint64)
    corner = np.uint64(flat[0]) * _EVERY_BYTE
    counts = np.zeros((4, 256), np.int64)  # of four tables, neighbours wait less for each other
    equal = 0
    for i in range(whole):
        word = words[i]
        if word == corner:
            equal += 8
        else:
            for k in range(8):
                counts[k & 3, (word >> np.uint64(8 * k)) & np.uint64(255)] += 1
    for i in range(8 * whole, flat.size):
        counts[0, flat[i]] += 1
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
    total = 0
    squares = 0
    for value in range(darkest, lightest + 1):
        total += value * histogram[value]
        squares += value * value * histogram[value]
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
        one,
        other,
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
        total,
        squares,
    )
