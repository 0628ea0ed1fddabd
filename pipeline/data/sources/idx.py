"""IDX archive, gzipped or not, in a folder or a zip archive: MNIST, EMNIST, Fashion-MNIST.

A set is a training pair and a test pair, or one of them: `[SET-]train-images-idx3-ubyte[.gz]` with
`…-labels-idx1-ubyte[.gz]`, and the same with t10k or test. What is gzipped or in an archive is
inflated once per process into a nameless temporary file and read from there one picture at a time,
so that no set is ever whole in memory. The format is described at http://yann.lecun.com/exdb/mnist.
"""

import gzip
import math
import os
import re
import string
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import basename, dirname, join
from typing import IO, Any, NamedTuple, Self, cast

import numpy as np

from pipeline.data.sources.archives import Archive, Folder, ZipArchive
from pipeline.data.sources.base import (
    TEST,
    UNASSIGNED,
    Annotations,
    Ints,
    Pixels,
    Source,
    SourceError,
)
from pipeline.data.sources.image_decoder import LONGEST_SIDE

IMAGES = re.compile(
    r"(?P<set>.*?)(?P<part>train|t10k|test)[-_.]images([-.]idx3)?([-.]ubyte)?(\.gz)?", re.IGNORECASE
)
_UNSIGNED_BYTE = 8
_DEFLATE_LIMIT = 1032  # bytes out of one byte in, at most

_DIGITS = tuple(string.digits)
_LETTERS = tuple(string.ascii_uppercase)
_MERGED = (*_DIGITS, *_LETTERS, *"abdefghnqrt")  # letters whose two cases look alike are one
EMNIST = {
    "byclass": (*_DIGITS, *_LETTERS, *string.ascii_lowercase),
    "bymerge": _MERGED,
    "balanced": _MERGED,
    "letters": _LETTERS,
    "digits": _DIGITS,
    "mnist": _DIGITS,
}
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


