"""NumPy's files, .npz and .npy: arrays of images with arrays of labels.

The names of arrays, files and folders give each array's role and split: x_train and y_train of
Keras, train_images and train_labels of MedMNIST, kmnist-train-imgs.npz with
kmnist-train-labels.npz, X.npy with y.npy. Nothing is unpickled.
"""

import io
import re
import tokenize
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import PurePosixPath
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.data import base
from pipeline.data.archives import Archive
from pipeline.data.archives.zip_archive import SUSPICIOUS_RATIO, SUSPICIOUS_SIZE
from pipeline.data.base import Layout, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources.array_labels import label_classes, to_labels
from pipeline.data.sources.array_source import (
    SPLIT_WORDS,
    ArrayImages,
    ArraySource,
    Part,
    image_shape,
    left_out,
    several_datasets,
    split_source,
)
from pipeline.data.sources.stored_bytes import (
    BLOCK,
    DAMAGE,
    Bytes,
    ColumnMajor,
    PositionedReader,
    StoredBytes,
    distinct_files,
    spool,
)

_IMAGE_WORDS = {"x", "image", "images", "img", "imgs", "data", "pixels", "inputs", "features"}
_LABEL_WORDS = {"y", "label", "labels", "target", "targets"}
_MOST_MEMBERS, _LARGEST_LABELS = 10_000, 1 << 30  # arrays of one .npz; bytes of labels
_LONGEST_HEADER = 10_000
_ZIP_DAMAGE = (*DAMAGE, NotImplementedError, RuntimeError, ValueError, KeyError, OSError)
_NPY_DAMAGE = (
    *(ValueError, TypeError, SyntaxError, KeyError, EOFError, RecursionError, MemoryError),
    *(tokenize.TokenError, OverflowError, AttributeError),
)


class NpzMember(Bytes):
    """A member of a .npz file, inflated once a process. Raises SourceError for damage."""

    def __init__(self, container: StoredBytes, member: str) -> None:
        self._container, self._member = container, member
        self.path = f"{container.path}/{member}"

    def head(self, size: int) -> bytes:
        """Return up to `size` bytes from the beginning."""
        with self._stream() as stream:
            return stream.read(size)

    def _open(self) -> IO[bytes]:
        with self._stream() as stream:
            return spool(iter(lambda: stream.read(BLOCK), b""), None)[0]

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        try:
            with _open_npz(self._container) as archive, archive.open(self._member) as stream:
                yield stream
        except _ZIP_DAMAGE as error:
            raise self.error(f"damaged: {error}") from error


def _open_npz(stored: StoredBytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BufferedReader(PositionedReader(stored)))


@dataclass(frozen=True)
class NpyArray:
    """An array in .npy format: its header, and its data from byte `start`."""

    data: Bytes
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    column_major: bool

    @classmethod
    def read(cls, data: StoredBytes | NpzMember, limit: int) -> Self:
        """Read the header. Raises SourceError for damage, for objects, and beyond `limit` bytes."""
        stream = io.BytesIO(data.head(_LONGEST_HEADER + 20))
        try:
            version = npy.read_magic(stream)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"version {version}")
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about headers of Python 2
                shape, column_major, dtype = read(stream, max_header_size=_LONGEST_HEADER)
        except _NPY_DAMAGE as error:
            reason = " ".join(str(error).split())[:200]
            raise data.error(f"no NumPy array: {reason}") from None
        if dtype.hasobject:
            raise data.error("holds pickled objects, which could run a program; expected numbers")
        if not all(isinstance(side, int) and side >= 0 for side in shape):
            raise data.error(f"damaged: declares the shape {shape}")
        if prod(shape) * dtype.itemsize > limit - stream.tell():
            raise data.error(f"its header declares {shape}, more than its size can hold")
        return cls(data, stream.tell(), dtype, tuple(shape), column_major and len(shape) > 1)

    def values(self) -> NDArray[Any]:
        """Return all values. Raises SourceError beyond a gigabyte."""
        size = prod(self.shape) * self.dtype.itemsize
        if size > _LARGEST_LABELS:
            raise self.data.error(f"got labels of {size:,} bytes, expected at most 1 GiB")
        values = np.frombuffer(self.data.pread(size, self.start), self.dtype)
        return values.reshape(self.shape, order="F" if self.column_major else "C")


@dataclass(frozen=True)
class NamedArray:
    """An array and what its name says: `key` are its dataset's folder, and words of its names."""

    file: str
    index: int
    array: NpyArray
    key: tuple[str, str, str]
    role: str
    split: int


