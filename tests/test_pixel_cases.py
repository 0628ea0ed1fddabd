"""From files to the batches that a network gets, through the prep job: each kind of pixels."""

import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from raw_data import chunk, make_tree, saved

from jobs import prep
from pipeline.errors import UserError
from pipeline.loading.batches import Decode, DeviceLoader
from pipeline.loading.dataset import View, open_dataset

Ink = NDArray[np.float64]  # 0 to 1, of an image
Case = Callable[[Ink], bytes]
HEIGHT, WIDTH = 24, 32
DECODES: tuple[Decode, ...] = ("loader", "device")


class Prepared(NamedTuple):
    """What prep made: the batch of all images by their names, and the manifest."""

    images: dict[str, NDArray[np.float32]]
    info: dict[str, Any]


Prep = Callable[..., Prepared]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prep:
    """Prepare files by the job, and return what a network gets from either decode."""

    def run(files: Mapping[str, bytes], *options: str) -> Prepared:
        make_tree(tmp_path / "source", files)
        command = ["prep", "x", "--source", "source", "--workers", "1", *options]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", command)
        assert prep.main() == 0
        return _batch(tmp_path / "data" / "x.beton")

    return run


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return the last line of a refusal by the job, which leaves nothing behind."""

    def run(files: Mapping[str, bytes], *options: str) -> str:
        make_tree(tmp_path / "source", files)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["prep", "x", "--source", "source", *options])
        assert prep.main() == 2
        assert not list(tmp_path.glob("data/*"))
        return capsys.readouterr().err.splitlines()[-1]

    return run


def _batch(path: Path) -> Prepared:
    with open_dataset(path) as file:
        view = View.of(file, int(np.median(file.column("image").metadata["height"])), None)
        batches = []
        for decode in DECODES:
            rows = np.arange(len(file))
            with DeviceLoader(
                file, rows, view, len(file), device=torch.device("cpu"), decode=decode
            ) as loader:
                (batch,) = loader.micro_batches()
            batches.append(batch.images[:, 0].numpy())
        np.testing.assert_allclose(batches[0], batches[1], atol=0.6 / 255)
        names = [file.column("name").payload(row).tobytes().decode() for row in rows.tolist()]
        return Prepared(dict(zip(names, batches[0], strict=True)), file.info)


def stroke(number: int, width: int = 4, height: int = HEIGHT, length: int = WIDTH) -> Ink:
    """Soft-edged ink, different for each number: a bar, upright for odd numbers, and a dot."""
    ink = np.zeros((height, length))
    if number % 2:
        ink[3:-3, 9 : 9 + width] = 1
        ink[3:-3, 9 + width] = 0.4
    else:
        ink[5 : 5 + width, 3:-3] = 1
        ink[5 + width, 3:-3] = 0.4
    ink[height - 6, 4 + number : 6 + number] = 1
    return ink


def strokes(case: Case, suffix: str = "png", count: int = 16) -> dict[str, bytes]:
    """A dataset of two classes, horizontal and upright strokes, in files of one kind."""
    return {f"{'hv'[i % 2]}/{i}.{suffix}": case(stroke(i)) for i in range(count)}


def grey(ink: Ink, dark: float = 0, paper: float = 255) -> NDArray[np.float64]:
    return paper + (dark - paper) * ink


def byte_image(ink: Ink, dark: float = 0, paper: float = 255) -> Image.Image:
    return Image.fromarray(np.rint(grey(ink, dark, paper)).astype(np.uint8))


def transparent(ink: Ink, level: int, mode: str = "RGBA") -> Image.Image:
    image = Image.new(mode, (ink.shape[1], ink.shape[0]), (level,) * len(mode))
    image.putalpha(Image.fromarray(np.rint(255 * ink).astype(np.uint8)))
    return image


def palette(ink: Ink, level: int) -> Image.Image:
    """Index 0 is transparent, and all colours are the ink's."""
    image = Image.fromarray((ink > 0.5).astype(np.uint8), "P")
    image.putpalette([level] * 6)
    return image