class IdxFile:
    """One IDX file of unsigned bytes: its `shape`, and any stretch of its data.

    Can be pickled; what it has open, or has inflated, stays with its process. Raises SourceError
    for a file that is not of that type and number of dimensions, or is damaged.
    """

    def __init__(self, archive: Archive, index: int, dimensions: int) -> None:
        self._archive, self._index = archive, index
        self._data_start = 4 + 4 * dimensions
        self._data: IO[bytes] | None = None
        with archive.open(index) as file:
            self._gzipped = file.read(2) == b"\x1f\x8b"  # whatever its name says
        with self._stream() as stream:
            header = self._read(stream, self._data_start)
        if header[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)) or (
            len(header) < self._data_start
        ):
            raise self._wrong(
                f"not an IDX file of bytes in {dimensions} dimensions (begins with "
                f"{header[:4].hex(' ') or 'nothing'})"
            )
        self.shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
        if math.prod(self.shape) > _DEFLATE_LIMIT * archive.sizes[index]:
            raise self._wrong(f"its header declares {self.shape}, more than it can hold")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes of the data from `start`."""
        if self._data is None:
            self._data = self._open()
        data = os.pread(self._data.fileno(), size, self._data_start + start)
        if len(data) < size:
            raise self._wrong("has become shorter")
        return data

    def _open(self) -> IO[bytes]:
        """Return a file whose every byte can be reached: this one, or a temporary one."""
        total = self._data_start + math.prod(self.shape)
        if isinstance(self._archive, Folder) and not self._gzipped:
            file, held = self._archive.open(self._index), self._archive.sizes[self._index]
        else:
            file, held = cast(IO[bytes], tempfile.TemporaryFile()), 0  # noqa: SIM115, it stays open
            with self._stream() as stream:
                while held <= total and (block := self._read(stream, 1 << 20)):
                    file.write(block)
                    held += len(block)
            file.flush()
        if held != total:
            file.close()
            more = "more" if held > total else f"{held}"
            raise self._wrong(f"damaged: {more} bytes instead of {total}")
        return file

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        """Open what the file holds, inflated."""
        with self._archive.open(self._index) as file:
            if self._gzipped:
                with gzip.open(file) as inflated:
                    yield cast(IO[bytes], inflated)
            else:
                yield file

    def _read(self, stream: IO[bytes], size: int) -> bytes:
        try:
            return stream.read(size)
        except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
            raise self._wrong(f"damaged: {error}") from error

    def _wrong(self, reason: str) -> SourceError:
        return SourceError(f"{self._archive.path / self._archive.names[self._index]}: {reason}")


class IdxPair(NamedTuple):
    """The training pair or the test pair of a set."""

    name: str
    images: IdxFile
    labels: IdxFile
    indices: tuple[int, int]


class Idx(Source):
    """Pictures of one size and labels in IDX files; a t10k or test pair is the given test set."""

    kind = "idx"
    expected_layout = "IDX files (train-images-idx3-ubyte[.gz] with train-labels-idx1-ubyte[.gz])"

    def __init__(self, archive: Archive, set_name: str, parts: list[IdxPair]) -> None:
        self.path = archive.path
        self._archive, self._parts = archive, parts
        self._used = sorted(index for part in parts for index in part.indices)
        self.ignored_files = len(archive.names) - len(self._used)
        counts = [part.labels.shape[0] for part in parts]
        self._starts = np.cumsum([0, *counts])
        data = b"".join(
            part.labels.read(0, count) for part, count in zip(parts, counts, strict=True)
        )
        labels = np.frombuffer(data, np.uint8).astype(np.int64)
        place = f"{archive.path.absolute()}/{set_name}"
        emnist = re.search(r"emnist-(\w+)", set_name, re.IGNORECASE)
        self._transposed = emnist is not None  # EMNIST stores columns where MNIST stores rows
        classes = tuple(map(str, range(int(labels.max(initial=0)) + 1)))
        if emnist:
            classes = EMNIST.get(emnist[1].lower(), classes)
        elif re.search("fashion.?mnist", place, re.IGNORECASE):
            classes = FASHION
        if classes == _LETTERS:
            labels -= 1  # they are numbered from 1 there
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise SourceError(
                f"{place}: labels from {labels.min()} to {labels.max()} for {len(classes)} classes"
            )
        splits = np.repeat([TEST if part.name == "test" else UNASSIGNED for part in parts], counts)
        self.annotations = Annotations.of(classes, labels, splits=splits)

    @classmethod
    def detect(
        cls, archive: Archive, chosen: str | None = None, only: str | None = None
    ) -> Self | None:
        """Return the set that `archive` hold, None if no file is called as images in IDX are.

        `chosen` is the name of a set among several, `only` "train" or "test" for one part.
        """
        sets: dict[str, dict[str, int]] = {}
        for index, name in enumerate(archive.names):  # sorted: a plain file comes before its .gz
            if match := IMAGES.fullmatch(basename(name)):
                part = "train" if match["part"].lower() == "train" else "test"
                set_name = _set_name(match)
                if chosen in (None, set_name) and only in (None, part):
                    images = sets.setdefault(join(dirname(name), set_name), {})
                    images.setdefault(part, index)
        if not sets:
            return None
        if len(sets) > 1:
            paths = [str(archive.path / name) for name in sets]
            raise SourceError(
                f"{archive.path}: holds several IDX sets; give one of them: {', '.join(paths)}"
            )
        [(set_name, images)] = sets.items()
        order = sorted(images, reverse=True)  # training before test
        return cls(archive, set_name, [read_pair(archive, part, images[part]) for part in order])

    def name(self, index: int) -> str:
        """Return "train/N" or "test/N", N counted from 0."""
        part, row = self._place(index)
        return f"{part.name}/{row}"

    def image(self, index: int) -> Pixels:
        """Return one picture, uint8 (h, w), upright. Raises SourceError for a damaged file."""
        part, row = self._place(index)
        _, height, width = part.images.shape
        data = part.images.read(row * height * width, height * width)
        pixels = np.frombuffer(data, np.uint8).reshape(height, width)
        return np.ascontiguousarray(pixels.T) if self._transposed else pixels

    def size(self, rows: Ints) -> int:
        """Return the bytes of the set's archive, whichever pictures are meant."""
        del rows
        return sum(self._archive.sizes[index] for index in self._used)

    def digest(self) -> str:
        """Return the digest of the set's archive, or of the archive."""
        return self._archive.digest(self._used)

    def _place(self, index: int) -> tuple[IdxPair, int]:
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return self._parts[number], index - int(self._starts[number])


def _set_name(match: re.Match[str]) -> str:
    return match["set"].rstrip("-_.")


def open_idx(path: Path) -> Idx | None:
    """Return the set that a file of images, or FOLDER/SET, stands for; None if it is neither.

    A training file brings its test pair along, a test file comes alone.
    """
    match = IMAGES.fullmatch(path.name) if path.is_file() else None
    chosen = _set_name(match) if match else path.name
    only = "test" if match and match["part"].lower() != "train" else None
    if path.parent.is_dir():
        return Idx.detect(Folder(path.parent, nested=False), chosen, only)
    if zipfile.is_zipfile(path.parent):
        return Idx.detect(ZipArchive(path.parent), chosen, only)
    return None


def read_pair(archive: Archive, name: str, index: int) -> IdxPair:
    """Find the labels of the images at `index`. Raises SourceError if there are none that fit."""
    path = archive.names[index]
    plain = re.sub(r"\.gz$", "", basename(path)).replace("images", "labels").replace("idx3", "idx1")
    wanted = {join(dirname(path), name) for name in (plain, f"{plain}.gz")}
    labels = next((i for i, other in enumerate(archive.names) if other in wanted), None)
    if labels is None:
        raise SourceError(f"{archive.path / path}: its labels, {plain}[.gz], are not beside it")
    part = IdxPair(name, IdxFile(archive, index, 3), IdxFile(archive, labels, 1), (index, labels))
    count, height, width = part.images.shape
    if part.labels.shape != (count,):
        raise SourceError(f"{archive.path / path}: {count} pictures, {part.labels.shape[0]} labels")
    if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE):
        raise SourceError(f"{archive.path / path}: pictures of {width}×{height} pixels")
    return part
