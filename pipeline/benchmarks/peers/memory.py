"""Tensors in memory: a DataLoader, and the fastest loops that torch allows.

Pages are decoded and resized once, by Pillow's box filter: an epoch only shuffles and copies.
"""

from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from pipeline.benchmarks.peers.base import Method
from pipeline.benchmarks.throughput.request import Request


class Memory(Method):
    """All images in one tensor, uint8; it is prepared as a file and read once."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._images: Tensor | None = None

    def prepare(self) -> None:
        """Decode and resize all pages."""
        if self.request.kind == "digits":
            np.save(self._file, self.digits())
            return
        with get_context("fork").Pool(self.request.threads) as pool:
            shrink = partial(shrunk, size=self.request.size)
            np.save(self._file, np.stack(pool.map(shrink, self.request.files(), chunksize=8)))

    @property
    def images(self) -> Tensor:
        """All images: uint8 (n, h, w)."""
        if self._images is None:
            self._images = torch.from_numpy(np.load(self._file))
        return self._images

    @property
    def _file(self) -> Path:
        return self.folder / "images.npy"


def shrunk(file: Path, size: int) -> Any:
    """Decode and resize a page: uint8 (size, size)."""
    with Image.open(file) as image:
        return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BOX))


class InDataLoader(Memory):
    """A DataLoader over a TensorDataset, which fetches sample by sample, in this process."""

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        data = TensorDataset(self.images, torch.arange(len(self.images)))
        for images, ids in DataLoader(data, self.request.batch_size, shuffle=True):
            yield self.normalized(images), ids


class Indexed(Memory):
    """`images[ids]` of a random permutation, one batch at a time."""

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        for ids in torch.split(torch.randperm(len(self.images)), self.request.batch_size):
            yield self.normalized(self.images[ids]), ids


class Reused(Memory):
    """`index_select` into a buffer that all batches share, of images that are normalised before.

    It uses four times the memory of the images, and its batches must be used before the next.
    """

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self.request.mean and not self.images.is_floating_point():
            self._images = self.normalized(self.images)
        size = min(self.request.batch_size, len(self.images))
        buffer = torch.empty((size, *self.images.shape[1:]), dtype=self.images.dtype)
        for ids in torch.split(torch.randperm(len(self.images)), size):
            yield torch.index_select(self.images, 0, ids, out=buffer[: len(ids)]), ids


class ReusedBytes(Memory):
    """`index_select` of uint8 into a buffer, and its conversion into another."""

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        size, shape = min(self.request.batch_size, len(self.images)), self.images.shape[1:]
        pixels, buffer = torch.empty((size, *shape), dtype=torch.uint8), torch.empty(size, *shape)
        mean, std = self.request.mean[0], self.request.std[0]
        for ids in torch.split(torch.randperm(len(self.images)), size):
            rows = buffer[: len(ids)]
            rows.copy_(torch.index_select(self.images, 0, ids, out=pixels[: len(ids)]))
            yield rows.sub_(mean).mul_(1 / std), ids


class InTensorDict(Memory):
    """A TensorDict in memory-mapped files, indexed by a random permutation."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._data: Any = None

    def prepare(self) -> None:
        """Decode and resize all pages, and write the memory-mapped files."""
        from tensordict import TensorDict

        super().prepare()
        count = len(self.images)
        parts = {"image": self.images, "id": torch.arange(count)}
        TensorDict(parts, batch_size=[count]).memmap(str(self.folder / "mapped"))
        self._file.unlink()

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._data is None:
            from tensordict import TensorDict

            self._data = TensorDict.load_memmap(str(self.folder / "mapped"))
        for ids in torch.split(torch.randperm(len(self._data)), self.request.batch_size):
            batch = self._data[ids]
            yield self.normalized(batch["image"]), batch["id"]


METHODS = {
    "DataLoader over tensors": InDataLoader,
    "tensor[ids]": Indexed,
    "index_select, reused buffer": Reused,
    "index_select of uint8, reused buffers": ReusedBytes,
    "tensordict, mapped": InTensorDict,
}
