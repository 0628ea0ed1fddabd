"""Members of archives as streams that are read by position and inflated while they are read."""

import io
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

PositionedRead = Callable[[int, int], bytes]  # of a size, from an offset
_BLOCK = 1 << 16


class StoredStream(io.RawIOBase):
    """The `size` bytes from `offset` of a file, fewer if the file is shorter."""

    def __init__(self, read_at: PositionedRead, offset: int, size: int) -> None:
        self._read_at, self._position, self._end = read_at, offset, offset + size

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the section goes and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self._read_at(min(len(view), self._end - self._position), self._position)
        self._position += len(data)
        view[: len(data)] = data
        return len(data)


class MemberStream(io.RawIOBase):
    """A zip member, deflated or not, checked while it is read.

    Raises zipfile.BadZipFile if it differs from its declared size or checksum.
    """

    def __init__(self, packed: StoredStream, deflated: bool, size: int, crc: int) -> None:
        self._packed, self._left, self._expected = packed, size, crc
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self._crc, self._pending = 0, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with the next bytes and return their number, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._next(len(view)) if len(view) else b""
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._left < 0 or (len(view) and not data and self._left):
            raise zipfile.BadZipFile("the member does not have its declared size")
        if self._left == 0 and self._crc != self._expected:
            raise zipfile.BadZipFile("the member has a wrong checksum")
        view[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        if self._inflater is None:
            return self._packed.read(size) or b""
        data = b""
        while not (data or self._inflater.eof):
            self._pending = self._pending or self._packed.read(_BLOCK) or b""
            exhausted = not self._pending
            try:
                data = self._inflater.decompress(self._pending, size)
            except zlib.error as error:
                raise zipfile.BadZipFile(f"the member is damaged: {error}") from None
            self._pending = self._inflater.unconsumed_tail
            if exhausted:
                break
        return data
