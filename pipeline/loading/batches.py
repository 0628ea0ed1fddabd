"""Batches of a .beton file as images of ink on a device.

Each page becomes a canvas (the whole page, area-averaged), either in the loader's kernels or on the
device, from runs. The network's square is then cropped around the ink. Ink is the distance from the
page's paper, so black on white and white on black give equal images. Paper is also what surrounds a
page: beside a letterboxed page, and beyond the canvas.
"""

import time
from collections.abc import Iterator
from itertools import chain, count, zip_longest
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from beton import ops
from beton.codec.kernels import WINDOW_HEIGHT, WINDOW_WIDTH
from beton.loader import Batch, Loader
from beton.order import Shard, batch_ids, epoch_order
from beton.reader import Reader
from beton.transforms import coverage, full_geometry
from pipeline.loading.augment import Augmentation, Transforms, transform_images
from pipeline.loading.dataset import Floats, Ids, View, paper_greys
from pipeline.loading.rasterize import rasterize

Decode = Literal["auto", "loader", "device"]


class MicroBatch(NamedTuple):
    """A batch, or b consecutive rows of a batch, on the device.

    `images` are ink in [0, 1], float32 (b, 1, height, width). `labels` are int64 (b,). `valid`,
    bool (b,), is false for padding. `ids`, int64 (b,) on the host, are sample numbers in the file.
    `last` marks the last micro-batch of a batch.
    """

    images: Tensor
    labels: Tensor
    valid: Tensor
    ids: Ids
    last: bool


