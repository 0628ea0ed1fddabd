"""Image files of every format become the grey levels that a person sees."""

import importlib
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageSequence, features
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from raw_data import Pixels, chunk, pillow, png, saved

from pipeline.data.base import IMAGE_SUFFIXES, Decoded, ImageError
from pipeline.data.pixels import image_decoder
from pipeline.data.pixels.formats import FORMATS, SNIFFED, sniff
from pipeline.data.pixels.image_decoder import decode, pages
from pipeline.data.pixels.measures import ON_BLACK, ON_WHITE, TURNED, UNREADABLE
from pipeline.data.pixels.png import decoder

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def short_cuts() -> list[bool]:
    """Whether each image took the short cut, in order; so that no test passes without it."""
    return []


@pytest.fixture(scope="module", autouse=True)
def _spy(short_cuts: list[bool]) -> Any:
    decode_with_pillow, decode_plain = (
        image_decoder._decode_with_pillow,
        decoder.decode_plain_png,
    )

    def spied_decode_plain(data: bytes) -> Any:
        short_cuts.append(True)
        return decode_plain(data)

    def spied_decode(data: bytes, page: int) -> Decoded:
        short_cuts[-1] = False
        return decode_with_pillow(data, page)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_decoder, "decode_plain_png", spied_decode_plain)
        patch.setattr(image_decoder, "_decode_with_pillow", spied_decode)
        yield


def on_paper(grey: Pixels, alpha: Pixels) -> Pixels:
    """The reference of compositing: one formula, in Python's integers."""
    pairs = [(int(g), int(a)) for g, a in zip(grey.flat, alpha.flat, strict=True)]
    weight = sum(a for _, a in pairs)
    opaque = [g for g, a in pairs if a == 255]
    is_white = weight == 0 or sum(g * a for g, a in pairs) / weight < 127.5
    if weight > 255 * len(pairs) / 2 and opaque and max(opaque) - min(opaque) >= 128:
        is_white = not is_white
    paper = 255 if is_white else 0
    values = [(g * a + paper * (255 - a) + 127) // 255 for g, a in pairs]
    return np.array(values, np.uint8).reshape(grey.shape)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The reference of the EXIF orientation, by the meaning of its row and column."""
    turns: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }
    return turns[orientation](pixels)


def expected(data: bytes) -> Pixels:
    """What a person sees: Pillow's grey, on paper where a pixel is transparent, upright."""
    image = Image.open(io.BytesIO(data))
    orientation = image.getexif().get(ORIENTATION, 1)
    image.load()
    if image.has_transparency_data:
        colours = np.array(image.convert("RGBA"))
        grey = np.array(Image.fromarray(colours[..., :3]).convert("L"))
        grey = on_paper(grey, colours[..., 3])
    else:
        grey = np.array(image.convert("L"))
    return upright(grey, 1 if image.format == "TIFF" else orientation)  # Pillow turns TIFF


def random_pixels(draw: st.DrawFn, channels: int) -> Pixels:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(
        0, draw(st.sampled_from((2, 6, 256))), (height, width * channels), dtype=np.uint8
    )


def letter(height: int = 30, width: int = 20) -> Pixels:
    """Dark ink, in the shape of an F, on white: no turn or mirror image of it is the same."""
    pixels = np.full((height, width), 255, np.uint8)
    pixels[4:-4, 5:8] = 10
    pixels[4:7, 5:16] = 10
    pixels[12:15, 5:12] = 10
    return pixels


# The fast path


@pytest.mark.parametrize(
    "unusual",
    [
        chunk(b"tRNS", b"\0\7"),
        chunk(b"PLTE", bytes(6)),
        chunk(b"sRGB", b""),  # too short: Pillow refuses it
        chunk(b"gAMA", bytes(4))[:-1] + b"x",  # wrong checksum: likewise
        chunk(b"zTXt", b"key\0\0words")[:-1] + b"x",
    ],
)
@pytest.mark.parametrize("where", ["before", "after"])
def test_an_unusual_chunk_is_left_to_pillow(
    short_cuts: list[bool], unusual: bytes, where: str
) -> None:
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    data = png(rows, [1, 2], 0, 1, **{where: unusual})
    try:
        right = expected(data)
    except Exception:
        with pytest.raises(ImageError):
            decode(data)
    else:
        np.testing.assert_array_equal(decode(data).grey, right)
    assert not short_cuts[-1]


TWO_MEGABYTES = zlib.compress(bytes(2 << 20))
LARGE = {
    "profile": chunk(b"iCCP", b"name\0\0" + TWO_MEGABYTES),
    "compressed text": chunk(b"zTXt", b"key\0\0" + TWO_MEGABYTES),
    "international text": chunk(b"iTXt", b"key\0\1\0\0\0" + TWO_MEGABYTES),
    "text": chunk(b"tEXt", b"key\0" + bytes(2 << 20)),
}


@pytest.mark.parametrize("kind", sorted(LARGE))
@pytest.mark.parametrize("where", ["before", "after"])
def test_large_texts_and_profiles_are_skipped_and_never_inflated(
    short_cuts: list[bool], kind: str, where: str
) -> None:
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    plain = png(rows, [0, 0], 0, 1, **{where: LARGE[kind]})
    transparent = saved(Image.fromarray(rows), transparency=99)
    unusual = transparent[:33] + LARGE[kind] + transparent[33:]
    for data, short in ((plain, True), (unusual, False)):
        tracemalloc.start()
        np.testing.assert_array_equal(decode(data).grey, rows)
        assert tracemalloc.get_traced_memory()[1] < len(data) + (1 << 20)
        tracemalloc.stop()
        assert short_cuts[-1] == short


def test_pixels_in_two_places_are_left_to_pillow(short_cuts: list[bool]) -> None:
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    with pytest.raises(ImageError):
        decode(png(rows, [1, 2], 0, 1, between=chunk(b"pHYs", bytes(9))))
    assert not short_cuts[-1]


# Modes and formats

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "PPM": ("1", "L", "RGB"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA"),
}


@st.composite
def files_of_any_kind(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[kind]))
    pixels = random_pixels(draw, 4)
    image = Image.fromarray(pixels.reshape(len(pixels), -1, 4))
    image = (image if mode in ("RGBA", "LA") else image.convert("RGB")).convert(mode)
    options: dict[str, Any] = {}
    if kind in ("PNG", "JPEG", "WEBP", "TIFF") and draw(st.booleans()):
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = draw(st.integers(1, 8))
    if kind == "PNG" and draw(st.booleans()):
        transparent = {"P": draw(st.sampled_from((0, b"\0\x80"))), "L": 3, "RGB": (0, 0, 0), "1": 1}
        if mode in transparent:
            options["transparency"] = transparent[mode]
    return saved(image, kind, **options)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@given(files_of_any_kind())
