"""Images in colour: how they are decoded, when they are stored in colour, and what is reported."""

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms
from raw_data import chunk, make_tree, make_zip, saved

from beton import writer
from beton.errors import BetonError
from beton.fields import InkField, RGBImageField
from beton.reader import Reader
from jobs import prep as job
from pipeline.data.base import Decoded, ImageError, LayoutError, SourceError
from pipeline.data.pixels.colour import (
    Colours,
    channel_statistics,
    choose_colour,
    off_line,
    shows_colour,
)
from pipeline.data.pixels.image_decoder import decode
from pipeline.data.pixels.measures import PROFILED, TURNED, Measures, measure, read_measures
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.prepare import BadImagesError, PrepareResult, prepare
from pipeline.data.sources import open_source
from pipeline.loading.dataset import PixelRules, View, open_dataset
from pipeline.loading.dataset import channel_statistics as stored_statistics
from pipeline.reporting.data_tables import survey_facts

Pixels = NDArray[np.uint8]
AUTO, RGB, GREY = (PixelOptions(colour=colour) for colour in ("auto", "rgb", "grey"))


def photo(number: int, height: int = 72, width: int = 90) -> Pixels:
    """Smooth patches of many colours."""
    rng = np.random.default_rng(number)
    patches = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.array(patches.resize((width, height), Image.Resampling.BICUBIC))


def page(number: int, ink: tuple[int, int, int] = (0, 0, 0)) -> Pixels:
    """Soft strokes of one ink on white paper."""
    rng = np.random.default_rng(number)
    small = Image.fromarray((rng.random((9, 12)) < 0.15).astype(np.uint8) * 255)
    cover = np.array(small.resize((90, 72), Image.Resampling.BILINEAR))[..., None] / 255
    return np.asarray(np.rint(255 - cover * (255 - np.array(ink))), np.uint8)


def png(pixels: Pixels) -> bytes:
    return saved(Image.fromarray(pixels))


def jpg(pixels: Pixels, quality: int = 90, **options: object) -> bytes:
    return saved(Image.fromarray(pixels), "JPEG", quality=quality, **options)


def tree(
    make: Callable[[int], Pixels], write: Callable[[Pixels], bytes] = png, count: int = 10
) -> dict[str, bytes]:
    suffix = "jpg" if write is jpg else "png"
    return {
        f"{name}/{i}.{suffix}": write(make(100 * c + i))
        for c, name in enumerate("ab")
        for i in range(count)
    }


def prepared(folder: Path, files: dict[str, bytes], options: PixelOptions) -> PrepareResult:
    source = open_source(make_tree(folder / "raw", files))
    return prepare(source, folder / "x.beton", pixels=options)


def facts(result: PrepareResult) -> dict[str, str]:
    return dict(survey_facts(result.survey))


def records(images: Iterable[Pixels], write: Callable[[Pixels], bytes] = png) -> Measures:
    decoded = [decode(write(image)) for image in images]
    return read_measures(b"".join(measure(one, one.grey) for one in decoded))


# --- decoding -----------------------------------------------------------------------------------


def reference(data: bytes) -> Pixels:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def of_mode(mode: str, kind: str) -> bytes:
    image = Image.fromarray(photo(1))
    return saved(image.quantize(16) if mode == "P" else image.convert(mode), kind)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[("RGB", kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")],
        *[("P", kind) for kind in ("PNG", "GIF", "BMP", "TIFF")],
        *[("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("RGBA", "PNG"), ("RGBX", "TIFF")],
    ],
)
def test_colours_are_pillows(mode: str, kind: str) -> None:
    data = of_mode(mode, kind)
    decoded = decode(data)
    assert decoded.colour is not None
    np.testing.assert_array_equal(decoded.colour, reference(data))
    grey = np.array(Image.open(io.BytesIO(data)).convert("L"))
    np.testing.assert_array_equal(decoded.grey, grey)


def test_lab_becomes_srgb() -> None:
    image = Image.fromarray(photo(1))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert lab is not None
    decoded = decode(saved(lab, "TIFF"))
    assert decoded.mode == "LAB"
    assert decoded.colour is not None
    # 256 levels of each of the three hold fewer colours.
    assert np.abs(decoded.colour.astype(int) - photo(1)).mean() < 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "I", "F"])