class NumpyArrays(ArraySource):
    """Arrays of images (n, h, w), (n, h, w, channels) or (n, pixels) with an array of labels."""

    kind = "numpy"
    expected_layout = "NumPy arrays of images and labels (x_train and y_train in .npz or .npy)"

    @classmethod
    def find(cls, archive: Archive, options: LayoutOptions) -> Self | None:
        """Return the archive's dataset, None without .npz and .npy files.

        Raises LayoutError for several datasets, SourceError for damaged files and missing labels.
        """
        files = [
            i for i, name in enumerate(archive.names) if name.lower().endswith((".npz", ".npy"))
        ]
        if not files:
            return None
        kept = distinct_files(archive, files, lambda name: _meaning(name)[1:])
        arrays = [array for index in kept for array in _arrays(archive, index)]
        datasets: dict[tuple[str, str, str], list[NamedArray]] = {}
        for array in arrays:
            if array.role:
                datasets.setdefault(array.key, []).append(array)
        complete = {key: found for key, found in datasets.items() if _labelled_splits(found)}
        if not complete and (pair := _pair_by_shape(arrays)):
            complete = {pair[0].key: pair}
        if not complete:
            names = ", ".join(f"{a.file}: {a.array.shape}" for a in arrays[:4])
            raise SourceError(
                f"{archive.path}: got arrays without labels ({names}), expected pairs such as "
                "x_train and y_train, or images and labels"
            )
        if len(complete) > 1:
            raise several_datasets(
                archive,
                [(key[0], key[1], {a.file for a in held}) for key, held in complete.items()],
            )
        [(key, found)] = complete.items()
        copies = len(files) - len(kept)
        return cls._read(archive, key, found, copies, options)

    @classmethod
    def _read(
        cls,
        archive: Archive,
        key: tuple[str, str, str],
        found: Sequence[NamedArray],
        copies: int,
        options: LayoutOptions,
    ) -> Self:
        pairs = {}
        for split in _labelled_splits(found):
            images, labels = (
                _one(archive, [a for a in found if (a.split, a.role) == (split, role)])
                for role in ("images", "labels")
            )
            pairs[split] = images, labels
        tables = [to_labels(b.array.values(), b.array.data.path) for _, b in pairs.values()]
        first = next(iter(pairs.values()))[0]
        prefix = key[2] or key[1]
        labelled = label_classes(archive, first.file, prefix, tables, options)
        notes, doubts, parts = [*labelled.notes], [*labelled.warnings], []
        for (split, (images, pair)), table in zip(pairs.items(), tables, strict=True):
            rows = _images(images.array, table, options, transposed=labelled.transposed)
            name = "images" if split == base.NO_SPLIT else base.SPLITS[split]
            parts.append(Part(name, split, rows, table, (images.index, pair.index)))
            notes += {rows.note, _flat_note(images.array, rows)} - {"", *notes}
        if labelled.transposed:
            doubts.append(
                "arrays do not show whether EMNIST's images were turned upright before: they are "
                "transposed here, as in EMNIST's own files; see that they stand upright"
            )
        if copies:
            notes.append("the archive holds files with equal contents; one of each is read")
        unlabelled = sum(a.role == "images" and a.split not in pairs for a in found)
        used = [index for part in parts for index in part.indices]
        if unlabelled:
            notes.append(f"{unlabelled} arrays of images without labels are left out")
        layout = Layout(
            reader=cls.kind,
            class_from=", ".join(
                pair.array.data.path.removeprefix(f"{archive.path}/") for _, pair in pairs.values()
            ),
            split_from=split_source(parts, "names of arrays"),
            dataset=labelled.dataset,
            left_out=left_out(archive, used),
            notes=tuple(notes),
            warnings=tuple(doubts),
        )
        return cls(archive, parts, labelled, layout)


def _arrays(archive: Archive, index: int) -> list[NamedArray]:
    """Return a file's arrays. Raises SourceError for damage and for pickled objects."""
    stored, file = StoredBytes(archive, index), archive.names[index]
    if file.lower().endswith(".npy"):
        return [NamedArray(file, index, NpyArray.read(stored, stored.limit), *_meaning(file))]
    try:
        with _open_npz(stored) as container:
            members = container.infolist()
    except _ZIP_DAMAGE as error:
        raise stored.error(f"damaged: {error}") from error
    if len(members) > _MOST_MEMBERS:
        raise stored.error(f"got {len(members)} arrays, expected at most {_MOST_MEMBERS}")
    arrays = []
    for member in members:
        if not member.filename.endswith(".npy"):
            continue
        declared, packed = member.file_size, member.compress_size
        if declared > SUSPICIOUS_SIZE and declared > SUSPICIOUS_RATIO * packed:
            raise stored.error(
                f"refused: {member.filename!r} declares {declared:,} bytes in {packed:,}: "
                "a decompression bomb"
            )
        data = NpzMember(stored, member.filename)
        key = member.filename.removesuffix(".npy")
        array = NpyArray.read(data, declared)
        arrays.append(NamedArray(file, index, array, *_meaning(file, key)))
    return arrays


