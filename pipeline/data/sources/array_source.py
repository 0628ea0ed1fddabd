"""What the readers of arrays have in common: bytes with random access, images in rows, parts.

Compressed files are inflated once a process, into unnamed temporary files, and one image is read at
a time, so that no dataset is ever whole in memory.
"""

import gzip
import hashlib
import os
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.data import base
from pipeline.data.archives.base import Archive, Folder
from pipeline.data.base import (
    Annotations,
    Decoded,
    Grey,
    ImageError,
    Ints,
    Layout,
    Source,
    SourceError,
)
from pipeline.data.pixels.image_decoder import LONGEST_SIDE
from pipeline.data.sources.array_labels import Labelled

BLOCK = 1 << 20  # bytes
DEFLATE_LIMIT = 1032  # the largest compression ratio
DAMAGE = (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, ImageError)

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), base.TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), base.VALIDATION),
    **dict.fromkeys(("test", "testing", "t10k"), base.TEST),
}
_LEAST_RANGE = 32  # of 8-bit grey levels
_LUMA = (19595, 38470, 7471)  # of red, green and blue in units of 2^-16, as in Pillow


class Bytes(ABC):
    """Bytes with positioned reads. Can be pickled; open files stay with their process."""

    path: str  # for messages
    _file: IO[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    @abstractmethod
    def _open(self) -> IO[bytes]:
        """Return a file with random access."""

    def open(self) -> IO[bytes]:
        """Return this process's file. Raises SourceError for damage."""
        if self._file is None:
            self._file = self._open()
        return self._file

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
        self.path = f"{archive.path / archive.names[index]}"
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


def spool(blocks: Iterator[bytes], expected: int | None) -> tuple[IO[bytes], int]:
    """Write blocks to an unnamed temporary file, until they exceed `expected` bytes.

    Returns the file and its size.
    """
    file, held = cast(IO[bytes], tempfile.TemporaryFile()), 0  # noqa: SIM115, stays open
    for block in blocks:
        file.write(block)
        held += len(block)
        if expected is not None and held > expected:
            break
    file.flush()
    return file, held


class Images(Protocol):
    """Images that are read by their number."""

    mode: str
    note: str  # about the values, for people

    def image(self, row: int) -> Grey:
        """Return an image: grey levels (h, w), upright. Raises SourceError for a damaged file."""


class ArrayImages:
    """Images in rows of an array that begins at byte `start` of `data`.

    `shape` of one image is (h, w), (h, w, 1), (1, h, w), (h, w, 3) or (3, h, w). Colour becomes
    grey as in Pillow's `convert("L")`. Integers and floats whose values are all whole numbers from
    0 to 255 become 8-bit grey, bool becomes 0 and 255. Other values stay as they are, and so do
    numbers that use less than an eighth of a byte's range: the dataset's scale applies to them.
    Bytes with `trusted` are grey levels as they are, whatever their range.
    """

    def __init__(
        self,
        data: Bytes,
        start: int,
        dtype: np.dtype[Any],
        count: int,
        shape: tuple[int, ...],
        *,
        transposed: bool = False,
        trusted: bool = False,
    ) -> None:
        self._data, self._start, self._dtype, self.count = data, start, dtype, count
        self._shape, self._transposed = shape, transposed
        self._channels = _channel_axis(shape)
        self._bytes = dtype.itemsize * prod(shape)
        colours = 1 if self._channels is None else shape[self._channels]
        height, width = (side for axis, side in enumerate(shape) if axis != self._channels)
        if colours not in (1, 3):
            raise data.error(f"got images with {colours} channels, expected 1 or 3")
        if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE):
            size = f"{width}×{height} pixels"
            raise data.error(f"got images of {size}, expected 1 to 65,535 pixels a side")
        self.mode = "RGB" if colours == 3 else "L"
        self.note = ""
        self._target: np.dtype[Any] = np.dtype(np.uint8)
        if count and not (trusted and dtype == np.uint8):
            self._choose_depth(colours)

    def image(self, row: int) -> Grey:
        """Return one image (h, w), upright. Raises SourceError for a damaged file."""
        return self._grey(self._data.pread(self._bytes, self._start + row * self._bytes))

    def _grey(self, data: bytes) -> Grey:
        values = np.frombuffer(data, self._dtype).reshape(self._shape)
        if self._dtype == np.bool_:
            values = values.astype(np.uint8) * 255
        values = values.astype(self._target, copy=False)
        if self._channels is not None:
            values = np.moveaxis(values, self._channels, 0)
            values = values[0] if len(values) == 1 else _luma(values)
        return np.ascontiguousarray(values.T if self._transposed else values)

    def _choose_depth(self, colours: int) -> None:
        """Read all values once and choose the type of the grey levels."""
        if self._dtype == np.bool_:
            self.mode, self.note = "1", "pixels are true and false: 255 and 0"
            return
        low, high, whole = self._range()
        kind = self._dtype.name
        if whole and low >= 0 and _LEAST_RANGE <= high <= 255:
            if self._dtype != np.uint8:
                self.note = f"pixels are {kind} from {low:g} to {high:g}: read as 8-bit grey"
            return
        if self._dtype == np.int8:
            raise self._data.error(
                f"got signed bytes from {low:g} to {high:g} as pixels, expected 0 to 255"
            )
        self.note = f"pixels are {kind} from {low:g} to {high:g}: the scale is the dataset's"
        if self._dtype.kind == "f":
            self._target, self.mode = np.dtype(np.float32), "F"
        elif low >= 0 and high < 1 << 16:
            self._target, self.mode = np.dtype(np.uint16), "I;16"
        elif low >= -(1 << 31) and high < 1 << 31:
            self._target, self.mode = np.dtype(np.int32), "I"
        else:
            raise self._data.error(f"got pixels from {low:g} to {high:g}, expected 32 bits")
        if colours == 3:
            self._target, self.mode = np.dtype(np.float32), "F"

    def _range(self) -> tuple[float, float, bool]:
        """Return the lowest and highest value, and whether all are whole numbers."""
        low, high, whole = np.inf, -np.inf, True
        end, step = self.count * self._bytes, BLOCK // 16 * 16
        for offset in range(0, end, step):
            data = self._data.pread(min(step, end - offset), self._start + offset)
            values = np.frombuffer(data, self._dtype)
            if self._dtype.kind == "f":
                if not np.isfinite(values).all():
                    raise self._data.error("got pixels that are NaN or infinite")
                whole = whole and bool((values == np.rint(values)).all())
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if self._dtype.kind == "f" and high > np.finfo(np.float32).max:
            raise self._data.error(f"got pixels up to {high:g}, expected 32-bit floats")
        return low, high, whole


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis of an image's channels, the last where both can be; None without one."""
    if len(shape) == 2:
        return None
    return 0 if shape[0] in (1, 3) and shape[2] not in (1, 3) else 2


