"""Injected faults: every failure raises an error and leaves no file or process."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_field import EveryField, same, write_every_field

from beton.errors import SampleError
from beton.fields import BytesField, Field, IntField
from beton.reader import Reader
from beton.writer import write

NUMBER: dict[str, Field] = {"n": IntField()}
BYTES: dict[str, Field] = {"b": BytesField()}


class UnsendableError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, part: str, *, other: str) -> None:
        super().__init__(f"{part} and {other}")


@dataclass(frozen=True)
class Faulty:
    """Numbers with a fault at one index."""

    fault: Callable[[], Any]
    at: int = 77

    def __len__(self) -> int:
        return 200

    def __getitem__(self, i: int) -> tuple[Any]:
        return (self.fault() if i == self.at else i,)


def unreadable() -> int:
    raise OSError("cannot read this one")


def unsendable() -> int:
    raise UnsendableError("this", other="that")


def wrong_value() -> str:
    return "seven"


def die() -> None:
    os._exit(3)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A path for a file; after the test, the folder is empty."""
    yield tmp_path / "file.beton"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("as_iterable", [False, True], ids=["indices", "iterable"])
def test_an_exception_in_the_dataset_names_the_sample(
    target: Path, workers: int, as_iterable: bool
) -> None:
    data = Faulty(unreadable)
    samples = (data[i] for i in range(200)) if as_iterable else data
    with pytest.raises(OSError, match="cannot read this one") as caught:
        write(target, NUMBER, samples, workers=workers)
    assert type(caught.value) is OSError
    assert caught.value.__notes__ == [f"at sample 77 of the dataset for {target}"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_value_that_does_not_fit_names_field_and_sample(target: Path, workers: int) -> None:
    with pytest.raises(SampleError, match="field 'n', sample 77: not an integer") as caught:
        write(target, NUMBER, Faulty(wrong_value), workers=workers)
    assert caught.value.file == str(target)


def test_an_exception_that_cannot_be_pickled_becomes_text(target: Path) -> None:
    with pytest.raises(RuntimeError, match="UnsendableError: this and that") as caught:
        write(target, NUMBER, Faulty(unsendable), workers=2)
    assert caught.value.__notes__ == [f"at sample 77 of the dataset for {target}"]


def test_a_killed_worker_stops_the_writer(target: Path) -> None:
    with pytest.raises(BrokenProcessPool):
        write(target, NUMBER, Faulty(die), workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_stops_the_writer(target: Path, workers: int) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        write(target, NUMBER, [(i,) for i in range(500)], workers=workers, progress=interrupt)
    assert multiprocessing.active_children() == []  # although the exception still exists
    assert caught.value


class Slow:
    """A slow dataset that writes its process id to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, i: int) -> tuple[int]:
        (self.folder / str(os.getpid())).touch()
        time.sleep(0.01)
        return (i,)


WRITE_SLOWLY = """
import sys
from pathlib import Path
from test_faults import NUMBER, Slow, write
if __name__ == "__main__":
    write(sys.argv[1], NUMBER, Slow(Path(sys.argv[2])), workers=2)
"""


def is_running(process: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    return False


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_killed_writer_leaves_no_file_and_no_worker(tmp_path: Path) -> None:
    folder, seen = tmp_path / "data", tmp_path / "seen"
    folder.mkdir()
    seen.mkdir()
    script = tmp_path / "slow.py"
    script.write_text(WRITE_SLOWLY)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, str(script), str(folder / "file.beton"), str(seen)]
    writer = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    try:
        wait_until(lambda: len(list(seen.iterdir())) == 2, 60)
        workers = [int(entry.name) for entry in seen.iterdir()]
        assert writer.pid not in workers
        assert all(map(is_running, workers))
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    wait_until(lambda: not any(map(is_running, workers)), 30)
    assert list(folder.iterdir()) == []


def run_script(text: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


KILLED_AT_THE_END = """
import os, sys
from test_faults import NUMBER, write
os.fsync = lambda _: os.kill(os.getpid(), 9)
write(sys.argv[1], NUMBER, [(2,)])
"""


def test_a_writer_killed_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.beton"
    write(path, NUMBER, [(1,)])
    assert run_script(KILLED_AT_THE_END, path).returncode == -signal.SIGKILL
    assert Reader(path)[0] == {"n": 1}
    left = [entry.name for entry in tmp_path.iterdir() if entry != path]
    assert [name for name in left if not name.startswith(".file.beton.")] == []


FILL = """
import errno, resource, signal, sys
from test_faults import BYTES, write
limit = int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write(sys.argv[1], BYTES, ((bytes([i]) * 100_000,) for i in range(int(sys.argv[3]))))
except OSError as error:
    sys.exit(errno.errorcode[error.errno])
"""


def fill(target: Path, limit: int, samples: int) -> str:
    """Write in a process with a limit on file sizes (0: none); return the name of its error."""
    return run_script(FILL, target, limit, samples).stderr.strip()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 2 MB; skips the test if mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


# 30 samples exceed the disk in the spool; 14 samples exceed it in the file.
@pytest.mark.parametrize("samples", [30, 14])
def test_a_full_disk_is_an_error_and_leaves_nothing(small_disk: Path, samples: int) -> None:
    assert fill(small_disk / "file.beton", 0, samples) == "ENOSPC"
    assert list(small_disk.iterdir()) == []
    assert fill(small_disk / "file.beton", 0, 5) == ""
    assert len(Reader(small_disk / "file.beton")) == 5


# 30 samples exceed the limit in the spool; 10 samples exceed it in the file, which has a head.
@pytest.mark.parametrize("samples", [30, 10])
def test_a_limit_on_file_sizes_is_an_error_and_leaves_nothing(target: Path, samples: int) -> None:
    assert fill(target, 1_050_000, samples) == "EFBIG"


def test_a_deleted_or_replaced_file_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "file.beton"
    write_every_field(path)
    file = Reader(path)
    write(path, NUMBER, [(1,)])
    assert same(file[3], EveryField()[3] | {"jpg": file[3]["jpg"]})
    path.unlink()
    file.verify()
    assert same(file[5], EveryField()[5] | {"jpg": file[5]["jpg"]})


def test_nothing_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "file.beton"

    def use() -> None:
        write_every_field(path)
        with Reader(path) as file:
            file.check(np.arange(len(file)))

    use()
    before = len(list(Path("/proc/self/fd").iterdir())), threads()
    for _ in range(20):
        use()
    assert (len(list(Path("/proc/self/fd").iterdir())), threads()) == before


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
