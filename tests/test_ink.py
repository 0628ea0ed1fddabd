import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ImageDraw
from reference import box_resize

from beton.codec import batches, ink, resizing, unpacking
from beton.errors import BetonError
from beton.fields import InkField
from beton.transforms import full_geometry

Image = NDArray[np.uint8]


def soft(image: Image) -> Image:
    """Blur along both axes, like anti-aliasing."""
    wide = np.pad(image.astype(np.uint16), 1, mode="edge")
    total = sum(
        wide[y : y + image.shape[0], x : x + image.shape[1]] for y in range(3) for x in range(3)
    )
    return (np.asarray(total) // 9).astype(np.uint8)


@st.composite
def images(draw: st.DrawFn, side: int = 40) -> Image:
    """Images of every kind: few or many values, blocky or noisy, blank, anti-aliased."""
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
    palette = draw(st.lists(st.integers(0, 255), min_size=1, max_size=5))
    block = draw(st.tuples(st.integers(1, 6), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    cells = rng.choice(np.array(palette, np.uint8), (height, width))
    image = np.kron(cells, np.ones(block, np.uint8))[:height, :width]
    return soft(image) if draw(st.booleans()) else image


def pages(value: int) -> Image:
    page = np.full((900, 1200), 255, np.uint8)
    page[300:600, 500:520] = value
    return page


@given(images(), st.sampled_from(ink.MODES))
@example(np.full((900, 1200), 255, np.uint8), "auto")
@example(np.zeros((900, 1200), np.uint8), "auto")
@example(np.zeros((1, 1), np.uint8), "runs")
@example(pages(0), "auto")
@example(soft(pages(3)), "auto")
@settings(max_examples=400, deadline=None)
def test_decode_gives_back_every_pixel(image: Image, mode: str) -> None:
    encoded = ink.encode(image, mode)
    assert np.array_equal(ink.decode(encoded), image)


@pytest.mark.parametrize("mode", ink.MODES)
def test_widest_and_tallest_images(mode: str) -> None:
    wide = np.zeros((3, 65535), np.uint8)
    wide[0, 65534], wide[1, 100:], wide[2, ::2] = 3, 7, 9
    for image in (wide, np.ascontiguousarray(wide.T)):
        assert np.array_equal(ink.decode(ink.encode(image, mode)), image)


@given(
    st.integers(1, 60), st.integers(200, 900), st.integers(1, 16), st.integers(1, 9), st.booleans()
)
@example(400, 320, 14, 1, True)
def test_scattered_dashes_cost_the_most_and_fit(
    height: int, width: int, length: int, period: int, in_colours: bool
) -> None:
    image = np.zeros((height, width), np.uint8)
    for y in range(height):
        start = 0 if y // period % 2 else width - length
        image[y, start : start + length] = 1 + y % 9 if in_colours else 1
    for mode in ink.MODES:
        encoded = ink.encode(image, mode)
        assert np.array_equal(ink.decode(encoded), image)


def pen_page(seed: int) -> Image:
    """A 1200×900 page with a letter-sized stroke of a round pen, anti-aliased."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 2 * np.pi, 400)
    waves = rng.normal(size=(2, 3, 2)) / np.arange(1, 4)[None, :, None]
    angles = np.arange(1, 4)[None, :, None] * t
    path = (waves[..., :1] * np.cos(angles) + waves[..., 1:] * np.sin(angles)).sum(axis=1)
    x, y = path / np.abs(path).max() * 170 + np.array([[600], [450]])
    drawing = PIL.Image.new("L", (3600, 2700), 255)
    ImageDraw.Draw(drawing).line(
        [(3 * a, 3 * b) for a, b in zip(x, y, strict=True)], fill=0, width=60, joint="curve"
    )
    return np.asarray(drawing.reduce(3))


def png_bytes(image: Image) -> int:
    file = io.BytesIO()
    PIL.Image.fromarray(image).convert("RGB").save(file, "PNG")
    return file.tell()


def test_pages_are_smaller_than_their_png_files() -> None:
    grey = [pen_page(seed) for seed in range(8)]
    flat = [np.where(page < 128, 0, 255).astype(np.uint8) for page in grey]
    for pages_, fraction in ((flat, 0.25), (grey, 1.0)):
        stored = sum(len(ink.encode(page).payload) for page in pages_)
        assert stored <= fraction * sum(png_bytes(page) for page in pages_)


def test_one_pixel_on_a_page() -> None:
    page = np.full((900, 1200), 255, np.uint8)
    page[899, 1199] = 254
    encoded = ink.encode(page)
    assert (encoded.mode, encoded.background, encoded.ink, encoded.runs) == (
        unpacking.FLAT,
        255,
        254,
        1,
    )
    assert len(encoded.payload) < 10
    assert np.array_equal(ink.decode(encoded), page)


@given(images())
@settings(max_examples=200, deadline=None)
def test_auto_is_whichever_is_smaller(image: Image) -> None:
    auto, runs = len(ink.encode(image).payload), len(ink.encode(image, "runs").payload)
    assert auto == min(runs, image.size)


@given(images())
@settings(max_examples=200, deadline=None)
def test_runs_are_maximal_sorted_and_inside(image: Image) -> None:
    encoded = ink.encode(image, "runs")
    assert np.bincount(image.reshape(-1)).argmax() == encoded.background or (
        np.bincount(image.reshape(-1))[encoded.background] == np.bincount(image.reshape(-1)).max()
    )
    rows, starts, ends, values = ink.read_runs(encoded).astype(int).T
    assert (values != encoded.background).all()
    assert ((starts < ends) & (ends <= image.shape[1]) & (rows < image.shape[0])).all()
    same_row = rows[1:] == rows[:-1]
    assert (rows[1:] >= rows[:-1]).all()
    assert (starts[1:] >= ends[:-1])[same_row].all()
    touching = same_row & (starts[1:] == ends[:-1])
    assert (values[1:] != values[:-1])[touching].all()


@given(images(), st.data())
@settings(max_examples=600, deadline=None)
def test_a_damaged_payload_is_an_error_or_an_image(image: Image, data: st.DataObject) -> None:
    encoded = ink.encode(image, data.draw(st.sampled_from(ink.MODES)))
    payload = bytearray(encoded.payload)
    for _ in range(data.draw(st.integers(1, 3))):
        if payload:
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = (
        payload[: data.draw(st.integers(0, len(payload)))] if data.draw(st.booleans()) else payload
    )
    # Opening a file checks the size of raw pixels.
    damaged = bytes(payload if encoded.mode == unpacking.RAW else cut)
    fields = {**vars(encoded), "payload": damaged}
    try:
        decoded = ink.decode(ink.Encoded(**fields))
    except BetonError as error:
        reason = str(error)
    else:
        reason = "" if decoded.shape == image.shape else "another shape"
    assert reason in {"", *unpacking.DAMAGES.values()}


sides = st.integers(1, 50)
whole = st.just((0.0, 0.0, 1.0, 1.0, 0.0))
windows = st.tuples(
    st.floats(-0.6, 0.6),
    st.floats(-0.6, 0.6),
    st.floats(0.05, 2.5),
    st.floats(0.05, 2.5),
    st.floats(-1.5, 1.5),
)


@given(images(), sides, sides, whole | windows)
@settings(max_examples=500, deadline=None)
def test_resize_is_the_box_filter(
    image: Image, height: int, width: int, window: tuple[float, float, float, float, float]
) -> None:
    encoded = ink.encode(image, "runs")
    h, w = image.shape
    x, y, across, down, shear = window
    geometry = (x * w, y * h, across * w, down * h, shear, h / 2)
    expected = box_resize(image, encoded.background, geometry, height, width)
    sums = np.zeros(width + 2)
    grey = np.empty((height, width), np.uint8)
    runs = ink.read_runs(encoded)
    resizing.resize(runs, encoded.background, np.array(geometry), 1.0, 0.5, sums, grey)
    assert np.abs(grey - expected).max() <= 0.5 + 1e-6
    real = np.empty((height, width), np.float32)
    resizing.resize(runs, encoded.background, np.array(geometry), 0.5, -3.0, sums, real)
    assert np.abs(real - (expected * 0.5 - 3)).max() <= 1e-4
    assert not sums.any()


def whole_and_general(image: Image, height: int, width: int) -> tuple[Image, Image]:
    """Resize an image by the kernel of whole images, and by that of any window."""
    encoded = ink.encode(image)
    data = np.frombuffer(encoded.payload, np.uint8)
    records = np.zeros(1, InkField.metadata_dtype)
    for name in ("mode", "background", "ink", "runs", "height", "width"):
        records[name] = getattr(encoded, name)
    records["size"] = len(data)
    ids, outs = np.zeros(1, np.int64), np.empty((2, 1, height, width), np.uint8)
    geometry = full_geometry(np.array([image.shape]))
    assert batches.resize_whole_batch(data, records, ids, outs[0]) == (0, 0)
    assert batches.resize_batch(data, records, ids, geometry, 1.0, 0.5, outs[1]) == (0, 0)
    return outs[0, 0], outs[1, 0]


@given(images(), st.sampled_from((1, 2, 4, 8, 16, 32, 64)), st.sampled_from((1, 2, 8, 32, 64, 3)))
@settings(max_examples=300, deadline=None)
def test_whole_images_have_the_bytes_of_the_general_kernel(
    image: Image, height: int, width: int
) -> None:
    ours, general = whole_and_general(image, height, width)
    assert np.array_equal(ours, general)
    geometry = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]), 0.0, 0.0)
    expected = box_resize(image, ink.encode(image).background, geometry, height, width)
    assert np.abs(ours - expected).max() <= 0.5 + 1e-6


def test_exact_sums_are_those_of_odd_parts() -> None:
    # No mean of the parts of a pixel is halfway between two levels if their number is odd.
    for size, odd in (((224, 224), True), ((64, 64), True), ((100, 100), False)):
        assert resizing.parts_of_pixel(900, 1200, *size) % 2 == odd
    # The most parts, the most levels: a tall image whose sides have no factor in common with 1, 2.
    image = np.zeros((1023, 4095), np.uint8)
    image[:, ::2] = 255
    image[::3] = 254
    assert 1 << 21 < resizing.parts_of_pixel(1023, 4095, 1, 2) < resizing.EXACT
    for height, width in ((1, 1), (1, 2), (2, 2), (2, 4)):
        ours, general = whole_and_general(image, height, width)
        assert np.array_equal(ours, general)


@pytest.mark.parametrize("size", [(224, 224), (64, 64), (28, 28), (48, 64), (1800, 1300)])
def test_whole_pages_have_the_bytes_of_the_general_kernel(size: tuple[int, int]) -> None:
    for page in (pages(0), soft(pages(1))):
        ours, general = whole_and_general(page, *size)
        assert np.array_equal(ours, general)


def test_resize_of_a_page_to_every_scale() -> None:
    page = soft(pages(0))
    encoded = ink.encode(page)
    geometry = (0.0, 0.0, 1200.0, 900.0, 0.0, 450.0)
    for height, width in [(1, 1), (28, 28), (224, 224), (899, 1201), (1800, 1300)]:
        out = np.empty((height, width), np.uint8)
        resizing.resize(
            ink.read_runs(encoded), 255, np.array(geometry), 1, 0.5, np.zeros(width + 2), out
        )
        assert np.abs(out - box_resize(page, 255, geometry, height, width)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (np.zeros((2, 2), np.uint16), "auto"),
        (np.zeros((2, 2, 1), np.uint8), "auto"),
        (np.zeros((0, 2), np.uint8), "auto"),
        (np.zeros((1, 65536), np.uint8), "auto"),
        (np.zeros((2, 2), np.uint8), "zip"),
    ],
)
def test_rejects_what_cannot_be_stored(image: Image, mode: str) -> None:
    with pytest.raises(ValueError, match=r"got .*, expected"):
        ink.encode(image, mode)
