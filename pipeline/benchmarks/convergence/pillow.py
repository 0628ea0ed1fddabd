"""The loader to compare with: a DataLoader whose workers decode PNG files with Pillow."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from beton.loader import Batch
from beton.order import batch_ids
from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.batches import Canvases, DeviceLoader


def page_file(folder: Path, number: int) -> Path:
    """Return the PNG file of a sample, given its number."""
    return folder / f"{number:06}.png"


class PillowPages(Dataset[tuple[Tensor, int]]):
    """Canvases of PNG files, uint8 (height, width), and their sample numbers, decoded by Pillow.

    They are resized to `canvas`, (height, width). A box filter averages areas, as our loader does,
    except at pixels that straddle an edge.
    """

    def __init__(self, folder: Path, canvas: tuple[int, int]) -> None:
        self._folder, self._canvas = folder, canvas

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        height, width = self._canvas
        with Image.open(page_file(self._folder, number)) as image:
            page = image.convert("L").resize((width, height), Image.Resampling.BOX)
        return torch.from_numpy(np.array(page)), number


class _Order:
    """The sample numbers of each batch of the next epoch, for a DataLoader."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class PillowLoader(DeviceLoader):
    """A `DeviceLoader` of training batches whose canvases come from PNG files.

    The samples of a batch are those of our loader, in its order, and so are augmentations. The
    files of `.../NAME.beton` are in `pages`/NAME. Raises UserError unless all pages have one size.
    """

    def __init__(self, pages: Path, workers: int, file: Reader, *values: Any, **options: Any):
        records = file.column("image").metadata
        sizes = np.unique(np.stack([records["height"], records["width"]], axis=1), axis=0)
        if len(sizes) > 1:
            raise UserError(f"{file.path}: got pages of {len(sizes)} sizes, expected one")
        self._folder, self._workers = pages / file.path.stem, workers
        super().__init__(file, *values, **options | {"decode": "loader"})

    def __exit__(self, *exception: object) -> None:
        """End the workers."""
        del self._data

    def _start(self) -> None:
        """Make the DataLoader; its workers start with the first batch and serve all epochs."""
        self._epoch = _Order()
        self._all_labels = np.asarray(self._file.column("label").metadata)
        self._data: DataLoader[tuple[Tensor, int]] = DataLoader(
            PillowPages(self._folder, self._view.canvas),
            batch_sampler=self._epoch,
            num_workers=self._workers,
            persistent_workers=True,  # starting them again for every epoch would take time
        )

    def _canvases(self, epoch: int, start: int) -> Iterator[Canvases]:
        """Yield the batches of an epoch from number `start` on."""
        order = self._sampler.order(epoch)
        numbers = range(start, len(self))
        keys = [batch_ids(order, n, self._batch_size, self._shard) for n in numbers]
        self._epoch.batches = [self._sampler.ids(own).tolist() for own in keys]
        before = time.perf_counter()
        batches = iter(self._data)
        for own in keys:
            canvases, ids = next(batches)
            self.seconds_waited += time.perf_counter() - before
            arrays = {"image": canvases.numpy(), "label": self._all_labels[ids].astype(np.int64)}
            yield self._on_device(Batch(arrays, ids.numpy(), np.ones(len(ids), bool)), own, epoch)
            before = time.perf_counter()