@settings(max_examples=300)
def test_every_mode_and_format_gives_pillows_pixels_upright_and_on_paper(data: bytes) -> None:
    decoded = decode(data)
    assert decoded.grey.dtype == np.uint8
    assert decoded.grey.flags.c_contiguous
    np.testing.assert_array_equal(decoded.grey, expected(data))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def raw_exif_text(orientation: int) -> str:
    """EXIF as ImageMagick writes it into a PNG's text."""
    data = exif(orientation).tobytes()
    return f"\nexif\n{len(data):8}\n{data.hex()}\n"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "TIFF", "TIFF lzw", "TIFF g4", "PNG text", "PNG xmp", "AVIF"]
)
def test_an_image_with_an_orientation_is_upright_exactly_once(kind: str, orientation: int) -> None:
    stored = letter()
    image = Image.fromarray(stored)
    tags = exif(orientation)
    if kind == "PNG text":
        data = saved(image)
        text = b"Raw profile type exif\0\0" + zlib.compress(raw_exif_text(orientation).encode())
        data = data[:33] + chunk(b"zTXt", text) + data[33:]
    elif kind == "PNG xmp":
        data = saved(image)
        text = b'<x tiff:Orientation="%d"/>' % orientation
        data = data[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text) + data[33:]
    elif kind == "TIFF lzw":
        data = saved(image, "TIFF", exif=tags, compression="tiff_lzw")
    elif kind == "TIFF g4":
        data = saved(image.convert("1"), "TIFF", exif=tags, compression="group4")
    elif kind == "AVIF":
        if not features.check("avif"):
            pytest.skip("this Pillow has no AVIF")
        data = saved(image.convert("RGB"), "AVIF", exif=tags)
    else:
        data = saved(image.convert("RGB"), kind, exif=tags)
    decoded = decode(data)
    right = upright(stored, orientation)
    assert decoded.grey.shape == right.shape
    assert np.abs(decoded.grey.astype(int) - right).mean() < 8  # JPEG, WebP and AVIF lose a little
    assert decoded.changes == ((TURNED,) if orientation > 1 else ())


