"""Main and auxiliary rows in each batch, on any number of processes and from any step."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CLASSES, write_set

from beton.order import Shard
from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import CombinedLoader, DeviceLoader, MicroBatch
from pipeline.loading.dataset import Ids, open_dataset, split_indices
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes

CPU = torch.device("cpu")
STAGE = Stage(16, 3, 1e-3, augmentation=Augmentation(rotation=5))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, Reader]]:
    folder = tmp_path_factory.mktemp("sets")
    with (
        open_dataset(write_set(folder / "main.beton", train=8, validation=2)) as main,
        open_dataset(write_set(folder / "other.beton", train=3, validation=2)) as other,
    ):
        yield main, other


def supply(
    files: tuple[Reader, Reader | None], recipe: Recipe, shard: Shard | None = None
) -> DataModule:
    main, other = files
    shard = shard or Shard()
    processes = SimpleNamespace(device=CPU, rank=shard.index, count=shard.count)
    return DataModule(cast(Processes, processes), recipe, main, auxiliary=other)


def recipe(share: float = 0.5, micro_batch: int | None = None, batch_size: int = 8) -> Recipe:
    return Recipe((STAGE,), batch_size=batch_size, micro_batch=micro_batch, auxiliary=share)


def steps(loader: DeviceLoader | CombinedLoader, epochs: int = 3) -> list[list[MicroBatch]]:
    return [list(parts) for epoch in range(epochs) for parts in loader.batches(epoch)]


def ids_of(parts: list[MicroBatch]) -> Ids:
    return np.concatenate([part.ids for part in parts])


def test_each_dataset_has_its_own_epochs(files: tuple[Reader, Reader]) -> None:
    main, other = files
    with supply(files, recipe()).train_loader(STAGE) as loader:
        assert len(loader) == len(split_indices(main, "train")) // 4 == 8
        found = [ids_of(parts) for parts in steps(loader)]
    first = [ids[ids < len(main)] for ids in found]
    second = [ids[ids >= len(main)] - len(main) for ids in found]
    assert {(len(one), len(two)) for one, two in zip(first, second, strict=True)} == {(4, 4)}
    for epoch in range(3):
        seen = np.concatenate(first[8 * epoch : 8 * epoch + 8])
        assert np.array_equal(np.sort(seen), split_indices(main, "train"))
    length = len(other) // 4  # batches in which each of the 20 auxiliary samples comes once
    assert length == 5
    orders = [np.concatenate(second[start : start + length]) for start in range(0, 20, length)]
    assert all(np.array_equal(np.sort(order), np.arange(20)) for order in orders)
    assert not np.array_equal(orders[0], orders[1])


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 7), epoch=st.integers(0, 3), share=st.sampled_from([0.25, 0.5, 0.75]))
def test_batches_from_any_start_are_the_same(
    start: int, epoch: int, share: float, files: tuple[Reader, Reader]
) -> None:
    with supply(files, recipe(share)).train_loader(STAGE) as loader:
        whole = [list(parts) for parts in loader.batches(epoch)]
        start = min(start, len(loader) - 1)
        tail = [list(parts) for parts in loader.batches(epoch, start)]
        named = [loader.ids(epoch, number) for number in range(len(loader))]
    assert len(tail) == len(whole) - start
    for parts, same in zip(whole[start:], tail, strict=True):
        assert np.array_equal(ids_of(parts), ids_of(same))
        assert torch.equal(parts[0].images, same[0].images)
    for parts, ids in zip(whole, named, strict=True):
        assert np.array_equal(ids_of(parts), ids)


def images_of(parts: list[MicroBatch]) -> dict[int, torch.Tensor]:
    return {int(i): image for part in parts for i, image in zip(part.ids, part.images, strict=True)}


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_divide_the_batches_of_one(
    files: tuple[Reader, Reader], count: int
) -> None:
    with supply(files, recipe()).train_loader(STAGE) as loader:
        whole = steps(loader)
    shares = []
    for index in range(count):
        with supply(files, recipe(), Shard(index, count)).train_loader(STAGE) as loader:
            shares.append(steps(loader))
    for alone, *together in zip(whole, *shares, strict=True):
        images, others = images_of(alone), images_of([*chain(*together)])
        assert images.keys() == others.keys()
        assert all(torch.equal(image, others[i]) for i, image in images.items())


@pytest.mark.parametrize(("share", "rows"), [(0.5, 4), (0.75, 4), (0.25, 2), (0.75, 3), (0.5, 1)])
def test_a_batch_comes_in_micro_batches(
    files: tuple[Reader, Reader], share: float, rows: int
) -> None:
    with (
        supply(files, recipe(share)).train_loader(STAGE) as whole,
        supply(files, recipe(share, micro_batch=rows)).train_loader(STAGE) as parted,
    ):
        for one, parts in zip(steps(whole, 1), steps(parted, 1), strict=True):
            assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
            assert all(len(part.ids) <= max(rows, 2) for part in parts)
            assert set(ids_of(one)) == set(ids_of(parts))
            assert len(ids_of(parts)) == 8


def test_datasets_that_do_not_fit_together(files: tuple[Reader, Reader], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="auxiliary: got no dataset, expected one"):
        supply((files[0], None), recipe())
    with (
        open_dataset(write_set(tmp_path / "few.beton", classes=CLASSES[:2])) as few,
        pytest.raises(UserError, match=r"few.beton has the classes 1, A; expected those of"),
    ):
        supply((files[0], few), recipe())
    with pytest.raises(
        UserError, match=r"got 32, of which 24 rows are of .*other.beton, expected at most 20"
    ):
        supply(files, recipe(0.75, batch_size=32))
    with pytest.raises(
        UserError, match=r"got 8, of which 2 rows are of .*main.beton, expected a multiple of 4"
    ):
        supply(files, recipe(0.75), Shard(0, 4))
    mixed = Recipe((Stage(16, 1, 1e-3, mixing=Mixing(mixup=0.4)),), batch_size=5, auxiliary=0.5)
    with pytest.raises(UserError, match="mixing: got 3 rows"):
        supply(files, mixed)


@given(rows=st.integers(1, 99), share=st.floats(0.02, 0.98), mixes=st.booleans())
def test_rows_are_split_by_the_fraction(rows: int, share: float, mixes: bool) -> None:
    stage = replace(STAGE, mixing=Mixing(mixup=0.4 if mixes else 0))
    first, second = Recipe((stage,), batch_size=100, auxiliary=share).split_rows(rows)
    unit = 2 if mixes else 1
    assert min(first, second) >= unit
    assert first + second == max(rows, 2 * unit)
    if rows >= 2 * unit:
        possible = range(unit, rows - unit + 1, unit)
        assert second in possible
        assert abs(second - share * rows) <= min(abs(n - share * rows) for n in possible) + 1e-9


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_fraction_that_leaves_a_dataset_without_a_row(share: float) -> None:
    with pytest.raises(UserError, match="expected at least one row of each dataset"):
        recipe(share)
