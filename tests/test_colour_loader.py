"""Batches of images in colour on a device."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_colours import MEAN, STD, write_colours

from beton.order import Shard
from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import DeviceLoader, MicroBatch
from pipeline.loading.dataset import (
    Normalize,
    View,
    channel_statistics,
    open_dataset,
    split_indices,
)
from pipeline.loading.image_augment import ImageAugmentation

CPU = torch.device("cpu")
ALL = ImageAugmentation(
    crop_scale=(0.3, 1),
    pad=3,
    flip=0.5,
    rand_augment=2,
    brightness=0.2,
    contrast=0.3,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.7,
    grey=0.2,
    cutout=4,
)


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """36 images of 12×16 pixels."""
    with open_dataset(write_colours(tmp_path_factory.mktemp("e") / "equal.beton")) as file:
        yield file


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """JPEGs of several sizes."""
    path = tmp_path_factory.mktemp("v") / "varied.beton"
    sizes = ((40, 60), (60, 40), (33, 80), (120, 90))
    with open_dataset(write_colours(path, sizes=sizes, mode="jpg")) as file:
        yield file


def view_of(file: Reader, size: int = 12) -> View:
    return View.of(file, size, None, normalize=channel_statistics(file))


def loader(file: Reader, rows: int = 6, size: int = 12, **options: Any) -> DeviceLoader:
    indices = options.pop("indices", split_indices(file, "all"))
    return DeviceLoader(file, indices, view_of(file, size), rows, device=CPU, **options)


def training(file: Reader, image_augmentation: ImageAugmentation, **options: Any) -> DeviceLoader:
    options = {"augmentation": Augmentation(), "seed": 3, **options}
    return loader(file, image_augmentation=image_augmentation, **options)


def stored(file: Reader, ids: NDArray[np.int64]) -> torch.Tensor:
    """The images as they are stored, normalised: (n, 3, h, w)."""
    images = np.stack([file.column("image").decode(int(i)) for i in ids]).astype(np.float32)
    normal = (images / np.float32(255) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normal).permute(0, 3, 1, 2)


def images_of(parts: list[MicroBatch]) -> dict[int, torch.Tensor]:
    return {int(i): image for part in parts for i, image in zip(part.ids, part.images, strict=True)}


def test_evaluation_shows_stored_images_normalised(equal: Reader) -> None:
    with loader(equal, rows=7) as batches:
        parts = list(batches.micro_batches())
    rows = [part.valid.numpy() for part in parts]
    ids = np.concatenate([part.ids[valid] for part, valid in zip(parts, rows, strict=True)])
    assert ids.tolist() == list(range(36))
    assert [len(part.images) for part in parts] == [7] * 6
    images = torch.cat([part.images[part.valid] for part in parts])
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, stored(equal, ids), atol=1e-6, rtol=1e-6)
    assert parts[0].images.is_contiguous(memory_format=torch.channels_last)


def test_without_a_normalisation_values_are_fractions(equal: Reader) -> None:
    view = replace(view_of(equal), normalize=None)
    with DeviceLoader(equal, split_indices(equal, "all"), view, 36, device=CPU) as batches:
        (part,) = batches.micro_batches()
    whole = part.images * 255
    assert torch.equal(
        whole.round(),
        torch.from_numpy(np.stack([equal.column("image").decode(i) for i in range(36)]))
        .permute(0, 3, 1, 2)
        .float(),
    )


def test_flips_and_crops_copy_pixels(equal: Reader) -> None:
    changes = ImageAugmentation(pad=2, flip=0.5)
    with training(equal, changes) as batches:
        parts = list(batches.micro_batches(5))
    assert len(parts) == 6
    seen = set()
    for part in parts:
        drawn = changes.sample(3, 5, part.ids, (12, 16))
        assert drawn.offsets is not None
        assert drawn.flipped is not None
        for row, image in enumerate(stored(equal, part.ids)):
            padded = torch.nn.functional.pad(image[None], (2, 2, 2, 2), mode="reflect")[0]
            top, left = (drawn.offsets[row] + 2).tolist()
            expected = padded[:, top : top + 12, left : left + 16]
            expected = expected.flip(2) if drawn.flipped[row] else expected
            torch.testing.assert_close(part.images[row], expected, atol=1e-6, rtol=1e-6)
            seen.add((top, left, bool(drawn.flipped[row])))
    assert len(seen) > 20


@pytest.mark.parametrize("name", ["equal", "varied"])
def test_ranks_micro_batches_and_resuming_change_no_bit(
    name: str, request: pytest.FixtureRequest
) -> None:
    file = request.getfixturevalue(name)
    with training(file, ALL, rows=12) as batches:
        whole = [list(parts) for parts in batches.batches(2)]
        resumed = [list(parts) for parts in batches.batches(2, 1)]
        assert [ids.tolist() for (part,) in whole for ids in [part.ids]] == [
            batches.ids(2, number).tolist() for number in range(3)
        ]
        other = images_of([*chain(*batches.batches(3))])
    with training(file, ALL, rows=12, micro_batch=5) as batches:
        parted = [list(parts) for parts in batches.batches(2)]
        assert [len(part.ids) for part in parted[0]] == [5, 5, 2]
    ranks = []
    for index in range(4):
        with training(file, ALL, rows=12, shard=Shard(index, 4)) as batches:
            ranks.append([list(parts) for parts in batches.batches(2)])
    for number, batch in enumerate(whole):
        expected = images_of(batch)
        found = [images_of(parted[number]), images_of([*chain(*(r[number] for r in ranks))])]
        if number:
            found.append(images_of(resumed[number - 1]))
        for images in found:
            assert images.keys() == expected.keys()
            for i, image in images.items():
                assert torch.equal(image, expected[i])
        assert not any(torch.equal(image, other[i]) for i, image in expected.items())


def test_images_of_other_proportions_are_cropped_in_the_middle(varied: Reader) -> None:
    view = view_of(varied, 16)
    proportion = view.canvas[1] / view.canvas[0]
    with loader(varied, rows=36, size=16) as batches:
        (part,) = batches.micro_batches()
    assert part.images.shape == (36, 3, 16, view.canvas[1])
    records = varied.column("image").metadata
    for row in range(8):
        image = stored(varied, np.array([row]))
        height, width = int(records["height"][row]), int(records["width"][row])
        wide = min(width, height * proportion)
        high = min(height, width / proportion)
        left, top = (width - wide) / 2, (height - high) / 2
        middle = image[..., round(top) : round(top + high), round(left) : round(left + wide)]
        mean = middle.mean(dim=(2, 3))[0]
        torch.testing.assert_close(part.images[row].mean(dim=(1, 2)), mean, atol=0.06, rtol=0)


def test_cutout_is_the_mean(equal: Reader) -> None:
    with training(equal, ImageAugmentation(cutout=6)) as batches:
        part = next(batches.micro_batches())
    empty = (part.images == 0).all(dim=1).sum(dim=(1, 2))
    assert (empty >= 9).all()
    assert int(empty.max()) == 36


def test_options_of_training_are_rejected_in_evaluation(equal: Reader) -> None:
    for options in ({"balanced": True}, {"image_augmentation": ImageAugmentation()}):
        with pytest.raises(ValueError, match="augmentation: got None"):
            loader(equal, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad": 12}, "pad: got 12, expected less than 12, the images' shorter side"),
    ],
)
def test_an_augmentation_that_does_not_suit_the_images(
    changes: dict[str, Any], message: str, equal: Reader
) -> None:
    with pytest.raises(UserError, match=message):
        training(equal, ImageAugmentation(**changes))


def test_normalisation_of_other_channels_is_rejected(equal: Reader) -> None:
    with pytest.raises(UserError, match="got images of 3 channels, expected 1"):
        View.of(equal, 12, None, normalize=Normalize((0.5,), (0.5,)))
