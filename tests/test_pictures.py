"""Images of any kind, brought into the form of the training images."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from tiny import write_set
from tiny_colours import write_colours

from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.framing import Framing, Range, stroke_width
from pipeline.evaluation.run_config import RunConfig, TrainingConfig
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, open_dataset
from pipeline.models import networks
from pipeline.pictures.distortions import FURTHER, REQUIRED, Distortion
from pipeline.pictures.predictor import PictureError, Predictor
from pipeline.recipes.recipe import Recipe, Stage

Page = NDArray[np.uint8]
CPU = torch.device("cpu")
SOURCE = SyntheticPages(writers=3, seed=5)
PAGES = range(0, len(SOURCE), 5)


def trained_on(
    path: Path, size: int = 48, window: float | None = 2 / 3, hand: float = 0.45
) -> TrainedModel:
    """An untrained network for the images of a dataset."""
    recipe = Recipe((Stage(size, 1, 1e-3),), window=window, hand=hand)
    with open_dataset(path) as file:
        config = RunConfig.of("test", TrainingConfig("small", recipe), file, {})
        view, framing = View.of(file, size, window), Framing.of(file, "all")
    network = networks.build("small", len(config.classes), 0, view.input_shape)
    return TrainedModel(network, config.classes, view, config, framing)


def draw(_name: str, number: int) -> Page:
    return np.ascontiguousarray(SOURCE.image(PAGES[number % len(PAGES)])[::2, ::2])


@pytest.fixture(scope="module")
def handwriting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "pages.beton"
    info = {"pixels": {"polarity": "dark", "fit": "letterbox"}}
    return write_set(path, len(PAGES), 0, ("A",), draw=draw, info=info)


@pytest.fixture(scope="module")
def predictor(handwriting: Path) -> Predictor:
    return Predictor(trained_on(handwriting), device=CPU)


def png(pixels: NDArray[np.uint8], **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def seen(predictor: Predictor, picture: bytes | Page) -> NDArray[np.float64]:
    """What the network sees of an image, as ink from 0 to 1."""
    (one,) = predictor.predict(predictor.prepare(picture))
    return (255 - one.seen.astype(np.float64)) / 255


FORMS: dict[str, Callable[[Page], bytes | Page]] = {
    "array": lambda page: page,
    "grey PNG": png,
    "RGB": lambda page: png(np.repeat(page[:, :, None], 3, axis=2)),
    "WebP": lambda page: _as(page, "WEBP", lossless=True),
    "BMP": lambda page: _as(page, "BMP"),
    "TIFF": lambda page: _as(page, "TIFF"),
    "GIF": lambda page: _as(page, "GIF"),
    "light on dark": lambda page: 255 - page,
}


def _as(page: Page, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(page).convert("RGB").save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_a_clean_page_has_the_input_of_evaluate(
    form: str, predictor: Predictor, tmp_path: Path
) -> None:
    """`evaluate` loads prepared pages through the view; the scale is that of the training."""
    pages = [draw("A", number) for number in (0, 7)]
    given = [FORMS[form](page) for page in pages]
    prepared = [one for page in given for one in predictor.prepare(page)]
    shown = [255 - page for page in pages] if form == "light on dark" else pages
    info = {"pixels": {"polarity": "each", "fit": "letterbox"}}
    path = write_set(tmp_path / "two.beton", 2, 0, ("A",), draw=lambda _, i: shown[i], info=info)
    framing = predictor.trained.framing
    assert framing is not None
    scales = np.full(2, 0.45 / framing.tall, np.float32)
    view = predictor.trained.view
    with (
        open_dataset(path) as file,
        DeviceLoader(file, np.arange(2), view, 2, device=CPU, scales=scales) as loader,
    ):
        (batch,) = loader.micro_batches()
        assert torch.equal(predictor.inputs(prepared), batch.images)


SIZE_LOST = ("tight crop", "wide margins")


@pytest.mark.parametrize("kind", [kind for kind in REQUIRED | FURTHER if kind not in SIZE_LOST])
def test_a_distorted_page_is_nearest_to_the_clean_page(kind: str, predictor: Predictor) -> None:
    """A small form of the benchmark: among 13 characters, the network sees the correct one."""
    clean = [seen(predictor, draw("A", number)) for number in range(0, len(PAGES), 3)]
    distortion: Distortion = (REQUIRED | FURTHER)[kind]
    correct = []
    for place, number in enumerate(range(0, len(PAGES), 3)):
        if place % 6 == 0:
            image = seen(predictor, distortion(draw("A", number), np.random.default_rng(number)))
            distances = [abs(image - other).mean() for other in clean]
            correct.append(int(np.argmin(distances)) == place)
    assert len(correct) >= 2
    assert all(correct)


def _ruled(page: Page, level: int, thick: int, *, squared: bool) -> Page:
    """Lines on white paper, too faint to be strokes."""
    lines = page.copy()
    for start in range(17, page.shape[0], 40):
        lines[start : start + thick] = np.minimum(lines[start : start + thick], level)
    for start in range(9, page.shape[1] if squared else 0, 40):
        part = lines[:, start : start + thick]
        part[:] = np.minimum(part, level)
    return lines


def _folded(page: Page) -> Page:
    """A crease through the edge of the character; the paper on its left is darker."""
    values = page * 0.9
    place = int(np.flatnonzero((page < 128).any(0))[0]) + 3
    values[:, place : place + 3] *= 0.75
    values[:, :place] *= 0.93
    return values.round().astype(np.uint8)


ON_PAPER: dict[str, Callable[[Page], Page]] = {
    "ruled": lambda page: _ruled(page, 190, 2, squared=False),
    "squared": lambda page: _ruled(page, 170, 1, squared=True),
    "fold": _folded,
    "shadow": lambda page: _shaded(page, 4),
    "light in the middle": lambda page: _lit(page),
    "soft shadow": lambda page: _shaded(page, 25),
    "dark table": lambda page: _on_table(page, 70),
    "black table": lambda page: np.pad(page, 30, constant_values=0),
}


def _shaded(page: Page, width: float) -> Page:
    """A slanted edge of a shadow beside the character, `width` pixels soft."""
    y, x = np.mgrid[: page.shape[0], : page.shape[1]]
    place = np.flatnonzero((page < 128).any(0))[0] - 20
    lit = 1 / (1 + np.exp(-(x - place + 0.3 * (y - page.shape[0] / 2)) / width))
    values: Page = (page * (0.45 + 0.5 * lit)).round().astype(np.uint8)
    return values


def _lit(page: Page) -> Page:
    """Light that falls off towards the corners, which is no page on a table."""
    y, x = np.mgrid[-0.5 : 0.5 : page.shape[0] * 1j, -0.5 : 0.5 : page.shape[1] * 1j]
    levels: Page = ((75 + 180 * (page / 255)) * (1 - 1.3 * (y**2 + x**2))).round().astype(np.uint8)
    return levels


def _on_table(page: Page, level: int) -> Page:
    """A photograph that shows more of a table than of the page, out of focus, with noise."""
    light = (150 + np.linspace(0, 70, page.shape[0]))[:, None] * (1 - 0.7 * (1 - page / 255))
    values = np.pad(light, ((100, 250), (175, 75)), constant_values=level)
    values = ndimage.gaussian_filter(values, 1) + np.random.default_rng(0).normal(
        0, 3, values.shape
    )
    levels: Page = values.round().clip(0, 255).astype(np.uint8)
    return levels


@pytest.mark.parametrize("kind", ON_PAPER)
@pytest.mark.parametrize("number", [0, 7, 20])
def test_the_paper_is_no_ink(kind: str, number: int, predictor: Predictor) -> None:
    page = draw("A", number)
    difference = abs(seen(predictor, ON_PAPER[kind](page)) - seen(predictor, page))
    assert difference.mean() < (0.04 if "table" in kind else 0.007)  # it is trimmed


def test_no_page_is_several_characters(predictor: Predictor) -> None:
    for number in range(len(PAGES)):
        assert len(predictor.prepare(draw("A", number), separate=True)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_characters_side_by_side_are_counted_and_found(seed: int, predictor: Predictor) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 5))
    parts, boxes, left = [], [], 20
    for number in random.integers(0, len(PAGES), count).tolist():
        page = draw("A", number)
        rows, columns = np.flatnonzero((page < 128).any(1)), np.flatnonzero((page < 128).any(0))
        part = page[:, columns[0] : columns[-1] + 1]
        gap = int(random.integers(45, 100))
        boxes.append((left, rows[0], part.shape[1], rows[-1] + 1 - rows[0]))
        parts += [part, np.full((450, gap), 255, np.uint8)]
        left += part.shape[1] + gap
    line = np.hstack([np.full((450, 20), 255, np.uint8), *parts])
    with pytest.raises(PictureError, match=f"^{count} separate characters: one is expected$"):
        predictor.prepare(line)
    found = predictor.prepare(line, separate=True, name="line")
    assert [one.name for one in found] == ["line"] * count
    for one, box in zip(found, boxes, strict=True):
        assert one.box is not None
        assert np.abs(np.subtract(one.box, box)).max() <= 8


BLANK: dict[str, bytes | Page] = {
    "white": np.full((300, 400), 255, np.uint8),
    "black": np.zeros((300, 400), np.uint8),
    "transparent": png(np.zeros((300, 400, 4), np.uint8)),
    "noise": np.random.default_rng(0).normal(200, 8, (300, 400)).clip(0, 255).astype(np.uint8),
    "slope": np.linspace(90, 230, 400)[None].repeat(300, 0).astype(np.uint8),
    "JPEG": _as(np.linspace(180, 230, 400)[None].repeat(300, 0).astype(np.uint8), "JPEG"),
    "one pixel": np.zeros((1, 1), np.uint8),
}


@pytest.mark.parametrize("kind", BLANK)
def test_a_blank_image_is_not_predicted(kind: str, predictor: Predictor) -> None:
    with pytest.raises(PictureError, match="blank: no ink found"):
        predictor.prepare(BLANK[kind])


@pytest.mark.parametrize("table", [0, 40])
def test_a_blank_page_on_a_table_is_no_character(table: int, predictor: Predictor) -> None:
    page = np.pad(np.full((300, 400), 255, np.uint8), 50, constant_values=table)
    with pytest.raises(PictureError, match=r"no (ink|strokes) found"):
        predictor.prepare(page)


def test_bombs_and_other_files_are_refused(predictor: Predictor) -> None:
    header = bytearray(png(np.zeros((4, 4), np.uint8)))
    header[16:24] = (40_000).to_bytes(4, "big") * 2
    for data in (bytes(header), b"", b"hello", png(np.zeros((9, 9), np.uint8))[:40]):
        with pytest.raises(PictureError) as caught:
            predictor.prepare(data)
        assert "\n" not in str(caught.value)
    with pytest.raises(PictureError, match="expected uint8"):
        predictor.prepare(np.zeros((3, 3, 2), np.uint8))


@given(st.integers(3, 9), st.floats(0, 3.1))
def test_the_width_of_a_stroke_is_measured_at_any_angle(width: int, angle: float) -> None:
    y, x = np.mgrid[:80, :80] - 39.5
    across = abs(x * np.cos(angle) + y * np.sin(angle))
    stroke = np.clip(width / 2 - across + 0.5, 0, 1) * (np.hypot(x, y) < 36)
    ends = width * 72 / (72 + width)  # which are edges too
    assert stroke_width(stroke) == pytest.approx(ends, rel=0.1)


@pytest.mark.parametrize("kind", [*SIZE_LOST, "a third"])
def test_the_pen_tells_the_size_where_the_image_does_not(kind: str, predictor: Predictor) -> None:
    """Small and large characters stay so, also on a page that was made smaller on white."""

    def size(picture: bytes | Page) -> int:
        ink = seen(predictor, picture) > 0.5
        return max(int(np.ptp(np.flatnonzero(ink.any(axis=axis)))) for axis in (0, 1))

    def changed(page: Page, number: int) -> bytes | Page:
        if kind != "a third":
            return FURTHER[kind](page, np.random.default_rng(number))
        small = Image.fromarray(page).reduce(3)
        whole = Image.new("L", (page.shape[1], page.shape[0]), 255)
        whole.paste(small, (page.shape[1] // 3, page.shape[0] // 3))
        return np.array(whole)

    pages = [draw("A", number) for number in range(len(PAGES))]
    clean = np.log([size(page) for page in pages])
    found = np.log([size(changed(page, number)) for number, page in enumerate(pages)])
    assert np.corrcoef(clean, found)[0, 1] > 0.5
    assert abs(np.median(found - clean)) < 0.15


def test_sizes_of_digits_are_normalised_as_in_the_training(tmp_path: Path) -> None:
    """Digits of 20 pixels in 28, centred by mass, from images of other framings."""
    digits = tmp_path / "digits.beton"

    def digit(_name: str, number: int) -> Page:
        image = np.zeros((28, 28), np.uint8)
        image[4:24, 11 + number % 2 : 16 + number % 2] = 255
        image[20:24, 8 + number % 2 : 16 + number % 2] = 255
        return image

    info = {"pixels": {"polarity": "light", "fit": "letterbox"}}
    write_set(digits, 4, 0, ("1", "2"), draw=digit, info=info)
    predictor = Predictor(trained_on(digits, 28, None, 0.0), device=CPU)
    assert predictor.preparation.framing.size == pytest.approx(Range(5 / 7, 5 / 7, 5 / 7), abs=0.02)
    expected = seen(predictor, digit("1", 0))
    assert (expected * 255 == digit("1", 0)).all()
    large = np.kron(digit("1", 0)[4:24, 8:16], np.ones((15, 15), np.uint8))
    for around in ((5, 5), (300, 40), (10, 400)):
        image = seen(predictor, 255 - np.pad(large, [(side, side) for side in around]))
        assert abs(image - expected).mean() < 0.05


def test_images_in_colour_are_seen_as_evaluate_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "colours.beton"
    write_colours(path, sizes=((12, 12),))
    predictor = Predictor(trained_on(path, 16, None, 0.0), device=CPU)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    (one,) = predictor.predict(predictor.prepare(png(image)))
    assert one.seen.shape == (16, 16, 3)
    assert np.abs(one.seen - image.reshape(16, 2, 16, 2, 3).mean((1, 3))).max() <= 1
    clear = np.dstack([image, np.zeros((32, 32), np.uint8)])
    (one,) = predictor.predict(predictor.prepare(clear))
    assert (one.seen == 255).all()


def test_a_run_without_a_framing_uses_that_of_written_pages(handwriting: Path) -> None:
    trained = replace(trained_on(handwriting), framing=None)
    predictor = Predictor(trained, top=5, device=CPU)
    assert predictor.preparation.framing.tall == 0.45
    assert predictor.predict([]) == []
    (one,) = predictor.predict(predictor.prepare(draw("A", 3)))
    assert one.top == (("A", 1.0),)
