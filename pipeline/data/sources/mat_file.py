"""Reads MATLAB's files of version 5: the arrays of numbers, without loading them.

Every size is checked before it is read. The format is described in MathWorks' "MAT-File Format".
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.archives import Archive
from pipeline.data.archives.zip_archive import SUSPICIOUS_RATIO, SUSPICIOUS_SIZE
from pipeline.data.sources.stored_bytes import BLOCK, Bytes, StoredBytes, spool

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _NUMERIC = 2, range(6, 16)
_MOST_ARRAYS, _DEEPEST, _LARGEST_LABELS = 10_000, 8, 1 << 30


class Element(Bytes):
    """A top-level element of a file, inflated once a process if it is compressed."""

    def __init__(
        self, file: StoredBytes, start: int, size: int, order: str, *, compressed: bool
    ) -> None:
        self._stored, self._start, self._size, self._order = file, start, size, order
        self._compressed, self.path = compressed, file.path

    def blocks(self) -> Iterator[bytes]:
        """Yield the content in blocks. Raises SourceError for damage."""
        inflater = zlib.decompressobj()
        for offset in range(0, self._size, BLOCK):
            block = self._stored.pread(min(BLOCK, self._size - offset), self._start + offset)
            if not self._compressed:
                yield block
                continue
            while block:
                try:
                    yield inflater.decompress(block, BLOCK)
                except zlib.error as error:
                    raise self.error(f"damaged: {error}") from None
                block = inflater.unconsumed_tail

    def _open(self) -> IO[bytes]:
        expected = self._size
        if self._compressed:
            head = next(self.blocks(), b"")[:8]
            if len(head) < 8:
                raise self.error("damaged: an empty element")
            expected = 8 + int(struct.unpack(f"{self._order}II", head)[1])
            if expected > SUSPICIOUS_SIZE and expected > SUSPICIOUS_RATIO * self._size:
                raise self.error(
                    f"refused: declares {expected:,} bytes in {self._size:,}: a decompression bomb"
                )
        file, held = spool(self.blocks(), expected)
        if held > expected:
            file.close()
            raise self.error(f"damaged: got more than {expected:,} bytes")
        return file


@dataclass(frozen=True)
class MatArray:
    """An array of numbers in a file: `name` has the names of the structures around it."""

    name: str
    data: Bytes
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def values(self) -> NDArray[Any]:
        """Return all values. Raises SourceError beyond a gigabyte."""
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > _LARGEST_LABELS:
            raise self.data.error(f"got labels of {size:,} bytes, expected at most 1 GiB")
        values = np.frombuffer(self.data.pread(size, self.start), self.dtype)
        return values.reshape(self.shape, order="F")


class _Reader:
    """Finds the arrays of one element."""

    def __init__(self, data: Bytes, order: str) -> None:
        self.data, self.order, self.arrays = data, order, list[MatArray]()
        self._end = data.size()

    def read_matrix(self, start: int, end: int, name: str | None, depth: int) -> None:
        """Add the arrays of a matrix whose content is from `start` to before `end`."""
        if depth > _DEEPEST or len(self.arrays) > _MOST_ARRAYS:
            raise self.data.error("damaged: too many or too deep structures")
        if start == end:
            return  # an empty field
        (_, flags, size), start = self._element(start, end)
        if size < 4:
            raise self.data.error("damaged: an array without a class")
        kind = self._numbers(flags, 4, "u4")[0] & 255
        (_, at, size), start = self._element(start, end)
        shape = tuple(self._numbers(at, size // 4 * 4, "i4"))
        (_, at, size), start = self._element(start, end)
        own = self.data.pread(min(size, 64), at).decode("utf-8", "replace").strip("\0")
        name = own if name is None else name
        if not 2 <= len(shape) <= 32 or min(shape) < 0:
            raise self.data.error(f"damaged: the array {name!r} declares the shape {shape}")
        if kind == _STRUCT and math.prod(shape) == 1:
            self._read_struct(start, end, name, depth)
        elif kind in _NUMERIC and start < end:
            (code, at, size), _ = self._element(start, end)
            if code in _TYPES:
                dtype = np.dtype(f"{self.order}{_TYPES[code]}")
                if math.prod(shape) * dtype.itemsize != size:
                    raise self.data.error(
                        f"damaged: the array {name!r} declares {shape} in {size:,} bytes"
                    )
                self.arrays.append(MatArray(name, self.data, at, dtype, shape))

    def _read_struct(self, start: int, end: int, name: str, depth: int) -> None:
        (_, at, size), start = self._element(start, end)
        length = self._numbers(at, 4, "i4")[0] if size >= 4 else 0
        (_, at, size), start = self._element(start, end)
        if not 0 < length <= 64 or size > length * _MOST_ARRAYS:
            raise self.data.error("damaged: fields of a structure without names")
        names = self.data.pread(size, at)
        for offset in range(0, size, length):
            field = names[offset : offset + length].split(b"\0")[0].decode("utf-8", "replace")
            (code, at, inner), start = self._element(start, end)
            if code != _MATRIX:
                raise self.data.error(f"damaged: the field {field!r} is no array")
            self.read_matrix(at, at + inner, f"{name}.{field}", depth + 1)

    def _element(self, start: int, end: int) -> tuple[tuple[int, int, int], int]:
        """Return an element's type, its data's position and size, and where the next begins."""
        if start + 8 > min(end, self._end):
            raise self.data.error("damaged: ends within an array")
        first, second = self._numbers(start, 8, "u4")
        if first >> 16:  # up to four bytes are in the tag
            kind, at, size, after = first & 0xFFFF, start + 4, first >> 16, start + 8
        else:
            kind, at, size = first, start + 8, second
            after = at + (size + 7) // 8 * 8
        if at + size > min(end, self._end) or (first >> 16 and size > 4):
            raise self.data.error("damaged: an element is longer than its array")
        return (kind, at, size), after

    def _numbers(self, start: int, size: int, kind: str) -> list[int]:
        values: list[int] = np.frombuffer(
            self.data.pread(size, start), np.dtype(f"{self.order}{kind}")
        ).tolist()
        return values


def read_arrays(archive: Archive, index: int) -> list[MatArray]:
    """Return the arrays of numbers of a file.

    Raises SourceError for damage and for other versions than 5.
    """
    stored = StoredBytes(archive, index)
    head = stored.head(520)
    if _HDF5 in (head[:8], head[512:520]) or head.startswith(b"MATLAB 7.3"):
        raise stored.error(
            "is of MATLAB 7.3 (HDF5), expected version 5; "
            "save it in MATLAB with save(name, '-v7'), or as .npz from Python with h5py"
        )
    if len(head) < 128 or head[126:128] not in (b"IM", b"MI"):
        raise stored.error("is no MATLAB file of version 5")
    order = "<" if head[126:128] == b"IM" else ">"
    arrays: list[MatArray] = []
    position, end = 128, stored.size()
    while position + 8 <= end:
        kind, size = struct.unpack(f"{order}II", stored.pread(8, position))
        if position + 8 + size > end:
            raise stored.error("damaged: is cut off within an array")
        element = Element(stored, position + 8, size, order, compressed=kind == _COMPRESSED)
        if kind in (_MATRIX, _COMPRESSED) and size:
            arrays += _arrays_of(element, order, compressed=kind == _COMPRESSED)
        if len(arrays) > _MOST_ARRAYS:
            raise stored.error(f"got more than {_MOST_ARRAYS:,} arrays")
        position += 8 + size
    return arrays


def _arrays_of(element: Element, order: str, *, compressed: bool) -> list[MatArray]:
    reader = _Reader(element, order)
    start, end = 0, element.size()
    if compressed:
        kind, size = struct.unpack(f"{order}II", element.pread(8, 0))
        if kind != _MATRIX:
            return []
        start, end = 8, min(end, 8 + size)
    reader.read_matrix(start, end, None, 0)
    return reader.arrays
