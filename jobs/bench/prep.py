"""Preparation speed, against the same preparation with Pillow's decoder and against other writers.

    ./launch.sh bench prep [--source hand-sample.zip]

Preparation reads and hashes an archive, decodes, encodes and writes. Three datasets are prepared:
RGB pages of 1200×900, of the generator or of the source; digits of 28×28; and the pages as JPEG
files. All tasks of a dataset run in turn, with a warm page cache:

- Pillow decodes the unpacked files to grey levels and drops them.
- Pillow's decoder replaces the decoder of PNG files in the same preparation.
- inkrun prepares the dataset, to a file of the same bytes.
- FFCV writes one copy of the pages as RGB, as JPEG and raw, if it is installed (extra `ffcv`);
  Pillow decodes for it.

The tables show medians and ratios, the bytes written, and where the time of one process goes.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import cProfile
import importlib.util
import io
import multiprocessing
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from beton import writer
from beton.codec import ink
from beton.format.encoding import Job
from pipeline.benchmarks.harness import compare_rates, table
from pipeline.data.archives import Archive
from pipeline.data.archives.open import open_archive
from pipeline.data.base import Decoded, Source
from pipeline.data.pixels.image_decoder import decode_with_pillow
from pipeline.data.pixels.measures import measure
from pipeline.data.pixels.png.rows import unfilter, unfilter_colours
from pipeline.data.prepare import prepare
from pipeline.data.sources.image_files import ImageFiles
from pipeline.data.synth.handwriting import DigitCounts, SyntheticDigits, SyntheticPages
from pipeline.errors import UserError
from pipeline.experiments import command
from pipeline.runtime.hardware import machine

Task = Callable[[], int]
INFLATE = "<built-in method deflate._deflate.zlib_decompress>"


@dataclass(frozen=True)
class Config:
    """Measure preparation against Pillow's decoder and other writers."""

    source: Path | None = None
    """A zip archive of PNG pages with one folder per class; generated pages without one."""
    pages: int = 310
    """Most pages of the source, or about the number of generated pages."""
    copies: int = 3
    """Copies of each page."""
    digits: int = 20_000
    """Number of 28×28 digits."""
    processes: int = 1
    """Processes of each task; each one that starts imports torch, which takes seconds of a core."""
    rounds: int = 5
    """Rounds of each comparison."""
    without_ffcv: bool = False
    """Leave FFCV out, even if it is installed."""


@dataclass(frozen=True)
class Dataset:
    """Images in a zip archive, and the same files unpacked."""

    title: str
    archive: Path
    files: list[Path]

    @classmethod
    def write(cls, title: str, folder: Path, images: Iterator[tuple[str, bytes]]) -> Self:
        """Write the files, by name, to an archive in the new folder, and unpack it."""
        folder.mkdir()
        archive = folder / "images.zip"
        with zipfile.ZipFile(archive, "w") as new:
            for name, data in images:
                new.writestr(name, data)
        shutil.unpack_archive(archive, folder / "unpacked", "zip")
        files = [path for path in sorted((folder / "unpacked").rglob("*")) if path.is_file()]
        return cls(title, archive, files)


class PillowFiles(ImageFiles):
    """Image files that Pillow decodes, whatever they are."""

    def decoded(self, index: int) -> Decoded:
        """Read and decode one image. Raises ImageError or OSError."""
        return decode_with_pillow(self._archive.read(int(self._files[index])))


@dataclass(frozen=True)
class RgbFiles:
    """The samples of another writer: (image (h, w, 3), label) of each file, decoded by Pillow."""

    files: list[Path]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return np.array(Image.open(self.files[int(index)]).convert("RGB")), 0


def generated(source: Source, count: int, mode: str) -> Iterator[tuple[str, bytes]]:
    """Yield `count` evenly spaced images of a generator as PNG files of a mode."""
    for index in np.unique(np.linspace(0, len(source) - 1, count).astype(np.int64)).tolist():
        file = io.BytesIO()
        Image.fromarray(source.image(index)).convert(mode).save(file, "PNG")
        yield source.name(index), file.getvalue()


def read_pages(config: Config) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the pages: RGB PNG files."""
    if config.source is None:
        yield from generated(SyntheticPages(-(-config.pages // 62)), config.pages, "RGB")
        return
    with zipfile.ZipFile(config.source) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".png")]
        if not names:
            raise UserError(f"{config.source}: got no PNG pages")
        for index in np.unique(np.linspace(0, len(names) - 1, config.pages).astype(np.int64)):
            yield names[index], archive.read(names[index])


def copied(images: Iterator[tuple[str, bytes]], copies: int) -> Iterator[tuple[str, bytes]]:
    """Yield each image `copies` times, under names of their own."""
    for name, data in images:
        path = Path(name)
        for copy in range(copies):
            yield f"{path.parent}/{path.stem}-{copy}{path.suffix}", data


def as_jpeg(images: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield images as JPEG files."""
    for name, data in images:
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(file, "JPEG", quality=90)
        yield str(Path(name).with_suffix(".jpg")), file.getvalue()


def decode(path: Path) -> int:
    """Decode a file with Pillow; return its number of pixels."""
    return np.asarray(Image.open(path).convert("L")).size


def run_pillow(files: list[Path], processes: int) -> int:
    """Decode all files with Pillow; return their number."""
    with multiprocessing.Pool(processes) as pool:
        count = sum(pixels > 0 for pixels in pool.imap_unordered(decode, files, chunksize=8))
        pool.close()
        pool.join()
    return count


