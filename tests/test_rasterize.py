from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import box_resize

from beton.codec import resizing
from pipeline.loading.rasterize import rasterize

Floats = NDArray[np.float64]
Image = tuple[NDArray[np.uint8], Floats]  # pixels, window


def runs_of(pixels: NDArray[np.uint8], background: int) -> NDArray[np.uint16]:
    found = []
    for y, line in enumerate(pixels):
        edges = np.flatnonzero(np.diff(line, prepend=-1, append=-1))
        for start, end in pairwise(edges):
            if line[start] != background:
                found.append((y, start, end, line[start]))
    return np.array(found, np.uint16).reshape(-1, 4)


def render(
    images: list[Image], backgrounds: list[int], height: int, width: int, device: str = "cpu"
) -> NDArray[np.float32]:
    runs = [runs_of(pixels, b) for (pixels, _), b in zip(images, backgrounds, strict=True)]
    unspecified = np.full((3, 4), 65535, np.uint16)
    tensors = (
        np.concatenate([*runs, unspecified]),
        np.cumsum([0, *map(len, runs)]),
        np.array(backgrounds, np.uint8),
        np.stack([window for _, window in images]),
    )
    moved = [torch.from_numpy(array).to(device) for array in tensors]
    return rasterize(moved[0], moved[1], moved[2], moved[3], height, width).cpu().numpy()


def whole(pixels: NDArray[np.uint8]) -> Floats:
    height, width = pixels.shape
    return np.array([0, 0, width, height, 0, height / 2])


@st.composite
def an_image(draw: st.DrawFn) -> tuple[Image, int]:
    side = st.integers(1, 40)
    height, width = draw(side), draw(side)
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = numbers.integers(0, 256, draw(st.integers(1, 4)), np.uint8)
    pixels = numbers.choice(levels, (height, width))
    window = whole(pixels)
    if draw(st.booleans()):
        window[:2] = numbers.uniform(-0.7, 0.7, 2) * (width, height)
        window[2:4] *= numbers.uniform(0.2, 3, 2)
        window[4] = numbers.uniform(-2, 2)
    return (pixels, window), int(numbers.choice(levels))


SIDES = st.integers(1, 50)


@given(st.lists(an_image(), min_size=1, max_size=4), SIDES, SIDES)
@settings(max_examples=150, deadline=None)
def test_it_is_a_box_filter_up_and_down_cropped_and_sheared(
    batch: list[tuple[Image, int]], height: int, width: int
) -> None:
    images, backgrounds = [p for p, _ in batch], [b for _, b in batch]
    got = render(images, backgrounds, height, width)
    assert got.shape == (len(batch), 1, height, width)
    assert got.dtype == np.float32
    for one, image, background in zip(got, images, backgrounds, strict=True):
        pixels, window = image
        expected = box_resize(pixels, background, tuple(window), height, width)
        np.testing.assert_allclose(one[0], expected, atol=1e-3)


@given(an_image(), SIDES, SIDES)
@settings(max_examples=50, deadline=None)
def test_it_agrees_with_the_loaders_kernel_within_a_grey_level(
    batch: tuple[Image, int], height: int, width: int
) -> None:
    image, background = batch
    expected = np.empty((height, width), np.uint8)
    runs = runs_of(image[0], background)
    resizing.resize(runs, background, image[1], 1.0, 0.5, np.zeros(width + 2), expected)
    got = render([image], [background], height, width)[0, 0]
    assert np.abs(got - expected).max() <= 0.501


def test_tens_of_thousands_of_runs_in_one_pixel_keep_their_precision() -> None:
    pixels = np.zeros((3, 65535), np.uint8)
    pixels[:, ::2] = 255
    got = render([(pixels, whole(pixels))], [0], 1, 1)
    assert abs(float(got[0, 0, 0, 0]) - pixels.mean()) < 1e-3


def test_rows_that_pad_a_batch_change_nothing() -> None:
    pixels = np.zeros((5, 7), np.uint8)
    pixels[2, 3] = 200
    padding = (np.zeros((1, 1), np.uint8), np.zeros(6))
    got = render([(pixels, whole(pixels)), padding], [0, 0], 5, 7)
    np.testing.assert_array_equal(got[0, 0], pixels)
    assert (got[1] == 0).all()


def test_a_batch_without_ink_is_its_backgrounds() -> None:
    pixels = np.full((5, 7), 200, np.uint8)
    got = render([(pixels, whole(pixels))] * 2, [200, 200], 4, 4)
    assert (got == 200).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; torch sees none")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    numbers = np.random.default_rng(0)
    images = []
    for _ in range(64):
        pixels = np.where(numbers.random((90, 120)) < 0.05, 0, 255).astype(np.uint8)
        window = whole(pixels) + numbers.uniform(-0.3, 0.3, 6)
        images.append((pixels, window))
    backgrounds = [255] * len(images)
    cpu = render(images, backgrounds, 48, 64)
    np.testing.assert_allclose(render(images, backgrounds, 48, 64, "cuda"), cpu, atol=1e-4)
