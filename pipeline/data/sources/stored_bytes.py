"""Bytes of archives with positioned reads.

Compressed files are inflated once, into unnamed temporary files, so that no file is ever whole in
memory.
"""

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import IO, Any, cast

import numpy as np

from beton.format.storage import naming
from pipeline.data.archives import Archive, Folder
from pipeline.data.base import ImageError, SourceError
from pipeline.data.inflated import open_shared, shared_path, temporary_file, temporary_place

BLOCK = 1 << 20  # bytes
DEFLATE_LIMIT = 1032  # the largest compression ratio
DAMAGE = (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, ImageError)


class Bytes(ABC):
    """Bytes with positioned reads. Can be pickled; a process opens unnamed files of another."""

    path: str  # for messages
    _file: IO[bytes] | None = None
    _shared: str | None = None  # path of the file of the process that pickled it, if it is unnamed

    def __getstate__(self) -> dict[str, Any]:
        shared = shared_path(self._file) or self._shared
        return {**self.__dict__, "_file": None, "_shared": shared}

    @abstractmethod
    def _open(self) -> IO[bytes]:
        """Return a file with random access."""

    def open(self) -> IO[bytes]:
        """Return this process's file. Raises SourceError for damage."""
        if self._file is None:
            self._file = open_shared(self._shared) or self._open()
        return self._file

    def size(self) -> int:
        """Return the number of bytes."""
        return os.fstat(self.open().fileno()).st_size

    def pread(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from byte `offset`. Raises SourceError if there are fewer."""
        data = os.pread(self.open().fileno(), size, offset)
        if len(data) < size:
            raise self.error("was truncated after it was opened")
        return data

    def error(self, reason: str) -> SourceError:
        """Return an error with the path."""
        return SourceError(f"{self.path}: {reason}")


class StoredBytes(Bytes):
    """A file of an archive, inflated if it is gzipped, whatever its suffix.

    `expected` is its size once inflated, if that is known. Raises SourceError for damage.
    """

    def __init__(self, archive: Archive, index: int) -> None:
        self._archive, self._index = archive, index
        self.path = archive.place(index)
        self.expected: int | None = None
        with self._damage_reported(), archive.open(index) as file:
            self._gzipped = file.read(2) == b"\x1f\x8b"

    @property
    def limit(self) -> int:
        """Return the largest number of bytes that the file can hold."""
        return self._archive.sizes[self._index] * (DEFLATE_LIMIT if self._gzipped else 1)

    def head(self, size: int) -> bytes:
        """Return up to `size` bytes from the beginning; no more are inflated."""
        with self._damage_reported(), self._stream() as stream:
            return stream.read(size)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content in blocks."""
        with self._damage_reported(), self._stream() as stream:
            while block := stream.read(BLOCK):
                yield block

    def digest(self) -> str:
        """Return a digest of the inflated content."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()

    def _open(self) -> IO[bytes]:
        if isinstance(self._archive, Folder) and not self._gzipped:
            file, held = self._archive.open(self._index), self._archive.sizes[self._index]
        else:
            file, held = spool(self.blocks(), self.expected)
        if self.expected is not None and held != self.expected:
            file.close()
            more = "more" if held > self.expected else f"{held}"
            raise self.error(f"damaged: got {more} bytes, expected {self.expected}")
        return file

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        with self._archive.open(self._index) as file:
            if self._gzipped:
                with gzip.open(file) as inflated:
                    yield cast(IO[bytes], inflated)
            else:
                yield file

    @contextmanager
    def _damage_reported(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise self.error(f"damaged: {error}") from error


class ColumnMajor(Bytes):
    """An array (n, …) that is stored with its first axis fastest, copied into rows once.

    It begins at byte `start` of `data`.
    """

    def __init__(
        self, data: Bytes, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        self._source, self._start, self._dtype, self._shape = data, start, dtype, shape
        self.path = data.path

    def _open(self) -> IO[bytes]:
        count = prod(self._shape)
        self._source.pread(1, self._start + count * self._dtype.itemsize - 1)  # it is long enough
        values = np.memmap(
            self._source.open(), self._dtype, "r", self._start, self._shape, order="F"
        )
        step = max(1, BLOCK * len(values) // max(1, values.nbytes))
        rows = (values[start : start + step] for start in range(0, len(values), step))
        return spool((np.ascontiguousarray(block).tobytes() for block in rows), None)[0]


class PositionedReader(io.RawIOBase):
    """A stream over bytes with a position of its own, though processes share the open file."""

    def __init__(self, data: Bytes) -> None:
        super().__init__()
        self._data, self._size, self._position = data, data.size(), 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("a negative position")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return the number of bytes."""
        size = max(0, min(len(buffer), self._size - self._position))
        buffer[:size] = self._data.pread(size, self._position) if size else b""
        self._position += size
        return size


def distinct_files(
    archive: Archive, indices: Sequence[int], purpose: Callable[[str], object]
) -> list[int]:
    """Return the files without copies: those of equal contents and purpose as a file before.

    `purpose` returns what a file's name says. Labels of training and test may be equal numbers.
    """
    sizes = [(archive.sizes[index], purpose(archive.names[index])) for index in indices]
    counts = Counter(sizes)
    seen: set[tuple[object, str]] = set()
    kept = []
    for index, size in zip(indices, sizes, strict=True):
        if counts[size] > 1:
            key = size, StoredBytes(archive, index).digest()
            if key in seen:
                continue
            seen.add(key)
        kept.append(index)
    return kept


def spool(blocks: Iterator[bytes], expected: int | None) -> tuple[IO[bytes], int]:
    """Write blocks to an unnamed temporary file, until they exceed `expected` bytes.

    Returns the file and its size.
    """
    file, held = temporary_file(), 0
    for block in blocks:
        with naming(temporary_place()):
            file.write(block)
            file.flush()
        held += len(block)
        if expected is not None and held > expected:
            break
    return file, held
