import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pipeline.augment import Augmentation, Changes, change_pens, cut, ink_centres
from pipeline.errors import UserError

ALL = Augmentation(rotation=10, zoom=0.1, aspect=0.1, shear=0.2, translation=0.05, pen=0.5)
Ids = NDArray[np.int64]
Read = Callable[[NDArray[np.float64]], float]


def unmoved(count: int) -> Tensor:
    return Changes.none(count).maps


def ids(*numbers: int) -> Ids:
    return np.array(numbers, np.int64)


def box(top: int, left: int, height: int, width: int, page: tuple[int, int] = (48, 64)) -> Tensor:
    picture = torch.zeros(1, 1, *page)
    picture[..., top : top + height, left : left + width] = 1
    return picture


@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 1000),
    st.lists(st.integers(0, 10**9), min_size=2, unique=True),
)
def test_a_samples_change_depends_on_seed_epoch_and_sample_alone(
    seed: int, epoch: int, samples: list[int]
) -> None:
    together = ALL.draw(seed, epoch, ids(*samples))
    for row, sample in enumerate(samples):
        for one, all_of_them in zip(ALL.draw(seed, epoch, ids(sample)), together, strict=True):
            assert torch.equal(one[0], all_of_them[row])
    for numbers, later in zip(together, ALL.draw(seed, epoch + 1, ids(*samples)), strict=True):
        assert not torch.equal(numbers[0], numbers[1])
        assert not torch.equal(numbers, later)


def test_no_strength_no_change() -> None:
    for got, expected in zip(Augmentation().draw(0, 0, np.arange(9)), Changes.none(9), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("strength", "read"),
    [
        ({"rotation": 10.0}, lambda m: math.degrees(math.atan2(m[1, 0], m[0, 0]))),
        ({"zoom": 0.3}, lambda m: math.log(np.linalg.det(m[:, :2])) / 2),
        ({"aspect": 0.4}, lambda m: math.log(m[0, 0] / m[1, 1])),
        ({"shear": 0.5}, lambda m: m[0, 1]),
        ({"translation": 0.1}, lambda m: m[0, 2] / 2),
        ({"translation": 0.1}, lambda m: m[1, 2] / 2),
    ],
)
def test_strengths_are_what_they_say(strength: dict[str, float], read: Read) -> None:
    maps = Augmentation(**strength).draw(0, 0, np.arange(2000)).maps.double().numpy()
    values = np.array([read(one) for one in maps])
    (limit,) = strength.values()
    assert np.abs(values).max() <= limit + 1e-6
    assert values.min() < -0.95 * limit
    assert values.max() > 0.95 * limit
    assert abs(values.mean()) < 0.05 * limit


def test_pens_go_both_ways() -> None:
    pens = Augmentation(pen=0.4).draw(0, 0, np.arange(2000)).pens
    assert -0.4 <= float(pens.min()) < -0.39
    assert 0.39 < float(pens.max()) <= 0.4


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ({"shear": -1}, "shear: got -1, expected 0 to inf"),
        ({"pen": 2}, "pen: got 2, expected 0 to 1"),
    ],
)
def test_a_strength_that_makes_no_sense(strength: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augmentation(**strength)


@given(st.integers(0, 28), st.integers(0, 44))
def test_ink_comes_to_the_middle_wherever_it_is(top: int, left: int) -> None:
    got = cut(box(top, left, 20, 20), unmoved(1), 32)
    torch.testing.assert_close(got, box(6, 6, 20, 20, (32, 32)), atol=1e-4, rtol=0)


def test_centres_of_nothing_and_of_specks() -> None:
    nothing = torch.zeros(1, 1, 10, 20)
    speck = 0.1 * box(0, 0, 1, 1, (10, 20)) + box(4, 8, 2, 4, (10, 20))
    torch.testing.assert_close(ink_centres(nothing), torch.zeros(1, 2))
    torch.testing.assert_close(ink_centres(speck), torch.zeros(1, 2))
    assert not cut(nothing, unmoved(1), 8).any()


def test_a_quarter_turn_and_a_doubling() -> None:
    turn = torch.tensor([[[0.0, -0.5, 0.0], [0.5, 0.0, 0.0]]])
    got = cut(box(10, 10, 4, 12), turn, 32)
    torch.testing.assert_close(got.sum(), torch.tensor(4 * 12 * 4.0), atol=1, rtol=0)
    rows, columns = (got[0, 0].amax(dim=d) > 0.5 for d in (1, 0))
    assert (int(rows.sum()), int(columns.sum())) == (24, 8)


def test_strokes_grow_and_shrink_on_every_side() -> None:
    strokes = torch.cat([box(0, 4, 5, 6, (12, 16))] * 4)
    got = change_pens(strokes, torch.tensor([0.0, 1.0, -1.0, 0.25]))
    bigger, smaller = box(0, 3, 6, 8, (12, 16)), box(0, 5, 4, 4, (12, 16))  # it touches the edge
    for picture, expected in zip(
        got,
        (strokes[0], bigger[0], smaller[0], torch.lerp(strokes[0], bigger[0], 0.25)),
        strict=True,
    ):
        torch.testing.assert_close(picture, expected)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_a_pen_agrees_with_pooling(seed: int, pen: float) -> None:
    pictures = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(seed))
    sign = -1 if pen < 0 else 1
    grown = sign * torch.nn.functional.max_pool2d(sign * pictures, 3, stride=1, padding=1)
    expected = pictures + abs(pen) * (grown - pictures)
    torch.testing.assert_close(change_pens(pictures, torch.tensor([pen, pen])), expected)