def test_a_damaged_orientation_is_taken_as_upright_and_noted() -> None:
    data = saved(Image.fromarray(letter()))
    for metadata, changes in (
        (b"", ()),
        (b"II*\0\xff\xff\xff\xff", ()),
        (b"words", (UNREADABLE,)),
        (exif(9).tobytes()[6:], ()),
    ):
        damaged = data[:33] + chunk(b"eXIf", metadata) + data[33:]
        decoded = decode(damaged)
        np.testing.assert_array_equal(decoded.grey, letter())
        assert decoded.changes == changes


# Transparency


def ink_in_alpha(mode: str, grey: int) -> Image.Image:
    """A letter whose colour is one grey everywhere: only its alpha channel shows it."""
    alpha = Image.fromarray(255 - letter())
    image = Image.new("L", alpha.size, grey)
    if mode == "P":
        palette = Image.fromarray((255 - letter()) // 25 * 25)
        palette = palette.convert("P")
        palette.putpalette([grey] * 768)
        return palette
    image = image.convert("LA" if mode == "LA" else "RGBA")
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *[("PNG", mode) for mode in ("RGBA", "LA", "P")],
        *[("WEBP", "RGBA"), ("TIFF", "RGBA"), ("TIFF", "LA"), ("GIF", "RGBA")],
        *[("JPEG2000", "RGBA"), ("JPEG2000", "LA")],
    ],
)
@pytest.mark.parametrize("ink", [0, 40, 215, 255])
def test_ink_in_the_alpha_channel_is_on_paper_of_the_other_grey(
    kind: str, mode: str, ink: int
) -> None:
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    if mode == "P":
        options["transparency"] = bytes(range(256))
    decoded = decode(saved(ink_in_alpha(mode, ink), kind, **options))
    paper = 255 if ink < 128 else 0
    assert decoded.changes == (ON_WHITE if paper else ON_BLACK,)
    is_ink = letter() < 128
    assert (np.abs(decoded.grey[~is_ink].astype(int) - paper) <= 1).all()
    assert (np.abs(decoded.grey[is_ink].astype(int) - ink) <= 32).all()  # it is not quite opaque


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "I;16"])
def test_a_transparent_colour_is_paper(mode: str) -> None:
    pixels = np.where(letter() < 128, 0, 255).astype(np.uint8)  # 255 is the transparent grey
    transparent: dict[str, Any] = {"L": 255, "RGB": (255,) * 3, "1": 255, "P": 255, "I;16": 65535}
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode if mode != "P" else "L")
        if mode == "P":
            image = image.convert("P")
            image.putpalette([0] * 768)  # black ink on black
    decoded = decode(saved(image, transparency=transparent[mode]))
    assert decoded.changes == (ON_WHITE,)
    np.testing.assert_array_equal(decoded.grey / decoded.grey.max(), pixels / 255)


def test_a_wholly_transparent_image_is_blank_paper() -> None:
    for mode in ("RGBA", "LA"):
        image = Image.fromarray(letter()).convert(mode)
        image.putalpha(0)
        for kind in ("PNG", "TIFF"):
            decoded = decode(saved(image, kind))
            assert (decoded.grey == 255).all()
            assert decoded.changes == (ON_WHITE,)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_opaque_alpha_channel_changes_nothing(mode: str, short_cuts: list[bool]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    image = image.convert(mode)
    decoded = decode(saved(image))
    assert short_cuts[-1]
    assert decoded.changes == ()
    np.testing.assert_array_equal(decoded.grey, np.array(image.convert("L")))


def test_a_page_that_lacks_its_corners_gets_corners_of_its_paper() -> None:
    for page in (letter(), 255 - letter()):
        image = Image.fromarray(page).convert("LA")
        alpha = np.full(page.shape, 255, np.uint8)
        alpha[:4, :4] = alpha[-4:, -4:] = 0
        image.putalpha(Image.fromarray(alpha))
        np.testing.assert_array_equal(decode(saved(image)).grey, page)


def test_an_unused_fourth_byte_of_a_bmp_is_not_transparency() -> None:
    image = Image.fromarray(letter()).convert("RGBA")
    image.putalpha(0)
    decoded = decode(saved(image, "BMP"))
    np.testing.assert_array_equal(decoded.grey, letter())


# Depth


@given(
    seed=st.integers(0, 2**32 - 1),
    low=st.integers(0, 60000),
    kind=st.sampled_from(("PNG", "TIFF", "TIFF big-endian", "PGM", "JPEG2000")),
)
@settings(max_examples=40)
def test_sixteen_bits_of_grey_are_kept(seed: int, low: int, kind: str) -> None:
    pixels = np.random.default_rng(seed).integers(low, 65536, (5, 7)).astype(np.uint16)
    image = Image.fromarray(pixels)
    if kind == "PGM":
        data = b"P5 7 5 65535\n" + pixels.astype(">u2").tobytes()
    elif kind == "TIFF big-endian":
        data = saved(Image.frombytes("I;16B", (7, 5), pixels.astype(">u2").tobytes()), "TIFF")
    elif kind == "JPEG2000":
        data = saved(image, kind, irreversible=False)
    else:
        data = saved(image, kind)
    grey = decode(data).grey
    assert grey.dtype in (np.uint16, np.int32)
    np.testing.assert_array_equal(grey, pixels)


def test_twelve_bits_in_sixteen_are_kept() -> None:
    pixels = np.linspace(250, 4095, 35).astype(np.uint16).reshape(5, 7)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels))).grey, pixels)


