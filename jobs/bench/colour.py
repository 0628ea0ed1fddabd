"""Loading speed of colour photos: inkrun against Pillow in a DataLoader, and FFCV.

    ./launch.sh bench colour

The photos are synthetic: JPEGs of 500×400 pixels and about 80 KB, with smooth gradients and noise
whose amplitude falls with the frequency, like that of photos. All loaders read the same JPEGs and
take random resized crops. They run in turn in this process, with a warm page cache; the tables show
medians and ratios. Pillow and FFCV decode every JPEG at full scale. inkrun decodes at 1/2, 1/4 or
1/8 where the crop at this scale still has the output's pixels. The last table shows what that
costs: how far each loader's pixels are from the exact area average of the fully decoded image. FFCV
is included if it is installed (extra `ffcv`).
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from beton.arrays import Array, Float64Array, Uint8Array
from beton.codec import area
from beton.fields import IntField, RGBImageField
from beton.loader import Loader
from beton.ops import Op, RandomResizedCrop, RgbNormalize, RgbResize, Scalar
from beton.reader import Reader
from beton.rng import Key
from beton.writer import write
from pipeline.experiments import benchmark, command
from pipeline.runtime.hardware import machine

HEIGHT, WIDTH, QUALITY = 400, 500, 90
CONTRAST = 33.0  # of the noise, in grey levels: with it, a photo takes about 80 KB
SLOPE = 1.2  # of the noise: its amplitude is frequency ** -SLOPE
TEXTURES = 12  # different fields of noise; a photo shows a mixture of two
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)  # of ImageNet, in grey levels
COMPARED = 100  # images whose pixels are compared with the exact area average


@dataclass(frozen=True)
class Config:
    """Measure the speed of loading colour photos against other loaders."""

    images: int = 2000
    """Number of synthetic photos."""
    sizes: tuple[int, ...] = (224, 64)
    """Sides of the images that are loaded, in pixels; each has its own tables."""
    batch_size: int = 64
    """Images in a batch."""
    threads: int = 2
    """Threads of inkrun and FFCV, and worker processes of the DataLoader."""
    rounds: int = 5
    """Rounds of each comparison."""


def textures(count: int) -> Array:
    """Return fields of noise of standard deviation 1: float32 (count, h, w, 3)."""
    generator = np.random.default_rng(0)
    down, across = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)
    frequency = np.hypot(down, across) ** SLOPE
    frequency[0, 0] = np.inf
    white = generator.standard_normal((count, 3, HEIGHT, WIDTH))
    noise = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(HEIGHT, WIDTH))
    noise /= noise.std(axis=(2, 3), keepdims=True)
    # Brightness varies more than colour, in photos and here.
    colours = np.array([[1, 1, 1], [0.3, 0, -0.3], [-0.15, 0.3, -0.15]], np.float32)
    mixed: Array = np.einsum("nkhw,kc->nhwc", noise.astype(np.float32), colours)
    return mixed


def photo(number: int, noise: Array) -> Uint8Array:
    """Return a synthetic photo, uint8 (h, w, 3): a gradient and two textures at random places."""
    generator = np.random.default_rng(number)
    corners = generator.uniform(60, 195, (2, 2, 3))
    y, x = np.linspace(0, 1, HEIGHT)[:, None, None], np.linspace(0, 1, WIDTH)[:, None]
    image = (1 - y) * ((1 - x) * corners[0, 0] + x * corners[0, 1])
    image += y * ((1 - x) * corners[1, 0] + x * corners[1, 1])
    for texture in noise[generator.choice(len(noise), 2)]:
        shift = int(generator.integers(HEIGHT)), int(generator.integers(WIDTH))
        image += CONTRAST / np.sqrt(2) * np.roll(texture, shift, axis=(0, 1))
    result: Uint8Array = np.rint(image).clip(0, 255).astype(np.uint8)
    return result


def write_photos(folder: Path, count: int) -> tuple[list[Path], Path]:
    """Write JPEG files, and a .beton file of the same bytes; return their paths."""
    noise = textures(TEXTURES)
    files = []
    for number in range(count):
        files.append(folder / f"{number:05}.jpg")
        image = photo(number, noise)
        files[-1].write_bytes(
            simplejpeg.encode_jpeg(image, quality=QUALITY, colorsubsampling="420")
        )
    beton = folder / "photos.beton"
    samples = ((file.read_bytes(), number) for number, file in enumerate(files))
    write(beton, {"image": RGBImageField("jpg"), "label": IntField()}, samples)
    return files, beton


class Photos(Dataset[tuple[Tensor, int]]):
    """JPEG files, decoded by Pillow, and transformed by torchvision."""

    def __init__(self, files: list[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self._files[index]) as image:
            return self._transform(image.convert("RGB")), index


def pillow_epoch(files: list[Path], size: int, floats: bool, config: Config) -> Callable[[], int]:
    """Return a task: an epoch of a DataLoader over Pillow and torchvision."""
    parts: list[torch.nn.Module] = [v2.RandomResizedCrop(size), v2.PILToTensor()]
    if floats:
        mean, std = [level / 255 for level in MEAN], [level / 255 for level in STD]
        parts += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    photos = Photos(files, v2.Compose(parts))

    def epoch() -> int:
        batches = DataLoader(photos, config.batch_size, shuffle=True, num_workers=config.threads)
        return sum(len(images) for images, _ in batches)

    return epoch


def ffcv_epoch(file: Path, size: int, floats: bool, config: Config) -> Callable[[], int]:
    """Return a task: an epoch of FFCV's loader."""
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader as FfcvLoader
    from ffcv.loader import OrderOption
    from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage

    image: list[Any] = [RandomResizedCropRGBImageDecoder((size, size))]
    if floats:
        image.append(NormalizeImage(np.array(MEAN), np.array(STD), np.dtype(np.float32)))
    image += [ToTensor(), ToTorchImage(convert_back_int16=False)]
    loader = FfcvLoader(
        str(file),
        batch_size=config.batch_size,
        num_workers=config.threads,
        os_cache=True,
        order=OrderOption.RANDOM,
        drop_last=False,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor()]},
    )
    return lambda: sum(len(images) for images, _ in loader)


