"""Loading speed: inkrun against Pillow in a DataLoader, a tensor in memory, and FFCV.

    ./launch.sh bench --source hand-sample.zip

All tasks of a comparison run in turn in this process, with a warm page cache; the tables show
medians and ratios. The digits are noise: raw pixels cost the same whatever they show. FFCV is
included if it is installed (extra `ffcv`).
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader

from beton.fields import InkField, IntField, NDArrayField
from beton.loader import Loader
from beton.ops import Normalize, Op, Pixels, Resize, Scalar
from beton.writer import write
from pipeline.experiments import benchmark, command
from pipeline.runtime.hardware import machine

MEAN, STD = 33.3, 78.6  # of MNIST, in grey levels


@dataclass(frozen=True)
class Config:
    """Measure the speed of the loader against other loaders."""

    source: Path
    """Full-resolution pages: a zip or folder of PNG files, one folder per class."""
    size: int = 224
    """Side of an image, in pixels."""
    batch_size: int = 64
    """Pages in a batch."""
    threads: int = 2
    """Threads of inkrun and FFCV, and worker processes of the DataLoader."""
    digits: int = 60_000
    """Number of 28×28 digits of noise."""
    digit_batch: int = 512
    """Digits in a batch."""
    rounds: int = 5
    """Rounds of each comparison."""


def run_loader(loader: Loader, epochs: int) -> int:
    """Load `epochs` epochs of a file; return the number of samples."""
    return sum(int(b.valid.sum()) for epoch in range(epochs) for b in loader.batches(epoch))


def run_tensor(images: torch.Tensor, batch_size: int) -> int:
    """Shuffle, gather and normalise a tensor in memory; return the number of digits."""
    batches = torch.split(torch.randperm(len(images)), batch_size)
    return sum(len(images[ids].float().sub_(MEAN).div_(STD)) for ids in batches)


def ffcv_epoch(file: Path, batch_size: int, threads: int) -> Callable[[], int]:
    """Return a task: an epoch of the digits in FFCV's loader, normalised by torch."""
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
    from ffcv.loader import Loader as FfcvLoader
    from ffcv.loader import OrderOption
    from ffcv.transforms import ToTensor

    loader = FfcvLoader(
        str(file),
        batch_size=batch_size,
        num_workers=threads,
        order=OrderOption.RANDOM,
        drop_last=False,
        pipelines={"image": [NDArrayDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]},
    )
    return lambda: sum(len(image.float().sub_(MEAN).div_(STD)) for image, _ in loader)


def first_batch(file: Path, size: int, cache: Path) -> tuple[float, float]:
    """Return the seconds to the first batch of a new process: from its start, and from imports."""
    code = (
        "import time\n"
        "from beton.loader import Loader\n"
        "from beton.ops import Resize, Scalar\n"
        "start = time.perf_counter()\n"
        f"fields = {{'image': Resize({size}, {size}), 'label': Scalar()}}\n"
        f"with Loader({str(file)!r}, 64, fields) as loader:\n"
        "    next(iter(loader))\n"
        "    print(time.time(), time.perf_counter() - start)\n"
    )
    started = time.time()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    ended, after_import = map(float, output.split())
    return ended - started, after_import


def bench_pages(config: Config, console: Console, folder: Path) -> None:
    """Print sizes, rates and the time to a first batch of full-resolution pages."""
    source = config.source
    if source.is_file():
        shutil.unpack_archive(source, folder / "pages", "zip")
        source = folder / "pages"
    files = sorted(source.rglob("*.png"))
    folders = sorted({file.parent for file in files})
    samples = (
        (np.asarray(Image.open(file).convert("L")), folders.index(file.parent)) for file in files
    )
    beton = folder / "pages.beton"
    summary = write(beton, {"image": InkField(), "label": IntField()}, samples)
    png = sum(file.stat().st_size for file in files)
    ink = summary.payload_bytes["image"]
    sizes = {"PNG files": png, "ink payload": ink, ".beton file": summary.file_bytes}
    rows = [(name, f"{count:,}", f"{count / png:.1%}") for name, count in sizes.items()]
    title = f"Bytes of {len(files)} pages"
    console.print(benchmark.table(["", "bytes", "of the PNGs"], rows, "lrr", title))

    fields: dict[str, Op] = {"image": Resize(config.size, config.size), "label": Scalar()}
    pages = benchmark.PillowPages(files, (config.size, config.size), Image.Resampling.BICUBIC)

    def load_pillow() -> int:
        batches = DataLoader(pages, config.batch_size, shuffle=True, num_workers=config.threads)
        return sum(len(images) for images, _ in batches)

    baseline = f"DataLoader({config.threads} workers) over Pillow"
    with Loader(beton, config.batch_size, fields, threads=config.threads) as loader:
        tasks: dict[str, Callable[[], int]] = {
            baseline: load_pillow,
            f"inkrun, {config.threads} threads": partial(run_loader, loader, epochs=40),
        }
        title = f"Shuffled batches of {config.batch_size} pages at {config.size}×{config.size}"
        console.print(benchmark.compare_rates(tasks, config.rounds, baseline, title))

    cold = first_batch(beton, config.size, folder / "kernels")
    warm = first_batch(beton, config.size, folder / "kernels")
    console.print(
        f"First batch: {cold[0]:.2f} s after the start of Python without compiled kernels, "
        f"{warm[1]:.2f} s after the imports with cached kernels"
    )


def bench_digits(config: Config, console: Console, folder: Path) -> None:
    """Print the rates of small raw images as normalised float32."""
    digits = np.random.default_rng(0).integers(0, 256, (config.digits, 28, 28), dtype=np.uint8)
    beton = folder / "digits.beton"
    samples = [(digit, i % 10) for i, digit in enumerate(digits)]
    write(beton, {"image": InkField("raw"), "label": IntField()}, samples)
    fields: dict[str, Op] = {"image": Pixels(Normalize(MEAN, STD)), "label": Scalar()}
    baseline = "torch tensor in memory"
    with (
        Loader(beton, config.digit_batch, fields, threads=0) as plain,
        Loader(beton, config.digit_batch, fields, threads=config.threads) as threaded,
    ):
        tasks: dict[str, Callable[[], int]] = {
            baseline: partial(run_tensor, torch.from_numpy(digits), config.digit_batch),
            "inkrun, in the caller's thread": partial(run_loader, plain, epochs=5),
            f"inkrun, {config.threads} threads": partial(run_loader, threaded, epochs=5),
        }
        if importlib.util.find_spec("ffcv"):
            ffcv_file = folder / "ffcv.beton"
            array = NDArrayField(np.dtype(np.uint8), (28, 28))
            write(ffcv_file, {"image": array, "label": IntField()}, samples)
            tasks["FFCV"] = ffcv_epoch(ffcv_file, config.digit_batch, config.threads)
        title = f"Shuffled batches of {config.digit_batch} digits at 28×28, float32, noise"
        console.print(benchmark.compare_rates(tasks, config.rounds, baseline, title))


def main(config: Config) -> None:
    """Run both comparisons and print their tables."""
    console = Console(width=110)
    console.print(f"{machine()}; medians of {config.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        bench_pages(config, console, Path(folder))
        bench_digits(config, console, Path(folder))


if __name__ == "__main__":
    sys.exit(command.main("bench loader", Config, main))