def test_a_pgm_of_twelve_bits_uses_its_own_greatest_value() -> None:
    data = b"P5 3 1 4095\n" + np.array([0, 2048, 4095], ">u2").tobytes()
    np.testing.assert_array_equal(decode(data).grey, [[0, 32776, 65535]])


def with_sample_format(data: bytes, value: int) -> bytes:
    """A little-endian TIFF with another SampleFormat: 1 is unsigned, 2 is signed."""
    entry = struct.pack("<HHI", 339, 3, 1)
    at = data.index(entry) + len(entry)
    return data[:at] + struct.pack("<H", value) + data[at + 2 :]


def test_the_upper_half_of_unsigned_whole_numbers_is_not_negative() -> None:
    pixels = np.array([[0, 1 << 31, (1 << 32) - 256]], np.uint32)
    data = saved(Image.fromarray(pixels.view(np.int32)), "TIFF")
    np.testing.assert_array_equal(decode(with_sample_format(data, 1)).grey, pixels)
    np.testing.assert_array_equal(decode(data).grey, pixels.view(np.int32))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_a_channel_are_reduced_to_eight(colour_type: int, channels: int) -> None:
    rows = np.full((2, 3, channels), 0xFFFF, ">u2")
    rows[..., : channels - (channels % 2 == 0)] = letter()[4:6, 4:7, None].astype(np.uint16) * 257
    header = struct.pack(">IIBBBBB", 3, 2, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    data = b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines))]
    )
    decoded = decode(data + chunk(b"IEND", b""))
    np.testing.assert_array_equal(decoded.grey, letter()[4:6, 4:7])
    assert decoded.changes == ()


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_float_grey_levels_are_kept(kind: str) -> None:
    pixels = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)
    grey = decode(saved(Image.fromarray(pixels), kind)).grey
    assert grey.dtype == np.float32
    np.testing.assert_array_equal(grey, pixels)


def test_whole_numbers_beyond_sixteen_bits_are_kept() -> None:
    pixels = np.array([[-5, 70000], [0, 1 << 30]], np.int32)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels), "TIFF")).grey, pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_grey_levels_that_are_no_numbers_are_refused(value: float) -> None:
    pixels = np.array([[0, value]], np.float32)
    with pytest.raises(ImageError, match="NaN or infinite"):
        decode(saved(Image.fromarray(pixels), "TIFF"))


def test_a_deep_image_is_turned_upright_too() -> None:
    pixels = letter().astype(np.uint16) * 200
    decoded = decode(saved(Image.fromarray(pixels), exif=exif(6)))
    np.testing.assert_array_equal(decoded.grey, upright(pixels, 6))
    assert (decoded.mode, decoded.changes) == ("I;16", (TURNED,))


def with_photometric(data: bytes, value: int) -> bytes:
    """A little-endian TIFF with another PhotometricInterpretation."""
    entry = struct.pack("<HHI", 262, 3, 1)
    at = data.index(entry) + len(entry)
    return data[:at] + struct.pack("<H", value) + data[at + 2 :]


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_a_tiff_whose_zero_is_white_is_not_inverted(mode: str) -> None:
    stored = letter().astype(np.uint16) * 257
    image = Image.fromarray(stored) if mode == "I;16" else Image.fromarray(letter()).convert(mode)
    usual, inverted = (decode(with_photometric(saved(image, "TIFF"), i)).grey for i in (1, 0))
    top = np.iinfo(usual.dtype).max
    np.testing.assert_array_equal(inverted, top - usual)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "GIF", "BMP"])
