"""Windows of colour images."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from beton.crop import CentreCrop, Crop, RandomResizedCrop
from beton.rng import Key

SIDES = st.integers(1, 3000)
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=20)


def windows(
    crop: Crop, sizes: list[tuple[int, int]], proportion: float = 1.0, epoch: int = 0
) -> NDArray[np.float64]:
    return crop.windows(Key(7, epoch), np.arange(len(sizes)), np.array(sizes), proportion)


@given(SIZES, st.floats(0.05, 20), st.floats(0.01, 1))
def test_a_centre_crop_is_centred_and_the_largest_of_its_proportion(
    sizes: list[tuple[int, int]], proportion: float, fraction: float
) -> None:
    for size, window in zip(sizes, windows(CentreCrop(fraction), sizes, proportion), strict=True):
        (height, width), (x0, y0, w, h) = size, window
        assert w / h == pytest.approx(proportion)
        assert (x0 + w / 2, y0 + h / 2) == pytest.approx((width / 2, height / 2))
        assert max(w / width, h / height) == pytest.approx(fraction)
        assert min(x0, y0) >= 0


def test_a_centre_crop_of_the_same_proportion_is_the_whole_image() -> None:
    sizes = [(150, 210), (50, 70), (5, 7)]
    expected = [[0, 0, width, height] for height, width in sizes]
    assert np.array_equal(windows(CentreCrop(), sizes, 7 / 5), expected)


@given(
    SIZES,
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)
def test_random_windows_are_whole_pixels_inside_the_image(
    sizes: list[tuple[int, int]], scale: tuple[float, float], logs: tuple[float, float]
) -> None:
    low, high = (math.exp(log) for log in sorted(logs))
    crop = RandomResizedCrop((min(scale), max(scale)), (low, high))
    found = windows(crop, sizes)
    assert np.array_equal(found, np.rint(found))
    for (height, width), (x0, y0, w, h) in zip(sizes, found, strict=True):
        assert 0 <= x0 <= width - w < width
        assert 0 <= y0 <= height - h < height


def test_a_window_depends_on_seed_epoch_and_sample_alone() -> None:
    crop, ids = RandomResizedCrop(), np.arange(10)
    sizes = np.array([(400, 500), (300, 200)] * 5)
    all_at_once = crop.windows(Key(1, 2), ids, sizes, 1.0)
    for i in ids:
        one = crop.windows(Key(1, 2), ids[i : i + 1], sizes[i : i + 1], 0.5)
        assert np.array_equal(one[0], all_at_once[i])
    assert not np.array_equal(crop.windows(Key(1, 3), ids, sizes, 1.0), all_at_once)
    assert not np.array_equal(crop.windows(Key(2, 2), ids, sizes, 1.0), all_at_once)


@pytest.mark.parametrize("size", [(400, 500), (90, 300), (37, 23)])
def test_the_distribution_is_torchvisions(size: tuple[int, int]) -> None:
    torch, stats = pytest.importorskip("torch"), pytest.importorskip("scipy.stats")
    transforms = pytest.importorskip("torchvision.transforms")
    n, scale, ratio = 3000, (0.08, 1.0), (3 / 4, 4 / 3)
    torch.manual_seed(0)
    image = torch.zeros(3, *size)
    get_params = transforms.RandomResizedCrop.get_params
    theirs = np.array([get_params(image, scale, ratio) for _ in range(n)])
    ours = windows(RandomResizedCrop(scale, ratio), [size] * n)[:, [1, 0, 3, 2]]
    for a, b in zip(ours.T, theirs.T, strict=True):  # top, left, height, width
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    for a, b in ((ours[:, 2:].prod(1), theirs[:, 2:].prod(1)), (ours @ [1, 1, 2, 3],) * 2):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (3, 100)])
def test_the_fallback_is_torchvisions(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    scale, ratio = (0.9, 1.0), (3 / 4, 4 / 3)
    top, left, height, width = transforms.RandomResizedCrop.get_params(
        torch.zeros(3, *size), scale, ratio
    )
    found = windows(RandomResizedCrop(scale, ratio), [size])[0]
    assert found.tolist() == [left, top, width, height]
