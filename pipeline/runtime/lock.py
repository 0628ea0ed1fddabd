"""The lock of a run directory: one process writes to it, and a second one reports which.

The lock is `flock` on a file in the directory, so the kernel releases it when its holder dies. The
file also names the holder, for other computers that share the storage: these may not see the
`flock`. A holder changes the file's time every `HEARTBEAT` seconds.
"""

import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import UserError

NAME = ".lock"
HEARTBEAT = 30.0  # seconds
MAX_BYTES = 4096  # of a lock file that is read
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def _boot_id() -> str:
    """Return the name of this start of the kernel, which all containers on it share."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. `since` is seconds since 1970, `boot` as `_boot_id`."""

    host: str = field(default_factory=socket.gethostname)
    boot: str = field(default_factory=_boot_id)
    process: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)

    @classmethod
    def read(cls, descriptor: int) -> "Holder | None":
        """Return the holder that a lock file names; None for a file that was not completed."""
        try:
            values = json.loads(os.pread(descriptor, MAX_BYTES, 0))
            return cls(
                str(values["host"]),
                str(values["boot"]),
                int(values["process"]),
                float(values["since"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError):
            return None

    def __str__(self) -> str:
        since = "an unknown time"
        with suppress(ValueError, OverflowError, OSError):  # of a file that is not ours
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.process} on {self.host!r}, since {since}"


@contextmanager
def run_lock(run: Path) -> Iterator[int]:
    """Hold the lock of a run directory; yields its descriptor, by which children hold it too.

    A lock is taken over from a process of this computer that is dead. That of another computer is
    never taken over, because only the user knows whether that one still runs. Raises UserError,
    which names the holder, if the run is in use.
    """
    path = run.resolve() / NAME  # the link `latest` changes
    descriptor = _acquire(path)
    stopped = threading.Event()
    beat = threading.Thread(target=_beat, args=(descriptor, stopped), name="lock", daemon=True)
    beat.start()
    try:
        yield descriptor
    finally:
        stopped.set()
        beat.join()
        if _is_at(descriptor, path):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """Return the descriptor of the lock file, locked and with this process's name in it."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{path}: got a special file, expected the lock of a run")
            _lock(descriptor, path)
            if not _is_at(descriptor, path):  # released and deleted meanwhile
                os.close(descriptor)
                continue
            if (holder := Holder.read(descriptor)) is not None:
                _check_dead(holder, os.fstat(descriptor).st_mtime, path)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(Holder())).encode(), 0)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.filename is None:  # of a full disk
                error.filename = str(path)
            raise
        return descriptor


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        named = Holder.read(descriptor)
        raise UserError(f"{path.parent}: is in use by {named or 'another process'}") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        # A storage without locks: the file alone says that the run is in use.
        if (holder := Holder.read(descriptor)) is not None:
            raise _in_use(holder, os.fstat(descriptor).st_mtime, path) from error


def _check_dead(holder: Holder, last_beat: float, path: Path) -> None:
    """Raise UserError unless a holder that does not hold the `flock` is certainly dead."""
    here = Holder()
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    if holder.boot == here.boot or (holder.host == here.host and last_beat < booted):
        return
    raise _in_use(holder, last_beat, path)


def _in_use(holder: Holder, last_beat: float, path: Path) -> UserError:
    age = max(0, time.time() - last_beat)
    return UserError(
        f"{path.parent}: is in use by {holder}, which gave its last sign of life {age:,.0f} s ago; "
        f"if that process does not run any more, delete {path}"
    )


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether a path still names the file of a descriptor."""
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _beat(descriptor: int, stopped: threading.Event) -> None:
    with suppress(OSError):  # the storage is gone: the training's own writes report it
        while not stopped.wait(HEARTBEAT):
            os.utime(descriptor)
