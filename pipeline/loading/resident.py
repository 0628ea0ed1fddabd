"""Batches of a dataset whose images are all on the device, for datasets of small images.

The images are read once. From then on, no batch waits for a file, a thread or a copy. Memory is
the price: a byte per channel and pixel of the canvases.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from beton.order import Shard, batch_ids
from pipeline.errors import UserError
from pipeline.loading.batches import Canvases, DeviceLoader
from pipeline.loading.colour_images import ColourImages
from pipeline.loading.dataset import eval_batch_size
from pipeline.runtime.hardware import free_memory

FRACTION = 0.5  # of the free memory that images may take; the network needs the rest


class ResidentLoader(DeviceLoader):
    """A `DeviceLoader` that reads all samples once, when it is made, and keeps them on the device.

    Its batches equal those of a `DeviceLoader` whose loader decodes, bit for bit. Canvases are kept
    in whole grey levels, which others have after a decode on the device, or where a letterboxed
    page's paper is not its stored background. Raises UserError if the canvases take more than half
    of the device's free memory, and for random resized crops of images that are not of the canvas'
    size: these are cut out of the stored images.
    """

    def __exit__(self, *exception: object) -> None:
        """Do nothing: no thread is left."""

    def _start(self) -> None:
        """Read all canvases and labels."""
        if isinstance(self._images, ColourImages) and self._images.crops:
            height, width = self._view.canvas
            raise UserError(
                f"resident: got crop_scale with images of other sizes than {width} × {height} "
                "pixels, expected images of this size: crops are cut out of the stored images"
            )
        indices = np.unique(self._sampler.indices)
        shape = (len(indices), self._view.channels, *self._view.canvas)
        self._check_memory(math.prod(shape))
        self._positions = np.zeros(len(self._file), np.int64)  # of a sample among the canvases
        self._positions[indices] = np.arange(len(indices))
        self._all = torch.empty(shape, dtype=torch.uint8, device=self.device)
        if self._view.channels > 1:
            self._all = self._all.contiguous(memory_format=torch.channels_last)
        labels = np.asarray(self._file.column("label").metadata)[indices]
        self._labels = torch.from_numpy(labels.astype(np.int64)).to(self.device)
        rows, first = min(eval_batch_size(self._view), len(indices)), 0
        with self._open(indices, rows, "sequential", False, Shard()) as loader:
            for batch in loader:
                count = int(batch.valid.sum())
                canvases = self._on_device(batch, batch.ids, 0).canvases[:count]
                if canvases.is_floating_point():
                    canvases = canvases.round()
                self._all[first : first + count] = canvases
                first += count

    def _check_memory(self, needed: int) -> None:
        limit = int(FRACTION * free_memory(self.device))
        if self.device.type == "cpu":
            limit //= self._shard.count  # every process keeps all images, in the same memory
        if needed > limit:
            raise UserError(
                f"resident: got images of {needed / 2**20:,.0f} MiB, expected at most "
                f"{limit / 2**20:,.0f} MiB, half of the free memory of {self.device} over its "
                "processes"
            )

    def _canvases(self, epoch: int, start: int) -> Iterator[Canvases]:
        """Yield the batches of an epoch from number `start` on."""
        order = self._sampler.order(epoch)
        for number in range(start, len(self)):
            keys = batch_ids(order, number, self._batch_size, self._shard)
            ids = self._sampler.ids(keys)
            sampled = self._images.sampled(ids, keys, self._seed, epoch)
            host = {"position": self._positions[ids], "valid": keys >= 0}
            moved = self._move({n: torch.from_numpy(a) for n, a in host.items()} | sampled)
            rows = moved["position"]
            yield Canvases(
                self._all[rows],  # unlike index_select, it leaves channels last
                self._labels[rows],
                moved["valid"],
                {name: moved[name] for name in sampled},
                keys,
            )
