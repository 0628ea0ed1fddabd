import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pipeline.augment import Augmentation, cut, identity, ink_centres
from pipeline.errors import UserError

ALL = Augmentation(rotation=10, zoom=0.1, aspect=0.1, shear=0.2, translation=0.05)
Ids = NDArray[np.int64]
Read = Callable[[NDArray[np.float64]], float]


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
    together = ALL.maps(seed, epoch, ids(*samples))
    for row, sample in zip(together, samples, strict=True):
        torch.testing.assert_close(ALL.maps(seed, epoch, ids(sample))[0], row, rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, ALL.maps(seed, epoch + 1, ids(*samples)))


def test_no_strength_no_change() -> None:
    torch.testing.assert_close(Augmentation().maps(0, 0, np.arange(9)), identity(9))


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
    maps = Augmentation(**strength).maps(0, 0, np.arange(2000)).double().numpy()
    values = np.array([read(one) for one in maps])
    (limit,) = strength.values()
    assert np.abs(values).max() <= limit + 1e-6
    assert values.min() < -0.95 * limit
    assert values.max() > 0.95 * limit
    assert abs(values.mean()) < 0.05 * limit


def test_a_negative_strength() -> None:
    with pytest.raises(UserError, match="shear: got -1, expected 0 or more"):
        Augmentation(shear=-1)


@given(st.integers(0, 28), st.integers(0, 44))
def test_ink_comes_to_the_middle_wherever_it_is(top: int, left: int) -> None:
    got = cut(box(top, left, 20, 20), identity(1), 32)
    torch.testing.assert_close(got, box(6, 6, 20, 20, (32, 32)), atol=1e-4, rtol=0)


def test_centres_of_nothing_and_of_specks() -> None:
    nothing = torch.zeros(1, 1, 10, 20)
    speck = 0.1 * box(0, 0, 1, 1, (10, 20)) + box(4, 8, 2, 4, (10, 20))
    torch.testing.assert_close(ink_centres(nothing), torch.zeros(1, 2))
    torch.testing.assert_close(ink_centres(speck), torch.zeros(1, 2))
    assert not cut(nothing, identity(1), 8).any()


def test_a_quarter_turn_and_a_doubling() -> None:
    turn = torch.tensor([[[0.0, -0.5, 0.0], [0.5, 0.0, 0.0]]])
    got = cut(box(10, 10, 4, 12), turn, 32)
    torch.testing.assert_close(got.sum(), torch.tensor(4 * 12 * 4.0), atol=1, rtol=0)
    rows, columns = (got[0, 0].amax(dim=d) > 0.5 for d in (1, 0))
    assert (int(rows.sum()), int(columns.sum())) == (24, 8)