def run_loader(loader: Loader) -> int:
    """Load an epoch; return the number of samples."""
    return sum(int(batch.valid.sum()) for batch in loader.batches(0))


def compare_speed(
    config: Config, console: Console, files: list[Path], beton: Path, size: int, floats: bool
) -> None:
    """Print the rates of all loaders for one size and dtype of the output."""
    normalize = RgbNormalize(MEAN, STD) if floats else None
    op = RgbResize(size, size, RandomResizedCrop(), normalize, "NCHW")
    fields: dict[str, Op] = {"image": op, "label": Scalar()}
    baseline, ours = f"DataLoader({config.threads} workers)", f"inkrun, {config.threads} threads"
    with Loader(beton, config.batch_size, fields, threads=config.threads) as loader:
        tasks: dict[str, Callable[[], int]] = {
            baseline: pillow_epoch(files, size, floats, config),
            ours: partial(run_loader, loader),
        }
        baselines = [baseline]
        if importlib.util.find_spec("ffcv"):
            tasks["FFCV"] = ffcv_epoch(beton, size, floats, config)
            baselines.append("FFCV")
        kind = "normalised float32" if floats else "uint8"
        title = f"Random resized crops of synthetic photos at {size}×{size}, {kind}, NCHW"
        console.print(benchmark.compare_rates(tasks, config.rounds, baselines, title))


def exact(image: Uint8Array, window: Float64Array, size: int) -> Array:
    """Return the area average of a window of a decoded image: float32 (size, size, 3)."""
    out: Array = np.empty((1, size, size, 3), np.float32)
    first, sides = np.zeros(1, np.int64), np.array([image.shape[:2]])
    scale = np.ones(3, np.float32), np.zeros(3, np.float32)
    area.resize(image.reshape(-1), first, sides, window[None], first, *scale, out)
    result: Array = out[0]
    return result


def pillow_pixels(file: Path, window: Float64Array, size: int) -> Array:
    """Return the pixels of the DataLoader for a window."""
    x, y, width, height = (int(number) for number in window)
    with Image.open(file) as image:
        crop = v2.functional.resized_crop(image.convert("RGB"), y, x, height, width, [size, size])
    return np.asarray(crop)


def ffcv_pixels(file: Path, window: Float64Array, size: int) -> Array:
    """Return the pixels of FFCV's decoder for a window."""
    from ffcv.libffcv import imdecode, resize_crop

    x, y, width, height = (int(number) for number in window)
    image, out = np.empty((HEIGHT, WIDTH, 3), np.uint8), np.empty((size, size, 3), np.uint8)
    data = np.frombuffer(file.read_bytes(), np.uint8)
    imdecode(data, image, HEIGHT, WIDTH, HEIGHT, WIDTH, 0, 0, 1, 1, False, False)
    resize_crop(image, y, y + height, x, x + width, out)
    return out


def compare_pixels(
    console: Console, files: list[Path], beton: Path, sizes: tuple[int, ...]
) -> None:
    """Print each loader's mean absolute difference from the exact area average, for equal crops."""
    peers = {"DataLoader over Pillow": pillow_pixels}
    if importlib.util.find_spec("ffcv"):
        peers["FFCV"] = ffcv_pixels
    ids = np.arange(min(COMPARED, len(files)))
    crop = RandomResizedCrop()
    windows = crop.windows(Key(0, 0), ids, np.tile((HEIGHT, WIDTH), (len(ids), 1)), 1.0)
    rows = {name: [name] for name in ("inkrun", *peers)}
    with Reader(beton) as reader:
        decoded = [reader[i]["image"] for i in range(len(ids))]
        for size in sizes:
            fields: dict[str, Op] = {"image": RgbResize(size, size, crop)}
            expected = np.stack([exact(decoded[i], windows[i], size) for i in ids])
            with Loader(reader, len(ids), fields, order="sequential", indices=ids) as loader:
                found = {"inkrun": next(loader.batches(0))["image"]}
            for name, pixels in peers.items():
                found[name] = np.stack([pixels(files[i], windows[i], size) for i in ids])
            for name, images in found.items():
                rows[name].append(f"{np.abs(images - expected).mean():.2f}")
    title = "Mean difference from the exact area average of the full decode, in grey levels"
    headings = ["", *(f"{size}×{size}" for size in sizes)]
    console.print(benchmark.table(headings, rows.values(), "l" + "r" * len(sizes), title))


def main(config: Config) -> None:
    """Generate the photos, run all comparisons and print their tables."""
    console = Console(width=110)
    console.print(f"{machine()}; medians of {config.rounds} rounds")
    if not importlib.util.find_spec("ffcv"):
        console.print("FFCV is not installed (./launch.sh setup ffcv): its rows are left out")
    with tempfile.TemporaryDirectory() as folder:
        files, beton = write_photos(Path(folder), config.images)
        mean = sum(file.stat().st_size for file in files) / len(files)
        console.print(
            f"{len(files)} synthetic photos of {WIDTH}×{HEIGHT}, {mean / 1000:.0f} KB each"
        )
        for size in config.sizes:
            for floats in (False, True):
                compare_speed(config, console, files, beton, size, floats)
        compare_pixels(console, files, beton, config.sizes)


if __name__ == "__main__":
    sys.exit(command.main("bench colour", Config, main))