def run_prep(files: type[ImageFiles], archive: Path, out: Path, processes: int) -> int:
    """Prepare an archive; return the number of images."""
    opened: Archive = open_archive(archive)
    source = files.detect(opened)
    if source is None:
        raise UserError(f"{archive}: holds no images")
    return sum(prepare(source, out, workers=processes, force=True).images.values())


def run_ffcv(mode: str, files: list[Path], out: Path, processes: int) -> int:
    """Write the files with FFCV, as RGB images of a write mode; return their number."""
    import ffcv
    from ffcv.fields import IntField, RGBImageField

    fields = {"image": RGBImageField(write_mode=mode), "label": IntField()}
    made = ffcv.DatasetWriter(str(out), fields, num_workers=processes)
    with redirect_stderr(io.StringIO()):  # its progress bar
        made.from_indexed_dataset(RgbFiles(files), chunksize=32)
    return len(files)


def compare(
    dataset: Dataset, config: Config, console: Console, folder: Path, peers: list[Path]
) -> None:
    """Print the rates of all tasks and the bytes that they write; FFCV writes the files `peers`."""
    processes, archive, files = config.processes, dataset.archive, dataset.files
    alone, replaced, ours = "Pillow decodes", "Pillow's decoder", "inkrun prepares"
    outs = {replaced: folder / "pillow.beton", ours: folder / "ours.beton"}
    tasks: dict[str, Task] = {
        alone: partial(run_pillow, files, processes),
        replaced: partial(run_prep, PillowFiles, archive, outs[replaced], processes),
        ours: partial(run_prep, ImageFiles, archive, outs[ours], processes),
    }
    for mode in ("jpg", "raw") if peers else ():
        name = f"FFCV writes {mode}"
        outs[name] = folder / f"{mode}.beton"
        tasks[name] = partial(run_ffcv, mode, peers, outs[name], processes)
    noun = "process" if processes == 1 else "processes"
    title = f"{len(files):,} {dataset.title}, at most {processes} {noun}"
    console.print(compare_rates(tasks, config.rounds, [alone, replaced], title))
    if outs[replaced].read_bytes() != outs[ours].read_bytes():
        raise UserError(f"{dataset.title}: got other bytes than with Pillow's decoder")
    sizes = {"image files": sum(path.stat().st_size for path in files) / len(files)}
    for name, out in outs.items():
        sizes[name] = out.stat().st_size / (len(peers) if "FFCV" in name else len(files))
        out.unlink()
    rows = [(name, f"{size:,.0f}") for name, size in sizes.items()]
    console.print(table(["", "bytes an image"], rows, "lr"))


def profile(files: type[ImageFiles], archive: Path, out: Path) -> dict[str, float]:
    """Return the milliseconds an image of each part of a preparation by one process."""
    run_prep(files, archive, out, 1)  # compiles the kernels
    profiler = cProfile.Profile()
    count = profiler.runcall(run_prep, files, archive, out, 1)
    seconds: dict[Any, float] = {entry.code: entry.totaltime for entry in profiler.getstats()}

    def spent(*functions: Any) -> float:
        codes = [getattr(f, "py_func", f).__code__ for f in functions]
        return sum(seconds.get(code, 0.0) for code in codes)

    inflate, rows = seconds.get(INFLATE, 0.0), spent(unfilter, unfilter_colours)
    decoded = spent(files.decoded)
    encoded = spent(measure) + spent(ink.encode)
    written = spent(writer.write) - spent(Job.encode)
    parts = {
        "inflate": inflate,
        "undo filters, convert to grey": rows,
        "the rest of reading and decoding": decoded - inflate - rows,
        "measure": spent(measure),
        "find and pack runs of ink": spent(ink.encode),
        "decide on pixels and splits, write the file": written,
    }
    total = spent(run_prep)
    parts["hash the archive, and the rest"] = total - decoded - encoded - written
    parts["in all"] = total
    return {part: 1e3 * time / count for part, time in parts.items()}


def show_profile(dataset: Dataset, console: Console, out: Path) -> None:
    """Print where the time of one process goes, with either decoder."""
    old, new = (profile(files, dataset.archive, out) for files in (PillowFiles, ImageFiles))
    rows = [(part, f"{old[part]:.3f}", f"{new[part]:.3f}") for part in new]
    headings = ["ms an image, profiled", "Pillow's decoder", "inkrun"]
    console.print(table(headings, rows, "lrr", f"One process, {dataset.title}"))


def main(config: Config) -> None:
    """Run the benchmark and print its tables."""
    console = Console(width=110)
    console.print(f"{machine()}; medians of {config.rounds} rounds")
    digits = SyntheticDigits(DigitCounts(config.digits, 0, 1000))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = list(read_pages(config))
        kinds = {
            "RGB pages in PNG files": copied(iter(pages), config.copies),
            "digits of 28×28 in PNG files": generated(digits, config.digits, "L"),
            "RGB pages in JPEG files": as_jpeg(iter(pages)),
        }
        with_ffcv = not config.without_ffcv and importlib.util.find_spec("ffcv") is not None
        for i, (title, images) in enumerate(kinds.items()):
            dataset = Dataset.write(title, folder / str(i), images)
            peers = dataset.files[:: config.copies] if with_ffcv and i == 0 else []
            compare(dataset, config, console, folder, peers)
            show_profile(dataset, console, folder / "profiled.beton")


if __name__ == "__main__":
    sys.exit(command.main("bench prep", Config, main))
