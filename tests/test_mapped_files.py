"""Open files that change, and loaders in forked processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from every_field import write_every_field

from beton import ops
from beton.errors import ChecksumError, FormatError
from beton.fields import BytesField, IntField
from beton.loader import Batch, Loader
from beton.reader import Reader
from beton.writer import write

FIELDS = {"ink": ops.Resize(9, 7)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "copy.beton"
    write_every_field(path, 12)
    return path


def collect(batches: Iterable[Batch]) -> list[tuple[list[int], bytes]]:
    return [(batch.ids.tolist(), batch["ink"].tobytes()) for batch in batches]


def test_a_named_pipe_is_no_dataset(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.beton")
    with pytest.raises(FormatError, match="not a regular file"):
        Reader(tmp_path / "pipe.beton")


def in_child(work: Callable[[], bool]) -> bool:
    """Return the result of `work` in a forked child, which a hang would end."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", [0, 2])
def test_a_forked_child_loads_its_own_epochs(path: Path, threads: int) -> None:
    with Loader(path, 2, FIELDS, threads=threads) as loader:
        epochs = [collect(loader.batches(epoch)) for epoch in (0, 1)]
        half = loader.batches(1)
        next(half)

        def child() -> bool:
            same = collect(loader.batches(1)) == epochs[1]
            if threads:
                with pytest.raises(ValueError, match="forked during an epoch"):
                    next(half)
            loader.close()
            return same

        assert in_child(child)
        assert collect(loader.batches(1)) == epochs[1]
        assert len(list(half)) == len(loader) - 1


def test_a_file_that_was_cut_short_is_noticed_at_the_next_epoch(path: Path) -> None:
    with Loader(path, 4, FIELDS) as loader:
        list(loader)
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(FormatError, match=r"copy.beton: was changed in place .*expected \d+ b"):
            list(loader)


def test_a_file_that_was_overwritten_in_place_is_verified_again(path: Path) -> None:
    with Loader(path, 4, FIELDS) as loader:
        first = collect(loader.batches(0))
        os.utime(path)
        assert collect(loader.batches(0)) == first
        ink = loader._reader.column("ink")
        with path.open("r+b") as file:
            file.seek(int(ink.take().starts[0]))
            file.write(bytes([int(ink.payload(0)[0]) ^ 1]))
        os.utime(path, ns=(0, 0))  # the clock of some file systems counts seconds
        with pytest.raises(ChecksumError):
            list(loader.batches(0))


def test_a_replaced_file_is_read_to_its_end(path: Path) -> None:
    with Loader(path, 4, FIELDS) as loader:
        first = collect(loader.batches(0))
        write(path, {"n": IntField()}, [(1,)])
        assert collect(loader.batches(0)) == first


SIGBUS = """
import os, sys
from beton.loader import Loader
from pipeline.runtime.launch import run_job
def job():
    with Loader(sys.argv[1], 1, threads=0) as loader:
        batches = iter(loader)
        next(batches)
        os.truncate(sys.argv[1], 4096)  # its records remain
        list(batches)
run_job("train", job)
"""


def test_a_file_cut_short_during_an_epoch_ends_with_a_stack(tmp_path: Path) -> None:
    path = tmp_path / "a.beton"
    write(path, {"b": BytesField()}, [(bytes(100_000),) for _ in range(8)])
    done = subprocess.run(
        [sys.executable, "-c", SIGBUS, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr
    assert "beton/reader.py" in done.stderr
