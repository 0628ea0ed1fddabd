"""Augmentations of whole images, against torchvision's functions with equal parameters."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_colours import EVERY_AUGMENTATION
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from beton import rng
from pipeline.errors import UserError
from pipeline.loading import image_ops
from pipeline.loading.dataset import Normalize
from pipeline.loading.image_augment import (
    UNCHANGED,
    ImageAugmentation,
    ImageParameters,
    augment_images,
)

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=25, deadline=None)


def noise(seed: int, count: int = 4, channels: int = 3, size: tuple[int, int] = (9, 12)) -> Tensor:
    """Return images with all of greys, equal channels, black and white among their pixels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, *size, generator=generator)
    images[:, :, 0] = images[:, :1, 0]
    images[:, :, 1, :3] = torch.tensor([0.0, 1.0, 0.5])
    images[:, :2, 2] = images[:, :1, 2]
    return images


def one_by_one(
    images: Tensor, values: NDArray[Any], change: Callable[[Tensor, float], Tensor]
) -> Tensor:
    return torch.stack([change(image, float(v)) for image, v in zip(images, values, strict=True)])


def close(got: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


def uniform(seed: int, low: float, high: float, count: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(low, high, count).astype(np.float32)


@FEW
@given(SEEDS, st.sampled_from([1, 3]))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (image_ops.adjust_brightness, tv.adjust_brightness),
        (image_ops.adjust_contrast, tv.adjust_contrast),
        (image_ops.adjust_saturation, tv.adjust_saturation),
        (image_ops.adjust_sharpness, tv.adjust_sharpness),
    ],
)
def test_blends(ours: Any, theirs: Any, seed: int, channels: int) -> None:
    images, factors = noise(seed, channels=channels), uniform(seed, 0, 2)
    factors[0] = 1
    close(ours(images, factors), one_by_one(images, factors, theirs))
    assert torch.equal(ours(images, factors)[0], images[0])


@FEW
@given(SEEDS)
def test_hue(seed: int) -> None:
    images, turns = noise(seed), uniform(seed, -0.5, 0.5)
    close(image_ops.adjust_hue(images, turns), one_by_one(images, turns, tv.adjust_hue), 3e-6)


@FEW
@given(SEEDS, st.sampled_from([1, 3]))
def test_grey(seed: int, channels: int) -> None:
    images = noise(seed, channels=channels)
    chosen = np.array([True, False, True, False])
    got = augment_images(images, ImageParameters(grey=chosen))
    close(got[::2], tv.rgb_to_grayscale(images[::2], num_output_channels=channels))
    assert torch.equal(got[1::2], images[1::2])


@FEW
@given(SEEDS)
def test_jitter_is_brightness_contrast_saturation_then_hue(seed: int) -> None:
    images = noise(seed)
    jitter = np.stack([uniform(seed + k, 0.5, 1.5) for k in range(3)], axis=1)
    jitter = np.column_stack([jitter, uniform(seed + 3, -0.5, 0.5)])
    jitter[1] = 1, 1, 1, 0
    jitter[2, 2:] = 1, 0
    got = augment_images(images, ImageParameters(jitter=jitter))
    for row, (brightness, contrast, saturation, hue) in enumerate(jitter.tolist()):
        expected = tv.adjust_brightness(images[row], brightness)
        expected = tv.adjust_contrast(expected, contrast)
        expected = tv.adjust_saturation(expected, saturation)
        close(got[row], tv.adjust_hue(expected, hue), 1e-5)
    assert torch.equal(got[1], images[1])


@FEW
@given(SEEDS, st.integers(1, 8), st.booleans(), st.booleans(), st.sampled_from([1, 3]))
def test_pad_and_crop_then_flip(
    seed: int, pad: int, reflect: bool, flips: bool, channels: int
) -> None:
    images = noise(seed, channels=channels)
    random = np.random.default_rng(seed)
    offsets = random.integers(-pad, pad, (4, 2), endpoint=True)
    flipped = random.random(4) < 0.5 if flips else None
    mode = "reflect" if reflect else "constant"
    got = augment_images(
        images,
        ImageParameters(offsets=offsets, flipped=flipped, pad_mode=mode),  # type: ignore[arg-type]
    )
    padded = tv.pad(images, [pad], padding_mode=mode)
    for row, (top, left) in enumerate((offsets + pad).tolist()):
        expected = tv.crop(padded[row], top, left, 9, 12)
        if flipped is not None and flipped[row]:
            expected = tv.horizontal_flip(expected)
        assert torch.equal(got[row], expected)


