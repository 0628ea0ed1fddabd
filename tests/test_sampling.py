"""The samples of an epoch, each class equally often."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import write_set
from tiny_colours import write_colours

from beton.order import Shard
from beton.reader import Reader
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, open_dataset, split_indices
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.loading.resident import ResidentLoader
from pipeline.loading.sampling import Sampler, balanced_indices, balanced_size

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=6)
CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(COUNTS, st.integers(0, 2**63 - 1), st.integers(0, 99))
def test_an_epoch_has_equally_many_samples_of_each_class(
    counts: list[int], seed: int, epoch: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(labels)
    indices = np.flatnonzero(np.arange(len(labels)) % 5 != 4)
    keys = balanced_indices(labels, indices, seed, epoch)
    assert len(keys) == balanced_size(labels, indices)
    assert len(indices) <= len(keys) < len(indices) + len(counts)
    assert len(np.unique(keys)) == len(keys)
    samples = keys % len(labels)
    assert np.isin(samples, indices).all()
    present = np.bincount(labels[samples], minlength=len(counts))[np.unique(labels[indices])]
    assert (present == len(keys) // len(present)).all()
    for label in np.unique(labels[indices]):
        times = np.bincount(samples[labels[samples] == label], minlength=len(labels))
        members = times[indices[labels[indices] == label]]
        assert members.max() - members.min() <= 1
    for sample in np.unique(samples):  # copies are numbered from 0
        copies = np.sort(keys[samples == sample] // len(labels))
        assert copies.tolist() == list(range(len(copies)))


def test_a_large_class_is_a_fresh_draw_in_every_epoch() -> None:
    labels = np.repeat([0, 1], [90, 10])
    draws = [balanced_indices(labels, np.arange(100), 0, epoch)[:50] for epoch in range(12)]
    assert not np.array_equal(draws[0], draws[1])
    assert len(np.unique(np.concatenate(draws))) == 90
    assert np.array_equal(draws[3], balanced_indices(labels, np.arange(100), 0, 3)[:50])
    assert not np.array_equal(draws[3], balanced_indices(labels, np.arange(100), 1, 3)[:50])


def test_a_sampler_shuffles_what_it_draws() -> None:
    labels = np.repeat([0, 1], [90, 10])
    sampler = Sampler(np.arange(100), 100, 7, shuffled=True, labels=labels)
    order = sampler.order(2)
    assert len(order) == len(sampler) == 100
    drawn = balanced_indices(labels, np.arange(100), 7, 2)
    assert np.array_equal(np.sort(order), np.sort(drawn))
    halves = labels[sampler.ids(order)].reshape(4, 25).mean(axis=1)
    assert (halves > 0.2).all()
    assert (halves < 0.8).all()
    assert sampler.ids(np.array([-1, 5, 205])).tolist() == [-1, 5, 5]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = tmp_path_factory.mktemp("balanced") / "balanced.beton"
    with open_dataset(write_colours(path, counts=(30, 7, 2))) as reader:
        yield reader


@pytest.mark.parametrize("kind", [DeviceLoader, ResidentLoader])
def test_a_balanced_training(kind: type[DeviceLoader], file: Reader) -> None:
    def loader(shard: Shard | None = None) -> DeviceLoader:
        return kind(
            file,
            split_indices(file, "all"),
            View.of(file, 12, None),
            6,
            device=CPU,
            augmentation=Augmentation(),
            image_augmentation=ImageAugmentation(pad=5),
            balanced=True,
            seed=1,
            shard=shard,
        )

    with loader() as batches:
        assert len(batches) == 39 // 6
        whole = [list(parts) for parts in batches.batches(1)]
        again = [list(parts) for parts in batches.batches(1, 4)]
        for number, (part,) in enumerate(whole):
            assert batches.ids(1, number).tolist() == part.ids.tolist()
            assert part.labels.tolist() == file.column("label").metadata[part.ids].tolist()
    for (part,), (same,) in zip(whole[4:], again, strict=True):
        assert torch.equal(part.images, same.images)
    labels = torch.cat([part.labels for (part,) in whole])
    assert torch.bincount(labels).min() >= 13 - 3  # of 39 samples, 3 are in the dropped batch
    ids = np.concatenate([part.ids for (part,) in whole])
    images = torch.cat([part.images for (part,) in whole])
    rarest = np.bincount(ids).argmax()
    copies = images[ids == rarest]
    assert len(copies) >= 5
    assert len(torch.unique(copies, dim=0)) == len(copies)  # copies are augmented apart
    with loader(Shard(0, 2)) as one, loader(Shard(1, 2)) as two:
        parts = zip(one.batches(1), two.batches(1), strict=True)
        halves = [torch.cat([part.images for part in chain(*pair)]) for pair in parts]
    assert torch.equal(torch.cat(halves), images)


@pytest.mark.parametrize("limit", [4, 7, 10, 13, 33, 39, 50])
def test_some_images_of_a_split_are_of_each_class_in_proportion(tmp_path: Path, limit: int) -> None:
    """The classes come in turns, so every fourth image is of the same one."""
    with open_dataset(write_set(tmp_path / "set.beton", train=10)) as file:
        whole, some = split_indices(file, "train"), split_indices(file, "train", limit)
        counts = np.bincount(file.column("label").metadata[some], minlength=4)
    assert len(some) == min(limit, 40)
    assert np.isin(some, whole).all()
    assert (np.diff(some) > 0).all()
    assert np.ptp(counts) <= 1
