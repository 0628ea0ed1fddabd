"""From the file to augmented images on a device: by the loader's kernels, by torch, from JPEGs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from beton import ops
from beton.loader import Loader
from beton.order import epoch_order
from beton.reader import Reader
from pipeline.benchmarks.device.results import JPEG, DecodingFigures
from pipeline.benchmarks.device.timing import Timer, peak_memory, reset_peak_memory, synchronize
from pipeline.benchmarks.harness import take_turns
from pipeline.loading.augment import Transforms, transform_images
from pipeline.loading.batches import Decode, DeviceLoader
from pipeline.loading.dataset import Ids, View
from pipeline.loading.ink_images import InkImages
from pipeline.recipes.presets import HANDWRITING

WINDOW = 2 / 3  # of the page's height, as part 1's recipes have it
QUALITY = 90  # of JPEGs
ENCODED = 256  # pages as JPEGs, at most


@dataclass(frozen=True)
class Pace:
    """Rounds of at least `seconds` each; a kernel is repeated `repeats` times."""

    rounds: int
    seconds: float
    repeats: int


class Method(ABC):
    """A method to make batches of augmented images of a file's pages on a device."""

    def __init__(self, name: str, file: Reader, size: int, batch_size: int, device: torch.device):
        self.name, self._file, self._device = name, file, device
        self._view = View.of(file, size, WINDOW)
        self._batch_size = min(batch_size, len(file))
        self._epoch = 0

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield the images of an epoch: float32 (b, 1, size, size), on the device."""

    @abstractmethod
    def kernels(self, timer: Timer, repeats: int) -> tuple[float, float, float]:
        """Return seconds of decoding and of augmentation, and bytes moved, all for an image."""

    def rate(self, seconds: float) -> float:
        """Make batches for at least this time, epoch after epoch; return images/s."""
        start, images = time.perf_counter(), 0
        while True:
            for batch in self.batches(self._epoch):
                images += len(batch)
                if time.perf_counter() - start >= seconds:
                    synchronize(self._device)
                    return images / (time.perf_counter() - start)
            self._epoch += 1

    @abstractmethod
    def close(self) -> None:
        """Release what the method holds."""


class InkMethod(Method):
    """Batches of `DeviceLoader`: its kernels on the host, or torch on the device, decode runs."""

    def __init__(
        self,
        name: str,
        decode: Decode,
        file: Reader,
        size: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        super().__init__(name, file, size, batch_size, device)
        self._rasterizes = decode == "device"
        self._loader = DeviceLoader(
            file,
            np.arange(len(file), dtype=np.int64),
            self._view,
            self._batch_size,
            device=device,
            decode=decode,
            augmentation=HANDWRITING,
        )

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield the images of an epoch."""
        return (batch.images for batch in self._loader.micro_batches(epoch))

    def kernels(self, timer: Timer, repeats: int) -> tuple[float, float, float]:
        """Return seconds of decoding and of augmentation, and bytes moved, all for an image."""
        images = InkImages(self._file, self._view, HANDWRITING, None, self._rasterizes)
        with Loader(self._file, self._batch_size, {"image": images.op}, threads=0) as loader:
            batch = next(loader.batches(0))
        host = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
        host |= images.arrays(batch.ids) | images.sampled(batch.ids, batch.ids, 0, 0)
        moved = {name: tensor.to(self._device) for name, tensor in host.items()}
        canvases = images.canvases(moved)
        parts = {name: moved[name] for name in Transforms._fields if name in moved}
        rows = len(batch.ids)
        return (
            timer.seconds(lambda: images.canvases(moved), repeats) / rows,
            timer.seconds(lambda: images.images(canvases, parts), repeats) / rows,
            sum(tensor.nbytes for tensor in host.values()) / rows,
        )

    def close(self) -> None:
        """Stop the loader's threads."""
        self._loader.__exit__()