@FEW
@given(SEEDS, st.sampled_from([(9, 12), (16, 16), (5, 31)]))
def test_random_resized_crops(seed: int, size: tuple[int, int]) -> None:
    images = noise(seed, size=size)
    augmentation = ImageAugmentation(crop_scale=(0.05, 1), crop_ratio=(0.5, 2))
    drawn = augmentation.sample(seed, 1, np.arange(4), size)
    assert drawn.windows is not None
    got = augment_images(images, drawn)
    for row, (left, top, width, height) in enumerate(drawn.windows.astype(int).tolist()):
        box = top, left, height, width
        close(got[row], tv.resized_crop(images[row], *box, list(size), antialias=True), 5e-6)


def test_a_crop_of_the_whole_image_changes_nothing() -> None:
    images = noise(0)
    windows = np.array([[0, 0, 12, 9]] * 4, np.float64)
    assert torch.equal(image_ops.resized_crop(images, windows), images)


@FEW
@given(SEEDS, st.integers(1, 7))
def test_cutout_is_an_erased_square_clipped_at_the_edges(seed: int, side: int) -> None:
    images = noise(seed)
    drawn = ImageAugmentation(cutout=side).sample(seed, 0, np.arange(4), (9, 12))
    assert drawn.boxes is not None
    normalize = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    got, plain = augment_images(images, drawn, normalize), augment_images(images, drawn)
    normal = tv.normalize(images, list(normalize.mean), list(normalize.std))
    for row, (top, bottom, left, right) in enumerate(drawn.boxes.tolist()):
        assert 0 < bottom - top <= side
        assert 0 < right - left <= side
        assert bottom - top == side or top == 0 or bottom == 9
        assert right - left == side or left == 0 or right == 12
        box = top, left, bottom - top, right - left
        close(got[row], tv.erase(normal[row], *box, torch.zeros(3, 1, 1)))
        assert torch.equal(plain[row], tv.erase(images[row], *box, torch.zeros(3, 1, 1)))


def test_cutout_is_centred_on_every_pixel_equally_often() -> None:
    boxes = ImageAugmentation(cutout=1).sample(0, 0, np.arange(20_000), (4, 5)).boxes
    assert boxes is not None
    counts = np.zeros((4, 5))
    np.add.at(counts, (boxes[:, 0], boxes[:, 2]), 1)
    assert (np.abs(counts - 1000) < 160).all()


NAMES = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


def their_operation(image: Tensor, name: str, magnitude: int, sign: float) -> Tensor:
    """Apply an operation as RandAugment.forward does, with its random numbers given."""
    whole = v2.RandAugment()
    values, signed = whole._AUGMENTATION_SPACE[name]
    strengths = values(whole.num_magnitude_bins, *image.shape[1:])
    strength = 0.0 if strengths is None else float(strengths[magnitude])
    strength *= sign if signed else 1
    result: Tensor = whole._apply_image_or_video_transform(
        image, name, strength, interpolation=whole.interpolation, fill=whole._fill
    )
    return result


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.integers(0, 30), st.sampled_from([1, 3]), st.sampled_from([(9, 12), (32, 32)]))
@pytest.mark.parametrize("number", range(14))
def test_operations_of_rand_augment(
    number: int, seed: int, magnitude: int, channels: int, size: tuple[int, int]
) -> None:
    images = noise(seed, channels=channels, size=size)
    operations = np.array([[number], [0], [number], [number]], np.int64)
    signs = np.array([[1], [1], [-1], [1]], np.float32)
    got = image_ops.rand_augment(images, operations, signs, magnitude)
    assert torch.equal(got[1], images[1])
    for row in (0, 2, 3):
        expected = their_operation(images[row], NAMES[number], magnitude, float(signs[row, 0]))
        same = (got[row] - expected).abs() < 5e-6
        # Where a line through pixel centres maps between two pixels, rounding chooses either.
        assert float(same.float().mean()) >= (0.9 if NAMES[number] in NAMES[1:6] else 1)


