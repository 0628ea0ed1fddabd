"""Batches of a .beton file as images on a device.

A file has images of ink (`pipeline.loading.ink_images`) or in colour (`colour_images`). Both become
canvases; from there on the steps are the same: micro-batches, augmentation, normalisation.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, count, zip_longest
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from beton import ops
from beton.loader import Batch, Loader
from beton.order import Shard, batch_ids, count_batches
from beton.reader import Reader
from pipeline.loading.augment import Augmentation
from pipeline.loading.colour_images import ColourImages
from pipeline.loading.dataset import Floats, Ids, View
from pipeline.loading.image_augment import UNCHANGED, ImageAugmentation, augment_images
from pipeline.loading.ink_images import InkImages
from pipeline.loading.sampling import Sampler

Decode = Literal["auto", "loader", "device"]
Order = Literal["shuffled", "sequential"]


class MicroBatch(NamedTuple):
    """A batch, or b consecutive rows of a batch, on the device.

    `images` are float32 (b, channels, height, width): ink or colours in [0, 1], unless the view
    normalises them. `labels` are int64 (b,). `valid`, bool (b,), is false for padding. `ids`, int64
    (b,) on the host, are sample numbers in the file. `last` marks the last micro-batch of a batch.
    """

    images: Tensor
    labels: Tensor
    valid: Tensor
    ids: Ids
    last: bool


def display_images(images: Tensor, view: View) -> Floats:
    """Return images as plots show them, without normalisation, from 0 to 1.

    The result is float32 (n, height, width, 3) in colour; of ink, (n, height, width), where 0 is
    paper. Values that no image file can have, such as those of strong augmentations, are clipped.
    """
    shown = images.detach().float().cpu()
    if view.normalize is not None:
        mean, std = (
            torch.tensor(part).view(-1, 1, 1) for part in (view.normalize.mean, view.normalize.std)
        )
        shown = shown * std + mean
    shown = shown.clamp(0, 1)
    values: Floats = (shown.permute(0, 2, 3, 1) if view.channels == 3 else shown[:, 0]).numpy()
    return values


class Canvases(NamedTuple):
    """A batch on the device before its augmentation.

    `canvases` are uint8 or float32 (b, channels, height, width), 0 to 255, `labels` int64 (b,), and
    `valid` bool (b,). `sampled` has what the images of these canvases need, in tensors of b rows.
    `keys`, int64 (b,) on the host, are those of random numbers (`pipeline.loading.sampling`).
    """

    canvases: Tensor
    labels: Tensor
    valid: Tensor
    sampled: Mapping[str, Tensor]
    keys: Ids


class DeviceLoader:
    """Batches of the samples `indices` of a file, as images on a device.

    With an `augmentation`, samples are shuffled and augmented, and an incomplete last batch is
    dropped. Without, each sample comes once, in order, and the last batch is padded; no batch is
    larger than the samples need.
    `augmentation` moves the ink of handwriting; `image_augmentation` follows it, on images of any
    kind. With `balanced`, a training epoch has equally many samples of each class. A batch comes
    in micro-batches of at most `micro_batch` rows, to limit memory. `scales`, float32 (samples of
    the file,), magnify each page. `decode` places the step from runs to canvases: "auto" chooses
    the device if it is a GPU, else the loader. `seconds_waited` is the time spent waiting for the
    loader. `with` stops the loader's threads at its end.

    Raises ValueError for no samples, for fewer training samples than a batch, and for what training
    alone uses without an `augmentation`; UserError for an `image_augmentation` that does not suit
    the images.
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
        image_augmentation: ImageAugmentation | None = None,
        balanced: bool = False,
        seed: int = 0,
        shard: Shard | None = None,
    ) -> None:
        self._training = augmentation is not None
        if not self._training and (balanced or image_augmentation is not None):
            raise ValueError("augmentation: got None, expected one: other options are of training")
        image_augmentation = image_augmentation or ImageAugmentation()
        image_augmentation.check(view.input_shape)
        self.device, self.seconds_waited = device, 0.0
        self._file, self._view, self._micro_batch = file, view, micro_batch
        self._seed, self._shard = seed, shard or Shard()
        if not self._training:  # a batch of padding alone would be computed for nothing
            count = self._shard.count
            batch_size = min(batch_size, -(-len(indices) // count) * count)
        self._batch_size = batch_size
        self._balanced = balanced
        labels = np.asarray(file.column("label").metadata) if balanced else None
        self._sampler = Sampler(indices, len(file), seed, self._training, labels)
        self._images: InkImages | ColourImages
        if view.channels == 3:
            self._images = ColourImages(file, view, image_augmentation)
            if self._images.crops:
                image_augmentation = replace(image_augmentation, crop_scale=None)
        else:
            rasterizes = decode == "device" or (decode == "auto" and device.type == "cuda")
            self._images = InkImages(file, view, augmentation, scales, rasterizes)
        self._image_augmentation = image_augmentation
        self._copy_stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copy_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._start()

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return count_batches(len(self._sampler), self._batch_size, drop_last=self._training)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._loader.close()

    def micro_batches(self, epoch: int = 0) -> Iterator[MicroBatch]:
        """Yield the micro-batches of all batches of an epoch."""
        return chain.from_iterable(self.batches(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Iterator[MicroBatch]]:
        """Yield the batches of an epoch from number `start` on, each as its micro-batches."""
        for batch in self._canvases(epoch, start):
            yield self._split(batch, epoch)

    def canvases(self, epoch: int = 0) -> Iterator[Canvases]:
        """Yield the batches of an epoch before their augmentation."""
        return self._canvases(epoch, 0)

    def ids(self, epoch: int, number: int) -> Ids:
        """Return the sample numbers of a training batch, over all processes: int64 (n,)."""
        keys = batch_ids(self._sampler.order(epoch), number, self._batch_size, Shard())
        return self._sampler.ids(keys)

    def _start(self) -> None:
        """Open what `_canvases` reads from."""
        order: Order = "shuffled" if self._training else "sequential"
        self._loader = self._open(
            self._sampler.indices, self._batch_size, order, self._training, self._shard
        )

    def _open(
        self, indices: Ids, batch_size: int, order: Order, drop_last: bool, shard: Shard
    ) -> Loader:
        on_gpu = self.device.type == "cuda"
        return Loader(
            self._file,
            batch_size,
            {"image": self._images.op, "label": ops.Scalar()},
            order=order,
            drop_last=drop_last,
            seed=self._seed,
            indices=indices,
            shard=shard,
            # On a CPU the network needs the cores, and one thread loads fast enough.
            threads=torch.get_num_threads() if on_gpu else 1,
            allocate=_pinned if on_gpu else np.empty,
        )

    def _canvases(self, epoch: int, start: int) -> Iterator[Canvases]:
        """Yield the batches of an epoch from number `start` on."""
        keys = None
        if self._balanced:  # the samples of each epoch are others
            keys = self._sampler.order(epoch)
            self._loader.close()
            ids = self._sampler.ids(keys)
            self._loader = self._open(ids, self._batch_size, "sequential", True, self._shard)
        batches = self._loader.batches(epoch, start)
        for number in count(start):
            before = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - before
            if batch is None:
                return
            if keys is None:
                yield self._on_device(batch, batch.ids, epoch)
            else:
                own = batch_ids(keys, number, self._batch_size, self._shard)
                yield self._on_device(batch, own, epoch)

    def _on_device(self, batch: Batch, keys: Ids, epoch: int) -> Canvases:
        host = {name: torch.from_numpy(a) for name, a in batch.arrays.items()}
        host |= self._images.arrays(batch.ids) | {"valid": torch.from_numpy(batch.valid)}
        sampled = self._images.sampled(batch.ids, keys, self._seed, epoch)
        moved = self._move(host | sampled)
        sampled = {name: moved[name] for name in sampled}
        canvases = self._images.canvases(moved)
        return Canvases(canvases, moved["label"], moved["valid"], sampled, keys)

    def _split(self, batch: Canvases, epoch: int) -> Iterator[MicroBatch]:
        ids, size = self._sampler.ids(batch.keys), self._view.shape
        parameters = UNCHANGED
        if self._image_augmentation:
            parameters = self._image_augmentation.sample(self._seed, epoch, batch.keys, size)
        total = len(ids)
        step = self._micro_batch or total
        for start in range(0, total, step):
            rows = slice(start, min(start + step, total))
            sampled = {name: part[rows] for name, part in batch.sampled.items()}
            images = self._images.images(batch.canvases[rows], sampled)
            images = augment_images(images, parameters.select(rows), self._view.normalize)
            labels, valid = batch.labels[rows], batch.valid[rows]
            yield MicroBatch(images, labels, valid, ids[rows], rows.stop == total)

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
