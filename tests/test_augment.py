import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.special import expit, logit
from torch import Tensor

from pipeline.errors import UserError
from pipeline.loading.augment import (
    Augmentation,
    Transforms,
    change_lighting,
    change_stroke_width,
    crop,
    displacements,
    ink_centres,
    transform_images,
)

MAPS = Augmentation(rotation=10, zoom=0.1, aspect=0.1, shear=0.2, translation=0.05)
ALL = replace(MAPS, pen=0.5, warp=0.2, lighting=0.2, magnification=0.1, elastic=0.04)
Ids = NDArray[np.int64]
Read = Callable[[NDArray[np.float64]], float]


def unmoved(count: int) -> Tensor:
    return Transforms.identity(count).affine


def ids(*numbers: int) -> Ids:
    return np.array(numbers, np.int64)


def box(top: int, left: int, height: int, width: int, page: tuple[int, int] = (48, 64)) -> Tensor:
    image = torch.zeros(1, 1, *page)
    image[..., top : top + height, left : left + width] = 1
    return image


@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 1000),
    st.lists(st.integers(0, 10**9), min_size=2, unique=True),
)
def test_transforms_depend_on_seed_epoch_and_sample_alone(
    seed: int, epoch: int, samples: list[int]
) -> None:
    together = ALL.sample(seed, epoch, ids(*samples)).parts()
    assert together.keys() == set(Transforms._fields)
    for row, sample in enumerate(samples):
        for name, one in ALL.sample(seed, epoch, ids(sample)).parts().items():
            assert torch.equal(one[0], together[name][row])
    for name, later in ALL.sample(seed, epoch + 1, ids(*samples)).parts().items():
        assert not torch.equal(together[name][0], together[name][1])
        assert not torch.equal(together[name], later)


def test_without_strengths_transforms_are_the_identity() -> None:
    got = Augmentation().sample(0, 0, np.arange(9)).parts()
    assert got.keys() == {"affine"}
    torch.testing.assert_close(got["affine"], Transforms.identity(9).affine)


@pytest.mark.parametrize("part", ["pen", "perspective", "elastic", "lighting"])
def test_a_strength_of_0_costs_nothing_and_a_tiny_one_changes_little(
    part: str,
) -> None:
    strength = {"pen": "pen", "perspective": "warp", "elastic": "elastic", "lighting": "lighting"}[
        part
    ]
    pages = torch.cat([box(5 * n, 3 * n, 20, 20) for n in range(4)])
    plain = MAPS.sample(0, 0, np.arange(4))
    tiny = replace(MAPS, **{strength: 1e-7}).sample(0, 0, np.arange(4))
    assert tiny.parts().keys() == {"affine", part}
    assert torch.equal(tiny.affine, plain.affine)
    torch.testing.assert_close(
        transform_images(pages, tiny, 32), transform_images(pages, plain, 32), atol=1e-4, rtol=0
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.02, 1),
    st.sampled_from(["affine_probability", "lighting_probability"]),
)
def test_a_probability_applies_the_same_transform_or_none(
    seed: int, probability: float, name: str
) -> None:
    always = ALL.sample(seed, 0, np.arange(400)).parts()
    got = replace(ALL, **{name: probability}).sample(seed, 0, np.arange(400)).parts()
    parts = {"affine", "perspective", "elastic"} if name == "affine_probability" else {"lighting"}
    nothing = {"affine": torch.eye(2, 3), "perspective": 0.0, "elastic": 0.0, "lighting": 1.0}
    chosen = (got["affine"] == always["affine"]).all(dim=(1, 2))
    if name == "lighting_probability":
        chosen = (got["lighting"] == always["lighting"]).all(dim=1)
    for part in got.keys() - parts:
        assert torch.equal(got[part], always[part])
    for part in parts:
        assert torch.equal(got[part][chosen], always[part][chosen])
        left = got[part][~chosen]
        torch.testing.assert_close(left, torch.as_tensor(nothing[part]).expand_as(left))
    assert abs(float(chosen.double().mean()) - probability) < 0.13  # over 5 standard deviations


@pytest.mark.parametrize(
    ("strength", "read"),
    [
        ({"rotation": 10.0}, lambda m: math.degrees(math.atan2(m[1, 0], m[0, 0]))),
        ({"zoom": 0.3}, lambda m: math.log(np.linalg.det(m[:, :2])) / 2),
        ({"aspect": 0.4}, lambda m: math.log(m[0, 0] / m[1, 1])),
        ({"shear": 0.5}, lambda m: m[0, 1]),
        ({"translation": 0.1}, lambda m: m[0, 2] / 2),
        ({"translation": 0.1}, lambda m: m[1, 2] / 2),
        ({"magnification": 0.1}, lambda m: -2 * math.log(m[0, 0]) - 0.1),
    ],
)
def test_strengths_are_the_limits_of_the_samples(strength: dict[str, float], read: Read) -> None:
    maps = Augmentation(**strength).sample(0, 0, np.arange(2000)).affine.double().numpy()
    values = np.array([read(one) for one in maps])
    (limit,) = strength.values()
    assert np.abs(values).max() <= limit + 1e-6
    assert values.min() < -0.95 * limit
    assert values.max() > 0.95 * limit
    assert abs(values.mean()) < 0.05 * limit


