"""A folder tree or a zip archive as one thing: named files, read one at a time where they lie.

Nothing is unpacked: a zip's directory is read once, and a member is then one positioned read and
one inflation. What makes an archive unsafe to read is refused here, once, for all kinds of sources.
Only members that are stored or deflated are read: those are what zip programs write.
"""

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import deflate
import numpy as np

LARGEST_FILE = 1 << 30  # bytes
# Deflate cannot do better than 1032 to 1. A small file of blank paper may come near; a large one
# that does is made to fill memory.
SUSPICIOUS_SIZE, SUSPICIOUS_RATIO = 1 << 26, 100
_JUNK = re.compile(r"(^|/)(\.[^/]*|__MACOSX|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class SourceError(ValueError):
    """A source cannot be used as a whole; the message is one line that names it and says why."""


class Files(ABC):
    """The files of a tree or an archive, sorted by name, without what systems leave behind.

    `names` are relative, with slashes; `sizes` are in bytes. Can be pickled; whatever is open stays
    with its process.
    """

    def __init__(self, path: Path, names: Sequence[str], sizes: Sequence[int]) -> None:
        self.path = path
        self.names = list(names)
        self.sizes = list(sizes)

    @abstractmethod
    def read(self, index: int) -> bytes | bytearray:
        """Return the whole file. Raises OSError or SourceError."""

    @abstractmethod
    def open(self, index: int) -> IO[bytes]:
        """Open the file as a stream."""

    @abstractmethod
    def digest(self, indices: Sequence[int]) -> str:
        """Return "sha256:…" of what the files at `indices`, sorted, hold."""


class Tree(Files):
    """A folder. Links to files are followed, links to folders are not."""

    def __init__(self, path: Path, names: Sequence[str] | None = None) -> None:
        if names is None:
            names = _walk(path)
        sizes = [(path / name).stat().st_size for name in names]
        super().__init__(path, names, sizes)

    def read(self, index: int) -> bytes:
        return (self.path / self.names[index]).read_bytes()

    def open(self, index: int) -> IO[bytes]:
        return (self.path / self.names[index]).open("rb")

    def digest(self, indices: Sequence[int]) -> str:
        digest = hashlib.sha256()
        for index in indices:
            digest.update(f"{self.names[index]}\0{self.sizes[index]}\0".encode())
            with self.open(index) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()}"


class Zip(Files):
    """A zip archive. Raises SourceError for one that is damaged or unsafe."""

    def __init__(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise SourceError(f"{path}: not a zip archive that can be read: {error}") from None
        members.sort(key=lambda member: _name(member))
        _refuse_unsafe(path, members)
        members = [member for member in members if not _JUNK.search(_name(member))]
        super().__init__(path, [_name(m) for m in members], [m.file_size for m in members])
        self._members = [m.filename for m in members]
        self._where = np.array(
            [(m.header_offset, m.compress_size, m.CRC, m.compress_type) for m in members], np.int64
        ).reshape(-1, 4)
        self._file: IO[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, index: int) -> bytes | bytearray:
        offset, packed, crc, method = map(int, self._where[index])
        header = self._pread(_LOCAL_HEADER.size, offset)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise self._damaged(index, "there is no member where the directory says")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        data: bytes | bytearray = self._pread(packed, offset + _LOCAL_HEADER.size + name + extra)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = deflate.deflate_decompress(data, self.sizes[index])
            except deflate.DeflateError:
                raise self._damaged(index, "it does not inflate to its declared size") from None
        if len(data) != self.sizes[index]:
            raise self._damaged(index, f"{len(data)} bytes of {self.sizes[index]}")
        if zlib.crc32(data) != crc:
            raise self._damaged(index, "wrong checksum")
        return data

    def open(self, index: int) -> IO[bytes]:
        with zipfile.ZipFile(self.path) as archive:
            return archive.open(self._members[index])

    def digest(self, indices: Sequence[int]) -> str:
        del indices  # the archive is one file, and hashing it whole is quicker than by member
        with self.path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def _pread(self, size: int, offset: int) -> bytes:
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        return os.pread(self._file.fileno(), size, offset)

    def _damaged(self, index: int, reason: str) -> SourceError:
        return SourceError(f"damaged in the archive: {reason}")


def _walk(path: Path) -> list[str]:
    names = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not _JUNK.search(name)]
        below = Path(folder).relative_to(path)
        names += [(below / name).as_posix() for name in files if not _JUNK.search(name)]
    return sorted(names)


def _name(member: zipfile.ZipInfo) -> str:
    """Return a member's name with plain slashes; some Windows programs write backslashes."""
    return member.filename.replace("\\", "/").removeprefix("./")


def _refuse_unsafe(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise SourceError if any member, junk or not, makes the archive unsafe; sorted by name."""
    before = None
    for member in members:
        name = _name(member)
        if name.startswith("/") or re.match(r"[A-Za-z]:/", name) or ".." in name.split("/"):
            reason = "points outside the archive"
        elif name == before:
            reason = "is there twice"
        elif member.flag_bits & 1:
            reason = "is encrypted"
        elif stat.S_ISLNK(member.external_attr >> 16):
            reason = "is a symbolic link"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            reason = f"has compression method {member.compress_type}; only deflate is read"
        elif member.file_size > LARGEST_FILE or (
            member.file_size > SUSPICIOUS_SIZE
            and member.file_size > SUSPICIOUS_RATIO * member.compress_size
        ):
            reason = (
                f"declares {member.file_size} bytes in {member.compress_size}: "
                "a decompression bomb"
            )
        else:
            before = name
            continue
        raise SourceError(f"{path}: refused: member {name!r} {reason}")
    # Members that share bytes are how a small archive declares endless content.
    placed = sorted(members, key=lambda member: member.header_offset)
    for first, second in zip(placed, placed[1:], strict=False):
        end = first.header_offset + _LOCAL_HEADER.size + first.compress_size
        if end > second.header_offset:
            raise SourceError(
                f"{path}: refused: members {_name(first)!r} and {_name(second)!r} overlap: "
                "a decompression bomb"
            )


def open_files(path: Path) -> Files | None:
    """Return the files of a folder or a zip archive, None if `path` is neither."""
    if path.is_dir():
        return Tree(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return Zip(path)
    return None


__all__ = ["Files", "SourceError", "Tree", "Zip", "open_files"]
_ = cast
