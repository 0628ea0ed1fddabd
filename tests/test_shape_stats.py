import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.base import Floats, Ints, Pixels
from pipeline.data.synth import pen
from pipeline.data.synth.shape_stats import STATISTICS, compare, measure_page


def blank(shape: tuple[int, int] = (300, 400)) -> Pixels:
    return np.full(shape, 255, np.uint8)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 200), st.integers(1, 300))
def test_a_rectangle_is_measured_exactly(top: int, left: int, height: int, width: int) -> None:
    page = blank()
    page[top : top + height, left : left + width] = 0
    _, ink, *rest = measure_page(page)
    assert ink == pytest.approx(100 * height * width / page.size)
    middle = [left + width / 2, top + height / 2]
    assert rest == pytest.approx([width, height, *middle, width / height])


@pytest.mark.parametrize("width", [2, 5, 10, 21])
def test_a_straight_stroke_is_as_wide_as_it_is(width: int) -> None:
    for page in (blank(), blank().T.copy()):
        page[10:290, 50 : 50 + width] = 0
        assert measure_page(page)[0] == pytest.approx(width, rel=0.04, abs=1.25)


@given(st.floats(3, 15), st.floats(0, 3.1), st.booleans())
def test_a_generated_stroke_is_as_wide_as_the_pen(radius: float, angle: float, soft: bool) -> None:
    arm = 120 * np.array([np.cos(angle), np.sin(angle)])
    line = np.array([[*(200 - arm), radius], [*(200 + arm), radius]])
    cover = np.zeros((400, 400), np.uint8)
    pen.draw_strokes(line, np.array([0, 2]), soft, cover)
    stroke, ink, width, height, x, y, _ = measure_page(255 - cover)
    assert stroke == pytest.approx(2 * radius, rel=0.1, abs=2)
    assert ink == pytest.approx((480 * radius + np.pi * radius**2) / 1600, rel=0.02, abs=0.16)
    assert [width, height] == pytest.approx([*(2 * np.abs(arm) + 2 * radius)], abs=2)
    assert [x, y] == pytest.approx([200, 200], abs=1)


def test_a_page_without_ink_is_refused() -> None:
    with pytest.raises(ValueError, match="no ink"):
        measure_page(blank())


@pytest.fixture(scope="module")
def real() -> tuple[Floats, Ints]:
    """Statistics of 30 writers' pages, 20 each; writers differ more than their pages do."""
    generator = np.random.default_rng(0)
    writers: Ints = np.repeat(np.arange(30), 20).astype(np.int64)
    of_writers = generator.normal(0, 1, (30, len(STATISTICS)))
    return 20 + of_writers[writers] + generator.normal(0, 0.3, (600, len(STATISTICS))), writers


def test_a_sample_agrees_with_itself(real: tuple[Floats, Ints]) -> None:
    pages, writers = real
    comparison = compare(pages, writers, pages)
    assert [row.statistic for row in comparison] == list(STATISTICS)
    for number, row in enumerate(comparison):
        assert row.agrees
        assert row.mean == row.real_mean.value == pytest.approx(pages[:, number].mean())
        assert row.spread == row.real_spread.value == pytest.approx(pages[:, number].std())
        for interval in (row.real_mean, row.real_spread):
            assert interval.low < interval.value < interval.high
        # Thirty writers, not six hundred pages: the mean is known to about 1 / √30.
        assert 2.5 < (row.real_mean.high - row.real_mean.low) * 30**0.5 < 6


def test_what_is_larger_or_varies_more_does_not_agree(real: tuple[Floats, Ints]) -> None:
    pages, writers = real
    assert not any(row.agrees for row in compare(pages, writers, 1.3 * pages))
    wider = pages.mean(axis=0) + 2 * (pages - pages.mean(axis=0))
    for row in compare(pages, writers, wider):
        assert row.real_mean.low <= row.mean <= row.real_mean.high
        assert not row.agrees


def test_a_comparison_is_the_same_every_time(real: tuple[Floats, Ints]) -> None:
    pages, writers = real
    assert compare(pages, writers, pages) == compare(pages, writers, pages)
