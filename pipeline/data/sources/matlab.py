"""MATLAB's files of version 5: EMNIST's, SVHN's, and others with images and labels.

Our own reader checks every size before it reads, and finds the arrays without loading them. In
MATLAB's arrays the first axis is the fastest: (h, w, channels, n) holds one image after the other,
each by columns; (n, pixels) is copied into rows once a process.
"""

import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data import base
from pipeline.data.archives import Archive
from pipeline.data.archives.zip_archive import SUSPICIOUS_RATIO, SUSPICIOUS_SIZE
from pipeline.data.base import Layout, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources.array_labels import Labelled, label_classes, to_labels
from pipeline.data.sources.array_source import (
    SPLIT_WORDS,
    ArrayImages,
    ArraySource,
    Part,
    image_shape,
    left_out,
    several_datasets,
)
from pipeline.data.sources.known_sets import EMNIST
from pipeline.data.sources.stored_bytes import (
    BLOCK,
    Bytes,
    ColumnMajor,
    StoredBytes,
    distinct_files,
    spool,
)

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
_IMAGE_WORDS = {"x", "images", "image", "imgs", "data", "fea"}
_LABEL_WORDS = {"y", "labels", "label", "targets", "gnd"}


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


@dataclass(frozen=True)
class _Pair:
    """Images and labels of one split in a file."""

    index: int
    images: MatArray
    labels: MatArray
    writers: MatArray | None


class Matlab(ArraySource):
    """Arrays of images and labels in .mat files, one file or one structure per split."""

    kind = "matlab"
    expected_layout = "MATLAB files of EMNIST or SVHN (.mat of version 5)"

    @classmethod
    def find(cls, archive: Archive, options: LayoutOptions) -> Self | None:
        """Return the archive's dataset, None without .mat files.

        Raises LayoutError for several datasets, SourceError for damage and for missing labels.
        """
        files = [i for i, name in enumerate(archive.names) if name.lower().endswith(".mat")]
        if not files:
            return None
        kept = distinct_files(archive, files)
        mapping: MatArray | None = None
        datasets: dict[tuple[str, str], dict[int, list[_Pair]]] = {}
        for index in kept:
            arrays = read_arrays(archive, index)
            mapping = next((a for a in arrays if a.name == "dataset.mapping"), mapping)
            for split, pair in _pairs(archive.names[index], index, arrays):
                path = PurePosixPath(archive.names[index])
                rest = "-".join(word for word in _words(path.stem) if word not in SPLIT_WORDS)
                folder = "" if str(path.parent) == "." else str(path.parent)
                datasets.setdefault((folder, rest), {}).setdefault(split, []).append(pair)
        if not datasets:
            names = ", ".join(archive.names[index] for index in kept[:3])
            raise SourceError(
                f"{archive.path}: got {names} without images and labels, expected arrays such as "
                "X and y, or EMNIST's dataset"
            )
        if len(datasets) > 1:
            groups = [
                (folder, rest, {archive.names[p.index] for pairs in splits.values() for p in pairs})
                for (folder, rest), splits in datasets.items()
            ]
            raise several_datasets(archive, groups)
        [((_, prefix), found)] = datasets.items()
        if any(len(pairs) > 1 for pairs in found.values()):
            raise SourceError(f"{archive.path}: got several arrays of images for one split")
        pairs = {split: pairs[0] for split, pairs in sorted(found.items())}
        return cls._of(archive, prefix, pairs, mapping, options)

    @classmethod
    def _of(
        cls,
        archive: Archive,
        prefix: str,
        pairs: dict[int, _Pair],
        mapping: MatArray | None,
        options: LayoutOptions,
    ) -> Self:
        tables = [_labels(pair.labels) for pair in pairs.values()]
        first = next(iter(pairs.values()))
        name = archive.names[first.index]
        if mapping is not None and first.images.name.startswith("dataset."):
            labelled = _emnist(mapping, tables)
        elif _is_svhn(first, tables):
            labelled = label_classes(archive, name, prefix, [t % 10 for t in tables], options)
            note = "label 10 is the digit 0, as in SVHN"
            labelled = replace(labelled, dataset="SVHN", notes=(*labelled.notes, note))
        else:
            labelled = label_classes(archive, name, prefix, tables, options)
        parts, notes, warnings = [], [*labelled.notes], [*labelled.warnings]
        for (split, pair), table in zip(pairs.items(), tables, strict=True):
            rows, flat = _images(pair.images, len(table), options, transposed=labelled.transposed)
            part = "images" if split == base.NO_SPLIT else base.SPLITS[split]
            writers = None if pair.writers is None else _writers(pair.writers, len(table))
            parts.append(Part(part, split, rows, table, (pair.index,), writers))
            notes += [rows.note] if rows.note else []
            if flat and not labelled.transposed:
                warnings.append(
                    "a file of MATLAB does not show whether rows of pixels are images by rows or "
                    "by columns; read by rows: see that the images stand upright"
                )
        layout = Layout(
            reader=cls.kind,
            class_from=", ".join(dict.fromkeys(pair.labels.name for pair in pairs.values())),
            split_from="names of files and arrays" if len(parts) > 1 else "",
            writer_from=first.writers.name if first.writers else "",
            dataset=labelled.dataset,
            left_out=left_out(archive, [pair.index for pair in pairs.values()]),
            notes=tuple(dict.fromkeys(notes)),
            warnings=tuple(dict.fromkeys(warnings)),
        )
        return cls(archive, parts, labelled, layout)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.lower())