def test_one_bit_is_black_or_white(kind: str) -> None:
    grey = decode(saved(Image.fromarray(letter()).convert("1"), kind)).grey
    np.testing.assert_array_equal(grey, np.where(letter() < 128, 0, 255))


def test_the_lightness_of_lab_is_grey() -> None:
    image = Image.merge("LAB", [Image.fromarray(letter())] + 2 * [Image.new("L", (20, 30), 128)])
    np.testing.assert_array_equal(decode(saved(image, "TIFF")).grey, letter())


def test_cmyk_is_not_inverted() -> None:
    image = Image.fromarray(letter()).convert("RGB").convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        assert np.abs(decode(saved(image, kind)).grey.astype(int) - letter()).mean() < 8


# Several images in a file


def frames(count: int = 12) -> list[Image.Image]:
    return [Image.new("L", (6, 4), 10 + 5 * i) for i in range(count)]


def tiff(images: Sequence[Image.Image], kinds: Sequence[int | None], **options: Any) -> bytes:
    """A TIFF of several images with their NewSubfileType, None for none."""
    parts = []
    for image, kind in zip(images, kinds, strict=True):
        tags = ImageFileDirectory_v2()
        if kind is not None:
            tags[254] = kind
        part = image.copy()
        part.encoderinfo = {"tiffinfo": tags, **options}
        parts.append(part)
    file = io.BytesIO()
    first = parts[0].encoderinfo
    parts[0].save(file, "TIFF", save_all=True, append_images=parts[1:], **first)
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
def test_each_page_of_a_tiff_is_an_image(options: dict[str, Any]) -> None:
    images = frames()
    data = saved(images[0], "TIFF", save_all=True, append_images=images[1:], **options)
    assert pages(data) == tuple(range(12))
    for page, image in enumerate(images):
        np.testing.assert_array_equal(decode(data, page).grey, np.array(image))


def test_reduced_copies_and_masks_are_not_pages() -> None:
    data = tiff(frames(7), [None, 1, 2, 0, 4, 3, 2])
    assert pages(data) == (0, 2, 3, 6)
    assert [int(decode(data, page).grey[0, 0]) for page in pages(data)] == [10, 20, 25, 40]


def test_pages_of_a_tiff_are_upright_each_by_its_own_orientation() -> None:
    parts = []
    for orientation in (1, 6, 3, 8):
        image = Image.fromarray(letter())
        tags = ImageFileDirectory_v2()
        tags[ORIENTATION] = orientation
        image.encoderinfo = {"tiffinfo": tags}
        parts.append(image)
    file = io.BytesIO()
    parts[0].save(file, "TIFF", save_all=True, append_images=parts[1:], **parts[0].encoderinfo)
    data = file.getvalue()
    for page, orientation in enumerate((1, 6, 3, 8)):
        decoded = decode(data, page)
        np.testing.assert_array_equal(decoded.grey, upright(letter(), orientation))
        assert decoded.changes == ((TURNED,) if orientation > 1 else ())


def test_other_formats_and_damaged_tiffs_have_one_page() -> None:
    data = saved(frames()[0], "TIFF")
    assert pages(saved(frames()[0])) == (0,)
    assert pages(b"") == (0,)
    for end in range(len(data)):
        assert pages(data[:end]) == (0,)


@given(st.binary(max_size=200).map(lambda tail: b"II*\0" + tail))
def test_any_bytes_have_pages(data: bytes) -> None:
    assert pages(data)


