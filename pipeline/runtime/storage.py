"""Folders whose content may come from others: nothing in them is opened through a link.

Files are opened relative to an open folder, and must be regular files: a link could lead to any
file of the user's, a pipe could wait for ever. New files get random names and are renamed.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from beton.errors import printable
from beton.format.storage import sync_open
from pipeline.errors import UserError

NAME = re.compile(r"(?!\.)[^/\0\n]+")  # of a folder beside a link
_WORDS = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Folder:
    """The open folder `path`; `close` or `with` closes it.

    The given path may be a link, such as `latest`. All methods take names of entries. They raise
    UserError for a link and for a special file, and OSError with the path of the entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder."""
        os.close(self._descriptor)

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208

    def kind(self, name: str) -> int | None:
        """Return the type of an entry as in `stat.S_IFMT`, not that of a link's target, or None."""
        try:
            status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return stat.S_IFMT(status.st_mode)

    def folder(self, name: str, create: bool = False) -> "Folder":
        """Open a folder in this one; with `create`, a missing one is made."""
        path = self.path / name
        if create:
            with _errors_of(path), suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._descriptor)
        self._check(name, stat.S_IFDIR)
        with _errors_of(path):
            descriptor = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._descriptor
            )
        opened = Folder.__new__(Folder)
        opened.path, opened._descriptor = path, descriptor
        return opened

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file. Raises UserError if it has more than `most` bytes."""
        path = self.path / name
        with os.fdopen(self._open(name, _READ), "rb") as file, _errors_of(path):
            if (size := os.fstat(file.fileno()).st_size) > most:
                raise UserError(f"{path}: got a file of {size:,} bytes, expected at most {most:,}")
            return file.read(size)

    def write(self, name: str, content: bytes, sync: bool = False) -> None:
        """Write a file, or replace it: whole or not at all. With `sync`, it is on disk at return.

        An OSError, such as of a full disk, names the file and its size.
        """
        temporary = _hidden(name)
        with _errors_of(self.path / name, f" (writing {len(content):,} bytes)"):
            try:
                with os.fdopen(os.open(temporary, _NEW, 0o666, dir_fd=self._descriptor), "wb") as f:
                    f.write(content)
                    f.flush()
                    if sync:
                        sync_open(f.fileno())
                self._replace(temporary, name)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=self._descriptor)
                raise
        if sync:
            self.sync()

    def append(self, name: str, content: bytes) -> None:
        """Append to a file, which need not exist."""
        extra = f" (writing {len(content):,} bytes)"
        with os.fdopen(self._open(name, _APPEND), "ab") as f, _errors_of(self.path / name, extra):
            f.write(content)
            f.flush()

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file, in hexadecimal digits, once the file is on disk."""
        with os.fdopen(self._open(name, _READ), "rb") as file, _errors_of(self.path / name):
            sync_open(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()

    def sync(self) -> None:
        """Wait until the names in the folder are on disk, where the file system offers that.

        Some network and user-space file systems, such as CIFS and 9p, refuse it for folders.
        """
        with _errors_of(self.path):
            sync_open(self._descriptor)

    def rename(self, old: str, new: str) -> None:
        """Rename an entry; a file or an empty folder called `new` is replaced."""
        with _errors_of(self.path / new):
            self._replace(old, new)

    def remove(self, name: str) -> None:
        """Remove a file, a link itself, or a folder with its content; it may be missing."""
        with _errors_of(self.path / name), suppress(FileNotFoundError):
            if self.kind(name) == stat.S_IFDIR:
                shutil.rmtree(name, dir_fd=self._descriptor)
            else:
                os.unlink(name, dir_fd=self._descriptor)

    def point(self, name: str, target: str) -> None:
        """Make `name` a link to the entry `target`, or a file with its name where links fail.

        File systems such as exFAT have no symbolic links.
        """
        temporary = _hidden(name)
        try:
            os.symlink(target, temporary, dir_fd=self._descriptor)
        except OSError:
            self.write(name, f"{target}\n".encode())
        else:
            with _errors_of(self.path / name):
                self._replace(temporary, name)

    def pointed(self, name: str, pattern: re.Pattern[str] = NAME) -> str | None:
        """Return the entry that `name` leads to as `point` made it; None if it is missing.

        Raises UserError for any other link or file, and for a target that is not of the `pattern`.
        """
        kind = self.kind(name)
        if kind is None:
            return None
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=self._descriptor)
        else:
            self._check(name, stat.S_IFREG, "a link")
            target = self.read(name, 4096).decode(errors="replace").removesuffix("\n")
        if not pattern.fullmatch(target):
            raise UserError(
                f"{self.path / name}: got a link to {printable(target)!r}, expected one to a "
                "folder beside it"
            )
        return target

    def _open(self, name: str, flags: int) -> int:
        with _errors_of(self.path / name):
            try:
                descriptor = os.open(name, flags, 0o666, dir_fd=self._descriptor)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a pipe or a socket
                    self._check(name, stat.S_IFREG)
                raise
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                self._check(name, stat.S_IFREG)
        return descriptor

    def _check(self, name: str, expected: int, words: str = "") -> None:
        """Raise UserError if an entry is of another type than expected, in given words."""
        if (kind := self.kind(name)) not in (None, expected):
            raise refused(self.path / name, kind, words or _WORDS[expected])

    def _replace(self, old: str, new: str) -> None:
        os.replace(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)


def check_links(root: Path) -> None:
    """Raise UserError for a link out of a folder, at any depth, and for a special file.

    Whoever made the folder could otherwise choose what is read, written or deleted elsewhere. Links
    to entries of the folder stay, such as `best`.
    """
    inside = root.resolve()
    folders = [root]
    while folders:
        # The folder may be one that is being written, or may not be there.
        absent = suppress(FileNotFoundError, NotADirectoryError)
        with absent, os.scandir(folders.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.is_symlink():
                    if not path.resolve().is_relative_to(inside):
                        raise refused(path, stat.S_IFLNK, "a file")
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif not entry.is_file(follow_symlinks=False):
                    kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                    raise refused(path, kind, "a file")


def refused(path: Path, kind: int | None, expected: str) -> UserError:
    """Return the error for an entry of another type than expected."""
    got = _WORDS.get(kind or 0, "a special file")
    note = "; links are not followed" if kind == stat.S_IFLNK else ""
    return UserError(f"{path}: got {got}, expected {expected}{note}")


def _hidden(name: str) -> str:
    return f".{name}-{secrets.token_hex(8)}"


@contextmanager
def _errors_of(path: Path, extra: str = "") -> Iterator[None]:
    """Name a path in an OSError; the system knows only the name of an entry, or nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"{os.strerror(error.errno)}{extra}", str(path)) from error
