"""Plain PNG files of every colour type, depth and filter have Pillow's pixels, whole or damaged."""

import re
import struct
import zlib
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from raw_data import Pixels, chunk, saved

from pipeline.data.base import Decoded, ImageError, in_channels
from pipeline.data.pixels.image_decoder import _decode_with_pillow, decode
from pipeline.data.pixels.measures import measure
from pipeline.data.pixels.png import rows as png_rows
from pipeline.data.pixels.png.decoder import decode_plain_png

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG's colour types
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8,), RGBA: (8, 16)}
FORMS = [(colour_type, depth) for colour_type, depths in DEPTHS.items() for depth in depths]

HARMLESS = [
    chunk(b"pHYs", struct.pack(">IIB", 3000, 3000, 1)),
    chunk(b"gAMA", struct.pack(">I", 45455)),
    chunk(b"sRGB", b"\0"),
    chunk(b"tEXt", b"Software\0something"),
    chunk(b"tEXt", b"key\0" + bytes(1 << 17)),
    chunk(b"zTXt", b"key\0\0" + zlib.compress(b"words")),
    chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile")),
    chunk(b"iTXt", b"key\0\0\0\0\0words"),
    chunk(b"tIME", bytes((7, 228, 1, 1, 0, 0, 0))),
    chunk(b"bKGD", b"\0\xff"),
]
ancillary = st.lists(st.sampled_from(HARMLESS), max_size=3).map(b"".join)


class Png(NamedTuple):
    """A PNG's colour type, bits a channel, width, filter of each row, and filtered rows (h, n).

    `before` and `after` are chunks around the pixels.
    """

    colour_type: int
    depth: int
    width: int
    filters: list[int]
    rows: Pixels
    palette: Pixels | None = None
    before: bytes = b""
    after: bytes = b""

    def file(self, *, interlaced: bool = False) -> bytes:
        """Return the bytes of the file; its pixels are in two chunks, as in large files."""
        head = self.width, len(self.rows), self.depth, self.colour_type, 0, 0, interlaced
        lines = np.column_stack([np.array(self.filters, np.uint8), self.rows])
        compressed = zlib.compress(lines.tobytes())
        palette = b"" if self.palette is None else chunk(b"PLTE", self.palette.tobytes())
        parts = compressed[:10], compressed[10:]
        pixels = b"".join(chunk(b"IDAT", part) for part in parts)
        header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *head))
        return header + self.before + palette + pixels + self.after + chunk(b"IEND", b"")


@st.composite
def pngs(draw: st.DrawFn) -> Png:
    """Files with dense or sparse filtered bytes: zeros are skipped in blocks."""
    colour_type, depth = draw(st.sampled_from(FORMS))
    channels, height = CHANNELS[colour_type], draw(st.integers(1, 8))
    width = draw(st.integers(1, 12) | st.integers(60, 200))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels, density = draw(st.sampled_from((2, 256))), draw(st.sampled_from((0.0, 0.01, 0.3, 1.0)))
    count = -(-width * channels * depth // 8)
    rows = generator.integers(0, levels, (height, count), dtype=np.uint8)
    rows *= generator.random(rows.shape) < density
    if draw(st.booleans()) and count % channels == 0:  # equal channels in some rows, or in all
        some = rows[draw(st.integers(0, height)) :]
        some[:] = np.repeat(some[:, ::channels], channels, axis=1)
    filters = draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    palette = None
    if colour_type == PALETTE:
        palette = generator.integers(0, 256, (1 << depth, 3), dtype=np.uint8)
        palette[:, 1:] = palette[:, :1] if draw(st.booleans()) else palette[:, 1:]
    chunks = draw(ancillary), draw(ancillary)
    return Png(colour_type, depth, width, filters, rows, palette, *chunks)


def assert_same(found: Decoded, right: Decoded) -> None:
    np.testing.assert_array_equal(found.grey, right.grey)
    assert found.grey.flags.c_contiguous
    assert found.changes == right.changes
    if found.mode.endswith(";16"):  # Pillow drops the low bytes of colours, which are rounded here
        return
    assert found.mode == right.mode
    assert (found.colour is None) == (right.colour is None)
    if found.colour is not None and right.colour is not None:
        np.testing.assert_array_equal(found.colour, right.colour)
    assert measure(found, found.grey) == measure(right, right.grey)


@given(pngs())
@settings(max_examples=300)
def test_every_colour_type_depth_and_filter_has_pillows_pixels(png: Png) -> None:
    data = png.file()
    plain = decode_plain_png(data)
    assert plain is not None
    assert_same(plain, _decode_with_pillow(data, 0))


def with_checksums(data: bytes) -> bytes:
    """Return a damaged file with the checksums that its chunks should have."""
    corrected, position = bytearray(data), 8
    while position + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        end = position + 8 + size
        corrected[end : end + 4] = struct.pack(">I", zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(corrected[: len(data)])


@given(
    png=pngs(),
    changes=st.lists(st.tuples(st.integers(min_value=0), st.integers(1, 255)), max_size=3),
    kept=st.just(1.0) | st.floats(0, 1),
    correct=st.booleans(),
)
@settings(max_examples=500)
def test_a_damaged_png_has_pillows_pixels_or_its_refusal(
    png: Png, changes: list[tuple[int, int]], kept: float, correct: bool
) -> None:
    damaged = bytearray(png.file())
    for position, value in changes:
        damaged[position % len(damaged)] ^= value
    data = bytes(damaged)[: int(kept * len(damaged))]
    data = with_checksums(data) if correct else data
    reason = ""
    try:
        right = _decode_with_pillow(data, 0)
    except ImageError as error:
        reason = str(error) if data else "the file is empty"
    if reason:
        with pytest.raises(ImageError, match=f"^{re.escape(reason)}$"):
            decode(data)
    else:
        assert_same(decode(data), right)


@given(png=pngs(), row=st.integers(0, 7), kind=st.integers(5, 255))
def test_an_unknown_filter_is_refused(png: Png, row: int, kind: int) -> None:
    png.filters[row % len(png.filters)] = kind
    assert decode_plain_png(png.file()) is None
    with pytest.raises(ImageError):
        decode(png.file())


@given(pngs())
def test_an_interlaced_png_is_left_to_pillow(png: Png) -> None:
    assert decode_plain_png(png.file(interlaced=True)) is None


def unfiltered(filters: list[int], rows: Pixels, step: int) -> NDArray[np.int64]:
    """The reference of the filters: the formulas of PNG's specification, byte by byte."""
    out = np.zeros(rows.shape, np.int64)
    for y, kind in enumerate(filters):
        for x in range(rows.shape[1]):
            left = int(out[y, x - step]) if x >= step else 0
            above = int(out[y - 1, x]) if y else 0
            corner = int(out[y - 1, x - step]) if y and x >= step else 0
            estimate = left + above - corner
            nearest = min((left, above, corner), key=lambda value: abs(estimate - value))
            predicted = (0, left, above, (left + above) // 2, nearest)[kind]
            out[y, x] = (int(rows[y, x]) + predicted) % 256
    return out


@given(
    step=st.sampled_from((1, 2, 3, 4, 6, 8)),
    pixels=st.integers(1, 80),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    density=st.sampled_from((0.0, 0.005, 0.1, 1.0)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_filters_are_undone_as_png_specifies(
    step: int, pixels: int, filters: list[int], density: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 256, (len(filters), step * pixels), dtype=np.uint8)
    rows *= generator.random(rows.shape) < density
    out = np.empty(rows.shape, np.uint8)
    assert png_rows.unfilter(np.column_stack([np.array(filters, np.uint8), rows]), step, out)
    np.testing.assert_array_equal(out, unfiltered(filters, rows, step))


# Palettes


def of_numbers(entries: int, number: int) -> Png:
    """A palette of `entries` colours, and pixels of the first colour and of `number`."""
    palette = np.arange(3 * entries, dtype=np.int64).astype(np.uint8).reshape(entries, 3)
    return Png(PALETTE, 8, 2, [0], np.array([[0, number]], np.uint8), palette)


@pytest.mark.parametrize("entries", [1, 256])
def test_the_last_colour_of_a_palette_is_decoded_here(entries: int) -> None:
    assert decode_plain_png(of_numbers(entries, entries - 1).file()) is not None


@pytest.mark.parametrize(
    "png",
    [
        of_numbers(3, 3),
        of_numbers(1, 255),
        of_numbers(257, 0),
        of_numbers(3, 0)._replace(palette=np.zeros((0, 3), np.uint8)),
        of_numbers(3, 0)._replace(palette=np.zeros((1, 4), np.uint8)),
        of_numbers(3, 0)._replace(palette=None),
        Png(RGB, 8, 1, [0], np.array([[7, 8, 9]], np.uint8), np.zeros((1, 3), np.uint8)),
    ],
    ids=["beyond", "far beyond", "too long", "empty", "uneven", "missing", "of RGB"],
)
def test_an_unusual_palette_is_left_to_pillow(png: Png) -> None:
    data = png.file()
    assert decode_plain_png(data) is None
    try:
        right = _decode_with_pillow(data, 0)
    except ImageError:
        with pytest.raises(ImageError):
            decode(data)
    else:
        assert_same(decode(data), right)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_transparent_colour_is_left_to_pillow(mode: str) -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert(mode)
    transparent = (7, 7, 7) if mode == "RGB" else 7
    assert decode_plain_png(saved(image)) is not None
    assert decode_plain_png(saved(image, transparency=transparent)) is None


# Equal channels


@given(
    grey=st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).integers(0, 256, (9, 70), dtype=np.uint8)
    )
)
def test_equal_channels_are_a_view_of_grey_and_measured_like_a_copy(grey: Pixels) -> None:
    decoded = decode(saved(Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))))
    assert decoded.mode == "RGB"
    assert decoded.repeats_grey
    assert decoded.colour is not None
    np.testing.assert_array_equal(decoded.grey, grey)
    copied = decoded._replace(colour=in_channels(grey).copy())
    assert not copied.repeats_grey
    for stored in (None, copied.colour):
        assert measure(decoded, grey, stored) == measure(copied, grey, stored)


@pytest.mark.parametrize("row", [0, 4, 8])
def test_one_pixel_of_colour_is_found(row: int) -> None:
    page = np.full((9, 200, 3), 255, np.uint8)
    page[2:7, 50:90] = 30
    page[row, 150, 2] = 254
    decoded = decode(saved(Image.fromarray(page)))
    assert decoded.colour is not None
    assert not decoded.repeats_grey
    np.testing.assert_array_equal(decoded.colour, page)
    np.testing.assert_array_equal(decoded.grey, np.array(Image.fromarray(page).convert("L")))