class DeviceLoader:
    """Batches of the samples `indices` of a file, as images on a device.

    With an `augmentation`, samples are shuffled and augmented, and an incomplete last batch is
    dropped. Without, each sample comes once, in order, and the last batch is padded. A batch comes
    in micro-batches of at most `micro_batch` rows, to limit memory. `scales`, float32 (samples of
    the file,), magnify each page. `decode` places the step from runs to canvases: "auto" chooses
    the device if it is a GPU, else the loader. `seconds_waited` is the time spent waiting for the
    loader. `with` stops the loader's threads at its end.

    Raises ValueError for no samples, and for fewer training samples than a batch.
    """

    def __init__(
        self,
        file: Reader,
        indices: Ids,
        view: View,
        batch_size: int,
        *,
        device: torch.device,
        micro_batch: int | None = None,
        scales: Floats | None = None,
        decode: Decode = "auto",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        shard: Shard | None = None,
    ) -> None:
        self.device = device
        self._view, self._micro_batch, self._scales = view, micro_batch, scales
        self._indices, self._batch_size = indices, batch_size
        on_gpu = device.type == "cuda"
        self._on_device = decode == "device" or (decode == "auto" and on_gpu)
        self._augmentation, self._seed = augmentation, seed
        records = file.column("image").metadata
        self._backgrounds, self._papers = records["background"], paper_greys(file)
        self._sizes = np.stack([records["height"], records["width"]], axis=1).astype(np.int64)
        self._refills = view.fit == "letterbox" and self._any_refill()
        self._loader = Loader(
            file,
            batch_size,
            {
                "image": (
                    ops.Runs(proportion=view.proportion)
                    if self._on_device
                    else ops.Resize(*view.canvas, proportion=view.proportion)
                ),
                "label": ops.Scalar(),
            },
            order="sequential" if augmentation is None else "shuffled",
            drop_last=augmentation is not None,
            seed=seed,
            indices=indices,
            shard=shard,
            # On a CPU the network needs the cores, and one thread loads fast enough.
            threads=torch.get_num_threads() if on_gpu else 1,
            allocate=_pinned if on_gpu else np.empty,
        )
        self._copy_stream: torch.cuda.Stream | None = None
        if on_gpu:
            self._copy_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.seconds_waited = 0.0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._loader)

    def __enter__(self) -> "DeviceLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._loader.close()

    def micro_batches(self, epoch: int = 0) -> Iterator[MicroBatch]:
        """Yield the micro-batches of all batches of an epoch."""
        return chain.from_iterable(self.batches(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Iterator[MicroBatch]]:
        """Yield the batches of an epoch from number `start` on, each as its micro-batches."""
        batches = self._loader.batches(epoch, start)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - before
            if batch is None:
                return
            yield self._split(batch, epoch)

    def ids(self, epoch: int, number: int) -> Ids:
        """Return the sample numbers of a training batch, over all processes: int64 (n,)."""
        order = self._indices[epoch_order(len(self._indices), self._seed, epoch)]
        return batch_ids(order, number, self._batch_size, Shard())

    def _split(self, batch: Batch, epoch: int) -> Iterator[MicroBatch]:
        of_batch: dict[str, NDArray[Any]] = {
            "background": self._backgrounds[batch.ids],
            "paper": self._papers[batch.ids],
            "valid": batch.valid,
        }
        if self._refills:
            of_batch["refill"] = self._refill(batch.ids)
        host = {name: torch.from_numpy(a) for name, a in {**batch.arrays, **of_batch}.items()}
        if self._augmentation is None:
            transforms = Transforms.identity(len(batch.ids))
        else:
            transforms = self._augmentation.sample(self._seed, epoch, batch.ids)
        if self._scales is not None:
            affine = transforms.affine.clone()
            affine[:, :, :2] /= torch.from_numpy(self._scales[batch.ids])[:, None, None]
            transforms = transforms._replace(affine=affine)
        moved = self._move(host | transforms.parts())
        transforms = Transforms(**{name: moved[name] for name in transforms.parts()})
        canvases, papers = moved["image"], moved["paper"]
        if self._on_device:
            offsets, geometry = moved["image.offsets"], moved["image.geometry"]
            backgrounds, canvas = moved["background"], self._view.canvas
            canvases = rasterize(canvases, offsets, backgrounds, geometry, *canvas)[:, 0]
        total = len(batch.ids)
        step = self._micro_batch or total
        for start in range(0, total, step):
            rows = slice(start, min(start + step, total))
            ink = canvases[rows, None].float()
            if self._refills:
                ink += moved["refill"][rows, None]
            ink.sub_(papers[rows].float().view(-1, 1, 1, 1)).abs_().div_(255)
            if not self._view.whole:
                ink = transform_images(ink, transforms.select(rows), self._view.size)
            labels, valid = moved["label"][rows], moved["valid"][rows]
            yield MicroBatch(ink, labels, valid, batch.ids[rows], rows.stop == total)

    def _any_refill(self) -> bool:
        """Return whether a page is letterboxed with a stored background that is not its paper."""
        others = self._sizes[self._papers != self._backgrounds]
        windows = full_geometry(others, self._view.proportion)
        return bool((windows[:, [WINDOW_HEIGHT, WINDOW_WIDTH]] != others).any())

    def _refill(self, ids: Ids) -> Floats:
        """Return what to add to canvases to replace background by paper outside of the pages.

        Area averaging is linear: the background's part of a pixel is what its page does not cover.
        The result is float32 (b, height, width), and 0 where the background is the paper.
        """
        sizes = self._sizes[ids]
        covered = coverage(sizes, full_geometry(sizes, self._view.proportion), *self._view.canvas)
        difference = self._papers[ids].astype(np.float64) - self._backgrounds[ids]
        refill: Floats = (difference[:, None, None] * (1 - covered)).astype(np.float32)
        return refill

    def _move(self, host: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors to the device; afterwards the loader may reuse the host memory.

        A GPU copies on a stream of its own, so that the copy does not wait for computations.
        """
        if self._copy_stream is None:
            return {name: tensor.to(self.device) for name, tensor in host.items()}
        with torch.cuda.stream(self._copy_stream):
            moved = {n: tensor.to(self.device, non_blocking=True) for n, tensor in host.items()}
        self._copy_stream.synchronize()
        for tensor in moved.values():
            tensor.record_stream(torch.cuda.current_stream(self.device))
        return moved


class CombinedLoader:
    """A loader of batches that hold rows of `main`, then rows of `auxiliary`.

    An epoch is an epoch of `main`. `auxiliary` gives one batch a step, epoch after epoch of its
    own, so which rows share a batch depends on the step alone, on any number of processes. Sample
    numbers of `auxiliary` are shifted by `main_samples`, the number of samples in the file of
    `main`. `with` stops both loaders at its end.
    """

    def __init__(self, main: DeviceLoader, auxiliary: DeviceLoader, main_samples: int) -> None:
        self._main, self._auxiliary, self._main_samples = main, auxiliary, main_samples
        self.device = main.device

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._main)

    def __enter__(self) -> "CombinedLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._main.__exit__(*exception)
        self._auxiliary.__exit__(*exception)

    @property
    def seconds_waited(self) -> float:
        """The seconds spent waiting for both loaders."""
        return self._main.seconds_waited + self._auxiliary.seconds_waited

    def batches(self, epoch: int, start: int = 0) -> Iterator[Iterator[MicroBatch]]:
        """Yield the batches of an epoch from number `start` on, each as its micro-batches."""
        first, skipped = divmod(epoch * len(self) + start, len(self._auxiliary))
        auxiliary = chain(
            self._auxiliary.batches(first, skipped),
            chain.from_iterable(map(self._auxiliary.batches, count(first + 1))),
        )
        for main in self._main.batches(epoch, start):
            yield self._concatenate(main, next(auxiliary))

    def ids(self, epoch: int, number: int) -> Ids:
        """Return the sample numbers of a training batch, over all processes: int64 (n,)."""
        step = epoch * len(self) + number
        auxiliary = self._auxiliary.ids(*divmod(step, len(self._auxiliary)))
        return np.concatenate([self._main.ids(epoch, number), auxiliary + self._main_samples])

    def _concatenate(
        self, main: Iterator[MicroBatch], auxiliary: Iterator[MicroBatch]
    ) -> Iterator[MicroBatch]:
        shifted = (part._replace(ids=part.ids + self._main_samples) for part in auxiliary)
        for pair in zip_longest(main, shifted):
            parts = [part for part in pair if part is not None]
            *tensors, ids, last = zip(*parts, strict=True)
            images, labels, valid = map(torch.cat, tensors)
            yield MicroBatch(images, labels, valid, np.concatenate(ids), all(last))


def _pinned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Allocate page-locked memory, which a GPU can copy asynchronously."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = torch.empty(max(size, 1), dtype=torch.uint8, pin_memory=True)
    return buffer.numpy()[:size].view(dtype).reshape(shape)
