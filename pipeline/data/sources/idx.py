"""IDX files, gzipped or not, in a folder or a zip archive: MNIST, EMNIST, Fashion-MNIST.

A dataset is a training pair, a test pair or both: `[DATASET-]train-images-idx3-ubyte[.gz]` with
`…-labels-idx1-ubyte[.gz]`, and the same with t10k or test. Each process inflates gzipped files and
zip members once, into unnamed temporary files, and reads one image at a time, so that no dataset is
ever whole in memory. The format is described at http://yann.lecun.com/exdb/mnist.
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

from pipeline.data import base
from pipeline.data.archives import Archive, Folder, ZipArchive
from pipeline.data.base import Annotations, Ints, Pixels, Source, SourceError
from pipeline.data.pixels.image_decoder import LONGEST_SIDE

IMAGES = re.compile(
    r"(?i)(?P<set>.*?)[-_.]*(?P<part>train|t10k|test)[-_.]images([-.]idx3)?([-.]ubyte)?(\.gz)?"
)
_UNSIGNED_BYTE = 8
_DEFLATE_LIMIT = 1032  # the largest compression ratio

_DIGITS = tuple(string.digits)
_LETTERS = tuple(string.ascii_uppercase)
_MERGED = (*_DIGITS, *_LETTERS, *"abdefghnqrt")  # similar upper and lower case letters are one
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
    """One IDX file of unsigned bytes, with random access to its data.

    Can be pickled; open and inflated files stay with their process. Raises SourceError for a
    damaged file, and for another type or number of dimensions.
    """

    def __init__(self, archive: Archive, index: int, dimensions: int) -> None:
        self._archive, self._index = archive, index
        self._data_start = 4 + 4 * dimensions
        self._data: IO[bytes] | None = None
        with archive.open(index) as file:
            self._gzipped = file.read(2) == b"\x1f\x8b"  # whatever its suffix
        with self._stream() as stream:
            header = self._read(stream, self._data_start)
        if header[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)) or (
            len(header) < self._data_start
        ):
            raise self._error(
                f"begins with {header[:4].hex(' ') or 'nothing'}, "
                f"expected an IDX file of bytes in {dimensions} dimensions"
            )
        self.shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
        if math.prod(self.shape) > _DEFLATE_LIMIT * archive.sizes[index]:
            raise self._error(f"its header declares {self.shape}, more than its size can hold")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes of the data from byte `start`."""
        if self._data is None:
            self._data = self._open()
        data = os.pread(self._data.fileno(), size, self._data_start + start)
        if len(data) < size:
            raise self._error("was truncated after it was opened")
        return data

    def _open(self) -> IO[bytes]:
        """Return a file with random access: this file, or an inflated temporary copy."""
        total = self._data_start + math.prod(self.shape)
        if isinstance(self._archive, Folder) and not self._gzipped:
            file, held = self._archive.open(self._index), self._archive.sizes[self._index]
        else:
            file, held = cast(IO[bytes], tempfile.TemporaryFile()), 0  # noqa: SIM115, stays open
            with self._stream() as stream:
                while held <= total and (block := self._read(stream, 1 << 20)):
                    file.write(block)
                    held += len(block)
            file.flush()
        if held != total:
            file.close()
            more = "more" if held > total else f"{held}"
            raise self._error(f"damaged: got {more} bytes, expected {total}")
        return file

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        """Open the file as a stream, inflated if it is gzipped."""
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
            raise self._error(f"damaged: {error}") from error

    def _error(self, reason: str) -> SourceError:
        return SourceError(f"{self._archive.path / self._archive.names[self._index]}: {reason}")


class IdxPair(NamedTuple):
    """A file of images and the file of their labels, with their indices in the archive."""

    name: str
    images: IdxFile
    labels: IdxFile
    indices: tuple[int, int]


