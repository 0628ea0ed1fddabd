"""Tar archives, compressed or not: members are read by position.

A compressed archive has no positions. It is inflated once, into an unnamed temporary file.
"""

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from beton.format.storage import FULL
from pipeline.data.archives.base import LARGEST_FILE, ArchiveFile, damaged
from pipeline.data.archives.names import arrange, refuse_unsafe_names, refused, with_slashes
from pipeline.data.archives.streams import StoredStream
from pipeline.data.archives.tar_directory import (
    BLOCK,
    DamagedTarError,
    Member,
    is_tar_header,
    read_members,
)
from pipeline.data.base import SourceError
from pipeline.data.inflated import temporary_file, temporary_place

# Headers and padding of small files compress well, and bitmaps of blank paper may reach 150 to 1.
SUSPICIOUS_SIZE, SUSPICIOUS_RATIO = 1 << 28, 250
LARGEST_INFLATED = 1 << 38  # bytes


class TarArchive(ArchiveFile):
    """A tar archive, also compressed by gzip, bzip2 or xz.

    Raises SourceError if it is damaged or unsafe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inflated_size: int | None = None
        self._file = file = self._open_file()
        try:
            members = read_members(self._pread, os.fstat(file.fileno()).st_size)
            names = with_slashes([member.name for member in members])
            _refuse_unsafe(path, names, members)
        except BaseException as error:
            file.close()
            if isinstance(error, DamagedTarError):
                raise SourceError(f"{path}: expected a complete tar archive: {error}") from None
            raise
        names, rows, left_out = arrange(names)
        offsets = np.array([members[row].offset for row in rows], np.int64)
        super().__init__(path, names, offsets, [members[row].size for row in rows], left_out)

    def read(self, index: int) -> bytes:
        """Return a member. Raises ImageError if the archive became shorter."""
        data = self.head(index, self.sizes[index])
        if len(data) < self.sizes[index]:
            raise damaged(f"got {len(data)} of {self.sizes[index]} bytes")
        return data

    def head(self, index: int, size: int) -> bytes:
        """Return a member's first `size` bytes."""
        return self._pread(min(size, self.sizes[index]), int(self._members[index]))

    def open(self, index: int) -> IO[bytes]:
        """Open a member as a stream."""
        stream = StoredStream(self._pread, int(self._members[index]), self.sizes[index])
        return cast(IO[bytes], io.BufferedReader(stream))

    def _open_file(self) -> IO[bytes]:
        """Open the archive, or a temporary file with its inflated content."""
        file = super()._open_file()
        if (compression := _compression(file.read(BLOCK))) is None:
            return file
        with file:
            file.seek(0)
            inflated = temporary_file()
            try:
                size = _inflate(self.path, file, compression, inflated)
                if self._inflated_size not in (None, size):
                    raise damaged("the archive was changed after it was opened")
                self._inflated_size = size
            except BaseException:
                inflated.close()
                raise
        return inflated


def _refuse_unsafe(path: Path, names: list[str], members: list[Member]) -> None:
    """Raise SourceError if any member is unsafe."""
    refuse_unsafe_names(path, names)
    for name, member in zip(names, members, strict=True):
        if member.danger:
            raise refused(path, name, member.danger)
        if member.size > LARGEST_FILE:
            raise refused(path, name, f"has {member.size:,} bytes, more than 1 GiB")


def is_tar(path: Path) -> bool:
    """Return whether a file begins as a tar archive, compressed or not.

    Raises SourceError for a compressed file whose beginning is damaged.
    """
    with path.open("rb") as file:
        first = file.read(BLOCK)
        if compression := _compression(first):
            file.seek(0)
            with _damage_reported(path, compression):
                # As much as a block of bzip2: damage anywhere in it changes its beginning.
                first = _stream(file, compression).read(1 << 20)[:BLOCK]
    return is_tar_header(first) or first[257:262] == b"ustar"  # even if it is damaged


def _compression(head: bytes) -> str | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return "bzip2"
    return "xz" if head.startswith(b"\xfd7zXZ\0") else None


@contextmanager
def _damage_reported(path: Path, compression: str) -> Iterator[None]:
    """Raise SourceError where a compressed file turns out to be damaged."""
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system; gzip and bz2 have errors without a number
        reason = " ".join(str(error).split())
        raise SourceError(f"{path}: expected a complete {compression} file: {reason}") from None


def _stream(file: IO[bytes], compression: str) -> IO[bytes]:
    """Return the inflated content of a compressed file as a stream."""
    if compression == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if compression == "bzip2":
        return cast(IO[bytes], bz2.BZ2File(file))
    return cast(IO[bytes], lzma.LZMAFile(file))


def _inflate(path: Path, file: IO[bytes], compression: str, target: IO[bytes]) -> int:
    """Inflate a whole file into `target` and return the number of bytes.

    Raises SourceError if the file is damaged, a decompression bomb or has no room on the disk.
    """
    packed, size = os.fstat(file.fileno()).st_size, 0
    stream = _stream(file, compression)
    while True:
        with _damage_reported(path, compression):
            block = stream.read(1 << 20)
        if not block:
            return size
        size += len(block)
        suspicious = size > SUSPICIOUS_SIZE and size > SUSPICIOUS_RATIO * packed
        if suspicious or size > LARGEST_INFLATED:
            raise SourceError(
                f"{path}: refused: {packed:,} bytes inflate to more than {size:,}: "
                "a decompression bomb"
            )
        try:
            target.write(block)
            target.flush()
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise SourceError(
                f"{path}: no room in {temporary_place()} for its inflated content: "
                "set TMPDIR to a folder with more, or unpack it and use the folder"
            ) from None
