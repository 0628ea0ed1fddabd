"""The lock of a run directory: dead holders, other computers, deleted files, real trainings.

Simulated: another computer is a lock file that names another host and another start of the kernel;
storage without locks is a `flock` that fails as NFS without its lock daemon does.
"""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import forked
import pytest
from job_started import ENVIRONMENT, JOB, QUICK, folder_of_the_run, lines_of, run_job
from tiny import write_set

from pipeline.errors import UserError
from pipeline.runtime import lock as module
from pipeline.runtime.lock import Holder, run_lock

ROOT = Path(__file__).resolve().parents[1]
HERE = Holder()
ELSEWHERE = replace(HERE, host="node17", boot="another")
HOLD = """
import os, signal, subprocess, sys
from pathlib import Path
from pipeline.runtime.lock import run_lock
with run_lock(Path(sys.argv[1])) as held:
    {child}
    os.kill(os.getpid(), signal.SIGKILL)
"""


def refused(run: Path) -> str:
    """Return why a lock cannot be had."""
    with ExitStack() as stack:
        with pytest.raises(UserError) as caught:
            stack.enter_context(run_lock(run))
        message = str(caught.value)
    assert "\n" not in message
    return message


def leave(run: Path, holder: Holder, age: float = 5.0) -> None:
    """Write a lock file as a holder leaves it that has died."""
    path = run / module.NAME
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_second_one_reports_process_host_and_time(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        message = refused(tmp_path)
    since = time.strftime("%Y-%m-%d %H:", time.localtime())
    assert f"{tmp_path}: is in use by process {os.getpid()} on {HERE.host!r}, since " in message
    assert since in message
    assert list(tmp_path.iterdir()) == []
    with run_lock(tmp_path):
        pass


def killed_holder(run: Path, child: str = "") -> None:
    """Let a process take a lock, start a child and be killed by SIGKILL."""
    done = subprocess.run(
        [sys.executable, "-c", HOLD.format(child=child), str(run)],
        cwd=ROOT,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (-9, "")
    assert (run / module.NAME).exists()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    killed_holder(tmp_path)
    with run_lock(tmp_path):
        pass


def test_children_hold_the_lock_after_their_parent(tmp_path: Path) -> None:
    sleeps = "process = subprocess.Popen(['sleep', '60'], pass_fds=[held], stderr=-3)"
    killed_holder(tmp_path, f"{sleeps}; Path(sys.argv[1], 'child').write_text(str(process.pid))")
    child = int((tmp_path / "child").read_text())
    assert "is in use by process" in refused(tmp_path)
    os.kill(child, signal.SIGKILL)
    for _ in range(500):  # its new parent, not this process, waits for it
        try:
            with run_lock(tmp_path):
                return
        except UserError:
            time.sleep(0.01)
    raise AssertionError("the lock stays")


def test_another_computer_s_lock_is_never_taken_over(tmp_path: Path) -> None:
    for age in (5, 10**7):
        leave(tmp_path, ELSEWHERE, age)
        message = refused(tmp_path)
        assert "is in use by process" in message
        assert f"on 'node17', since {time.strftime('%Y', time.localtime())}" in message
        assert "gave its last sign of life" in message
        assert f"if that process does not run any more, delete {tmp_path / '.lock'}" in message
    (tmp_path / module.NAME).unlink()
    with run_lock(tmp_path):
        pass


def test_a_restart_of_this_computer_frees_the_lock(tmp_path: Path) -> None:
    before = replace(HERE, boot="another")
    leave(tmp_path, before, age=time.clock_gettime(time.CLOCK_BOOTTIME) + 60)
    with run_lock(tmp_path):
        pass
    leave(tmp_path, before, age=5)  # a computer of the same name that lives
    assert "delete" in refused(tmp_path)


def test_a_storage_without_locks_uses_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fails)
    with run_lock(tmp_path):
        assert "last sign of life" in refused(tmp_path)
    with run_lock(tmp_path):
        pass


def test_a_full_disk_is_reported_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails)
        with (
            pytest.raises(OSError, match=r"No space left on device: '.*\.lock'"),
            run_lock(tmp_path),
        ):
            pass
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"host": "a"}', "\0" * 100, '{"a":' * 900])
def test_an_incomplete_file_is_no_lock(text: str, tmp_path: Path) -> None:
    (tmp_path / module.NAME).write_text(text)
    with run_lock(tmp_path):
        pass


def test_a_name_from_elsewhere_cannot_steer_the_terminal(tmp_path: Path) -> None:
    leave(tmp_path, replace(ELSEWHERE, host="a\x1b[2Jb\n", since=float("inf")))
    message = refused(tmp_path)
    assert "'a\\x1b[2Jb\\n', since an unknown time" in message


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.write_text("precious")
    (tmp_path / module.NAME).symlink_to(target)
    with pytest.raises(OSError, match=r"\.lock"), run_lock(tmp_path):
        pass
    assert target.read_text() == "precious"
    (tmp_path / module.NAME).unlink()
    os.mkfifo(tmp_path / module.NAME)
    assert "got a special file" in refused(tmp_path)


def test_a_deleted_lock_that_another_one_took_stays(tmp_path: Path) -> None:
    with ExitStack() as second:
        with run_lock(tmp_path):
            (tmp_path / module.NAME).unlink()  # the user's word
            second.enter_context(run_lock(tmp_path))
        assert (tmp_path / module.NAME).exists()
        assert "is in use" in refused(tmp_path)


def test_the_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    with run_lock(tmp_path):
        path = tmp_path / module.NAME
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60


def test_a_requeued_job_reports_the_first_one(tmp_path: Path) -> None:
    """And changes no file. The first job is simulated by its lock, held by this process."""
    data = write_set(tmp_path / "tiny.beton")
    first = run_job(["--data", str(data), *QUICK], tmp_path)
    assert first.returncode == 0, first.stderr
    run = folder_of_the_run(tmp_path)
    (run / "result.json").unlink()
    with run_lock(run):
        before = contents(run)
        second = run_job(["--resume", str(run)], tmp_path)
        assert second.returncode == 2
        assert second.stderr.startswith(f"part1: {run}: is in use by process {os.getpid()} on ")
        assert second.stderr.count("\n") == 1
        both = forked.run_together(2, [JOB, "--resume", run], tmp_path, ENVIRONMENT)
        assert [one.returncode for one in both] == [2, 2]
        assert [one.stderr for one in both] == [second.stderr, ""]
        assert contents(run) == before
    done = run_job(["--resume", str(run)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one["epoch"] for one in lines_of(run)] == list(range(6))
    assert not (run / module.NAME).exists()


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the bytes of all files."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