def test_pens_shrink_and_grow() -> None:
    pens = Augmentation(pen=0.4).sample(0, 0, np.arange(2000)).parts()["pen"]
    assert -0.4 <= float(pens.min()) < -0.39
    assert 0.39 < float(pens.max()) <= 0.4


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ({"shear": -1}, "shear: got -1, expected at least 0"),
        ({"pen": 2}, "pen: got 2, expected 0 to 1"),
        ({"warp": 0.5}, "warp: got 0.5, expected 0 to 0.4"),
        ({"elastic": math.nan}, "elastic: got nan, expected at least 0"),
        ({"affine_probability": 1.5}, "affine_probability: got 1.5, expected 0 to 1"),
    ],
)
def test_an_invalid_strength(strength: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augmentation(**strength)


@given(st.integers(0, 28), st.integers(0, 44))
def test_the_crop_is_centred_on_the_ink(top: int, left: int) -> None:
    got = crop(box(top, left, 20, 20), Transforms.identity(1), 32)
    torch.testing.assert_close(got, box(6, 6, 20, 20, (32, 32)), atol=1e-4, rtol=0)


def test_centres_without_ink_and_with_specks() -> None:
    nothing = torch.zeros(1, 1, 10, 20)
    speck = 0.1 * box(0, 0, 1, 1, (10, 20)) + box(4, 8, 2, 4, (10, 20))
    torch.testing.assert_close(ink_centres(nothing), torch.zeros(1, 2))
    torch.testing.assert_close(ink_centres(speck), torch.zeros(1, 2))
    assert not crop(nothing, Transforms.identity(1), 8).any()


def test_a_quarter_turn_and_a_doubling() -> None:
    turn = torch.tensor([[[0.0, -0.5, 0.0], [0.5, 0.0, 0.0]]])
    got = crop(box(10, 10, 4, 12), Transforms(turn), 32)
    torch.testing.assert_close(got.sum(), torch.tensor(4 * 12 * 4.0), atol=1, rtol=0)
    rows, columns = (got[0, 0].amax(dim=d) > 0.5 for d in (1, 0))
    assert (int(rows.sum()), int(columns.sum())) == (24, 8)


def test_strokes_grow_and_shrink_on_every_side() -> None:
    strokes = torch.cat([box(0, 4, 5, 6, (12, 16))] * 4)
    got = change_stroke_width(strokes, torch.tensor([0.0, 1.0, -1.0, 0.25]))
    bigger, smaller = box(0, 3, 6, 8, (12, 16)), box(0, 5, 4, 4, (12, 16))  # it touches the edge
    for image, expected in zip(
        got,
        (strokes[0], bigger[0], smaller[0], torch.lerp(strokes[0], bigger[0], 0.25)),
        strict=True,
    ):
        torch.testing.assert_close(image, expected)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_a_pen_agrees_with_pooling(seed: int, pen: float) -> None:
    images = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(seed))
    sign = -1 if pen < 0 else 1
    grown = sign * torch.nn.functional.max_pool2d(sign * images, 3, stride=1, padding=1)
    expected = images + abs(pen) * (grown - images)
    torch.testing.assert_close(change_stroke_width(images, torch.tensor([pen, pen])), expected)