def check(prepared: Prepared, factor: float = 1, tolerance: float = 0.01) -> None:
    """Check that a network gets the ink of `strokes`, multiplied by its contrast."""
    assert len(prepared.images) == 16
    for name, image in prepared.images.items():
        expected = factor * stroke(int(Path(name).stem))
        np.testing.assert_allclose(image, expected, atol=tolerance)


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "WEBP", "palette", "GIF"])
def test_ink_in_the_alpha_channel_is_ink(kind: str, level: int, prepared: Prep) -> None:
    cases: dict[str, tuple[Case, str]] = {
        "RGBA": (lambda ink: saved(transparent(ink, level)), "png"),
        "LA": (lambda ink: saved(transparent(ink, level, "LA")), "png"),
        "WEBP": (
            lambda ink: saved(transparent(ink, level), "WEBP", lossless=True, exact=True),
            "webp",
        ),
        "palette": (lambda ink: saved(palette(ink, level), transparency=0), "png"),
        "GIF": (lambda ink: saved(palette(ink, level), "GIF", transparency=0), "gif"),
    }
    found = prepared(strokes(*cases[kind]))
    assert found.info["pixels"]["polarity"] == ("light" if level else "dark")
    check(found, tolerance=0.41 if kind in ("palette", "GIF") else 0.01)  # these are 0 or 1


def test_a_light_pen_among_dark_ones_is_ink_where_the_paper_is_transparent(prepared: Prep) -> None:
    files = strokes(lambda ink: saved(transparent(ink, 0)))
    files["v/5.png"] = saved(transparent(stroke(5), 226))  # yellow: on black paper
    found = prepared(files)
    assert found.info["pixels"]["polarity"] == "dark"
    assert found.info["survey"]["inverted"] == 1
    yellow = found.images["v/5.png"]
    np.testing.assert_allclose(yellow, stroke(5) * 226 / 255, atol=0.01)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "factor"),
    [
        (4000, 55000, np.uint16, 51000 / 65535),
        (0, 4095, np.uint16, 1),
        (0, 65535, np.uint16, 1),
        (0, 1, np.float32, 1),
        (0, 255, np.float32, 1),
        (-1.5, 2.5, np.float32, 1),
    ],
)
def test_grey_levels_of_more_than_eight_bits_keep_their_contrast(
    low: float, high: float, dtype: type[np.generic], factor: float, prepared: Prep
) -> None:
    def case(ink: Ink) -> bytes:
        return saved(Image.fromarray(grey(ink, low, high).astype(dtype)), "TIFF")

    check(prepared(strokes(case, "tif")), factor)


def test_a_defective_pixel_does_not_hide_twelve_bits_in_sixteen(prepared: Prep) -> None:
    def case(ink: Ink) -> bytes:
        deep = grey(ink, 100, 4000).astype(np.uint16)
        deep[0, 0] = 65535 if ink[HEIGHT - 6, 9] else deep[0, 0]
        return saved(Image.fromarray(deep))

    found = prepared(strokes(case))
    assert found.info["pixels"]["scale"] == [100, 4000]
    check(found)


def test_eight_and_sixteen_bits_in_one_dataset_are_the_same_ink(prepared: Prep) -> None:
    files = strokes(lambda ink: saved(byte_image(ink)))
    for i in (4, 7):
        deep = Image.fromarray(grey(stroke(i), 0, 65535).astype(np.uint16))
        files[f"{'hv'[i % 2]}/{i}.png"] = saved(deep)
    check(prepared(files))


