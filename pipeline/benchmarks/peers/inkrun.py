"""The loader of this project: from ink or raw pixels, in threads or not, as numpy or torch.

Nothing but `beton` is imported for numpy arrays, so that the time to a first batch is that of a
program which needs no more.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from beton.fields import Field, InkField, IntField, RGBImageField
from beton.loader import Loader
from beton.ops import (
    Normalize,
    Op,
    Pixels,
    RandomResizedCrop,
    Resize,
    RgbNormalize,
    RgbResize,
    Runs,
    Scalar,
)
from beton.writer import write
from pipeline.benchmarks.peers.base import Method
from pipeline.benchmarks.throughput.request import Request


class Inkrun(Method):
    """Batches of a .beton file, made by `threads` threads; 0: in the caller's thread.

    `mode` is that of the field: "ink" or "raw" for grey images, "jpg" for photos.
    """

    def __init__(self, request: Request, mode: str, threads: int | None = None) -> None:
        super().__init__(request)
        self._mode = mode
        self._threads = request.threads if threads is None else threads
        self._loader: Loader | None = None

    def prepare(self) -> None:
        """Write the file: processes decode the images, this one encodes and writes."""
        field: Field = InkField("raw") if self._mode == "raw" else InkField()
        if self._mode == "jpg":
            field = RGBImageField("jpg")
        fields = {"image": field, "label": IntField()}
        with get_context("fork").Pool(self.request.threads) as pool:
            images: Iterable[Any]
            if self.request.kind == "digits":
                images = self.digits()
            elif self._mode == "jpg":
                images = (file.read_bytes() for file in self.request.files())
            else:
                images = pool.imap(decode, self.request.files(), chunksize=8)
            write(self._file, fields, ((image, n) for n, image in enumerate(images)))

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._loader is None:
            fields = {"image": self.op(), "label": Scalar()}
            self._loader = Loader(
                self._file, self.request.batch_size, fields, threads=self._threads
            )
        for batch in self._loader:
            if batch.valid[-1]:
                yield self.images(batch), batch["label"]
            else:
                yield self.images(batch)[: batch.valid.sum()], batch["label"][batch.valid]

    def op(self) -> Op:
        """Return the op that makes the images."""
        size, mean, std = self.request.size, self.request.mean, self.request.std
        if self.request.kind == "digits":
            return Pixels(Normalize(mean[0], std[0]))
        if self.request.kind == "pages":
            return Resize(size, size)
        crop = RandomResizedCrop() if self.request.crop else None
        normalize = RgbNormalize(tuple(mean), tuple(std)) if mean else None  # type: ignore[arg-type]
        return RgbResize(size, size, crop, normalize, "NCHW")

    def images(self, batch: Any) -> Any:
        """Return the images of a batch."""
        return batch["image"]

    @property
    def _file(self) -> Path:
        return self.folder / "images.beton"


class Tensors(Inkrun):
    """The same as torch tensors, which share their memory with the batch."""

    def images(self, batch: Any) -> Any:
        """Return the images of a batch: a tensor."""
        import torch

        return torch.from_numpy(batch["image"])


class Rasterized(Inkrun):
    """Runs, which torch makes images of on its device: a GPU, or the CPU where there is none."""

    def op(self) -> Op:
        """Return the op that passes runs on."""
        return Runs()

    def images(self, batch: Any) -> Any:
        """Return the images of a batch: float32 (b, 1, size, size), on the device."""
        import torch

        from pipeline.loading.rasterize import rasterize

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        names = ("image", "image.offsets", "image.background", "image.geometry")
        moved = [torch.from_numpy(batch[name]).to(device) for name in names]
        runs, offsets, background, geometry = moved
        size = self.request.size
        return rasterize(runs, offsets, background, geometry, size, size)


def decode(file: Path) -> Any:
    """Decode a file: uint8 (h, w)."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


METHODS = {
    "ink, all threads": partial(Inkrun, mode="ink"),
    "ink, 1 thread": partial(Inkrun, mode="ink", threads=0),
    "ink, torch tensors": partial(Tensors, mode="ink"),
    "ink, decoded by torch": partial(Rasterized, mode="ink"),
    "raw, all threads": partial(Inkrun, mode="raw"),
    "raw, 1 thread": partial(Inkrun, mode="raw", threads=0),
    "raw pages, all threads": partial(Inkrun, mode="raw"),
    "raw, torch tensors": partial(Tensors, mode="raw"),
    "jpg, all threads": partial(Inkrun, mode="jpg"),
}
