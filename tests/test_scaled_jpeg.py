"""The project's decoder of JPEG files, compared with libjpeg-turbo bit by bit."""

import io
import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from beton.codec import jpeg, scaled_jpeg
from beton.errors import FormatError

Image8 = NDArray[np.uint8]
SCALES = st.sampled_from((1, 2, 4, 8))


def picture(seed: int, height: int, width: int, noise: float) -> Image8:
    """Smooth colours, and noise of a standard deviation in grey levels."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phases = generator.uniform(0, 6, 3)
    slopes = generator.uniform(-0.2, 0.2, (2, 3))
    waves = 127.5 + 110 * np.sin(y[..., None] * slopes[0] + x[..., None] * slopes[1] + phases)
    waves += generator.normal(0, 1, (height, width, 3)) * noise
    result: Image8 = waves.clip(0, 255).astype(np.uint8)
    return result


def encode(image: Image8, **options: Any) -> Image8:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return np.frombuffer(file.getvalue(), np.uint8)


@st.composite
def files(draw: st.DrawFn) -> tuple[Image8, tuple[int, int], float]:
    """A JPEG file, its (height, width), and the noise in it."""
    size = draw(st.tuples(st.integers(8, 90), st.integers(8, 150)))
    noise = draw(st.sampled_from((0, 5, 30, 300)))
    options: dict[str, Any] = {
        "quality": draw(st.integers(1, 100)),
        "subsampling": draw(st.integers(0, 2)),
        "optimize": draw(st.booleans()),
        "restart_marker_blocks": draw(st.sampled_from((0, 0, 1, 3, 11))),
    }
    return encode(picture(draw(st.integers(0, 999)), *size, noise), **options), size, noise


def attempt(
    data: Image8, size: tuple[int, int], reduction: int, window: Any = None, intact: bool = False
) -> Image8 | None:
    """Return the reduced image, where pixels outside the window are not defined."""
    height, width = (jpeg.reduced(side, reduction) for side in size)
    out = np.full((height, width, 3), 77, np.uint8)
    window = (0, 0, width, height) if window is None else window
    return out if scaled_jpeg.decode(data, size, reduction, window, intact, out) else None


@given(files(), SCALES)
@settings(max_examples=300, deadline=None)
def test_pixels_are_those_of_libjpeg_turbo(
    file: tuple[Image8, tuple[int, int], float], reduction: int
) -> None:
    data, size, noise = file
    found = attempt(data, size, reduction)
    event(f"handled: {found is not None}, noise {noise}")
    if found is not None:
        assert np.array_equal(found, jpeg.decode(data, size, reduction))
    else:
        assert noise == 300  # some numbers need more than 16 bits


@given(files(), SCALES, st.tuples(*[st.floats(0, 1)] * 4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_window_has_the_same_pixels(
    file: tuple[Image8, tuple[int, int], float],
    reduction: int,
    part: tuple[float, float, float, float],
    intact: bool,
) -> None:
    data, size, _ = file
    expected = jpeg.decode(data, size, reduction)
    height, width = (side / reduction for side in size)
    left, top = part[0] * width, part[1] * height
    window = left, top, max(part[2] * (width - left), 0.01), max(part[3] * (height - top), 0.01)
    found = attempt(data, size, reduction, window, intact)
    if found is not None:
        rows = slice(int(top), int(np.ceil(top + window[3])))
        columns = slice(int(left), int(np.ceil(left + window[2])))
        assert np.array_equal(found[rows, columns], expected[rows, columns])


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("height", [1, 2, 3, 7, 8, 9, 15, 16, 17, 33])
def test_small_images_at_full_scale(height: int, subsampling: int) -> None:
    for width in range(1, 35):
        image = picture(height * width, height, width, 20)
        data = encode(image, quality=90, subsampling=subsampling)
        found = attempt(data, (height, width), 1)
        assert found is not None
        assert np.array_equal(found, jpeg.decode(data, (height, width)))


def same_as_libjpeg(data: Image8, size: tuple[int, int], reduction: int) -> None:
    """Compare pixels or errors of `decode_window` with those of `decode`."""
    found = attempt(data, size, reduction)
    try:
        expected = jpeg.decode(data, size, reduction)
    except FormatError:
        expected = np.zeros(0, np.uint8)
    if not expected.size:
        assert found is None
        return
    buffer = np.empty(expected.size, np.uint8)
    window = (0, 0, expected.shape[1], expected.shape[0])
    jpeg.decode_window(data, size, reduction, window, False, buffer)
    assert np.array_equal(buffer.reshape(expected.shape), expected)


@given(files(), SCALES, st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_changed_and_shortened_files_are_left_to_libjpeg_turbo(
    file: tuple[Image8, tuple[int, int], float], reduction: int, seed: int, changes: int
) -> None:
    data, size, _ = file
    generator = random.Random(seed)
    bytes_ = bytearray(data.tobytes())
    for _ in range(changes):
        at = generator.randrange(len(bytes_))
        kind = generator.randrange(4)
        if kind == 0:
            bytes_[at] = generator.choice((0, 1, 255, generator.randrange(256)))
        elif kind == 1:
            bytes_[at] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del bytes_[at : at + generator.randrange(1, 20)]
        else:
            bytes_[at:at] = generator.randbytes(generator.randrange(1, 5))
        if not bytes_:
            return
    same_as_libjpeg(np.frombuffer(bytes(bytes_), np.uint8), size, reduction)


def test_every_shortened_file_is_left_to_libjpeg_turbo() -> None:
    data = encode(picture(1, 24, 40, 20), quality=80, restart_marker_blocks=2)
    for end in range(len(data)):
        same_as_libjpeg(data[:end], (24, 40), 4)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"qtables": [[300] * 64] * 2}),
    ],
)
def test_unusual_files_are_not_handled(mode: str, options: dict[str, Any]) -> None:
    file = io.BytesIO()
    Image.fromarray(picture(2, 40, 50, 5)).convert(mode).save(file, "JPEG", **options)
    data = np.frombuffer(file.getvalue(), np.uint8)
    assert attempt(data, (40, 50), 4) is None
    if mode == "RGB":
        same_as_libjpeg(data, (40, 50), 4)


def test_another_size_is_not_handled() -> None:
    data = encode(picture(3, 40, 50, 5))
    assert attempt(data, (40, 50), 4) is not None
    assert attempt(data, (40, 51), 4) is None


@pytest.mark.parametrize("interval", [0, 2])
@pytest.mark.parametrize("size", [(0, 50), (40, 0)])
def test_a_file_without_pixels_is_not_handled(size: tuple[int, int], interval: int) -> None:
    data = encode(picture(6, 40, 50, 5), restart_marker_blocks=interval).copy()
    start = data.tobytes().index(b"\xff\xc0") + 5
    data[start : start + 4] = [*size[0].to_bytes(2, "big"), *size[1].to_bytes(2, "big")]
    assert attempt(data, size, 1) is None
    with pytest.raises(FormatError, match="cannot be decoded"):
        jpeg.decode_window(data, size, 1, (0, 0, *size), False, np.empty(0, np.uint8))


def test_only_an_intact_file_is_not_read_after_the_window() -> None:
    data = encode(picture(4, 80, 80, 10)).copy()
    data[-40:-2] = 0  # in the last rows
    window = (0, 0, 20, 4)
    assert attempt(data, (80, 80), 4, window) is None
    with pytest.raises(FormatError, match="cannot be decoded"):
        jpeg.decode_window(data, (80, 80), 4, window, False, np.empty(1200, np.uint8))
    found = attempt(data, (80, 80), 4, window, intact=True)
    expected = jpeg.decode(encode(picture(4, 80, 80, 10)), (80, 80), 4)
    assert found is not None
    assert np.array_equal(found[:4], expected[:4])


def test_a_table_cut_across_two_segments_is_left_to_libjpeg_turbo() -> None:
    data = encode(picture(5, 40, 50, 5)).tobytes()
    start = data.index(b"\xff\xc4")
    content = data[start + 4 : start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]
    for cut in (1, 17, len(content) - 1):
        parts = (content[:cut], content[cut:])
        segments = [b"\xff\xc4" + (len(p) + 2).to_bytes(2, "big") + p for p in parts]
        changed = data[:start] + b"".join(segments) + data[start + 4 + len(content) :]
        array = np.frombuffer(changed, np.uint8)
        assert attempt(array, (40, 50), 4) is None
        same_as_libjpeg(array, (40, 50), 4)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_values_far_outside_of_pixels_are_those_of_libjpeg_turbo(reduction: int) -> None:
    """Quantisation tables whose numbers are too large for the coefficients."""
    image = np.repeat(np.arange(0, 256, 5, dtype=np.uint8), 24)[None, :, None].repeat(16, 0)
    data = encode(np.broadcast_to(image, (*image.shape[:2], 3)), quality=100)
    starts = [m.end() for m in re.finditer(rb"\xff\xdb\x00\x43.", data.tobytes(), re.DOTALL)]
    assert starts
    for factor in (*range(1, 9), 31, 255):
        changed = data.copy()
        for start in starts:
            changed[start : start + 64] = factor
        same_as_libjpeg(changed, (16, image.shape[1]), reduction)