def test_floats_that_vanish_in_the_scale_of_other_files_are_refused(
    refused: Callable[..., str],
) -> None:
    files = strokes(lambda ink: saved(Image.fromarray(grey(ink, 0, 65535).astype(np.uint16))))
    files["h/4.png"] = saved(Image.fromarray(grey(stroke(4), 0, 1).astype(np.float32)), "TIFF")
    line = refused(files)
    assert "1 of 16 images, with the grey levels 0 to 65535 as black and white, are blank" in line


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_images_are_upright_in_every_format(kind: str, prepared: Prep) -> None:
    stored = {
        **{2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
        **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
        **{6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE},
        **{8: Image.Transpose.ROTATE_270},
    }
    files = {}
    for i in range(16):
        exif, image, orientation = Image.Exif(), byte_image(stroke(i)), 1 + i // 2
        exif[0x0112] = orientation
        if orientation > 1:
            image = image.transpose(stored[orientation])
        options = {"quality": 95} if kind == "JPEG" else {"lossless": True}
        files[f"{'hv'[i % 2]}/{i}.{kind.lower()}"] = saved(image, kind, exif=exif, **options)
    check(prepared(files), tolerance=0.15 if kind == "JPEG" else 0.01)


@pytest.mark.parametrize("width", [2, 4, 8, 12])
def test_a_saturated_pen_on_grainy_paper_is_ink_whatever_its_width(
    width: int, prepared: Prep
) -> None:
    grain = np.random.default_rng(width).integers(180, 256, (16, 60, 60))
    files = {}
    for i in range(16):
        is_ink = stroke(i, width, 60, 60) > 0.5
        pixels = np.where(is_ink, 0, grain[i]).astype(np.uint8)
        files[f"{'hv'[i % 2]}/{i}.png"] = saved(Image.fromarray(pixels))
    for name, image in prepared(files).images.items():
        is_ink = stroke(int(Path(name).stem), width, 60, 60) > 0.5
        assert image[is_ink].min() > 0.65
        assert image[~is_ink].max() < 0.35


@pytest.mark.parametrize("dark", [True, False])
def test_thick_and_thin_pens_have_one_polarity(dark: bool, prepared: Prep) -> None:
    files = {}
    for i in range(16):
        ink = stroke(i, [2, 15][i // 8])
        files[f"{i // 8}/{i}.png"] = saved(byte_image(ink if dark else 1 - ink))
    found = prepared(files)
    assert found.info["pixels"]["polarity"] == ("dark" if dark else "light")
    for name, image in found.images.items():
        number = int(Path(name).stem)
        np.testing.assert_allclose(image, stroke(number, [2, 15][number // 8]), atol=0.01)


def test_tight_crops_ask_for_the_polarity_and_are_right_with_it(
    prepared: Prep, refused: Callable[..., str]
) -> None:
    files = {}
    for i in range(8):
        upright, round_ = np.ones((20, 5 + i)), np.ones((12 + i, 12 + i))
        upright[:, [0, -1]] = 0.5
        round_[[0, 0, -1, -1], [0, -1, 0, -1]] = 0.2
        for name, ink in (("1", upright), ("dash", upright.T), ("dot", round_)):
            files[f"{name}/{i}.png"] = saved(byte_image(ink))
    assert "--polarity dark" in refused(files)
    for name, image in prepared(files, "--polarity", "dark").images.items():
        middle = image[image.shape[0] // 2, image.shape[1] // 2]
        assert middle > 0.45, name  # the lightest pixels of a stroke are its edges, half covered
        assert name.startswith("dot") or image[0, 0] < 0.05


def test_a_half_of_inverted_images_is_counted_and_each_has_its_own_paper_on_request(
    prepared: Prep, refused: Callable[..., str]
) -> None:
    files = strokes(lambda ink: saved(byte_image(ink if ink[HEIGHT - 6, 9] else 1 - ink)))
    assert "of 16 images, 9 show dark ink and 7 light ink; use --polarity" in refused(files)
    check(prepared(files, "--polarity", "each"))


def test_bars_keep_their_proportions(prepared: Prep) -> None:
    files = {}
    for i in range(6):
        for name, shape in (("flat", (20, 100)), ("tall", (100, 20))):
            ink = np.zeros(shape)
            ink[4:-4, 4:-4] = 1 - i / 100
            files[f"{name}/{i}.png"] = saved(byte_image(ink))
    found = prepared(files).images
    flat, tall = found["flat/0.png"], found["tall/0.png"]
    assert flat.shape == tall.shape == (60, 60)
    for image, (across, along) in ((flat, (1, 0)), (tall, (0, 1))):
        assert (image.max(axis=across) > 0.5).sum() == pytest.approx(60 * 12 / 100, abs=2)
        assert (image.max(axis=along) > 0.5).sum() == pytest.approx(60 * 92 / 100, abs=2)


def test_every_page_of_a_tiff_is_an_image_and_the_pages_of_a_file_share_a_split(
    prepared: Prep,
) -> None:
    files = {}
    for label in range(2):
        for number in range(8):
            pages = [byte_image(stroke(2 * i + label, 1 + number)) for i in range(3)]
            data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
            files[f"{label}/{number}.tif"] = data
    found = prepared(files)
    assert len(found.images) == 48
    with open_dataset(Path("data/x.beton")) as file:
        splits = file.column("split").metadata
    assert splits.any()
    assert (splits.reshape(16, 3) == splits.reshape(16, 3)[:, :1]).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_refused(kind: str, refused: Callable[..., str]) -> None:
    files = strokes(lambda ink: saved(byte_image(ink)))
    two = [byte_image(stroke(i)) for i in (4, 6)]
    files[f"h/4.{kind.lower()}"] = saved(two[0], kind, save_all=True, append_images=two[1:])
    assert "images cannot be decoded" in refused(files)


def test_large_profiles_and_texts_do_not_matter(prepared: Prep) -> None:
    texts = chunk(b"zTXt", b"a\0\0" + bytes(3_000_000))

    def case(ink: Ink) -> bytes:
        data = saved(byte_image(ink).convert("P"), icc_profile=bytes(3_000_000))
        return data[:33] + texts + data[33:]

    check(prepared(strokes(case, count=16)))


def test_lines_of_pixels_are_refused_by_name_and_one_among_others_is_not(
    prepared: Prep, tmp_path: Path
) -> None:
    files = strokes(lambda ink: saved(byte_image(ink)))
    line = saved(Image.fromarray(np.tile(np.array([0, 255, 255], np.uint8), (1, 20_000))))
    found = prepared({**files, "h/line.png": line})
    assert found.images["h/line.png"].sum() < 1
    del found.images["h/line.png"]
    check(found)
    many = {
        f"{i % 2}/{i}.png": saved(
            Image.fromarray(np.roll(np.eye(1, 60_000, dtype=np.uint8) * 255, 9 * i))
        )
        for i in range(8)
    }
    (tmp_path / "source").rename(tmp_path / "before")
    with pytest.raises(UserError, match=r"x\.beton: got images of 60000 × 1 pixels"):
        prepared(many, "--force", "--polarity", "light")


def test_blank_images_are_refused_unless_allowed(
    prepared: Prep, refused: Callable[..., str]
) -> None:
    files = strokes(lambda ink: saved(byte_image(ink)))
    files["h/4.png"] = saved(Image.new("L", (WIDTH, HEIGHT), 250))
    assert "1 of 16 images are blank, for example h/4.png; use --allow-blank" in refused(files)
    found = prepared(files, "--allow-blank")
    assert not found.images.pop("h/4.png").any()
    assert found.info["survey"]["blank_by_class"] == {"h": 1}


def test_bytes_of_0_and_1_are_no_blank_images_to_allow(refused: Callable[..., str]) -> None:
    line = refused(strokes(lambda ink: saved(Image.fromarray((ink > 0).astype(np.uint8)))))
    assert "got grey levels from 0 to 1, for example in h/0.png, expected 0 to 255" in line
    assert "--allow-blank" not in line


def test_a_colour_transparent_in_a_png_of_sixteen_bits_is_paper(prepared: Prep) -> None:
    def case(ink: Ink) -> bytes:
        deep = grey(ink, 60_000, 0).astype(np.uint16)  # light ink; 0 is transparent
        data = saved(Image.fromarray(deep))
        return data[:33] + chunk(b"tRNS", struct.pack(">H", 0)) + data[33:]

    found = prepared(strokes(case))
    assert found.info["pixels"]["polarity"] == "light"
    check(found, 60_000 / 65_535)