class JpegMethod(Method):
    """The same pages as JPEGs of full size, decoded by torchvision: on a GPU, by nvJPEG.

    The pages are resized by torch's area filter and augmented like those of ink. All JPEGs are in
    memory. Raises RuntimeError if torchvision cannot decode JPEGs on the device.
    """

    def __init__(
        self, name: str, file: Reader, size: int, batch_size: int, device: torch.device
    ) -> None:
        super().__init__(name, file, size, batch_size, device)
        records = file.column("image").metadata
        shape = int(np.median(records["height"])), int(np.median(records["width"]))
        self._jpegs = [
            torch.frombuffer(bytearray(j), dtype=torch.uint8) for j in _jpegs(file, shape)
        ]
        self._batch_size = min(self._batch_size, len(self._jpegs))
        self._decode(self._jpegs[:1])

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield the images of an epoch."""
        order = epoch_order(len(self._jpegs), 0, epoch)
        for start in range(0, len(order), self._batch_size):
            ids = order[start : start + self._batch_size]
            transforms = HANDWRITING.sample(0, epoch, ids)
            ink = self._decode([self._jpegs[number] for number in ids])
            yield self._augment(ink, self._moved(transforms))

    def kernels(self, timer: Timer, repeats: int) -> tuple[float, float, float]:
        """Return seconds of decoding and of augmentation, and bytes moved, all for an image."""
        rows = self._batch_size
        jpegs = self._jpegs[:rows]
        transforms = HANDWRITING.sample(0, 0, np.arange(rows))
        moved, ink = self._moved(transforms), self._decode(jpegs)
        tensors = [*jpegs, *transforms.parts().values()]
        return (
            timer.seconds(lambda: self._decode(jpegs), repeats) / rows,
            timer.seconds(lambda: self._augment(ink, moved), repeats) / rows,
            sum(tensor.nbytes for tensor in tensors) / rows,
        )

    def close(self) -> None:
        """Release the JPEGs."""
        self._jpegs.clear()

    def _decode(self, jpegs: Sequence[Tensor]) -> Tensor:
        """Return the ink of pages on the view's canvas: float32 (b, 1, height, width), 0 to 1."""
        decoded: Any = decode_jpeg([*jpegs], ImageReadMode.GRAY, self._device)
        pages = torch.stack([*decoded]).to(torch.float32)
        return 1 - F.interpolate(pages, self._view.canvas, mode="area") / 255

    def _augment(self, ink: Tensor, transforms: Transforms) -> Tensor:
        return transform_images(ink, transforms, self._view.size)

    def _moved(self, transforms: Transforms) -> Transforms:
        parts = transforms.parts()
        return Transforms(**{name: part.to(self._device) for name, part in parts.items()})


def _jpegs(file: Reader, shape: tuple[int, int]) -> Iterator[bytes]:
    """Yield pages in grey as JPEG files, resized to a height and width."""
    ids: Ids = np.arange(min(len(file), ENCODED), dtype=np.int64)
    fields = {"image": ops.Resize(*shape)}
    with Loader(file, 1, fields, order="sequential", indices=ids, threads=0) as loader:
        for batch in loader:
            page = batch["image"][0][:, :, None]
            yield simplejpeg.encode_jpeg(page, quality=QUALITY, colorspace="GRAY")


def methods(
    file: Reader, size: int, batch_size: int, device: torch.device, skipped: list[str]
) -> list[Method]:
    """Return all methods that the device has; the reason for each other one goes to `skipped`."""
    found: list[Method] = [
        InkMethod("loader's kernels", "loader", file, size, batch_size, device),
        InkMethod("decode on the device", "device", file, size, batch_size, device),
    ]
    decoder = "nvJPEG" if device.type == "cuda" else "torchvision on the CPU"
    name = f"{JPEG}, {decoder}"
    try:
        found.append(JpegMethod(name, file, size, batch_size, device))
    except RuntimeError as error:  # torchvision without nvJPEG, or without libjpeg
        skipped.append(f"{name}, {size}×{size}: {str(error).partition(chr(10))[0]}")
    return found


def measure(
    file: Reader,
    size: int,
    batch_size: int,
    device: torch.device,
    pace: Pace,
    skipped: list[str],
) -> Iterator[DecodingFigures]:
    """Measure all methods at one size, in turns after a warm-up."""
    timer, found = Timer(device), methods(file, size, batch_size, device, skipped)
    try:
        costs, peaks = [], []
        for method in found:
            reset_peak_memory(device)
            method.rate(0)
            peaks.append(peak_memory(device))
            costs.append(method.kernels(timer, pace.repeats))
        tasks = {method.name: _turn(method, pace.seconds) for method in found}
        rates = take_turns(tasks, pace.rounds)
    finally:
        for method in found:
            method.close()
    reference = tuple(rates[found[0].name])
    for method, cost, peak in zip(found, costs, peaks, strict=True):
        yield DecodingFigures(
            method.name, size, tuple(rates[method.name]), reference, *cost, peak_memory=peak
        )


def _turn(method: Method, seconds: float) -> Any:
    return lambda: method.rate(seconds)
