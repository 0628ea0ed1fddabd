"""A process that loads images by one method, as the benchmark asks it to.

The first line of its standard input is a `Request` as JSON. Each further line is a command, a JSON
list with the name of a method of `Worker` and its arguments. It gets one line of JSON on the
standard output.

All epochs are checked: each sample comes once, in another order than in the epoch before. What
libraries print goes to the standard error. Only numpy and the method's own imports are loaded.
"""

import ctypes
import importlib
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.benchmarks.peers.base import Method
from pipeline.benchmarks.throughput.request import Request

MADV_DONTNEED = 4
ORDERED = 8  # samples from which two equal orders are no coincidence


class Worker:
    """Loads the images of a request, epoch by epoch."""

    def __init__(self, request: Request) -> None:
        module = importlib.import_module(f"pipeline.benchmarks.peers.{request.module}")
        self._request = request
        self._method: Method = module.METHODS[request.method](request)
        self._order: NDArray[np.int64] | None = None

    def prepare(self) -> dict[str, Any]:
        """Make the method's files; return the seconds that it took."""
        start = time.perf_counter()
        self._method.prepare()
        return {"seconds": time.perf_counter() - start}

    def start(self, reference: str = "") -> dict[str, Any]:
        """Load the first epoch, and compare its images with a reference.

        Returns the time of the first batch on the monotonic clock, and the largest and the mean
        difference in grey levels.
        """
        compared, expected = np.empty(0, np.int64), None
        if reference:
            compared = np.load(f"{reference}-ids.npy")
            expected = np.load(f"{reference}.npy", mmap_mode="r")
        reply: dict[str, Any] = {}
        ids, largest, total, count = [], 0.0, 0.0, 0
        for images, numbers in self._method.batches():
            reply.setdefault("first", time.monotonic())
            ids.append(np.array(numbers))
            rows = np.flatnonzero(np.isin(ids[-1], compared))
            if expected is not None and len(rows):
                places = np.searchsorted(compared, ids[-1][rows])
                difference = np.abs(self._levels(images)[rows] - expected[places])
                largest = max(largest, float(difference.max()))
                total, count = total + float(difference.sum()), count + difference.size
        self._check(ids)
        return reply | {"largest": largest, "mean": total / max(count, 1)}

    def load(self, least: float = 0) -> dict[str, Any]:
        """Load whole epochs for at least `least` seconds; return the images and the seconds."""
        loaded: list[list[NDArray[np.int64]]] = []
        seconds, start = 0.0, time.perf_counter()
        while not loaded or seconds < least:
            loaded.append([np.array(ids) for _, ids in self._method.batches()])
            wait_for_gpu()
            seconds = time.perf_counter() - start
        return {"images": sum(map(self._check, loaded)), "seconds": seconds}

    def cold(self) -> dict[str, Any]:
        """Load one epoch of files that were dropped from the page cache, as `load` does.

        Returns the fraction that stayed in the page cache, too.
        """
        self.release()
        cached = [drop(file) for file in _files(self._request.folder)]
        fraction = sum(pages for pages, _ in cached) / sum(pages for _, pages in cached)
        return self.load() | {"cached": fraction} | self.release()

    def release(self) -> dict[str, Any]:
        """Unmap the pages of the method's files, so that other workers can drop them."""
        unmap(_files(self._request.folder))
        return {}

    def _check(self, parts: Iterable[NDArray[np.int64]]) -> int:
        """Return the number of samples of an epoch. Raises ValueError for a wrong epoch."""
        ids = np.concatenate([np.empty(0, np.int64), *parts])
        expected = np.zeros(max(self._method.count(), ids.max(initial=0) + 1), np.int64)
        expected[: self._method.count()] = 1
        times = np.bincount(ids, minlength=len(expected))
        if (times != expected).any():
            wrong = int(np.flatnonzero(times != expected)[0])
            raise ValueError(f"sample {wrong} came {times[wrong]} times in an epoch, expected once")
        if self._order is not None and len(ids) >= ORDERED and (ids == self._order).all():
            raise ValueError("the order of two epochs is the same, expected another")
        self._order = ids
        return len(ids)

    def _levels(self, images: Any) -> NDArray[np.float64]:
        """Return images as grey levels, float64 (b, h, w) or in colour (b, h, w, 3)."""
        on_host = images.cpu() if hasattr(images, "cpu") else images  # a tensor may be on a GPU
        levels = np.asarray(on_host).astype(np.float64)
        if levels.ndim == 4 and levels.shape[1] in (1, 3):
            levels = np.moveaxis(levels, 1, 3)
        if self._request.mean:
            levels = levels * self._request.std + self._request.mean
        if levels.ndim == 4 and self._request.kind != "photos":
            levels = levels[..., 0]  # grey pages, as colours or with a channel
        return levels


def wait_for_gpu() -> None:
    """Wait until a GPU has done what a method asked for, if the method uses torch and a GPU."""
    torch = sys.modules.get("torch")  # most methods do without it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _files(folder: str) -> list[str]:
    return [str(file) for file in Path(folder).rglob("*") if file.is_file() and file.stat().st_size]


def unmap(files: Iterable[str]) -> None:
    """Unmap the pages of mapped files from this process: the kernel keeps pages that are mapped.

    They come back from the file when they are used.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = set(files)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, access, _, _, _, *path = line.split(maxsplit=5)
        if path and path[0] in names and (access[1] == "-" or access[3] == "s"):
            start, end = (int(address, 16) for address in addresses.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def drop(file: str) -> tuple[int, int]:
    """Drop a file from the page cache. Return the pages that are still in it, and all pages."""
    with Path(file).open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(opened.fileno()).st_size
        pages = -(-size // mmap.PAGESIZE)
        with mmap.mmap(opened.fileno(), size, mmap.MAP_PRIVATE) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            address = ctypes.c_void_p(view.ctypes.data)
            resident = (ctypes.c_ubyte * pages)()
            ctypes.CDLL(None).mincore(address, ctypes.c_size_t(size), resident)
            del view
    return sum(flag & 1 for flag in resident), pages


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": Worker.prepare,
    "start": Worker.start,
    "load": Worker.load,
    "cold": Worker.cold,
    "release": Worker.release,
}


def main() -> None:
    """Serve the commands of the standard input."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = Request(**json.loads(sys.stdin.readline()))
    worker = Worker(request)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        reply = COMMANDS[command](worker, *arguments)
        replies.write(f"{json.dumps(reply)}\n")


if __name__ == "__main__":
    main()
