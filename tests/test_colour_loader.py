"""Batches of images in colour on a device."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import write_set
from tiny_colours import EVERY_AUGMENTATION, MEAN, STD, write_colours

from beton import ops
from beton.loader import Loader
from beton.order import Shard
from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.predict import predict, predict_split
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import DeviceLoader, MicroBatch, display_images
from pipeline.loading.dataset import (
    Normalize,
    View,
    channel_statistics,
    eval_batch_size,
    open_dataset,
    split_indices,
)
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.models import networks
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes

CPU = torch.device("cpu")


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
    with training(file, EVERY_AUGMENTATION, rows=12) as batches:
        whole = [list(parts) for parts in batches.batches(2)]
        resumed = [list(parts) for parts in batches.batches(2, 1)]
        assert [ids.tolist() for (part,) in whole for ids in [part.ids]] == [
            batches.ids(2, number).tolist() for number in range(3)
        ]
        other = images_of([*chain(*batches.batches(3))])
    with training(file, EVERY_AUGMENTATION, rows=12, micro_batch=5) as batches:
        parted = [list(parts) for parts in batches.batches(2)]
        assert [len(part.ids) for part in parted[0]] == [5, 5, 2]
    ranks = []
    for index in range(4):
        with training(file, EVERY_AUGMENTATION, rows=12, shard=Shard(index, 4)) as batches:
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


def test_random_resized_crops_are_cut_out_of_the_stored_images(varied: Reader) -> None:
    view = view_of(varied, 16)
    op = ops.RgbResize(*view.canvas, crop=ops.RandomResizedCrop((0.3, 0.5), (3 / 4, 4 / 3)))
    changes = ImageAugmentation(crop_scale=(0.3, 0.5))
    with (
        training(varied, changes, size=16) as batches,
        Loader(varied, 6, {"image": op}, seed=3, drop_last=True) as raw,
    ):
        for part, batch in zip(batches.micro_batches(4), raw.batches(4), strict=True):
            shown = np.rint(display_images(part.images, view) * 255).astype(np.uint8)
            assert np.array_equal(part.ids, batch.ids)
            assert np.array_equal(shown, batch["image"])


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


@pytest.mark.parametrize("channels", [1, 3])
def test_displayed_images_are_those_before_normalisation(
    channels: int, equal: Reader, tmp_path: Path
) -> None:
    file = equal if channels == 3 else open_dataset(write_set(tmp_path / "ink.beton"))
    normalize = Normalize((0.3,) * channels, (0.2,) * channels)
    plain = View.of(file, 12, None)
    shown = []
    for view in (plain, replace(plain, normalize=normalize)):
        with DeviceLoader(file, split_indices(file, "all"), view, 9, device=CPU) as batches:
            shown.append(display_images(next(batches.micro_batches()).images, view))
    assert shown[0].shape == ((9, 12, 16, 3) if channels == 3 else (9, 12, 16))
    assert shown[0].dtype == np.float32
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-6)
    if channels == 3:
        stored_pixels = file.column("image").decode(4)
        assert np.array_equal(np.rint(shown[0][4] * 255), stored_pixels)
    else:
        assert shown[0].max() == 1
    assert display_images(torch.full((1, channels, 2, 2), 9.0), plain).max() == 1


def test_predictions_with_the_mirrored_image(equal: Reader) -> None:
    network = networks.build("small", 3, 0, (3, 24, 32)).eval()
    view = view_of(equal, 24)
    with DeviceLoader(equal, split_indices(equal, "all"), view, 36, device=CPU) as batches:
        images = next(batches.micro_batches()).images
        got = predict(network, batches, mirrored=True).logits
    with torch.no_grad():
        both = [network(shown).softmax(dim=1) for shown in (images, images.flip(3))]
    torch.testing.assert_close(got, ((both[0] + both[1]) / 2).log(), atol=1e-5, rtol=1e-5)
    other = predict_split(network, equal, "all", view, device=CPU, mirrored=True).logits
    torch.testing.assert_close(got, other, atol=1e-5, rtol=1e-5)
    plain = predict_split(network, equal, "all", view, device=CPU).logits
    assert not torch.allclose(got, plain, atol=1e-3)


def test_mirrored_slants_are_averaged_over_all(tmp_path: Path) -> None:
    class Sums(torch.nn.Module):
        """Logits that are sums over the left half and the right half of an image."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(1, 2)).view(len(images), 2, -1).mean(dim=2) * 20

    with open_dataset(write_set(tmp_path / "ink.beton")) as file:
        view = View.of(file, 32, 1.0)
        logits = predict_split(Sums(), file, "all", view, device=CPU, views=3, mirrored=True).logits
        plain = predict_split(Sums(), file, "all", view, device=CPU, views=3).logits
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    assert (plain[:, 0] - plain[:, 1]).abs().max() > 0.01


def test_evaluation_has_fewer_images_in_a_batch_if_they_have_channels() -> None:
    ink, colour = View(256, (256, 256), True), View(256, (256, 256), True, channels=3)
    assert (eval_batch_size(ink), eval_batch_size(colour)) == (64, 21)
    assert eval_batch_size(View(32, (32, 32), True, channels=3)) == 256


def test_a_training_in_colour_augments_and_normalises(equal: Reader) -> None:
    stage = Stage(16, 1, 1e-3, image_augmentation=replace(EVERY_AUGMENTATION, pad=1))
    recipe = Recipe((stage,), batch_size=6, window=None, normalize=channel_statistics(equal))
    processes = cast(Processes, SimpleNamespace(device=CPU, rank=0, count=1))
    data = DataModule(processes, recipe, equal)
    with data.train_loader(stage) as loader:
        (part,) = next(loader.batches(0))
    assert part.images.shape == (6, 3, 16, 21)
    assert float(part.images.min()) < -1
    wide = replace(recipe, stages=(replace(stage, image_augmentation=ImageAugmentation(pad=16)),))
    with pytest.raises(UserError, match="pad: got 16, expected less than 16"):
        DataModule(processes, wide, equal)
