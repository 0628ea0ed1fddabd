"""The interface of an archive: a sorted list of files, read one at a time.

Archives are not unpacked. Unsafe archives are rejected when they are opened, for all kinds of
sources.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data.base import ImageError, SourceError
from pipeline.data.inflated import open_shared, shared_path

LARGEST_FILE = 1 << 30  # bytes

Members = NDArray[np.int64]


class Archive(ABC):
    """The files of a folder or archive, sorted by name, without hidden and system files.

    `names` are relative, with slashes, in NFC; two files whose names are equal in NFC alone have
    the same name here. `sizes` are in bytes. `left_out` counts the files without data by kind (see
    names.py). `notes` are facts about the names, one sentence each. Can be pickled; open files stay
    with their process.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        members: Members,
        sizes: Sequence[int],
        left_out: Mapping[str, int],
    ) -> None:
        self.path = path
        self.names = list(names)
        self.sizes = list(sizes)
        self.left_out = dict(left_out)
        self.notes: tuple[str, ...] = ()
        self._members = members  # (n,) or (n, columns): where each file is
        self._whole = len(self.names)
        try:
            "".join(names).encode()
        except UnicodeEncodeError as error:
            bad = next(name for name in names if not name.isprintable())
            raise SourceError(f"{path}: the name {bad!a} is not valid UTF-8") from error

    @abstractmethod
    def read(self, index: int) -> bytes | bytearray:
        """Return a file's content. Raises ImageError for a damaged member, or OSError."""

    @abstractmethod
    def head(self, index: int, size: int) -> bytes:
        """Return a file's first `size` bytes; b"" for a damaged member. Raises OSError."""

    @abstractmethod
    def open(self, index: int) -> IO[bytes]:
        """Open a file as a stream."""

    @abstractmethod
    def digest(self, indices: Sequence[int]) -> str:
        """Return "sha256:…" of the files at `indices`, which are sorted."""

    def place(self, index: int) -> str:
        """Return a file's path for messages."""
        return str(self.path / self.names[index])

    def select(self, keep: Callable[[str], bool]) -> Self:
        """Return a view of the files whose names `keep` accepts; it shares this one's open file."""
        rows = [row for row, name in enumerate(self.names) if keep(name)]
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view.names = [self.names[row] for row in rows]
        view.sizes = [self.sizes[row] for row in rows]
        view._members = self._members[rows]
        return view


class ArchiveFile(Archive):
    """An archive in one file, of which members are read by position."""

    _file: IO[bytes] | None = None
    _shared: str | None = None  # path of the file of the process that pickled it, if it is unnamed

    def __getstate__(self) -> dict[str, Any]:
        shared = shared_path(self._file) or self._shared
        return {**self.__dict__, "_file": None, "_shared": shared}

    def digest(self, indices: Sequence[int]) -> str:
        """Hash the whole archive and, for a part of its files, their names."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if len(indices) < self._whole:
            digest.update("\0".join(self.names[index] for index in indices).encode())
        return f"sha256:{digest.hexdigest()}"

    def _open_file(self) -> IO[bytes]:
        """Open the file that members are read from."""
        return self.path.open("rb", buffering=0)

    def _pread(self, size: int, offset: int) -> bytes:
        if self._file is None:
            self._file = open_shared(self._shared) or self._open_file()
        return os.pread(self._file.fileno(), size, offset)


def damaged(reason: str) -> ImageError:
    """Return the error for a damaged member."""
    return ImageError(f"damaged in the archive: {reason}")