def _luma(values: NDArray[Any]) -> Grey:
    """Return the luma (h, w) of red, green and blue (3, h, w), rounded for bytes."""
    if values.dtype == np.uint8:
        wide = sum(values[i].astype(np.uint32) * np.uint32(_LUMA[i]) for i in range(3))
        return cast(Grey, ((wide + np.uint32(1 << 15)) >> np.uint32(16)).astype(np.uint8))
    weighed = sum(values[i] * np.float64(_LUMA[i] / (1 << 16)) for i in range(3))
    return np.asarray(weighed, np.float32)


@dataclass(frozen=True)
class Part:
    """A part of a dataset, with the split that it is; NO_SPLIT for all in one part.

    `labels` (n,) are whole numbers or strings, `indices` the archive's files that hold the part.
    """

    name: str
    split: int
    images: Images
    labels: NDArray[Any]
    indices: tuple[int, ...]
    writers: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def splits_of(parts: Sequence[Part]) -> list[int]:
    """Return the split of each part; training images may become validation if none is given."""
    splits = [part.split for part in parts]
    if base.VALIDATION in splits:
        return splits
    return [base.NO_SPLIT if split == base.TRAIN else split for split in splits]


class ArraySource(Source):
    """A dataset in parts: training, validation and test, in this order."""

    dataset_notes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, archive: Archive, parts: Sequence[Part], labelled: Labelled, layout: Layout
    ) -> None:
        self.path, self.layout = archive.path, layout
        self._archive, self._parts = archive, list(parts)
        self._used = sorted({index for part in parts for index in part.indices})
        self.ignored_files = len(archive.names) - len(self._used)
        counts = [len(part) for part in parts]
        self._starts = np.cumsum([0, *counts])
        writers: list[str | None] = []
        for part in parts:
            writers += part.writers if part.writers is not None else [None] * len(part)
        self.annotations = Annotations.of(
            labelled.classes,
            labelled.labels,
            writers=writers if any(part.writers is not None for part in parts) else None,
            splits=np.repeat(splits_of(parts), counts),
        )

    def name(self, index: int) -> str:
        """Return "train/N" or "test/N", N counted from 0."""
        part, row = self._place(index)
        return f"{part.name}/{row}"

    def image(self, index: int) -> Grey:
        """Return one image (h, w), upright. Raises SourceError for a damaged file."""
        part, row = self._place(index)
        return part.images.image(row)

    def decoded(self, index: int) -> Decoded:
        """Return one image, with how the file stored it."""
        part, row = self._place(index)
        return Decoded(part.images.image(row), part.images.mode)

    def size(self, rows: Ints) -> int:
        """Return the bytes of all the dataset's files, whichever images `rows` are."""
        del rows
        return sum(self._archive.sizes[index] for index in self._used)

    def digest(self) -> str:
        """Return the digest of the dataset's files, or of the zip archive."""
        return self._archive.digest(self._used)

    def _place(self, index: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return self._parts[number], index - int(self._starts[number])


def left_out(archive: Archive, used: Sequence[int], **kinds: int) -> dict[str, int]:
    """Count the files that are not `used`, by kind: the archive's own, `kinds`, and others."""
    counts: dict[str, int] = dict(getattr(archive, "left_out", {}))
    named = {kind.replace("_", " "): count for kind, count in kinds.items() if count}
    others = len(archive.names) - len(set(used)) - sum(named.values())
    return {**counts, **named, **({"other files": others} if others > 0 else {})}
