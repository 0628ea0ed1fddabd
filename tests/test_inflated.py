"""Inflated sources: one copy for all processes, beside the output, and nothing left of it."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import forked
import pytest
from raw_data import digits, idx_pair, make_tree

from pipeline.data.archives import open_archive
from pipeline.data.archives.tar_archive import TarArchive
from pipeline.data.inflated import inflating_into, open_shared, temporary_place
from pipeline.data.sources import open_source
from pipeline.data.sources.stored_bytes import StoredBytes

JOB = Path(__file__).resolve().parents[1] / "jobs" / "prep.py"
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "TMPDIR"}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder with gzipped IDX files."""
    return make_tree(tmp_path / "raw", idx_pair("train", *digits(1000), packed=True))


def first_bytes(stored: StoredBytes, connection: Connection) -> None:
    """Send the inflated bytes, and the file that they come from."""
    data = stored.pread(stored.size(), 0)
    connection.send((data, os.fstat(stored.open().fileno()).st_ino))


def test_workers_open_the_copy_of_their_parent(packed: Path) -> None:
    archive = open_archive(packed)
    stored = StoredBytes(archive, 0)
    data, number = stored.pread(stored.size(), 0), os.fstat(stored.open().fileno()).st_ino
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=first_bytes, args=(stored, theirs))
    worker.start()
    assert ours.recv() == (data, number)
    worker.join()
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(stored))))
    assert os.fstat(again.open().fileno()).st_ino == number


def test_without_the_copy_of_a_parent_a_process_makes_its_own(packed: Path) -> None:
    stored = StoredBytes(open_archive(packed), 0)
    data = stored.pread(stored.size(), 0)
    shared = pickle.loads(pickle.dumps(stored))
    shared._shared = "/proc/1/fd/100000"
    assert open_shared(shared._shared) is None
    assert shared.pread(shared.size(), 0) == data


def test_a_packed_tar_is_inflated_once(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as file:
        file.add(__file__, "a/one.png")
    archive = TarArchive(tmp_path / "set.tgz")
    other = pickle.loads(pickle.dumps(archive))
    assert other.read(0) == archive.read(0) == Path(__file__).read_bytes()
    assert archive._file is not None
    assert os.path.sameopenfile(archive._file.fileno(), other._file.fileno())


def test_copies_lie_beside_the_output(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    with inflating_into(tmp_path / "new" / "data"):
        assert temporary_place() == str(tmp_path)
        source = open_source(packed)
        assert source.image(3).shape
        opened = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        assert any(str(path).startswith(f"{tmp_path}/") for path in opened)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]  # they have no names
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    with inflating_into(tmp_path):
        assert temporary_place() != str(tmp_path)


LIMITED = """
import resource, sys
sys.argv = ["prep", *sys.argv[1:]]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from jobs import prep
sys.exit(prep.main())
"""


def test_a_full_disk_is_one_line_with_the_folder(tmp_path: Path, packed: Path) -> None:
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    done = forked.run([script, "tiny", "--source", packed], tmp_path, ENVIRONMENT)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("prep: ")]
    assert line == "prep: data: File too large"


SLOW = """
import os, sys, time
from pathlib import Path
from jobs import prep
from pipeline.data.sources.idx import Idx
fast = Idx.decoded
def slow(self, index):
    Path("seen", str(os.getpid())).touch()
    time.sleep(0.01)
    return fast(self, index)
Idx.decoded, Idx.seconds_per_image = slow, 1.0
if __name__ == "__main__":
    sys.exit(prep.main())
"""


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def children(process: int) -> list[int]:
    """The descendants of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == process:
            found += [int(path.parent.name), *children(int(path.parent.name))]
    return found


@pytest.mark.parametrize(
    ("number", "check"),
    [(signal.SIGTERM, False), (signal.SIGHUP, True), (signal.SIGKILL, True)],
    ids=["SIGTERM", "SIGHUP in a check", "SIGKILL in a check"],
)
def test_a_stopped_preparation_leaves_nothing(tmp_path: Path, number: int, check: bool) -> None:
    make_tree(tmp_path / "raw", idx_pair("train", *digits(6400), packed=True))
    (tmp_path / "slow.py").write_text(SLOW)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (tmp_path / "seen").mkdir()
    words = ["tiny", "--source", "raw", "--workers", "2", *(["--check"] if check else [])]
    prep = subprocess.Popen(
        [sys.executable, "slow.py", *words],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list((tmp_path / "seen").iterdir())) == 3)  # its workers and itself
    workers = children(prep.pid)
    prep.send_signal(number)
    _, errors = prep.communicate(timeout=60)
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert list(temporary.iterdir()) == []  # no pymp-…, no copy
    left = [path.name for path in (tmp_path / "data").iterdir()]
    if number == signal.SIGKILL:
        assert len(left) == check
        again = forked.run([JOB, "tiny", "--source", "raw"], tmp_path)
        assert again.returncode == 0, again.stderr
        left = [path.name for path in (tmp_path / "data").iterdir()]
        assert sorted(left) == ["tiny.beton", "tiny.html"]
    else:
        assert prep.returncode == 128 + number
        assert errors.splitlines()[-1] == f"prep: stopped by {signal.Signals(number).name}"
        assert "Traceback" not in errors
        assert left == []
