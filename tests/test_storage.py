"""Disks that are full or lack a system call, and what killed writers leave behind.

Simulated: file systems whose fsync fails, by a replaced `os.fsync`, and a full disk, by a limit on
the sizes of files. The killed writers are processes that end by SIGKILL.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beton.fields import BytesField, Field, IntField
from beton.format import storage
from beton.reader import Reader
from beton.writer import write

NUMBER: dict[str, Field] = {"n": IntField()}
BYTES: dict[str, Field] = {"b": BytesField()}


def failing_fsync(number: int, *, folders: bool) -> Callable[[int], None]:
    """Return an fsync that fails with an error number, on folders or on files."""

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir() == folders:
            raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
@pytest.mark.parametrize("folders", [True, False], ids=["folders", "files"])
def test_a_file_system_without_fsync_holds_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, folders: bool
) -> None:
    monkeypatch.setattr("os.fsync", failing_fsync(number, folders=folders))
    write(tmp_path / "a.beton", NUMBER, [(1,)])
    assert Reader(tmp_path / "a.beton")[0] == {"n": 1}


def test_a_failed_fsync_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", failing_fsync(errno.EIO, folders=False))
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "a.beton", NUMBER, [(1,)])
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from pathlib import Path
from beton.format import storage
if sys.argv[2] == "file":
    os.fsync = lambda _: os.kill(os.getpid(), 9)
    with storage.replacing(Path(sys.argv[1])) as file:
        file.write(b"partial")
else:
    with storage.temporary_folder(Path(sys.argv[1])) as folder:
        (folder / "content").write_text("partial")
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "a.beton"
    command = [sys.executable, "-c", KILLED, str(target), kind]
    assert subprocess.run(command, check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.is_dir() == (kind == "folder")
    write(tmp_path / "b.beton", NUMBER, [(1,)])  # another target
    assert left.exists()
    write(target, NUMBER, [(1,)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.beton", "b.beton"]


def test_a_writer_removes_nothing_of_others(tmp_path: Path) -> None:
    target = tmp_path / "a.beton"
    others = [
        ".a.beton.partial",
        ".a.beton.notes.partial",
        ".a.beton.0123456789.partial",
        ".aXbeton.01234567.partial",
        "a.beton.01234567.partial",
    ]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".a.beton.0000000a.partial").symlink_to(others[0])
    os.mkfifo(tmp_path / ".a.beton.0000000b.partial")
    others += [".a.beton.0000000a.partial", ".a.beton.0000000b.partial"]
    with storage.replacing(target) as first, storage.temporary_folder(target) as folder:
        first.write(b"first")
        (folder / "content").touch()
        with storage.replacing(target) as second:  # while two are at work
            second.write(b"second")
        assert target.read_bytes() == b"second"
        assert (folder / "content").exists()
    assert target.read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a.beton"])


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".a.beton.01234567.partial"
    left.touch()

    def unsupported(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    write(tmp_path / "a.beton", NUMBER, [(1,)])
    assert left.exists()
    assert len(Reader(tmp_path / "a.beton")) == 1


LIMITED = """
import resource, sys
from beton.fields import BytesField
from beton.writer import write
resource.setrlimit(resource.RLIMIT_FSIZE, (1_050_000, 1_050_000))
try:
    write(sys.argv[1], {"b": BytesField()}, ((bytes(100_000),) for i in range(int(sys.argv[2]))))
except OSError as error:
    print(error.filename)
"""


# 30 samples exceed the limit in the temporary file of payloads, 10 in the file itself.
@pytest.mark.parametrize("samples", [30, 10])
def test_a_full_disk_is_an_error_with_the_path(tmp_path: Path, samples: int) -> None:
    path = tmp_path / "a.beton"
    command = [sys.executable, "-c", LIMITED, str(path), str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(path)
    assert list(tmp_path.iterdir()) == []


PAGE = """
import resource, sys
from pathlib import Path
from pipeline.reporting.html import Page
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    origin = {"kind": "synthetic", "source": "d"}
    Page("a", "b?", "c", [origin], []).write(Path(sys.argv[1]))
except OSError as error:
    print(error.filename)
"""


def test_a_page_on_a_full_disk_is_an_error_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    command = [sys.executable, "-c", PAGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(path)
    assert list(tmp_path.iterdir()) == []