class Idx(Source):
    """Images of one size and their labels in IDX files; a t10k or test pair is the test split."""

    kind = "idx"
    expected_layout = "IDX files (train-images-idx3-ubyte[.gz] with train-labels-idx1-ubyte[.gz])"

    def __init__(self, archive: Archive, dataset: str, pairs: list[IdxPair]) -> None:
        self.path = archive.path
        self._archive, self._pairs = archive, pairs
        self._used = sorted(index for pair in pairs for index in pair.indices)
        self.ignored_files = len(archive.names) - len(self._used)
        counts = [pair.labels.shape[0] for pair in pairs]
        self._starts = np.cumsum([0, *counts])
        data = b"".join(pair.labels.read(0, *pair.labels.shape) for pair in pairs)
        labels = np.frombuffer(data, np.uint8).astype(np.int64)
        place = f"{archive.path.absolute()}/{dataset}"
        emnist = re.search(r"emnist-(\w+)", dataset, re.IGNORECASE)
        self._transposed = emnist is not None  # EMNIST stores columns where MNIST stores rows
        classes = tuple(map(str, range(int(labels.max(initial=0)) + 1)))
        if emnist:
            classes = EMNIST.get(emnist[1].lower(), classes)
        elif re.search("fashion.?mnist", place, re.IGNORECASE):
            classes = FASHION
        if classes == _LETTERS:
            labels -= 1  # EMNIST numbers its letters from 1
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise SourceError(
                f"{place}: got labels from {labels.min()} to {labels.max()}, "
                f"expected {len(classes)} classes"
            )
        split = {"train": base.NO_SPLIT, "test": base.TEST}
        splits = np.repeat([split[pair.name] for pair in pairs], counts)
        self.annotations = Annotations.of(classes, labels, splits=splits)

    @classmethod
    def detect(
        cls, archive: Archive, chosen: str | None = None, only: str | None = None
    ) -> Self | None:
        """Return the archive's dataset, None if no file has the name of IDX images.

        `chosen` selects one dataset of several, `only` selects "train" or "test". Raises
        SourceError for several datasets and for damaged files.
        """
        datasets: dict[str, dict[str, int]] = {}
        for index, name in enumerate(archive.names):  # sorted: a file comes before its .gz
            if match := IMAGES.fullmatch(basename(name)):
                part = "train" if match["part"].lower() == "train" else "test"
                if chosen in (None, match["set"]) and only in (None, part):
                    images = datasets.setdefault(join(dirname(name), match["set"]), {})
                    images.setdefault(part, index)
        if not datasets:
            return None
        if len(datasets) > 1:
            paths = [str(archive.path / name) for name in datasets]
            raise SourceError(
                f"{archive.path}: got several IDX datasets, expected one of: {', '.join(paths)}"
            )
        [(dataset, images)] = datasets.items()
        order = sorted(images, reverse=True)  # training before test
        return cls(archive, dataset, [read_pair(archive, part, images[part]) for part in order])

    def name(self, index: int) -> str:
        """Return "train/N" or "test/N", N counted from 0."""
        pair, row = self._place(index)
        return f"{pair.name}/{row}"

    def image(self, index: int) -> Pixels:
        """Return one image, uint8 (h, w), upright. Raises SourceError for a damaged file."""
        pair, row = self._place(index)
        _, height, width = pair.images.shape
        data = pair.images.read(row * height * width, height * width)
        pixels = np.frombuffer(data, np.uint8).reshape(height, width)
        return np.ascontiguousarray(pixels.T) if self._transposed else pixels

    def size(self, rows: Ints) -> int:
        """Return the bytes of all the dataset's files, whichever images `rows` are."""
        del rows
        return sum(self._archive.sizes[index] for index in self._used)

    def digest(self) -> str:
        """Return the digest of the dataset's files, or of the zip archive."""
        return self._archive.digest(self._used)

    def _place(self, index: int) -> tuple[IdxPair, int]:
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return self._pairs[number], index - int(self._starts[number])


def open_idx(path: Path) -> Idx | None:
    """Return the dataset at a file of images or at FOLDER/DATASET, None if `path` is neither.

    A training file includes its test pair; a test file does not include its training pair.
    """
    match = IMAGES.fullmatch(path.name) if path.is_file() else None
    chosen = match["set"] if match else path.name
    only = "test" if match and match["part"].lower() != "train" else None
    if path.parent.is_dir():
        return Idx.detect(Folder(path.parent, nested=False), chosen, only)
    if zipfile.is_zipfile(path.parent):
        return Idx.detect(ZipArchive(path.parent), chosen, only)
    return None


def read_pair(archive: Archive, name: str, index: int) -> IdxPair:
    """Return the images at `index` and their labels.

    Raises SourceError if the labels are missing or their count differs.
    """
    path = archive.names[index]
    plain = re.sub(r"\.gz$", "", basename(path)).replace("images", "labels").replace("idx3", "idx1")
    candidates = {join(dirname(path), name) for name in (plain, f"{plain}.gz")}
    place = archive.path / path
    labels = next((i for i, other in enumerate(archive.names) if other in candidates), None)
    if labels is None:
        raise SourceError(f"{place}: no labels, expected {plain}[.gz] in the same folder")
    pair = IdxPair(name, IdxFile(archive, index, 3), IdxFile(archive, labels, 1), (index, labels))
    count, height, width = pair.images.shape
    if pair.labels.shape != (count,):
        raise SourceError(f"{place}: got {count} images and {pair.labels.shape[0]} labels")
    if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE):
        size = f"{width}×{height} pixels"
        raise SourceError(f"{place}: got images of {size}, expected 1 to 65,535 pixels a side")
    return pair
