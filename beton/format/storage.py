"""Files that appear whole or not at all, on disks that are full or lack a system call.

A temporary file has the name .NAME.XXXXXXXX.partial, beside its target. Its writer holds a lock
(flock), which the system releases when the writer dies. So the next writer of the same target can
tell the files of killed writers, which it removes, from those of writers that are at work.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What CIFS, FUSE, 9p and folders without read permission answer to fsync, or to opening a folder.
UNSUPPORTED = {
    errno.EACCES, errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP, errno.EPERM
}  # fmt: skip


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file that becomes `target` when it is complete and synced to the disk.

    Removes the temporary files of killed writers first, and its own after an error.
    """
    remove_abandoned(target)
    temporary, descriptor = _create(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "w+b") as file:
        try:
            yield file
            file.flush()
            sync_open(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which is removed at the end.

    Removes the temporary files and folders of killed processes first.
    """
    remove_abandoned(target)
    folder, descriptor = _create(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _create(target: Path, flags: int) -> tuple[Path, int]:
    """Create and lock a temporary file or folder; return its path and an open descriptor."""
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        if flags & os.O_DIRECTORY:
            path.mkdir(0o700)
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        # Another process may remove it before it is locked. Without locks, no process removes it.
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Return whether the lock could be taken; None on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_abandoned(target: Path) -> None:
    """Remove the temporary files and folders of `target` whose process was killed."""
    if not target.parent.is_dir():
        return
    pattern = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.partial")
    for path in list(target.parent.iterdir()):
        if pattern.fullmatch(path.name):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    # NFS locks only what is open for writing.
    flags = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # of another user, a link, or removed meanwhile: not ours to remove
        return
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or not _lock(descriptor):
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to the disk, where its file system can do so.

    A rename then survives a power failure.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return
        raise
    try:
        sync_open(descriptor)
    finally:
        os.close(descriptor)


def sync_open(descriptor: int) -> None:
    """Sync an open file or folder to the disk, where its file system can do so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add a path to the errors of a full disk, a quota or a size limit that name none."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise
