"""Datasets whose images are all on the device."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import write_set
from tiny_colours import MEAN, STD, write_colours

from beton.order import Shard
from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading import resident
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import DeviceLoader, MicroBatch
from pipeline.loading.dataset import Normalize, View, open_dataset, split_indices
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.loading.resident import ResidentLoader

CPU = torch.device("cpu")
GREY = ImageAugmentation(crop_scale=(0.4, 1), pad=2, flip=0.5, rand_augment=1, contrast=0.3)
COLOUR = ImageAugmentation(pad=2, alternate_flip=True, hue=0.2, grey=0.2, cutout=5)
Case = tuple[Reader, View, dict[str, Any]]


@pytest.fixture(scope="module", params=["colour", "crops", "whole pages", "squares", "letterbox"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """A dataset, a view of it, and the augmentations of its training."""
    path = tmp_path_factory.mktemp("resident") / "set.beton"
    options: dict[str, Any] = {"augmentation": Augmentation(), "image_augmentation": GREY}
    window: float | None = None
    normalize: Normalize | None = None
    match request.param:
        case "colour" | "crops" as name:
            write_colours(path, sizes=((30, 40), (12, 16))[name == "crops" :], mode="raw")
            normalize = Normalize(MEAN, STD)
            options["image_augmentation"] = GREY if name == "crops" else COLOUR
        case "whole pages":
            write_set(path)
            normalize = Normalize((0.1,), (0.3,))
        case _ as name:
            fit = "letterbox" if name == "letterbox" else "stretch"
            pixels = {"polarity": "dark", "scale": None, "fit": fit}
            write_set(path, info={"pixels": pixels})
            window = 1.0
            options["augmentation"] = Augmentation(rotation=9, pen=0.4)
    with open_dataset(path) as file:
        if window is not None:
            options["scales"] = np.linspace(0.8, 1.2, len(file)).astype(np.float32)
        yield (
            file,
            View.of(file, 12 if window is None else 24, window, normalize=normalize),
            options,
        )


def read(kind: type[DeviceLoader], case: Case, epochs: int = 2, **options: Any) -> list[MicroBatch]:
    file, view, others = case
    indices = split_indices(file, "train")[::-1].copy()
    with kind(file, indices, view, 8, device=CPU, seed=5, **{**others, **options}) as loader:
        parts = [part for epoch in range(epochs) for part in loader.micro_batches(epoch)]
        assert sum(part.last for part in parts) == epochs * len(loader)
        return parts


def assert_equal(one: list[MicroBatch], two: list[MicroBatch]) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert np.array_equal(left.ids, right.ids)
        assert torch.equal(left.valid, right.valid)
        assert torch.equal(left.images[left.valid], right.images[right.valid])
        assert torch.equal(left.labels[left.valid], right.labels[right.valid])
        assert left.last == right.last
        assert left.images.dtype == right.images.dtype
        assert left.images.stride() == right.images.stride()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"micro_batch": 3},
        {"shard": Shard(1, 2)},
        {"augmentation": None, "image_augmentation": None},
    ],
)
def test_batches_equal_those_of_a_device_loader(case: Case, options: dict[str, Any]) -> None:
    assert_equal(read(ResidentLoader, case, **options), read(DeviceLoader, case, **options))


def test_a_training_resumes_within_an_epoch(case: Case) -> None:
    file, view, options = case
    indices = split_indices(file, "train")
    with ResidentLoader(file, indices, view, 8, device=CPU, **options) as loader:
        whole = [list(parts) for parts in loader.batches(1)]
        tail = [list(parts) for parts in loader.batches(1, 1)]
        for (part,), number in zip(whole, range(len(loader)), strict=True):
            assert np.array_equal(part.ids, loader.ids(1, number))
        assert loader.seconds_waited == 0
    assert_equal([part for parts in tail for part in parts], [p for ps in whole[1:] for p in ps])


def test_a_decode_on_the_device_differs_by_half_a_grey_level(tmp_path: Path) -> None:
    with open_dataset(write_set(tmp_path / "set.beton")) as file:
        case = file, View.of(file, 16, None), {"augmentation": None}
        one = read(ResidentLoader, case, decode="device")
        two = read(DeviceLoader, case, decode="device")
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left.images, right.images, atol=0.501 / 255, rtol=0)


def test_images_that_exceed_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_dataset(write_colours(tmp_path / "set.beton")) as file:
        needed = 36 * 3 * 12 * 16
        monkeypatch.setattr(resident, "free_memory", lambda _device: 2 * needed)
        read(ResidentLoader, (file, View.of(file, 12, None), {"augmentation": None}))
        monkeypatch.setattr(resident, "free_memory", lambda _device: 2 * needed - 2)
        with pytest.raises(UserError, match=r"resident: got images of 0 MiB, expected at most 0"):
            read(ResidentLoader, (file, View.of(file, 12, None), {"augmentation": None}))
        monkeypatch.setattr(resident, "free_memory", lambda _device: 4 * needed - 2)
        options = {"augmentation": None, "shard": Shard(0, 2)}  # two processes keep all images
        with pytest.raises(UserError, match="over its processes"):
            read(ResidentLoader, (file, View.of(file, 12, None), options))


def test_crops_of_larger_images_are_refused(tmp_path: Path) -> None:
    with open_dataset(write_colours(tmp_path / "set.beton", sizes=((30, 40),))) as file:
        options = {"augmentation": Augmentation(), "image_augmentation": GREY}
        with pytest.raises(UserError, match="resident: got crop_scale with images of other sizes"):
            read(ResidentLoader, (file, View.of(file, 12, None), options))
