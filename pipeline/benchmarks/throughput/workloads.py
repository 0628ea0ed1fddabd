"""The images that are loaded: pages, digits and photos, and the exact resize to compare with."""

import shutil
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from beton.arrays import Array, Float64Array
from pipeline.benchmarks.throughput.photos import CHANNEL_MEAN, CHANNEL_STD
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.errors import UserError
from pipeline.runtime.cgroup import usable_cores

FEW = 500  # pages that one process generates
GREY_MEAN, GREY_STD = 33.3, 78.6  # of MNIST, in grey levels


@dataclass(frozen=True)
class Workload:
    """Images to load, and in which form. `kind`, `size`, `mean`, `std`, `crop`: see `Request`.

    `folder` names the folder of the images; workloads can share it. In a `cold` workload, the
    files are not in the page cache.
    """

    name: str
    title: str
    kind: str
    folder: str
    size: int
    batch_size: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop: bool = False
    cold: bool = False


def workloads(sizes: tuple[int, ...], batch_size: int, digit_batch: int) -> list[Workload]:
    """Return all workloads; the first size is that of the cold one and of anti-aliased pages."""

    def pages(name: str, title: str, folder: str, size: int, cold: bool = False) -> Workload:
        title = f"{title} at {size}×{size}, shuffled batches of {batch_size}"
        return Workload(f"{name}-{size}", title, "pages", folder, size, batch_size, cold=cold)

    def photos(size: int, floats: bool) -> Workload:
        name, form = ("photos-float", "normalised float32") if floats else ("photos", "uint8")
        title = f"Random resized crops of JPEG photos at {size}×{size}, {form}"
        mean, std = (CHANNEL_MEAN, CHANNEL_STD) if floats else ((), ())
        return Workload(
            f"{name}-{size}", title, "photos", "photos", size, batch_size, mean, std, crop=True
        )

    first = sizes[0]
    return [
        *(pages("pages", "Pages", "pages", size) for size in sizes),
        pages("cold", "Pages that are not in the page cache", "pages", first, cold=True),
        pages("grey", "Anti-aliased pages", "grey", first),
        Workload(
            "digits",
            f"Digits of 28×28 as normalised float32, shuffled batches of {digit_batch}",
            "digits",
            "digits",
            28,
            digit_batch,
            (GREY_MEAN,),
            (GREY_STD,),
        ),
        *(photos(size, floats) for size in sizes for floats in (False, True)),
    ]


def write_pages(writers: int, grey: bool, folder: Path) -> None:
    """Write generated pages as numbered PNG files, in RGB as those of real handwriting are."""
    folder.mkdir()
    pages = SyntheticPages(writers, grey=grey)
    save = partial(_save_page, pages, folder)
    if len(pages) < FEW:  # processes take longer to start
        for number in range(len(pages)):
            save(number)
        return
    with ProcessPoolExecutor(usable_cores(), get_context("forkserver")) as pool:
        for _ in pool.map(save, range(len(pages)), chunksize=32):
            pass


def _save_page(pages: SyntheticPages, folder: Path, number: int) -> None:
    page = Image.fromarray(pages.image(number)).convert("RGB")
    page.save(folder / f"{number:06}.png")


def copy_pages(source: Path, folder: Path) -> None:
    """Copy the PNG files of a zip archive or folder to numbered files.

    Raises UserError if there are none.
    """
    unpacked = folder.with_name(f"{folder.name}-unpacked")
    if source.is_dir():
        shutil.copytree(source, unpacked)
    else:
        try:
            shutil.unpack_archive(source, unpacked, "zip")
        except (shutil.ReadError, zipfile.BadZipFile, OSError) as error:
            raise UserError(f"source: {source}: {error}") from error
    files = sorted(unpacked.rglob("*.png"))
    if not files:
        raise UserError(f"source: {source}: got no PNG files, expected some")
    folder.mkdir()
    for number, file in enumerate(files):
        file.rename(folder / f"{number:06}.png")
    shutil.rmtree(unpacked)


def write_digits(count: int, folder: Path) -> None:
    """Write digits of noise: raw pixels cost the same, whatever they show."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    np.save(folder / "digits.npy", pixels)


def write_reference(workload: Workload, folder: Path, count: int, target: Path) -> int:
    """Write the exact images, float64, of `count` samples, for a worker: TARGET.npy, -ids.npy.

    Returns the number of images in the folder.
    """
    samples: Any
    if workload.kind == "digits":
        samples = np.load(folder / "digits.npy")
    else:
        samples = sorted(folder.iterdir())
    ids = np.unique(np.linspace(0, len(samples) - 1, count).astype(np.int64))
    exact = [_exact(workload, samples[number]) for number in ids]
    np.save(target.with_name(f"{target.name}.npy"), np.stack(exact))
    np.save(target.with_name(f"{target.name}-ids.npy"), ids)
    return len(samples)


def _exact(workload: Workload, sample: Any) -> Array:
    if workload.kind == "digits":
        digit: Array = sample.astype(np.float64)
        return digit
    with Image.open(sample) as image:
        pixels = np.asarray(image.convert("RGB" if workload.kind == "photos" else "L"))
    return area_resize(pixels, workload.size)


def area_resize(image: Array, size: int) -> Float64Array:
    """Return the exact area average of an image (h, w) or (h, w, 3): float64 (size, size, …).

    An output pixel is the mean of the part of the source that it covers.
    """
    rows, columns = (_overlaps(length, size) for length in image.shape[:2])
    averaged = np.tensordot(rows, image.astype(np.float64), axes=1)
    result: Float64Array = np.moveaxis(np.tensordot(columns, averaged, axes=(1, 1)), 0, 1)
    return result


def _overlaps(length: int, size: int) -> Float64Array:
    """Return the weight of each source pixel in each output pixel: float64 (size, length)."""
    edges = np.arange(size + 1)[:, None] * length / size
    pixels = np.arange(length)
    low, high = np.maximum(edges[:-1], pixels), np.minimum(edges[1:], pixels + 1)
    weights: Float64Array = np.clip(high - low, 0, None) * size / length
    return weights