def test_operations_of_rand_augment_are_torchvisions_in_their_order() -> None:
    assert list(v2.RandAugment._AUGMENTATION_SPACE) == list(NAMES)
    assert len(image_ops.OPERATIONS) == len(NAMES)
    assert v2.RandAugment().num_magnitude_bins == image_ops.BINS


def test_operations_are_chosen_equally_often_and_in_both_directions() -> None:
    drawn = ImageAugmentation(rand_augment=3).sample(0, 0, np.arange(14_000), (32, 32))
    assert drawn.operations is not None
    assert drawn.signs is not None
    for column in range(3):
        counts = np.bincount(drawn.operations[:, column], minlength=14)
        assert (np.abs(counts - 1000) < 160).all()
        assert abs(float(drawn.signs[:, column].mean())) < 0.05
    first, second = drawn.operations[:, 0], drawn.operations[:, 1]
    assert abs(np.mean(first == second) - 1 / 14) < 0.015


@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 1000),
    st.lists(st.integers(0, 10**9), min_size=2, unique=True),
)
@settings(max_examples=25, deadline=None)
def test_parameters_depend_on_seed_epoch_and_sample_alone(
    seed: int, epoch: int, samples: list[int]
) -> None:
    together = EVERY_AUGMENTATION.sample(seed, epoch, np.array(samples), (20, 24))
    for row, sample in enumerate(samples):
        alone = EVERY_AUGMENTATION.sample(seed, epoch, np.array([sample]), (20, 24))._asdict()
        for name, part in together.select(slice(row, row + 1))._asdict().items():
            assert np.array_equal(part, alone[name])


def test_numbers_keep_their_purpose() -> None:
    """Runs depend on which number is for what: one strength does not move another's numbers."""
    whole = EVERY_AUGMENTATION.sample(5, 6, np.arange(50), (20, 24))._asdict()
    alone = {
        "windows": {"crop_scale": (0.3, 1)},
        "offsets": {"pad": 3},
        "flipped": {"flip": 0.5},
        "operations": {"rand_augment": 2},
        "signs": {"rand_augment": 2},
        "grey": {"grey": 0.2},
        "boxes": {"cutout": 4},
    }
    for name, strengths in alone.items():
        some = ImageAugmentation(**strengths).sample(5, 6, np.arange(50), (20, 24))  # type: ignore[arg-type]
        assert np.array_equal(some._asdict()[name], whole[name])
    numbers = rng.uniform(5, 6, np.arange(50), rng.IMAGE, 15)
    assert np.array_equal(whole["flipped"], numbers[:, 2] < 0.5)
    assert np.array_equal(whole["operations"], np.floor(numbers[:, [11, 13]] * 14))


@pytest.mark.parametrize(
    ("name", "strength", "low", "high"),
    [
        ("brightness", 0.3, 0.7, 1.3),
        ("contrast", 1.5, 0, 2.5),
        ("saturation", 0.2, 0.8, 1.2),
        ("hue", 0.25, -0.25, 0.25),
    ],
)
def test_strengths_of_jitter_are_limits(
    name: str, strength: float, low: float, high: float
) -> None:
    augmentation = ImageAugmentation(**{name: strength}, jitter_probability=0.5)  # type: ignore[arg-type]
    jitter = augmentation.sample(0, 0, np.arange(4000), (8, 8)).jitter
    assert jitter is not None
    columns = ("brightness", "contrast", "saturation", "hue")
    values, nothing = jitter[:, columns.index(name)], float(name != "hue")
    changed = values[values != nothing]
    assert abs(len(changed) - 2000) < 160
    assert low <= changed.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < changed.max() <= high + 1e-6
    others = np.delete(jitter, columns.index(name), axis=1)
    assert (others == np.delete([1, 1, 1, 0], columns.index(name))).all()


