"""The worker: wrong epochs are refused, differences are seen, files leave the page cache."""

import importlib
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.benchmarks.peers.base import Method
from pipeline.benchmarks.throughput import worker
from pipeline.benchmarks.throughput.request import Request
from pipeline.benchmarks.throughput.worker import Worker

COUNT = 12


class Scripted(Method):
    """Batches of given numbers, an epoch for each entry of `epochs`; an image shows its number."""

    epochs: ClassVar[list[list[int]]] = []

    def count(self) -> int:
        return COUNT

    def prepare(self) -> None:
        (self.folder / "made").write_text("x")

    def batches(self) -> Iterator[tuple[Any, Any]]:
        ids = np.array(self.epochs.pop(0), np.int64)
        for part in np.split(ids, [5]):
            yield np.repeat(part.astype(np.uint8), 4).reshape(-1, 2, 2), part


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    module = SimpleNamespace(METHODS={"scripted": Scripted})
    monkeypatch.setattr(importlib, "import_module", lambda _: module)
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    (folder / "a").write_bytes(b"0" * 5 * mmap.PAGESIZE)
    return Worker(Request("any", "scripted", "pages", str(source), str(folder), 2, 4, 1))


FORWARD, BACKWARD = [*range(COUNT)], [*reversed(range(COUNT))]


def test_right_epochs_are_counted(scripted: Worker) -> None:
    Scripted.epochs = [FORWARD, BACKWARD, FORWARD, BACKWARD]
    assert scripted.start()["first"] > 0
    assert scripted.load()["images"] == COUNT
    assert scripted.load()["images"] == COUNT
    assert scripted.prepare()["seconds"] > 0
    cold = scripted.cold()
    assert cold["images"] == COUNT
    assert 0 <= cold["cached"] <= 1


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ([[*range(COUNT - 1)]], "sample 11 came 0 times"),
        ([[]], "sample 0 came 0 times"),
        ([[*range(COUNT), 3]], "sample 3 came 2 times"),
        ([[*range(COUNT), COUNT]], "sample 12 came 1 times"),
        ([FORWARD, FORWARD], "the order of two epochs is the same"),
    ],
)
def test_wrong_epochs_are_refused(scripted: Worker, epochs: list[list[int]], message: str) -> None:
    Scripted.epochs = epochs
    for _ in epochs[1:]:
        scripted.load()
    with pytest.raises(ValueError, match=message):
        scripted.load()


def test_differences_are_those_of_the_same_samples(scripted: Worker, tmp_path: Path) -> None:
    ids = np.array([2, 7])
    np.save(tmp_path / "exact-ids.npy", ids)
    exact = np.repeat(ids.astype(np.float64), 4).reshape(-1, 2, 2)
    exact[1, 0, 0] += 3
    np.save(tmp_path / "exact.npy", exact)
    Scripted.epochs = [BACKWARD]
    reply = scripted.start(str(tmp_path / "exact"))
    assert (reply["largest"], reply["mean"]) == (3, 3 / 8)


class OnGpu:
    """Simulated: a tensor of a GPU, which numpy cannot read."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def cpu(self) -> Any:
        return self._values

    def __array__(self) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_batches_of_a_gpu_are_compared_and_waited_for(
    scripted: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host = Scripted.batches
    monkeypatch.setattr(
        Scripted, "batches", lambda self: ((OnGpu(one), ids) for one, ids in on_host(self))
    )
    waits = []
    cuda = SimpleNamespace(is_initialized=lambda: True, synchronize=lambda: waits.append(1))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    Scripted.epochs = [FORWARD, BACKWARD]
    reference = tmp_path / "exact"
    np.save(f"{reference}-ids.npy", np.array([3]))
    np.save(f"{reference}.npy", np.full((1, 2, 2), 4.0))
    assert scripted.start(str(reference))["largest"] == 1
    assert scripted.load()["images"] == COUNT
    assert waits == [1]


@pytest.mark.parametrize("method", ["Pillow", "torchvision"])
def test_digits_come_from_png_files_too(tmp_path: Path, method: str) -> None:
    """Every file is decoded to the same pixels, normalised, and has its number."""
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    digits = np.random.default_rng(0).integers(0, 256, (COUNT, 28, 28), dtype=np.uint8)
    np.save(source / "digits.npy", digits)
    np.save(tmp_path / "exact.npy", digits.astype(np.float64))
    np.save(tmp_path / "exact-ids.npy", np.arange(COUNT))
    places = str(source), str(folder)
    request = Request("files", method, "digits", *places, 28, 5, 1, (33.3,), (78.6,))
    Worker(request).prepare()
    assert len([*folder.iterdir()]) == COUNT
    loads = Worker(request)
    assert loads.start(str(tmp_path / "exact"))["largest"] < 1e-3
    assert loads.load()["images"] == COUNT


def test_mapped_pages_leave_the_page_cache(tmp_path: Path) -> None:
    """On a file system without a page cache of its own, such as tmpfs, nothing can be dropped."""
    file = tmp_path / "file"
    content = np.random.default_rng(0).bytes(100 * mmap.PAGESIZE)
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    mapped = np.memmap(file, np.uint8, "r")
    total = mapped.sum(dtype=np.int64)
    cached, pages = worker.drop(str(file))
    assert (cached, pages) == (100, 100)  # it is mapped
    worker.unmap([str(file)])
    cached, _ = worker.drop(str(file))
    if cached == pages:
        pytest.skip("the file system keeps its files in memory")
    assert cached == 0
    assert mapped.sum(dtype=np.int64) == total