def _pairs(file: str, index: int, arrays: Sequence[MatArray]) -> list[tuple[int, _Pair]]:
    """Return the images and labels of each split in a file."""
    roles: dict[tuple[int, str], list[MatArray]] = {}
    for array in arrays:
        words = _words(array.name)
        found = [SPLIT_WORDS[word] for word in (*words, *_words(file)) if word in SPLIT_WORDS]
        split = found[0] if found else base.NO_SPLIT
        for role, names in (
            ("images", _IMAGE_WORDS), ("labels", _LABEL_WORDS), ("writers", {"writers"})
        ):  # fmt: skip
            if names & {*words}:
                roles.setdefault((split, role), []).append(array)
                break
    pairs = []
    for split in sorted({split for split, role in roles if role == "images"}):
        labels = roles.get((split, "labels"), [])
        writers = roles.get((split, "writers"), [None])[0]
        for images in roles[split, "images"]:
            if len(labels) == 1:
                pairs.append((split, _Pair(index, images, labels[0], writers)))
    return pairs


def _labels(array: MatArray) -> NDArray[Any]:
    values = array.values()
    values = values.reshape(-1) if 1 in values.shape else values
    return to_labels(values, f"{array.data.path}: {array.name}")


def _writers(array: MatArray, count: int) -> list[str] | None:
    """Return the writers' names, None if they are not one for each image."""
    values = array.values().reshape(-1)
    if len(values) != count or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        return None
    return [f"{int(value):04}" for value in values.tolist()]


def _emnist(mapping: MatArray, tables: Sequence[NDArray[Any]]) -> Labelled:
    """Return the classes of EMNIST's file, which maps its labels to the codes of characters."""
    rows = mapping.values()
    place = f"{mapping.data.path}: {mapping.name}"
    if rows.ndim != 2 or not 2 <= rows.shape[1] <= 3 or not 1 <= len(rows) <= 256:
        raise SourceError(f"{place}: got the shape {rows.shape}, expected labels and codes")
    numbers = to_labels(rows[:, 0], place)
    codes = to_labels(rows[:, 1], place).tolist()
    if len({*numbers.tolist()}) < len(rows) or not all(32 < code < 127 for code in codes):
        raise SourceError(f"{place}: got labels or codes of characters that cannot be")
    labels = np.concatenate(tables)
    order = np.argsort(numbers)
    positions = np.searchsorted(numbers[order], labels)
    if len(labels) and not np.isin(labels, numbers).all():
        raise SourceError(f"{place}: has no character for some labels")
    classes = tuple(chr(codes[i]) for i in order.tolist())
    part = next((part for part, known in EMNIST.items() if known == classes), "")
    notes = (
        "classes are the characters of the file's mapping",
        "its images are stored by columns and are transposed",
    )
    return Labelled(classes, positions.astype(np.int64), f"EMNIST {part}".strip(), True, notes)


def _is_svhn(pair: _Pair, tables: Sequence[NDArray[Any]]) -> bool:
    """Return whether images are in colour and labels are 1 to 10, as in SVHN."""
    present = {int(label) for table in tables if table.dtype.kind == "i" for label in table}
    shape = pair.images.shape
    return (
        len(shape) == 4
        and shape[2] == 3
        and 10 in present
        and min(present) > 0
        and (max(present) == 10)
    )


def _images(
    array: MatArray, count: int, options: LayoutOptions, *, transposed: bool
) -> tuple[ArrayImages, bool]:
    """Return an array's images, and whether they are flat rows of pixels.

    Raises SourceError if no axis of the array is as long as the labels.
    """
    shape, data = array.shape, array.data
    if (shape[0] != count and shape[-1] != count) or len(shape) > 4:
        raise data.error(f"{array.name}: got images of shape {shape} and {count} labels")
    last = shape[-1] == count and (shape[0] != count or len(shape) == 4)
    if len(shape) == 2:
        columns = shape[0] if last else shape[1]
        inner = image_shape(columns, options, f"{data.path}: {array.name}")
        assert inner is not None
        if last:
            return _rows(array, data, array.start, count, inner, transposed), True
        inner_rows = ColumnMajor(data, array.start, array.dtype, shape)
        return _rows(array, inner_rows, 0, count, inner, transposed), True
    if last:  # one image after the other, each by columns
        return _rows(array, data, array.start, count, shape[-2::-1], not transposed), False
    copied = ColumnMajor(data, array.start, array.dtype, shape)
    return _rows(array, copied, 0, count, shape[1:], transposed), False


def _rows(
    array: MatArray, data: Bytes, start: int, count: int, shape: tuple[int, ...], transposed: bool
) -> ArrayImages:
    return ArrayImages(data, start, array.dtype, count, shape, transposed=transposed)
