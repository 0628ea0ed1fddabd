import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.data.base import Floats
from pipeline.data.charset import CHARACTERS
from pipeline.data.synth import pen
from pipeline.data.synth.pen import (
    DIGIT_BOX,
    DIGIT_SIZE,
    MAX_OFFSET,
    PAGE_SHAPE,
    SCALE,
    draw_strokes,
)
from pipeline.data.synth.writers import PenPath, write_character

HEIGHT, WIDTH = 24, 32


def depths(line: PenPath, shape: tuple[int, int]) -> Floats:
    """How far inside the nearest segment's edge the middle of each pixel lies."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    deepest = np.full(shape, -np.inf)
    for first, end in zip(line.starts[:-1], line.starts[1:], strict=True):
        for (x0, y0, r0), (x1, y1, r1) in zip(
            line.points[first : end - 1], line.points[first + 1 : end], strict=True
        ):
            length = (x1 - x0) ** 2 + (y1 - y0) ** 2
            along = (x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)
            share = np.clip(along / length, 0, 1) if length else np.zeros(shape)
            near_x, near_y, radius = (
                (1 - share) * start + share * end for start, end in ((x0, x1), (y0, y1), (r0, r1))
            )
            deepest = np.maximum(deepest, radius - np.hypot(x - near_x, y - near_y))
    return deepest


@st.composite
def lines(draw: st.DrawFn) -> PenPath:
    """A few strokes, in and around a small image; some segments have no length."""
    lengths = draw(st.lists(st.integers(1, 5), max_size=3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = generator.uniform((-12, -12, 0), (WIDTH + 12, HEIGHT + 12, 6), (sum(lengths), 3))
    if draw(st.booleans()):
        points[:, :2] = np.round(points[:, :2] / 4) * 4
    return PenPath(points, np.append(0, np.cumsum(lengths, dtype=np.int64)))


@given(lines())
def test_two_values_are_those_of_the_definition(line: PenPath) -> None:
    cover = np.zeros((HEIGHT, WIDTH), np.uint8)
    draw_strokes(line.points, line.starts, False, cover)
    assert set(np.unique(cover)) <= {0, 255}
    depth = depths(line, cover.shape)
    clear = np.abs(depth) > 1e-9  # where rounding decides, either will do
    np.testing.assert_array_equal((cover == 255)[clear], (depth > 0)[clear])


@given(lines())
def test_soft_edges_are_those_of_the_definition(line: PenPath) -> None:
    cover = np.zeros((HEIGHT, WIDTH), np.uint8)
    draw_strokes(line.points, line.starts, True, cover)
    expected = 255 * np.clip(depths(line, cover.shape) + 0.5, 0, 1)
    assert np.abs(cover - expected).max() <= 1


@given(lines(), st.booleans())
def test_nothing_is_written_outside(line: PenPath, soft: bool) -> None:
    around = np.full((3 * HEIGHT, WIDTH), 7, np.uint8)
    inside = around[HEIGHT : 2 * HEIGHT]
    draw_strokes(line.points, line.starts, soft, inside)
    assert (around[:HEIGHT] == 7).all()
    assert (around[2 * HEIGHT :] == 7).all()
    assert (inside >= 7).all()  # and what was there is drawn over, never wiped out


# Pages and digits

samples = st.builds(
    write_character,
    st.integers(0, 2**63 - 1),
    st.integers(0, 999),
    st.sampled_from(CHARACTERS),
    st.integers(0, 300),
)
digits = st.builds(
    write_character,
    st.integers(0, 2**63 - 1),
    st.integers(0, 3000),
    st.sampled_from(CHARACTERS[:10]),
    st.integers(0, 300),
)
places = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))


def box(inked: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The middle and the size of the box around the ink, across and down."""
    found = np.argwhere(inked)[:, ::-1]
    low, high = found.min(axis=0), found.max(axis=0) + 1
    return (low + high) / 2, high - low


def size_of(line: PenPath) -> Floats:
    low, high = pen._box(line.points)
    return high - low


@settings(max_examples=50)
@given(samples, places)
def test_a_page_shows_the_whole_character_near_its_middle(
    line: PenPath, place: tuple[float, float]
) -> None:
    page = pen.draw_page(line.points, line.starts, np.array(place), False)
    assert page.dtype == np.uint8
    assert page.shape == PAGE_SHAPE
    assert set(np.unique(page)) == {0, 255}
    middle, size = box(page == 0)
    # A thin end of a stroke may cover the middle of no pixel.
    np.testing.assert_allclose(size, size_of(line) * SCALE, atol=4)
    wanted = np.array(PAGE_SHAPE[::-1]) / 2 + (2 * np.array(place) - 1) * MAX_OFFSET[::-1]
    np.testing.assert_allclose(middle, wanted, atol=1.5)
    assert (np.abs(middle - (600, 450)) <= np.array(MAX_OFFSET[::-1]) + 1.5).all()
    assert ((middle - size / 2 > 0) & (middle + size / 2 < (1200, 900))).all()


@settings(max_examples=30)
@given(samples, places)
def test_a_grey_page_is_the_same_with_soft_edges(line: PenPath, place: tuple[float, float]) -> None:
    plain, grey = (
        pen.draw_page(line.points, line.starts, np.array(place), soft) for soft in (False, True)
    )
    assert len(np.unique(grey)) > 20
    assert ((grey < 128) != (plain < 128)).sum() <= 2


@pytest.mark.parametrize("grey", [False, True])
def test_what_is_too_large_for_a_page_is_cut_off(grey: bool) -> None:
    line = PenPath(np.array([[-40.0, -40, 1], [40, 40, 1]]), np.array([0, 2]))
    page = pen.draw_page(line.points, line.starts, np.array([0.9, 0.1]), grey)
    assert page.shape == PAGE_SHAPE
    assert 0 < (page < 128).mean() < 0.2


@given(digits)
def test_a_digit_is_one_of_mnist_s_shape(line: PenPath) -> None:
    digit = pen.draw_digit(line.points, line.starts)
    assert digit.dtype == np.uint8
    assert digit.shape == (DIGIT_SIZE, DIGIT_SIZE)
    assert digit.max() >= 128  # the thinnest pen is grey
    # The pixel at (14, 14) is the middle, as in MNIST.
    mass = digit.astype(float)
    middle = [(mass.sum(axis=axis) @ np.arange(DIGIT_SIZE)) / mass.sum() for axis in (0, 1)]
    assert np.abs(np.array(middle) - DIGIT_SIZE / 2).max() <= 0.51
    _, size = box(digit >= 32)
    assert (size <= DIGIT_BOX + 1).all()
    assert size.max() >= DIGIT_BOX - 1
    wanted = size_of(line) * DIGIT_BOX / size_of(line).max()
    np.testing.assert_allclose(size, wanted, atol=2)  # its proportions are kept
