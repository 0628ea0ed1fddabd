import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, kstest

from pipeline.errors import UserError
from pipeline.recipes.mixup import Mixed, Mixing

KINDS = [Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(mixup=0.3, cutmix=0.8, probability=0.7)]
Ids = NDArray[np.int64]


def mix(mixing: Mixing, ids: Ids, seed: int = 0, epoch: int = 0) -> Mixed:
    """Mix images of constant grey; the grey and the label are the sample's number."""
    images = torch.from_numpy(ids).float().view(-1, 1, 1, 1).expand(-1, 1, 10, 14)
    return mixing.mix(images, torch.from_numpy(ids), ids, seed, epoch)


@settings(deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 4000), min_size=8, max_size=8, unique=True),
    st.integers(0, 2**63 - 1),
    st.integers(0, 100),
    st.sampled_from([2, 4, 8]),
)
def test_processes_and_micro_batches_mix_as_one(
    mixing: Mixing, samples: list[int], seed: int, epoch: int, rows: int
) -> None:
    ids = np.array(samples, np.int64)
    parts = [mix(mixing, ids[start : start + rows], seed, epoch) for start in range(0, 8, rows)]
    for together, part in zip(mix(mixing, ids, seed, epoch), zip(*parts, strict=True), strict=True):
        assert torch.equal(together, torch.cat(part))


@settings(deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 4000), min_size=1, max_size=9, unique=True),
    st.integers(0, 2**32),
)
def test_images_labels_and_weights_agree(mixing: Mixing, samples: list[int], seed: int) -> None:
    ids = np.array([number for pair in zip(samples, samples[::-1], strict=True) for number in pair])
    mixed = mix(mixing, ids, seed)
    own, others = torch.from_numpy(ids), torch.from_numpy(ids.reshape(-1, 2)[:, ::-1].flatten())
    assert torch.equal(mixed.labels, own)
    assert torch.equal(mixed.partners, others)
    assert mixed.weights.dtype == torch.float32
    assert torch.equal(mixed.weights[::2], mixed.weights[1::2])
    expected = mixed.weights * own + (1 - mixed.weights) * others
    torch.testing.assert_close(mixed.images.mean(dim=(1, 2, 3)), expected, rtol=1e-5, atol=1e-2)


def test_cutmix_swaps_a_box_and_the_weight_is_the_area_outside() -> None:
    ids = np.arange(4000)
    mixed = mix(Mixing(cutmix=1.0), ids)
    own = mixed.images[:, 0] == torch.from_numpy(ids)[:, None, None]
    other = mixed.images[:, 0] == mixed.partners[:, None, None]
    assert bool((own ^ other).all())
    torch.testing.assert_close(own.float().mean(dim=(1, 2)), mixed.weights)
    # The partner's part is a rectangle: its pixels are its rows times its columns.
    sides = other.any(dim=2).sum(dim=1) * other.any(dim=1).sum(dim=1)
    assert torch.equal(other.sum(dim=(1, 2)), sides)
    assert float(other.float().mean(dim=0).std()) < 0.1
    assert bool(other.any(dim=0).all())  # the corners too


def test_mixup_blends_and_cutmix_does_not() -> None:
    ids = np.arange(2000)
    for mixing, fraction in ((KINDS[0], 0.0), (KINDS[1], 1.0), (Mixing(mixup=1, cutmix=1), 0.5)):
        mixed = mix(mixing, ids)
        pure = mixed.images.flatten(1)
        cut = ((pure == pure.round()).all(dim=1)).float().mean()
        assert abs(float(cut) - fraction) < 0.06


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_are_beta(alpha: float) -> None:
    weights = mix(Mixing(mixup=alpha), np.arange(8000)).weights[::2].double().numpy()
    assert kstest(weights, beta(alpha, alpha).cdf).pvalue > 0.001


def test_probability_is_that_of_a_pair() -> None:
    weights = mix(Mixing(mixup=1, cutmix=1, probability=0.3), np.arange(8000)).weights[::2]
    whole = float((weights == 1).double().mean())
    assert abs(whole - 0.7) < 0.05  # a few boxes are too small to take a pixel


def test_epochs_and_seeds_differ() -> None:
    ids = np.arange(100)
    one, *others = (mix(KINDS[0], ids, seed, epoch) for seed, epoch in ((0, 0), (1, 0), (0, 1)))
    for other in others:
        assert not (one.weights == other.weights).any()


@pytest.mark.parametrize(
    "mixing", [Mixing(), Mixing(probability=0.5), Mixing(mixup=1, probability=0)]
)
def test_no_strength_mixes_nothing(mixing: Mixing) -> None:
    images, labels = torch.rand(3, 1, 4, 4), torch.arange(3)
    mixed = mixing.mix(images, labels, np.arange(3), 0, 0)
    assert not mixing
    assert mixed.images is images
    assert torch.equal(mixed.labels, labels)
    assert torch.equal(mixed.weights, torch.ones(3))
    mixing.check(3)


def test_arguments_stay_unchanged() -> None:
    images, labels = torch.rand(4, 2, 5, 6), torch.arange(4)
    before = images.clone()
    KINDS[2].mix(images, labels, np.arange(4), 0, 0)
    assert torch.equal(images, before)
    assert torch.equal(labels, torch.arange(4))


@pytest.mark.parametrize("mixing", KINDS)
def test_an_odd_number_of_rows_has_no_pairs(mixing: Mixing) -> None:
    mixing.check(4)
    with pytest.raises(UserError, match="mixing: got 5 rows at a time, expected an even number"):
        mixing.check(5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mixup": -0.1}, "mixup: got -0.1, expected at least 0"),
        ({"cutmix": math.inf}, "cutmix: got inf, expected at least 0"),
        ({"mixup": math.nan}, "mixup: got nan"),
        ({"probability": 1.1}, "probability: got 1.1, expected 0 to 1"),
    ],
)
def test_invalid_strengths(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mixing(**given)


@pytest.mark.parametrize("mixing", [Mixing(), *KINDS])
def test_everything_is_computed_on_the_images_device(mixing: Mixing) -> None:
    images, labels = torch.zeros(4, 1, 5, 6, device="meta"), torch.zeros(4, device="meta").long()
    mixed = mixing.mix(images, labels, np.arange(4), 0, 0)
    assert {part.device.type for part in mixed} == {"meta"}
    assert mixed.images.shape == images.shape
