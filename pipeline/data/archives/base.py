"""Folders and zip archives behind one interface: a sorted list of files, read one at a time.

Zip archives are not unpacked: the directory is read once, and each member then takes one positioned
read and one inflation. Unsafe archives are rejected here, for all kinds of sources. Members must be
stored or deflated, as zip programs write them.
"""

import hashlib
import itertools
import os
import re
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import deflate
import numpy as np

from pipeline.data.base import ImageError, SourceError

LARGEST_FILE = 1 << 30  # bytes
# Deflate compresses at most 1032 to 1. A small image of blank paper may come near this ratio; a
# large file that does is a decompression bomb.
SUSPICIOUS_SIZE, SUSPICIOUS_RATIO = 1 << 26, 100
_JUNK = re.compile(r"(^|/)(\.[^/]*|__MACOSX|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
_OUTSIDE = re.compile(r"^/|^[A-Za-z]:/|(^|/)\.\.(/|$)")
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class Archive(ABC):
    """The files of a folder or zip archive, sorted by name, without hidden and system files.

    `names` are relative, with slashes; `sizes` are in bytes. Can be pickled; open files stay with
    their process.
    """

    def __init__(self, path: Path, names: Sequence[str], sizes: Sequence[int]) -> None:
        self.path = path
        self.names = list(names)
        self.sizes = list(sizes)
        try:
            "".join(names).encode()
        except UnicodeEncodeError as error:
            bad = next(name for name in names if not name.isprintable())
            raise SourceError(f"{path}: the name {bad!a} is not valid UTF-8") from error

    @abstractmethod
    def read(self, index: int) -> bytes | bytearray:
        """Return a file's content. Raises ImageError for a damaged zip member, or OSError."""

    @abstractmethod
    def open(self, index: int) -> IO[bytes]:
        """Open a file as a stream."""

    @abstractmethod
    def digest(self, indices: Sequence[int]) -> str:
        """Return "sha256:…" of the files at `indices`, which are sorted."""


class Folder(Archive):
    """A folder; links are followed. Raises OSError for unreadable files and broken links."""

    def __init__(self, path: Path, *, nested: bool = True) -> None:
        names = _walk(path) if nested else sorted(p.name for p in path.iterdir() if p.is_file())
        super().__init__(path, names, [(path / name).stat().st_size for name in names])

    def read(self, index: int) -> bytes:
        """Return a file's content."""
        return (self.path / self.names[index]).read_bytes()

    def open(self, index: int) -> IO[bytes]:
        """Open a file."""
        return (self.path / self.names[index]).open("rb")

    def digest(self, indices: Sequence[int]) -> str:
        """Hash the files' names, sizes and contents."""
        digest = hashlib.sha256()
        for index in indices:
            digest.update(f"{self.names[index]}\0{self.sizes[index]}\0".encode())
            with self.open(index) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()}"


