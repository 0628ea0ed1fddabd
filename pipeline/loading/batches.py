"""What stands between a loader and a network: batches of a file → ink on a device.

Pages become canvases (the whole page, area-averaged) either by the loader's kernels or on the
device, from runs; the network's square is then cut around the ink. Ink is the distance from the
page's background, so black on white and white on black look the same.
"""

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from beton import ops
from beton.loader import Batch, Loader
from beton.order import Shard, batch_ids, epoch_order
from beton.reader import Reader
from pipeline.loading.augment import Augmentation, Transforms, transform_images
from pipeline.loading.dataset import Floats, Ids, View
from pipeline.loading.rasterize import rasterize

Decode = Literal["auto", "loader", "device"]


class Inputs(NamedTuple):
    """A batch on the device, or a part of one, of b rows; `last` says that it is the last part.

    `pictures` are ink, float32 (b, 1, height, width); `labels` int64 (b,), `valid` bool (b,);
    `ids` int64 (b,) are the samples' numbers in the file, on the host.
    """

    images: Tensor
    labels: Tensor
    valid: Tensor
    ids: Ids
    last: bool


class DeviceLoader:
    """Batches of the samples `indices` of a file as a network's inputs.

    In training (`augmentation` given) they are shuffled, changed, and the samples that do not fill
    a last batch sit the epoch out; otherwise each comes once, in order, and the last batch is
    padded. A batch comes in parts of at most `rows` rows, so that no more is in memory at a time.
    `scales` float32 (samples of the file,) are how much larger each page is shown. `decode` says
    who makes canvases of runs: "auto" leaves it to a GPU, where there is one.
    `seconds_waited` adds up what the loader let us wait for. Close it, or use `with`.

    Raises ValueError for no samples, and for fewer samples to train on than a batch.
    """

    def __init__(
        self,
        file: Reader,
        indices: Ids,
        view: View,
        batch_size: int,
        *,
        device: torch.device,
        rows: int | None = None,
        scales: Floats | None = None,
        decode: Decode = "auto",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        shard: Shard | None = None,
    ) -> None:
        self.device = device
        self._view, self._rows, self._scales = view, rows, scales
        self._indices, self._batch_size = indices, batch_size
        on_gpu = device.type == "cuda"
        self._on_device = decode == "device" or (decode == "auto" and on_gpu)
        self._augmentation, self._seed = augmentation, seed
        self._backgrounds = file.column("image").metadata["background"]
        self._loader = Loader(
            file,
            batch_size,
            {
                "image": ops.Runs() if self._on_device else ops.Resize(*view.canvas),
                "label": ops.Scalar(),
            },
            order="sequential" if augmentation is None else "shuffled",
            drop_last=augmentation is not None,
            seed=seed,
            indices=indices,
            shard=shard,
            # On a CPU the cores have a network to compute, and one thread keeps it supplied.
            threads=torch.get_num_threads() if on_gpu else 1,
            allocate=_pinned if on_gpu else np.empty,
        )
        self._copying = _stream(device) if on_gpu else None
        self.seconds_waited = 0.0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._loader)

    def __enter__(self) -> "DeviceLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the loader's threads."""
        self._loader.close()

    def batches(self, epoch: int = 0) -> Iterator[Inputs]:
        """Yield the batches of an epoch, part by part."""
        return chain.from_iterable(self.steps(epoch))

    def steps(self, epoch: int, start: int = 0) -> Iterator[Iterator[Inputs]]:
        """Yield the batches of an epoch, from number `start` on, each as its parts."""
        batches = self._loader.batches(epoch, start)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - before
            if batch is None:
                return
            yield self._inputs(batch, epoch)

    def ids(self, epoch: int, number: int) -> Ids:
        """Return the samples of a batch in training, those of all processes."""
        order = self._indices[epoch_order(len(self._indices), self._seed, epoch)]
        return batch_ids(order, number, self._batch_size, Shard())

    def _inputs(self, batch: Batch, epoch: int) -> Iterator[Inputs]:
        host = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
        host["background"] = torch.from_numpy(self._backgrounds[batch.ids])
        host["valid"] = torch.from_numpy(batch.valid)
        if self._augmentation is None:
            changes = Transforms.none(len(batch.ids))
        else:
            changes = self._augmentation.draw(self._seed, epoch, batch.ids)
        if self._scales is not None:
            maps = changes.maps.clone()
            maps[:, :, :2] /= torch.from_numpy(self._scales[batch.ids])[:, None, None]
            changes = changes._replace(maps=maps)
        there = self._move(host | changes.parts())
        changes = Transforms(**{name: there[name] for name in changes.parts()})
        canvases = there["image"]
        if self._on_device:
            canvases = rasterize(
                canvases,
                there["image.offsets"],
                there["background"],
                there["image.geometry"],
                *self._view.canvas,
            )[:, 0]
        count = len(batch.ids)
        for start in range(0, count, self._rows or count):
            rows = slice(start, min(start + (self._rows or count), count))
            background = there["background"][rows].float().view(-1, 1, 1, 1)
            ink = canvases[rows, None].float().sub_(background).abs_().div_(255)
            if not self._view.whole:
                ink = transform_images(ink, changes.of(rows), self._view.size)
            labels, valid = there["label"][rows], there["valid"][rows]
            yield Inputs(ink, labels, valid, batch.ids[rows], rows.stop == count)

    def _move(self, host: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy to the device; when this returns, the loader may write to the memory again.

        A GPU copies on a stream of its own, so that nobody waits for what is computed meanwhile.
        """
        if self._copying is None:
            return {name: tensor.to(self.device) for name, tensor in host.items()}
        with torch.cuda.stream(self._copying):
            there = {n: tensor.to(self.device, non_blocking=True) for n, tensor in host.items()}
        self._copying.synchronize()
        for tensor in there.values():
            tensor.record_stream(torch.cuda.current_stream(self.device))
        return there


def _stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _pinned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Allocate memory that a GPU can read while the CPU goes on."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = torch.empty(max(size, 1), dtype=torch.uint8, pin_memory=True)
    return buffer.numpy()[:size].view(dtype).reshape(shape)
