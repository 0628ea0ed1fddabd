"""Zip archives: each member takes one positioned read and one inflation.

Members must be stored or deflated, as zip programs write them.
"""

import io
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import deflate
import numpy as np
from numpy.typing import NDArray

from pipeline.data.archives.base import LARGEST_FILE, ArchiveFile, damaged
from pipeline.data.archives.names import (
    arrange,
    empty_folders,
    refuse_unsafe_names,
    refused,
    with_slashes,
)
from pipeline.data.archives.streams import MemberStream, StoredStream
from pipeline.data.archives.zip_directory import (
    DamagedDirectoryError,
    find_directory,
    read_directory,
)
from pipeline.data.base import ImageError, SourceError

# Deflate compresses at most 1032 to 1. A small image of blank paper may come near this ratio; a
# large file that does is a decompression bomb.
SUSPICIOUS_SIZE, SUSPICIOUS_RATIO = 1 << 26, 100
_STORED, _DEFLATED = 0, 8
_MEMBER = ("at", "packed", "crc", "method")  # the columns that reading takes
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class ZipArchive(ArchiveFile):
    """A zip archive. Raises SourceError if it is damaged or unsafe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open_file() as file:
            self._file, length = file, os.fstat(file.fileno()).st_size
            try:
                place = find_directory(self._pread, length)
                if place is None:
                    raise DamagedDirectoryError("no directory at its end: it is cut off or damaged")
                directory = read_directory(self._pread, place)
            except DamagedDirectoryError as error:
                raise SourceError(f"{path}: expected a complete zip archive: {error}") from None
            finally:
                self._file = None
        files = [row for row, name in enumerate(directory.names) if not name.endswith(("/", "\\"))]
        folders = [name for name in directory.names if name.endswith(("/", "\\"))]
        names = with_slashes([directory.names[row] for row in files])
        columns = directory.columns[files]
        _refuse_unsafe(path, names, columns, length)
        arranged = arrange(names)
        columns = columns[arranged.rows]
        members = np.stack([columns[field] for field in _MEMBER], 1)
        super().__init__(path, arranged.names, members, columns["size"].tolist(), arranged.left_out)
        folders = [name.rstrip("/") for name in with_slashes(folders)]
        self.notes = empty_folders(folders, self.names)
        if directory.guessed:
            self.notes += (
                f"{directory.guessed:,} names are not in UTF-8 and were read as code page 437",
            )

    def read(self, index: int) -> bytes | bytearray:
        """Return a member, inflated to its declared size. Raises ImageError if it is damaged."""
        start, packed, crc, deflated = self._find(index)
        data: bytes | bytearray = self._pread(packed, start)
        if deflated:
            try:
                data = deflate.deflate_decompress(data, self.sizes[index])
            except deflate.DeflateError:
                raise damaged("does not inflate to its declared size") from None
        if len(data) != self.sizes[index]:
            raise damaged(f"got {len(data)} of {self.sizes[index]} bytes")
        if zlib.crc32(data) != crc:
            raise damaged("wrong checksum")
        return data

    def head(self, index: int, size: int) -> bytes:
        """Return a member's first `size` bytes, b"" if it is damaged; only they are inflated."""
        try:
            start, packed, _, deflated = self._find(index)
            data = self._pread(min(packed, size + size // 8 + 512), start)
            if deflated:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
        except (ImageError, zlib.error):
            return b""
        return data[:size]

    def open(self, index: int) -> IO[bytes]:
        """Open a member as a stream that is inflated while it is read.

        Its reads raise zipfile.BadZipFile if the member is damaged.
        """
        start, packed, crc, deflated = self._find(index)
        section = StoredStream(self._pread, start, packed)
        stream = MemberStream(section, deflated, self.sizes[index], crc)
        return cast(IO[bytes], io.BufferedReader(stream))

    def _find(self, index: int) -> tuple[int, int, int, bool]:
        """Return where a member's bytes start, their number, its checksum, and if it is deflated.

        Raises ImageError if there is no member.
        """
        offset, packed, crc, method = map(int, self._members[index])
        header = self._pread(_LOCAL_HEADER.size, offset)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise damaged("no member at its offset")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        return offset + _LOCAL_HEADER.size + name + extra, packed, crc, method == _DEFLATED


def is_zip(path: Path) -> bool:
    """Return whether a file begins as a zip archive or ends with the directory of one."""
    with path.open("rb", buffering=0) as file:
        if file.read(4) in (b"PK\3\4", b"PK\5\6"):
            return True
        descriptor = file.fileno()
        try:
            place = find_directory(
                lambda size, offset: os.pread(descriptor, size, offset), file.seek(0, os.SEEK_END)
            )
        except DamagedDirectoryError:
            return True
        return place is not None


def _refuse_unsafe(path: Path, names: list[str], columns: NDArray[np.void], end: int) -> None:
    """Raise SourceError if any member is unsafe; `end` is the archive's size in bytes."""
    refuse_unsafe_names(path, names)
    size, packed, at = columns["size"], columns["packed"], columns["at"]
    dangers = {
        "encrypted": (columns["flags"] & 1) == 1,
        "link": columns["attributes"] >> 28 == stat.S_IFLNK >> 12,
        "method": ~np.isin(columns["method"], (_STORED, _DEFLATED)),
        "bomb": (size > LARGEST_FILE)
        | ((size > SUSPICIOUS_SIZE) & (size > SUSPICIOUS_RATIO * np.minimum(packed, end))),
        "outside": (at < 0) | (at > end - _LOCAL_HEADER.size - packed),
    }
    for danger, members in dangers.items():
        if members.any():
            row = int(members.argmax())
            reason = {
                "encrypted": "is encrypted",
                "link": "is a symbolic link",
                "method": f"has compression method {columns['method'][row]}, "
                "expected 0 (stored) or 8 (deflated)",
                "bomb": f"declares {size[row]:,} bytes in {packed[row]:,}: a decompression bomb",
                "outside": "lies outside the file",
            }[danger]
            raise refused(path, names[row], reason)
    # A small archive can declare unlimited content by members that share bytes.
    order = np.argsort(at, kind="stable")
    overlaps = (at + _LOCAL_HEADER.size + packed)[order[:-1]] > at[order[1:]]
    if overlaps.any():
        place = int(overlaps.argmax())
        first, second = names[order[place]], names[order[place + 1]]
        raise SourceError(
            f"{path}: refused: members {first!r} and {second!r} overlap: a decompression bomb"
        )