def ramps(count: int, height: int, width: int) -> Tensor:
    """Return pages with a linear gradient that is ink everywhere."""
    slopes = torch.rand(count, 2, 1, 1, generator=torch.Generator().manual_seed(0)) / 8
    rows, columns = (torch.linspace(-1, 1, n) * (1 - 1 / n) for n in (height, width))
    return 0.5 + slopes[:, :1] * rows[:, None] + slopes[:, 1:] * columns


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_crop_agrees_with_the_formula(seed: int) -> None:
    pages = ramps(3, 80, 60)
    strong = replace(ALL, pen=0, lighting=0, translation=0.02)
    changes = strong.sample(seed, 0, np.arange(3)).parts()
    size = 24  # the square stays on the page
    got = crop(pages, Transforms(**changes), size)
    places = (2 * np.arange(size) + 1) / size - 1
    moves = displacements(changes["elastic"], size).double().numpy()
    maps, tilts = (changes[name].double().numpy() for name in ("affine", "perspective"))
    right, down = (pages.diff(dim=d)[:, 0, 0, 0].double().numpy() * size / 2 for d in (3, 2))
    for n in range(3):
        x, y = np.meshgrid(places, places)
        plane = np.stack([x, y, np.ones_like(x)])
        plane[:2] /= 1 + tilts[n, 0] * x + tilts[n, 1] * y
        old = np.einsum("ij,jrc->irc", maps[n], plane) + moves[n]
        expected = 0.5 + right[n] * old[0] + down[n] * old[1]
        torch.testing.assert_close(
            got[n, 0].double(), torch.from_numpy(expected), atol=2e-5, rtol=0
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_perspective_is_the_affine_map(seed: int) -> None:
    pages = torch.rand(5, 1, 40, 56, generator=torch.Generator().manual_seed(seed))
    maps = MAPS.sample(seed, 0, np.arange(5)).affine
    zeros = {"perspective": torch.zeros(5, 2), "elastic": torch.zeros(5, 2, 6, 6)}
    flat = crop(pages, Transforms(maps, **zeros), 32)
    torch.testing.assert_close(flat, crop(pages, Transforms(maps), 32))


def test_a_warp_is_as_strong_as_fastais() -> None:
    """Sides differ as 1 ± magnitude, and the centre stays fixed."""
    tilts = torch.tensor([[0.0, 0.2]])
    got = crop(box(8, 16, 32, 32), Transforms(unmoved(1), perspective=tilts), 48)[0, 0]
    for row in (11, 24, 36):
        height = (2 * row + 1) / 48 - 1
        assert float(got[row].sum()) == pytest.approx(32 * (1 + 0.2 * height), rel=0.005)
    drawn = Augmentation(warp=0.2).sample(0, 0, np.arange(2000)).parts()["perspective"]
    assert 0.199 < float(drawn.abs().max()) <= 0.2


@pytest.mark.parametrize("size", [28, 49])
def test_elastic_is_the_standard_deviation_everywhere_and_smooth(size: int) -> None:
    coefficients = Augmentation(elastic=0.05).sample(0, 0, np.arange(1500)).parts()["elastic"]
    moves = displacements(coefficients, size) / 2  # in sides
    assert moves.shape == (1500, 2, size, size)
    assert float(moves.std()) == pytest.approx(0.05, rel=0.02)
    assert float((moves.std(dim=0) - 0.05).abs().max()) < 0.05 * 0.15
    # A Gaussian filter's slope, for a standard deviation of 1 / √3 of the 1/3 between knots.
    slopes = moves.diff(dim=3) * size
    assert float(slopes.std()) == pytest.approx(0.05 * 3 * math.sqrt(3 / 2), rel=0.1)


def test_displacements_agree_with_scipys_spline() -> None:
    coefficients = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    knots = np.linspace(-3, 3, 10) * 1.0  # 2/3 of a half side apart
    places = (2 * np.arange(20) + 1) / 20 - 1
    spline = BSpline.design_matrix(places, knots, 3).toarray()
    expected = np.einsum("rk,nakl,cl->narc", spline, coefficients.double().numpy(), spline)
    torch.testing.assert_close(displacements(coefficients, 20), torch.from_numpy(expected).float())


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_lighting_agrees_with_log_odds_and_adds_no_ink(seed: int, lighting: float) -> None:
    random = np.random.default_rng(seed)
    images = random.uniform(0, 0.999, (4, 1, 5, 5))
    images[:, :, 0] = 0
    parts = Augmentation(lighting=lighting).sample(seed, 0, np.arange(4)).parts()
    if not lighting:
        assert "lighting" not in parts
        return
    factors, odds = parts["lighting"].double().numpy().T[..., None, None, None]
    ink = np.minimum(images * factors, 1)
    expected = expit(logit(ink) + np.log(odds))
    got = change_lighting(torch.from_numpy(images).float(), parts["lighting"])
    torch.testing.assert_close(got.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)
    assert not got[:, :, 0].any()
    assert float(got.max()) <= 1


def test_lighting_strengths_are_the_limits() -> None:
    lighting = Augmentation(lighting=0.2).sample(0, 0, np.arange(2000)).parts()["lighting"]
    contrast = lighting[:, 0].log()
    half = change_lighting(
        torch.full((2000, 1, 1, 1), 0.5), lighting / lighting[:, :1] ** torch.tensor([1, 0])
    )
    for values, limit in ((contrast, 0.2), (half.flatten() - 0.5, 0.1)):
        assert float(values.abs().max()) <= limit
        assert float(values.min()) < -0.95 * limit
        assert float(values.max()) > 0.95 * limit


def test_everything_is_computed_on_the_images_device() -> None:
    parts = ALL.sample(0, 0, np.arange(3)).parts()
    there = Transforms(**{name: part.to("meta") for name, part in parts.items()})
    got = transform_images(torch.zeros(3, 1, 40, 56, device="meta"), there, 32)
    assert (got.device.type, got.shape) == ("meta", (3, 1, 32, 32))


@pytest.mark.parametrize("rows", [slice(0, 6), slice(0, 2), slice(2, 5), slice(5, 6)])
def test_slices_of_a_batch_get_the_same_transforms(rows: slice) -> None:
    pages = torch.cat([box(3 * n, 4 * n, 20, 20) for n in range(6)])
    changes = ALL.sample(0, 0, np.arange(6))
    got = transform_images(pages[rows], changes.select(rows), 24)
    torch.testing.assert_close(got, transform_images(pages, changes, 24)[rows])