def test_grey_files_have_no_colours(mode: str) -> None:
    kind = "TIFF" if mode in ("I", "F") else "PNG"
    grey = Image.fromarray(photo(1)).convert("L")
    image = Image.fromarray(np.array(grey).astype(np.uint16)) if mode == "I;16" else None
    assert decode(saved(image or grey.convert(mode), kind)).colour is None


def test_a_palette_of_greys_has_no_colours() -> None:
    image = Image.fromarray(photo(1)).convert("L").convert("P")
    assert decode(saved(image)).colour is None


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])  # the fast path, and Pillow
def test_transparent_colours_are_put_on_paper(kind: str) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (72, 90), dtype=np.uint8)
    image = Image.fromarray(np.dstack([photo(1) // 2, alpha]))
    decoded = decode(saved(image, kind))
    on_white = Image.new("RGBA", image.size, "white")
    expected = np.array(Image.alpha_composite(on_white, image).convert("RGB")).astype(int)
    assert decoded.colour is not None
    assert decoded.changes == ("composited on white paper",)
    assert np.abs(decoded.colour - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_and_grey_levels_are_turned_alike(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpg(photo(1), exif=exif)
    decoded = decode(data)
    assert decoded.colour is not None
    grey = np.array(Image.fromarray(np.ascontiguousarray(decoded.colour)).convert("L"))
    np.testing.assert_array_equal(decoded.grey, grey)
    assert (TURNED in decoded.changes) == (orientation > 1)
    assert decoded.jpeg == (data if orientation == 1 else None)


def test_only_jpegs_of_three_components_can_be_stored_as_they_are() -> None:
    assert decode(jpg(photo(1))).jpeg is not None
    assert decode(saved(Image.fromarray(photo(1)).convert("L"), "JPEG")).jpeg is None
    assert decode(of_mode("CMYK", "JPEG")).jpeg is None
    assert decode(png(photo(1))).jpeg is None


def cut(data: bytes, fraction: float) -> bytes:
    """The beginning of a JPEG file, which ends like a complete one."""
    return data[: int(fraction * len(data))] + b"\xff\xd9"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("side", [40, 90])  # stored as pixels, and as a file
def test_jpegs_that_lost_pixels_are_refused(mode: str, side: int, tmp_path: Path) -> None:
    """Pillow and libjpeg-turbo fill lost pixels with grey, and raise no error."""
    whole = saved(Image.fromarray(photo(1, side, side)).convert(mode), "JPEG", quality=95)
    decode(whole)
    for fraction in (0.7, 0.9):
        with pytest.raises(ImageError, match="damaged JPEG file: premature end of data"):
            decode(cut(whole, fraction))
    restarts = saved(Image.fromarray(photo(1)), "JPEG", restart_marker_rows=1)
    second, fourth = (restarts.index(bytes([0xFF, 0xD0 + n])) for n in (1, 3))
    with pytest.raises(ImageError, match="damaged JPEG file: found marker 0xd3 instead of RST1"):
        decode(restarts[:second] + restarts[fourth:])
    with pytest.raises(BadImagesError, match="1 of 20 images") as caught:
        prepared(tmp_path, tree(photo, jpg) | {"a/0.jpg": cut(whole, 0.7)}, RGB)
    assert caught.value.bad == [("a/0.jpg", "damaged JPEG file: premature end of data segment")]


def test_superfluous_bytes_in_a_jpeg_are_a_warning(tmp_path: Path) -> None:
    files = tree(photo, jpg)
    files["a/0.jpg"] = files["a/0.jpg"][:-2] + bytes(range(1, 41)) + files["a/0.jpg"][-2:]
    result = prepared(tmp_path, files, RGB)
    warning = "JPEG files with a flaw in their data, whose pixels may be wrong: 1"
    assert warning in result.survey.warnings
    assert facts(result)["storage"].startswith("19 JPEG files as they are; 1 image")


def profile(red: tuple[float, float, float] | None = None) -> bytes:
    """The profile of sRGB, with another `red` (X, Y, Z) if given."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if red is not None:
        entry = data.index(b"rXYZ", 128)
        at = int.from_bytes(data[entry + 4 : entry + 8], "big") + 8
        data[at : at + 12] = struct.pack(">iii", *(round(value * 65536) for value in red))
    return bytes(data)


def test_profiles_of_other_colours_are_a_warning(tmp_path: Path) -> None:
    files = tree(photo, jpg)
    adobe = profile((0.6097, 0.3111, 0.0195))
    profiles = (profile(), b"damaged", adobe, adobe)
    for i, one in enumerate(profiles):
        files[f"a/{i}.jpg"] = jpg(photo(i), icc_profile=one)
    result = prepared(tmp_path, files, AUTO)
    assert result.survey.changes == {PROFILED: 2}
    assert result.survey.warnings == (
        "images with a colour profile other than sRGB, which is ignored: 2; their colours are read "
        "as sRGB",
    )
    assert facts(result)["storage"] == "20 JPEG files as they are"


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a channel (h, w, 3 or 4), which Pillow does not write."""
    height, width, channels = values.shape
    rows = np.zeros((height, 1 + 2 * width * channels), np.uint8)  # filter 0
    rows[:, 1:] = values.astype(">u2").reshape(height, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_rounded(channels: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    values[..., 3:] = 65535
    data = deep_png(values)
    decoded = decode(data)
    assert decoded.mode == ("RGB;16", "RGBA;16")[channels - 3]
    assert decoded.colour is not None
    np.testing.assert_array_equal(decoded.colour, np.rint(values[..., :3] / 257))
    np.testing.assert_array_equal(decoded.grey, np.array(Image.open(io.BytesIO(data)).convert("L")))
    files = tree(lambda n: photo(n, 20, 30)) | {"a/0.png": data}
    result = prepared(tmp_path, files, AUTO)
    assert facts(result)["16 bits"] == "colours become 8 bits, the value / 257"


# --- grey or colour -----------------------------------------------------------------------------


def sepia(number: int) -> Pixels:
    grey = photo(number).mean(2, keepdims=True)
    return np.asarray(grey * np.array([1.0, 0.88, 0.69]), np.uint8)


def shapes(number: int) -> Pixels:
    rng = np.random.default_rng(number)
    image = np.full((64, 64, 3), 255, np.uint8)
    top, left = rng.integers(8, 30, 2)
    image[top : top + 24, left : left + 24] = rng.integers(0, 200, 3)
    return image


def noisy_scan(number: int) -> Pixels:
    noise = np.random.default_rng(number).normal(0, 3, (72, 90, 3))
    return (page(number) * 0.9 + 10 + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("make", "write", "expected"),
    [
        (page, png, "grey"),
        (lambda n: page(n, (20, 30, 150)), png, "grey"),
        (lambda n: page(n, (200, 20, 30)), jpg, "grey"),
        (lambda n: page(n, (200 - 3 * n, 25 + n, 30)), jpg, "grey"),
        (sepia, jpg, "grey"),
        (noisy_scan, jpg, "grey"),
        (photo, jpg, "rgb"),
        (photo, png, "rgb"),
        (lambda n: photo(n) // 8, png, "rgb"),  # underexposed
        (shapes, png, "rgb"),
        (lambda n: page(n, ((20, 30, 150), (200, 20, 30), (10, 120, 20))[n % 3]), png, "rgb"),
        (lambda n: photo(n) if n % 2 else sepia(n), png, "rgb"),
    ],
    ids=[
        *("black ink", "blue ink", "red ink in jpeg", "red inks", "sepia", "scan with noise"),
        *("photos", "photos in png", "dark photos", "shapes", "pens of three colours", "mixed"),
    ],
)
def test_colours_on_one_line_are_grey(
    make: Callable[[int], Pixels], write: Callable[[Pixels], bytes], expected: str
) -> None:
    assert choose_colour(records(map(make, range(20)), write)) == expected


def test_each_image_counts_alike() -> None:
    """A large grey image does not hide small ones in colour."""
    images = [np.repeat(photo(0, 900, 900)[..., :1], 3, 2), *(photo(n, 20, 20) for n in range(9))]
    assert choose_colour(records(images)) == "rgb"


def test_one_colour_has_no_line() -> None:
    assert off_line(records([np.full((9, 9, 3), (9, 99, 200), np.uint8)])) == (0, 0)
    assert choose_colour(read_measures(measure(Decoded(photo(1)[..., 0]), photo(1)[..., 0]))) == (
        "grey"
    )


def test_a_tint_of_the_paper_is_no_colour() -> None:
    cream = records([(page(n) * np.array([1, 0.98, 0.94])).astype(np.uint8) for n in range(5)])
    assert not shows_colour(cream).any()
    assert shows_colour(records([page(1, (20, 30, 150)), photo(1)])).all()


def test_statistics_are_those_of_all_pixels() -> None:
    images = [photo(n, 20 + n, 30) for n in range(5)]
    mean, std = channel_statistics(records(images))
    assert mean is not None
    assert std is not None
    values = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(0), rtol=1e-12)
    backwards = channel_statistics(records(images[::-1]))
    assert backwards == (mean, std)


def test_a_constant_channel_can_be_divided_by_its_deviation() -> None:
    image = photo(1)
    image[..., 2] = 7
    _, std = channel_statistics(records([image]))
    assert std is not None
    assert std[2] == 1 / 255


# --- prepared files -----------------------------------------------------------------------------


def test_jpeg_files_are_stored_as_they_are(tmp_path: Path) -> None:
    files = tree(photo, jpg)
    result = prepared(tmp_path, files, AUTO)
    assert facts(result)["storage"] == "20 JPEG files as they are"
    with open_dataset(result.path) as file:
        assert isinstance(file.fields["image"], RGBImageField)
        rules = PixelRules.of(file)
        assert (rules.colour, rules.fit, rules.polarity) == ("rgb", "crop", "each")
        names = [file.column("name").payload(i).tobytes().decode() for i in range(20)]
        stored = [file.column("image").payload(i).tobytes() for i in range(20)]
        assert dict(zip(names, stored, strict=True)) == files
        view = View.of(file, 64, None)
        assert (view.channels, view.canvas) == (3, (64, 80))
        training = file.column("split").metadata == 0
        expected = [reference(data) for data, one in zip(stored, training, strict=True) if one]
        values = np.concatenate([image.reshape(-1, 3) for image in expected]) / 255
        statistics = stored_statistics(file)
        np.testing.assert_allclose(statistics.mean, values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(statistics.std, values.std(0), rtol=1e-12)


def test_large_images_are_compressed_and_small_ones_are_not(tmp_path: Path) -> None:
    files = tree(lambda n: photo(n) if n % 2 else photo(n, 64, 64))
    result = prepared(tmp_path, files, AUTO)
    assert facts(result)["storage"] == (
        "10 images without loss; 10 images are compressed to JPEG of quality 95, with some loss; "
        "--quality sets another"
    )
    with open_dataset(result.path) as file:
        for i in range(20):
            name = file.column("name").payload(i).tobytes().decode()
            stored, expected = file.column("image").decode(i), reference(files[name])
            if expected.shape == (64, 64, 3):
                np.testing.assert_array_equal(stored, expected)
            else:
                assert 0 < np.abs(stored.astype(int) - expected).mean() < 3


def test_quality_compresses_jpeg_files_too(tmp_path: Path) -> None:
    files = tree(photo, jpg)
    result = prepared(tmp_path, files, PixelOptions(colour="auto", quality=50))
    assert "20 images are compressed to JPEG of quality 50" in facts(result)["storage"]
    as_they_are = prepared(tmp_path, files, AUTO)
    assert as_they_are.built  # the quality is one of the file's settings
    assert result.file_bytes < as_they_are.file_bytes
    assert not prepared(tmp_path, files, AUTO).built


def test_jpegs_that_the_loader_cannot_decode_are_compressed_again(tmp_path: Path) -> None:
    files = tree(photo, jpg)
    files["a/0.jpg"] = of_mode("CMYK", "JPEG")
    whole = jpg(photo(1))
    files["a/1.jpg"] = whole[:-2] + b"\x00\x00" * 20 + whole[-2:]  # Pillow ignores extra bytes
    exif = Image.Exif()
    exif[0x0112] = 6
    files["a/2.jpg"] = jpg(photo(2), exif=exif)
    decode(files["a/1.jpg"])
    result = prepared(tmp_path, files, AUTO)
    with open_dataset(result.path) as file:
        for i in range(20):
            data = file.column("image").payload(i).tobytes()
            assert simplejpeg.decode_jpeg(data).shape in ((72, 90, 3), (90, 72, 3))
    assert result.survey.colour is not None
    assert result.survey.colour.own_jpeg + result.survey.colour.compressed == 20
    assert 2 <= result.survey.colour.compressed <= 3


def test_workers_change_no_byte(tmp_path: Path) -> None:
    source = open_source(make_tree(tmp_path / "raw", tree(photo, jpg, 30)))
    paths = [tmp_path / f"{workers}.beton" for workers in (1, 2)]
    for workers, path in enumerate(paths, 1):
        prepare(source, path, pixels=AUTO, workers=workers)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("ink", [(0, 0, 0), (20, 30, 150)])
def test_ink_of_one_colour_is_stored_as_grey_ink(ink: tuple[int, int, int], tmp_path: Path) -> None:
    files = tree(lambda n: page(n, ink))
    auto = prepared(tmp_path, files, AUTO)
    with open_dataset(auto.path) as file:
        assert isinstance(file.fields["image"], InkField)
        pixels, records_ = file.info["pixels"], file.column("image").metadata.copy()
    shown = facts(auto).get("colour", "")
    assert shown.startswith("20 images in colour, stored as grey levels") == (ink != (0, 0, 0))
    assert auto.survey.warnings == ()
    prepared(tmp_path, files, GREY)
    with open_dataset(auto.path) as file:
        assert file.info["pixels"] == pixels
        np.testing.assert_array_equal(file.column("image").metadata, records_)


def test_a_file_of_black_ink_is_the_same_as_before(tmp_path: Path) -> None:
    prepared(tmp_path, tree(page), GREY)
    with Reader(tmp_path / "x.beton") as file:
        assert "colour" not in file.info["pixels"]
        assert "colour" not in file.info["survey"]
        assert "colour" not in file.info["prepare"]


def test_few_grey_images_are_stored_in_colour(tmp_path: Path) -> None:
    files = tree(photo)
    files["a/0.png"] = saved(Image.fromarray(photo(0)).convert("L"))
    files["b/0.png"] = png(np.repeat(photo(1)[..., :1], 3, 2))  # grey, in a file with colours
    result = prepared(tmp_path, files, AUTO)
    assert facts(result)["colour"].startswith(
        "2 of 20 images are grey; all are stored in colour; colours deviate by "
    )
    with open_dataset(result.path) as file:
        names = [file.column("name").payload(i).tobytes() for i in range(20)]
        stored = file.column("image").decode(names.index(b"a/0.png"))
        assert (stored == stored[..., :1]).all()


def test_few_images_in_colour_are_a_warning(tmp_path: Path) -> None:
    files = tree(lambda n: photo(n) if n == 3 else page(n), count=60)
    result = prepared(tmp_path, files, AUTO)
    warning = (
        "1 of 120 images are in colour; all are stored as grey, and --colour rgb keeps colours"
    )
    assert warning in result.survey.warnings


def test_grey_images_in_colour_are_a_warning(tmp_path: Path) -> None:
    grey = {name: saved(Image.open(io.BytesIO(d)).convert("L")) for name, d in tree(page).items()}
    result = prepared(tmp_path, grey, RGB)
    assert "all 20 images are grey; in colour, their grey levels are repeated" in (
        result.survey.warnings
    )


def test_the_first_images_may_be_others_than_the_rest(tmp_path: Path) -> None:
    """The decision from some images is corrected by all of them."""
    probed = set(np.linspace(0, 99, 8).astype(int).tolist())
    odd = {
        f"{'ab'[i // 50]}/{i:02}.png": png(page(i) if i in probed else photo(i)) for i in range(100)
    }
    result = prepared(tmp_path, odd, AUTO)
    assert result.survey.colour is not None
    assert result.survey.colour.stored == "rgb"


def test_images_of_equal_grey_levels_are_no_copies(tmp_path: Path) -> None:
    """Red and green of the same luma differ in colour alone."""
    red, green = np.zeros((2, 40, 40, 3), np.uint8)
    red[:, :20], green[:, :20] = (157, 0, 0), (0, 80, 0)
    assert (decode(png(red)).grey == decode(png(green)).grey).all()
    files = tree(photo) | {"a/red.png": png(red), "b/green.png": png(green)}
    assert prepared(tmp_path, files, RGB).survey.copies.groups == 0
    assert prepared(tmp_path, files, replace(GREY, polarity="each")).survey.copies.groups == 1
    again = {"b/x.png": files["a/red.png"]}
    assert prepared(tmp_path, files | again, RGB).survey.copies.disagreeing == 1


def test_images_of_one_constant_colour_are_blank(tmp_path: Path) -> None:
    files = tree(photo)
    for i in range(3):
        files[f"a/{i}.png"] = png(np.full((72, 90, 3), (9, 99 + i, 200), np.uint8))
    with pytest.raises(LayoutError, match="3 of 20 images are blank") as caught:
        prepared(tmp_path, files, AUTO)
    assert caught.value.suggestions == ("--allow-blank",)
    assert not (tmp_path / "x.beton").exists()
    result = prepared(tmp_path, files, replace(AUTO, allow_blank=True))
    assert result.survey.blank == 3


def test_an_image_that_differs_in_colour_alone_is_not_blank(tmp_path: Path) -> None:
    even = np.zeros((72, 90, 3), np.uint8)
    even[:, :45], even[:, 45:] = (157, 0, 0), (0, 80, 0)
    files = tree(photo) | {"a/even.png": png(even)}
    assert prepared(tmp_path, files, AUTO).survey.blank == 0


def test_deep_grey_images_among_colours_have_a_scale(tmp_path: Path) -> None:
    files = tree(photo)
    deep = photo(0)[..., 0].astype(np.uint16) * 257
    files["a/0.png"] = saved(Image.fromarray(deep))
    result = prepared(tmp_path, files, AUTO)
    with open_dataset(result.path) as file:
        assert PixelRules.of(file).scale == (0, 65535)
        names = [file.column("name").payload(i).tobytes() for i in range(20)]
        stored = file.column("image").decode(names.index(b"a/0.png"))
    assert np.abs(stored.astype(int) - photo(0)[..., :1]).mean() < 3


REFUSED: tuple[tuple[PixelOptions, str], ...] = (
    (replace(AUTO, polarity="dark"), "--polarity dark is for ink, and the images are in colour"),
    (replace(GREY, quality=50), "--quality is for images in colour; leave it out"),
)


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_without_effect_are_errors(
    options: PixelOptions, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        prepared(tmp_path, tree(photo), options)
    assert not (tmp_path / "x.beton").exists()


def test_quality_needs_large_images_in_colour(tmp_path: Path) -> None:
    options = replace(AUTO, quality=50)
    with pytest.raises(SourceError, match="--quality is for images in colour, and these are grey"):
        prepared(tmp_path, tree(page), options)
    with pytest.raises(SourceError, match="more than 4,096 pixels, and there are none"):
        prepared(tmp_path, tree(lambda n: photo(n, 32, 32)), options)
    for quality in (0, 101):
        with pytest.raises(SourceError, match=f"--quality {quality}: expected 1 to 100"):
            PixelOptions(colour="rgb", quality=quality)


# --- arrays -------------------------------------------------------------------------------------


def npz(**arrays: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


LABELS = np.tile(np.arange(2), 10)
STACK = np.stack([photo(n, 8, 9) for n in range(20)])


@pytest.mark.parametrize(
    ("stored", "tolerance"),
    [
        (STACK, 0),
        (np.moveaxis(STACK, 3, 1), 0),
        (STACK.astype(np.float32), 0),
        (STACK.astype(np.float64) / 255, 0),
        (STACK.astype(np.uint16) * 257, 0),
        (STACK.astype(np.uint16) * 16, 1),  # 12 bits
        (STACK > 127, None),
    ],
    ids=["uint8", "channels first", "whole floats", "fractions", "16 bits", "12 bits", "bool"],
)
def test_arrays_in_colour(
    stored: NDArray[np.generic], tolerance: int | None, tmp_path: Path
) -> None:
    (tmp_path / "x.npz").write_bytes(npz(x_train=stored, y_train=LABELS))
    source = open_source(tmp_path / "x.npz")
    for i in (0, 19):
        colour = source.decoded(i).colour
        assert colour is not None
        if tolerance is None:
            np.testing.assert_array_equal(colour, np.where(STACK[i] > 127, 255, 0))
        else:
            assert np.abs(colour.astype(int) - STACK[i]).max() <= tolerance


@pytest.mark.parametrize("shape", [(3, 8, 3), (1, 8, 3), (3, 8, 1)])
def test_channels_that_may_be_first_or_last_are_a_note(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    (tmp_path / "x.npz").write_bytes(npz(x_train=images, y_train=LABELS))
    source = open_source(tmp_path / "x.npz")
    [note] = source.layout.notes
    assert note.endswith("may have channels first or last: read as last")
    assert source.decoded(0).grey.shape == shape[:2]


def test_colours_without_a_known_range_become_grey_and_this_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(npz(x_train=STACK / 127.5 - 1, y_train=LABELS))
    source = open_source(tmp_path / "x.npz")
    assert source.decoded(0).colour is None
    [note] = source.layout.notes
    assert "no known range of colours: only grey levels remain" in note


@pytest.mark.parametrize("shape", ["3x8x9", "8x9x3"])
def test_rows_of_colours_have_a_shape(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.moveaxis(STACK, 3, 1) if shape.startswith("3") else STACK
    rows = order.reshape(20, -1)
    (tmp_path / "x.npz").write_bytes(npz(x_train=rows, y_train=LABELS))
    head = ",".join(["label", *(f"pixel{i}" for i in range(rows.shape[1]))])
    lines = [head, *(",".join(map(str, [n, *row])) for n, row in zip(LABELS, rows, strict=True))]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    for name in ("x.npz", "x.csv"):
        arguments = ["prep", "x", "--source", name, "--shape", shape, "--out", f"of {name}"]
        monkeypatch.setattr(sys, "argv", arguments)
        assert job.main() == 0
        with Reader(tmp_path / f"of {name}" / "x.beton") as file:
            found = {file.column("image").decode(i).tobytes() for i in range(20)}
        assert found == {image.tobytes() for image in STACK}


# --- the command --------------------------------------------------------------------------------


Prep = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Prep:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prep", *arguments])
        status = job.main()
        return status, *capsys.readouterr()

    return run


def test_the_command_prints_colours_and_draws_them(prep: Prep, tmp_path: Path) -> None:
    make_zip(tmp_path / "leaves.zip", tree(photo, jpg))
    status, out, _ = prep("leaves", "--source", "leaves.zip")
    assert status == 0
    assert "colours deviate by" in out
    assert "20 JPEG files as they are" in out
    assert "polarity" not in out
    card = (tmp_path / "data" / "leaves.html").read_text()
    assert "the middle of each image, in the median proportions" in card
    assert "ink" not in card.partition("Pixels")[2].partition("Images to check")[0]
    status, out, _ = prep("leaves", "--source", "leaves.zip")
    assert "is up to date" in out
    status, out, _ = prep("leaves", "--source", "leaves.zip", "--colour", "grey", "--polarity=dark")
    assert status == 0
    assert "replaced data/leaves.beton, which had other data or settings" in out
    assert "20 images in colour, stored as grey levels" in out


def test_check_draws_a_card_and_writes_no_dataset(prep: Prep, tmp_path: Path) -> None:
    make_zip(tmp_path / "leaves.zip", tree(photo))
    status, out, _ = prep("leaves", "--source", "leaves.zip", "--check", "--quality", "80")
    assert status == 0
    assert "compressed to JPEG of quality 80" in out
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["leaves.html"]


def test_handwriting_is_grey_unless_colour_is_given(prep: Prep, tmp_path: Path) -> None:
    make_zip(tmp_path / "mnist.zip", tree(photo))
    status, _, _ = prep("mnist", "--source", "mnist.zip", "--polarity", "dark")
    assert status == 0
    with open_dataset(tmp_path / "data" / "mnist.beton") as file:
        assert PixelRules.of(file).colour == "grey"
    status, _, _ = prep("mnist", "--source", "mnist.zip", "--colour", "auto")
    assert status == 0
    with open_dataset(tmp_path / "data" / "mnist.beton") as file:
        assert PixelRules.of(file).colour == "rgb"


def test_bad_options_are_errors_in_one_line(prep: Prep, tmp_path: Path) -> None:
    make_zip(tmp_path / "leaves.zip", tree(photo))
    for options, message in (
        (("--quality", "0"), "--quality 0: expected 1 to 100"),
        (("--colour", "grey", "--quality", "9"), "--quality is for images in colour; leave it out"),
        (("--polarity", "dark"), "--polarity dark is for ink, and the images are in colour"),
    ):
        status, _, err = prep("leaves", "--source", "leaves.zip", *options)
        assert status == 2
        [line] = err.strip().splitlines()
        assert message in line
    assert not [*tmp_path.glob("data/*")]


# --- files that another program wrote -----------------------------------------------------------


def test_a_file_in_colour_without_statistics_is_refused(tmp_path: Path) -> None:
    result = prepared(tmp_path, tree(photo), RGB)
    with Reader(result.path) as file:
        info = dict(file.info)
        columns = {name: file.column(name) for name in file.fields}
        samples = [{n: c.decode(i) for n, c in columns.items()} for i in range(len(file))]
        fields = file.fields
    for changes, message in (
        ({"mean": None}, "no statistics"),
        ({"fit": "letterbox"}, "expected crop"),
        ({"mean": [0.5, 2, 0.5]}, "its manifest"),
        ({"colour": "grey"}, "expected InkField"),
    ):
        changed = info | {"pixels": info["pixels"] | changes}
        writer.write(tmp_path / "y.beton", fields, samples, info=changed)
        with pytest.raises(BetonError, match=message):
            open_dataset(tmp_path / "y.beton")


def test_datasets_without_colours_say_nothing_about_them() -> None:
    both = np.ones(2, np.bool_)
    colours = Colours.of(records([photo(1), page(2)]), "grey", both)
    assert colours is not None
    assert (colours.in_colour, colours.mean) == (1, None)
    assert Colours.of(records([page(1), page(2)]), "grey", both) is None