class ZipArchive(Archive):
    """A zip archive. Raises SourceError if it is damaged or unsafe."""

    def __init__(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise SourceError(f"{path}: unreadable zip archive: {error}") from None
        named = sorted(((_name(m), m) for m in members), key=lambda pair: pair[0])
        _refuse_unsafe(path, named)
        named = [(name, m) for name, m in named if not _JUNK.search(name)]
        members = [m for _, m in named]
        super().__init__(path, [name for name, _ in named], [m.file_size for m in members])
        self._members = [m.filename for m in members]
        self._where = np.array(
            [(m.header_offset, m.compress_size, m.CRC, m.compress_type) for m in members], np.int64
        ).reshape(-1, 4)
        self._file: IO[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, index: int) -> bytes | bytearray:
        """Return a member, inflated to its declared size. Raises ImageError if it is damaged."""
        offset, packed, crc, method = map(int, self._where[index])
        header = self._pread(_LOCAL_HEADER.size, offset)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise _damaged("no member at its offset")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        data: bytes | bytearray = self._pread(packed, offset + _LOCAL_HEADER.size + name + extra)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = deflate.deflate_decompress(data, self.sizes[index])
            except deflate.DeflateError:
                raise _damaged("does not inflate to its declared size") from None
        if len(data) != self.sizes[index]:
            raise _damaged(f"got {len(data)} of {self.sizes[index]} bytes")
        if zlib.crc32(data) != crc:
            raise _damaged("wrong checksum")
        return data

    def open(self, index: int) -> IO[bytes]:
        """Open a member as a stream that is inflated while it is read."""
        with zipfile.ZipFile(self.path) as archive:
            return archive.open(self._members[index])

    def digest(self, indices: Sequence[int]) -> str:
        """Hash the whole archive and, for a part of its files, their names."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if len(indices) < len(self.names):
            digest.update("\0".join(self.names[index] for index in indices).encode())
        return f"sha256:{digest.hexdigest()}"

    def _pread(self, size: int, offset: int) -> bytes:
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        return os.pread(self._file.fileno(), size, offset)


def _walk(path: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error

    names = []
    for folder, folders, files in os.walk(path, onerror=fail, followlinks=True):
        here = Path(folder)
        folders[:] = [n for n in folders if not (_JUNK.search(n) or _leads_back(here / n, path))]
        paths = [here / name for name in files if not _JUNK.search(name)]
        names += [p.relative_to(path).as_posix() for p in paths if stat.S_ISREG(p.stat().st_mode)]
    return sorted(names)


def _leads_back(folder: Path, root: Path) -> bool:
    """Return whether a folder links to a folder on its own path below `root`: an endless loop."""
    if not folder.is_symlink():
        return False
    target, parents = folder.resolve(), folder.relative_to(root).parents
    return any((root / parent).resolve().is_relative_to(target) for parent in parents)


def _name(member: zipfile.ZipInfo) -> str:
    """Return a member's normalized name; some Windows programs write backslashes."""
    name = member.filename.replace("\\", "/")
    return re.sub(r"/(\.?/)+", "/", name).removeprefix("./")


def _damaged(reason: str) -> ImageError:
    return ImageError(f"damaged in the archive: {reason}")


def _refuse_unsafe(path: Path, named: Sequence[tuple[str, zipfile.ZipInfo]]) -> None:
    """Raise SourceError if any member is unsafe; `named` has all members, sorted by name."""
    end, before = path.stat().st_size, None
    for name, member in named:
        if reason := _danger(name, before, member, end):
            raise SourceError(f"{path}: refused: member {member.filename!r} {reason}")
        before = name
    # A small archive can declare unlimited content by members that share bytes.
    placed = sorted((member for _, member in named), key=lambda member: member.header_offset)
    for first, second in itertools.pairwise(placed):
        if first.header_offset + _LOCAL_HEADER.size + first.compress_size > second.header_offset:
            raise SourceError(
                f"{path}: refused: members {first.filename!r} and {second.filename!r} overlap: "
                "a decompression bomb"
            )


def _danger(name: str, before: str | None, member: zipfile.ZipInfo, end: int) -> str | None:
    """Return why a member is unsafe, None if it is safe.

    `before` is the name of the member before it, `end` the archive's size in bytes.
    """
    size, packed = member.file_size, member.compress_size
    if name == before:
        return "has the same name as another member"
    if _OUTSIDE.search(name):
        return "points outside the archive"
    if member.flag_bits & 1:
        return "is encrypted"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"has compression method {member.compress_type}, expected 0 (stored) or 8 (deflated)"
    if size > LARGEST_FILE or (size > SUSPICIOUS_SIZE and size > SUSPICIOUS_RATIO * packed):
        return f"declares {size:,} bytes in {packed:,}: a decompression bomb"
    if not 0 <= member.header_offset <= end - _LOCAL_HEADER.size - packed:
        return "lies outside the file"
    return None
