"""Folders and single files behind the interface of an archive; links are followed."""

import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.data.archives.base import Archive
from pipeline.data.archives.names import arrange, empty_folders, junk_kind

_BLOCK = 1 << 20  # bytes


class Folder(Archive):
    """A folder; links are followed. A broken link is a file that cannot be read.

    Without `nested`, only files directly in the folder. Raises OSError for unreadable files.
    """

    def __init__(self, path: Path, *, nested: bool = True) -> None:
        files, sizes, folders = _walk(path) if nested else (*_list(path), [])
        names, rows, left_out = arrange(files)
        members = np.array(rows, np.int64)
        super().__init__(path, names, members, [sizes[row] for row in rows], left_out)
        self._files = files
        self.notes = empty_folders(folders, names)

    def read(self, index: int) -> bytes:
        """Return a file's content."""
        with io.FileIO(self._path(index)) as file:
            return file.readall()

    def head(self, index: int, size: int) -> bytes:
        """Return a file's first `size` bytes."""
        with io.FileIO(self._path(index)) as file:
            return file.read(size)

    def open(self, index: int) -> IO[bytes]:
        """Open a file."""
        return io.BufferedReader(io.FileIO(self._path(index)))

    def digest(self, indices: Sequence[int]) -> str:
        """Hash the files' names, sizes and contents."""
        digest = hashlib.sha256()
        for index in indices:
            digest.update(f"{self.names[index]}\0{self.sizes[index]}\0".encode())
            if self.sizes[index] <= _BLOCK:
                digest.update(self.read(index))
                continue
            with self.open(index) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()}"

    def _path(self, index: int) -> str:
        return f"{self.path}/{self._files[int(self._members[index])]}"  # a Path would be slow


class SingleFile(Folder):
    """One file that is no archive, as an archive of one name; `path` is the file itself."""

    def __init__(self, path: Path) -> None:
        names, sizes = [unicodedata.normalize("NFC", path.name)], [path.stat().st_size]
        Archive.__init__(self, path, names, np.zeros(1, np.int64), sizes, {})

    def place(self, index: int) -> str:
        """Return the file's path for messages."""
        del index
        return str(self.path)

    def _path(self, index: int) -> str:
        del index
        return str(self.path)


def _list(path: Path) -> tuple[list[str], list[int]]:
    """Return the names and sizes of the files directly in a folder."""
    with os.scandir(path) as entries:
        files = [(entry.name, entry.stat().st_size) for entry in entries if entry.is_file()]
    return [name for name, _ in files], [size for _, size in files]


def _walk(root: Path) -> tuple[list[str], list[int], list[str]]:
    """Return the relative names and the sizes of all files below a folder, in no order.

    The last list has the names of the folders.

    Files that `arrange` leaves out are listed too; their sizes are 0, and errors that concern them
    are ignored. So are broken links: they raise when they are read.
    """
    names, sizes, found = [], [], []
    folders = [("", False)]
    while folders:
        folder, junk = folders.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError:
            if not junk:
                raise
            continue
        if folder and not junk:
            found.append(folder.rstrip("/"))
        for entry in entries:
            name = folder + entry.name
            if junk or junk_kind(entry.name):
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{name}/", True))
                else:
                    names.append(name)
                    sizes.append(0)
            elif entry.is_dir():
                if not (entry.is_symlink() and _leads_back(root / name, root)):
                    folders.append((f"{name}/", False))
            elif stat.S_ISREG((status := _status(entry)).st_mode):
                names.append(name)
                sizes.append(status.st_size)
    return names, sizes, found


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Return what a file is; of a broken link, that of an empty file."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return os.stat_result((stat.S_IFREG, *[0] * 9))


def _leads_back(folder: Path, root: Path) -> bool:
    """Return whether a link leads to a folder on its own path below `root`: an endless loop."""
    target, parents = folder.resolve(), folder.relative_to(root).parents
    return any((root / parent).resolve().is_relative_to(target) for parent in parents)