@given(st.integers(0, 2**63 - 1), st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_an_alternating_flip_flips_every_second_epoch(seed: int, epoch: int) -> None:
    augmentation = ImageAugmentation(alternate_flip=True)
    first, second, third = (
        augmentation.sample(seed, epoch + k, np.arange(1000), (8, 8)).flipped for k in range(3)
    )
    assert first is not None
    assert second is not None
    assert third is not None
    assert np.array_equal(first, ~second)
    assert np.array_equal(first, third)
    assert 400 < first.sum() < 600


def test_flips_and_offsets_are_uniform() -> None:
    drawn = ImageAugmentation(flip=0.25, pad=2).sample(0, 0, np.arange(10_000), (8, 8))
    assert drawn.flipped is not None
    assert drawn.offsets is not None
    assert abs(float(drawn.flipped.mean()) - 0.25) < 0.025
    for column in drawn.offsets.T:
        assert (np.abs(np.bincount(column + 2) - 2000) < 220).all()


def test_without_strengths_nothing_is_drawn_or_copied() -> None:
    assert not ImageAugmentation()
    assert not ImageAugmentation(brightness=0.5, jitter_probability=0, magnitude=20)
    images = noise(0)
    assert augment_images(images, UNCHANGED) is images
    assert augment_images(images, UNCHANGED.select(slice(0, 2))) is images


@pytest.mark.parametrize("channels", [1, 3])
def test_images_do_not_depend_on_their_batch(channels: int) -> None:
    augmentation = (
        EVERY_AUGMENTATION
        if channels == 3
        else replace(EVERY_AUGMENTATION, saturation=0, hue=0, grey=0)
    )
    images = noise(3, 24, channels, (20, 24))
    drawn = augmentation.sample(1, 2, np.arange(24), (20, 24))
    normalize = Normalize((0.4,) * channels, (0.2,) * channels)
    whole = augment_images(images, drawn, normalize)
    for rows in (slice(0, 1), slice(3, 10), slice(23, 24)):
        part = augment_images(images[rows], drawn.select(rows), normalize)
        assert torch.equal(part, whole[rows])
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(augment_images(last, drawn, normalize), whole)


def test_everything_is_computed_on_the_images_device() -> None:
    drawn = EVERY_AUGMENTATION.sample(0, 0, np.arange(3), (20, 24))
    got = augment_images(torch.zeros(3, 3, 20, 24, device="meta"), drawn)
    assert (got.device.type, got.shape) == ("meta", (3, 3, 20, 24))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": 1.5}, "flip: got 1.5, expected 0 to 1"),
        ({"hue": 0.6}, "hue: got 0.6, expected 0 to 0.5"),
        ({"magnitude": 31}, "magnitude: got 31, expected 0 to 30"),
        ({"pad": -1}, "pad: got -1, expected 0 to 4096"),
        ({"contrast": math.nan}, "contrast: got nan"),
        ({"pad_mode": "edge"}, "pad_mode: got 'edge', expected reflect or constant"),
        ({"flip": 0.5, "alternate_flip": True}, "alternate_flip: got flip too"),
        ({"crop_scale": (0, 1)}, "crop_scale: got 0, 1, expected 0 < low <= high <= 1"),
        ({"crop_scale": (0.5, 0.4)}, "crop_scale: got 0.5, 0.4, expected"),
        ({"crop_ratio": (2, 1)}, "crop_ratio: got 2, 1, expected 0 < low <= high"),
    ],
)
def test_an_invalid_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageAugmentation(**change)


@pytest.mark.parametrize("name", ["saturation", "hue", "grey"])
def test_colours_of_grey_images_cannot_change(name: str) -> None:
    augmentation = ImageAugmentation(**{name: 0.5})  # type: ignore[arg-type]
    augmentation.check((3, 8, 8))
    with pytest.raises(UserError, match=f"{name}: got 0.5, expected 0: the images are grey"):
        augmentation.check((1, 8, 8))


def test_a_reflection_is_narrower_than_the_image() -> None:
    ImageAugmentation(pad=7).check((3, 8, 9))
    ImageAugmentation(pad=9, pad_mode="constant").check((3, 8, 9))
    with pytest.raises(UserError, match="pad: got 8, expected less than 8"):
        ImageAugmentation(pad=8).check((3, 8, 9))