def _meaning(file: str, key: str = "") -> tuple[tuple[str, str, str], str, int]:
    """Return an array's dataset, role and split, from its key, or else its file and folders."""
    path = PurePosixPath(file)
    generic = re.fullmatch(r"(arr_[0-9]+)?", key) is not None
    words = [[] if generic else _words(key), _words(path.stem), *map(_words, path.parts[-2::-1])]
    role, split = "", base.NO_SPLIT
    for group in words[: 2 if generic else 1]:
        if not role and (found := {*group} & (_LABEL_WORDS | _IMAGE_WORDS)):
            role = "labels" if found & _LABEL_WORDS else "images"
    for group in words:
        if split == base.NO_SPLIT:
            split = next((SPLIT_WORDS[word] for word in group if word in SPLIT_WORDS), split)
    known = _LABEL_WORDS | _IMAGE_WORDS | SPLIT_WORDS.keys()
    rest = ["-".join(word for word in group if word not in known) for group in words[:2]]
    folder = "/".join(p for p in path.parts[:-1] if not {*_words(p)} <= SPLIT_WORDS.keys())
    return (folder, rest[1], rest[0]), role, split


def _words(name: str) -> list[str]:
    """Return a name's words: "Xtrain", "x_train" and "trainX" are x and train."""
    words = []
    for word in re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()):
        splits = "|".join(SPLIT_WORDS)
        joined = re.fullmatch(f"([xy])({splits})|({splits})([xy])", word)
        words += [part for part in joined.groups() if part] if joined else [word]
    return words


def _pair_by_shape(arrays: Sequence[NamedArray]) -> list[NamedArray]:
    """Return the only two arrays as images and labels if their shapes leave no doubt, else []."""
    if len(arrays) != 2:
        return []
    labels, images = sorted(arrays, key=lambda array: len(array.array.shape))
    label_shape, image_shape_ = labels.array.shape, images.array.shape
    if not (len(label_shape) == 1 and 3 <= len(image_shape_) <= 4):
        return []
    if label_shape[0] != image_shape_[0] or {labels.role, images.role} == {"images", "labels"}:
        return []
    split = max(labels.split, images.split)
    return [
        replace(images, role="images", split=split),
        replace(labels, role="labels", split=split),
    ]


def _labelled_splits(found: Sequence[NamedArray]) -> list[int]:
    """Return the splits that have both images and labels, in order."""
    roles = {(array.split, array.role) for array in found}
    return sorted(s for s, role in roles if role == "images" and (s, "labels") in roles)


def _one(archive: Archive, arrays: Sequence[NamedArray]) -> NamedArray:
    if len(arrays) > 1:
        names = ", ".join(array.array.data.path for array in arrays)
        raise SourceError(f"{archive.path}: got several arrays of {arrays[0].role}: {names}")
    return arrays[0]


def _images(
    array: NpyArray, labels: NDArray[Any], options: LayoutOptions, *, transposed: bool
) -> ArrayImages:
    """Return the images of an array. Raises SourceError for another shape, type or count."""
    data, shape = array.data, array.shape
    if array.dtype.kind not in "biuf":
        raise data.error(f"got pixels of type {array.dtype}, expected numbers")
    if not 2 <= len(shape) <= 4 or shape[0] != len(labels):
        order = "; expected the number of images first" if shape[-1:] == (len(labels),) else ""
        raise data.error(f"got images of shape {shape} and {len(labels)} labels{order}")
    inner = shape[1:]
    if len(inner) == 1:
        inner = image_shape(inner[0], options, data.path) or inner
    start = array.start
    if array.column_major:
        data, start = ColumnMajor(data, start, array.dtype, shape), 0
    return ArrayImages(data, start, array.dtype, shape[0], inner, transposed=transposed)


def _flat_note(array: NpyArray, rows: ArrayImages) -> str:
    if len(array.shape) != 2:
        return ""
    height, width = rows.shape
    return f"rows of {array.shape[1]} pixels are images of {height}×{width}"