def test_a_chain_of_directories_that_is_a_circle_ends() -> None:
    data = bytearray(saved(frames()[0], "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)
    assert pages(data) == (0,)


def test_a_preview_of_a_raw_photograph_is_refused() -> None:
    tags = ImageFileDirectory_v2()
    tags[254] = 1
    tags[330] = 8
    tags.tagtype[330] = 4
    with pytest.raises(ImageError, match="reduced copy"):
        decode(saved(frames()[0], "TIFF", tiffinfo=tags))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_refused(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    images = [image.convert("RGB") for image in frames()]
    data = saved(images[0], kind, save_all=True, append_images=images[1:])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 12
    with pytest.raises(ImageError, match="animated: 12 frames, expected one image"):
        decode(data)


def test_a_phones_jpeg_with_a_preview_is_its_first_image() -> None:
    image = Image.fromarray(letter())
    data = saved(image, "MPO", save_all=True, append_images=[Image.new("L", (6, 4), 9)])
    assert decode(data).grey.shape == letter().shape
    assert pages(data) == (0,)


# Formats


@pytest.mark.parametrize("kind", [name for name in FORMATS if name not in ("HEIC", "AVIF")])
def test_a_format_is_recognised_by_its_contents(kind: str) -> None:
    data = saved(Image.fromarray(letter()), kind)
    assert sniff(data[:SNIFFED]) == kind
    assert decode(data).grey.shape == letter().shape


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_decoded() -> None:
    data = saved(Image.fromarray(letter()), "AVIF", quality=100)
    assert sniff(data) == "AVIF"
    assert np.abs(decode(data).grey.astype(int) - letter()).mean() < 4


def test_avif_without_support_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(ImageError, match="AVIF needs"):
        decode(b"\0\0\0\x1cftypavif" + bytes(60))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImageError, match=r"launch.sh setup heic"):
        decode(HEIC + bytes(60))


def test_heic_is_decoded_upright() -> None:
    heif = pytest.importorskip("pillow_heif")
    for orientation in (1, 6):
        file = io.BytesIO()
        encoded = heif.from_pillow(Image.fromarray(letter(64, 48)).convert("RGB"))
        encoded.save(file, quality=95, exif=exif(orientation).tobytes())
        assert sniff(file.getvalue()) == "HEIC"
        decoded = decode(file.getvalue())
        right = upright(letter(64, 48), orientation)
        assert decoded.grey.shape == right.shape
        assert np.abs(decoded.grey.astype(int) - right).mean() < 8


@pytest.mark.parametrize(
    "text",
    [
        *[b"", b"BM is how this text begins", b"P1 is a person", b"P5\n", b"GIF8", b"RIFFxxxxWAVE"],
        *[b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.7", b"\0\0\0\x18ftypisom\0\0\0\0isommp42"],
    ],
)
def test_other_files_are_no_images(text: bytes) -> None:
    assert sniff(text) is None


def test_postscript_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    monkeypatch.setattr("subprocess.check_call", refuse)
    with pytest.raises(ImageError, match="not recognised"):
        decode(saved(Image.fromarray(letter()), "EPS"))


def test_suffixes_are_lower_case_and_distinct() -> None:
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)
    assert {".jfif", ".jpe", ".jp2", ".heic", ".avif", ".png"} <= set(IMAGE_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


# Limits and damage


def declared(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    plain = png(np.zeros((1, 1), np.uint8), [0], 0, 1)
    return plain[:8] + chunk(b"IHDR", header) + plain[33:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"what", "not recognised as PNG, JPEG"),
        (declared(60000, 2000), "too many pixels"),  # above Pillow's limit, where Pillow only warns
        (declared(60000, 60000), "too many pixels"),  # above twice the limit
        (declared(65536, 1), "65536×1 pixels"),
        (declared(100, 100), "truncated"),  # fewer pixels than declared
        (saved(Image.new("L", (4, 4)))[:-26], "truncated"),
        (saved(Image.new("L", (4, 4)), "ICO"), "not recognised"),  # not one of the formats tried
    ],
    ids=["empty", "words", "bomb", "big bomb", "wide", "short", "cut", "format"],
)
def test_what_cannot_be_decoded_has_a_reason(data: bytes, reason: str) -> None:
    tracemalloc.start()
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_a_large_page_after_a_small_one_is_refused() -> None:
    images = [Image.new("1", (8, 8)), Image.new("1", (20000, 10000))]
    data = tiff(images, [None, None], compression="group4")
    assert decode(data, 0).grey.shape == (8, 8)
    with pytest.raises(ImageError, match=r"got (too many|200,000,000) pixels"):
        decode(data, 1)


@pytest.mark.parametrize("kind", [name for name in FORMATS if name not in ("HEIC", "AVIF")])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_an_error(kind: str, fraction: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(ImageError) as caught:
        decode(data[: int(fraction * len(data))])
    assert "\n" not in str(caught.value)


def test_the_widest_image_is_decoded() -> None:
    data = saved(Image.new("RGB", (65535, 1), (1, 2, 3)))
    np.testing.assert_array_equal(decode(data).grey, pillow(data))
