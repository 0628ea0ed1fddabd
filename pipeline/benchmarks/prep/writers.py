"""The tasks that are compared: decoding by Pillow, preparation, and writers of other formats.

Other writers run in processes of their own, in environments of their own; see `throughput`.
"""

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.benchmarks.throughput.measure import size_of
from pipeline.benchmarks.throughput.processes import WorkerProcess
from pipeline.benchmarks.throughput.request import Request
from pipeline.data.archives import Archive
from pipeline.data.archives.open import open_archive
from pipeline.data.base import Decoded
from pipeline.data.pixels.image_decoder import decode_with_pillow
from pipeline.data.prepare import prepare
from pipeline.data.sources.image_files import ImageFiles
from pipeline.errors import UserError
from pipeline.runtime.cgroup import usable_cores


@dataclass(frozen=True)
class WriterEntry:
    """A writer of another format: `method` is that of a peer in the catalog of `throughput`."""

    name: str
    peer: str
    method: str


WRITERS = (
    WriterEntry("FFCV writes jpg", "ffcv", "FFCV, jpg"),
    WriterEntry("FFCV writes raw", "ffcv", "FFCV, raw"),
    WriterEntry("LitData, files as they are", "litdata", "LitData"),
    WriterEntry("MosaicML, files as they are", "mosaic", "MosaicML Streaming"),
)
PEERS_OF_WRITERS = tuple(dict.fromkeys(one.peer for one in WRITERS))


class PillowFiles(ImageFiles):
    """Image files that Pillow decodes, whatever they are."""

    def decoded(self, index: int) -> Decoded:
        """Read and decode one image. Raises ImageError or OSError."""
        return decode_with_pillow(self._archive.read(int(self._files[index])))


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


def timed(task: Callable[[], int]) -> Callable[[], float]:
    """Return a task that returns its rate, of one that returns its number of images."""

    def run() -> float:
        start = time.perf_counter()
        images = task()
        return images / (time.perf_counter() - start)

    return run


class PeerWriter:
    """A writer of another format, for `count` pages in `source`, in a process of its own.

    The process stays, so that only its first turn pays for imports. `with` ends it.
    """

    def __init__(
        self, python: Path, module: str, entry: WriterEntry, source: Path, count: int, cores: int
    ) -> None:
        self._folder = source.with_name(entry.name)
        self._folder.mkdir()
        self.count = count
        request = Request(
            module, entry.method, "pages", str(source), str(self._folder), 64, 64, cores
        )
        self.process = WorkerProcess(python, request, source.with_name("log.txt"), None)

    def turn(self) -> float:
        """Write all pages to an empty folder; return images/s."""
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        seconds: float = self.process.ask("prepare")["seconds"]
        return self.count / seconds

    def written(self) -> float:
        """Return the bytes that the last turn wrote for a page, on average."""
        return size_of(self._folder) / self.count


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Run on `count` cores, and all processes that start meanwhile.

    Raises UserError for more cores than there are.
    """
    before = os.sched_getaffinity(0)
    if count > usable_cores():
        raise UserError(f"processes: got {count}, expected at most {usable_cores()}, the cores")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
