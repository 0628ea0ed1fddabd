"""IDX files, gzipped or not, in a folder or an archive: MNIST, EMNIST, Fashion-MNIST, QMNIST.

A dataset is a training pair, a test pair or both: `[DATASET-]train-images-idx3-ubyte[.gz]` with
`…-labels-idx1-ubyte[.gz]`, and the same with t10k or test. A dot may stand for the hyphen before
idx3, and a file may lie in a folder of its own name. The format is described at
http://yann.lecun.com/exdb/mnist.
"""

import glob
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import basename, dirname, join
from shlex import quote
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data import base
from pipeline.data.archives import Archive, Folder, SingleFile, open_archive
from pipeline.data.base import Layout, LayoutError, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources.array_labels import label_classes
from pipeline.data.sources.array_source import (
    SPLIT_WORDS,
    ArrayImages,
    ArraySource,
    Part,
    left_out,
    split_source,
)
from pipeline.data.sources.stored_bytes import BLOCK, StoredBytes

_NAME = (
    r"(?i)(?P<set>.*?)[-_.]*(?P<part>train|t10k|test|val|validation)[-_.]{}"
    r"([-.]idx[0-9])?([-.](ubyte|byte|short|int|float|double))?(\.gz)?"
)
IMAGES, LABELS = re.compile(_NAME.format("images")), re.compile(_NAME.format("labels"))
_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_WRITER_COLUMNS = 8  # of QMNIST's labels: the class, NIST's partition, the writer, …


class IdxFile:
    """The header of an IDX file, and its data in `stored` from byte `start`.

    Raises SourceError for a damaged file and for a number of dimensions not in `dimensions`.
    """

    def __init__(self, archive: Archive, index: int, dimensions: Sequence[int]) -> None:
        self.stored = StoredBytes(archive, index)
        header = self.stored.head(4 + 4 * max(dimensions))
        count = header[3] if len(header) >= 4 else 0
        self.start = 4 + 4 * count
        valid = header[:2] == b"\0\0" and len(header) >= self.start and header[2] in _TYPES
        if not valid or count not in dimensions:
            raise self.stored.error(
                f"begins with {header[:4].hex(' ') or 'nothing'}, "
                f"expected an IDX file in {' or '.join(map(str, dimensions))} dimensions"
            )
        self.dtype: np.dtype[Any] = np.dtype(_TYPES[header[2]])
        self.shape: tuple[int, ...] = struct.unpack(f">{count}I", header[4 : self.start])
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > self.stored.limit:
            raise self.stored.error(
                f"its header declares {self.shape}, more than its size can hold"
            )
        self.stored.expected = self.start + size

    def values(self) -> NDArray[Any]:
        """Return all values."""
        expected = math.prod(self.shape) * self.dtype.itemsize
        data = bytearray()
        for start in range(0, expected, BLOCK):
            data += self.stored.pread(min(BLOCK, expected - start), self.start + start)
        return np.frombuffer(data, self.dtype).reshape(self.shape)


class IdxPair(NamedTuple):
    """The names of a file of images and of its labels, if there are any."""

    images: str
    labels: str | None


class Idx(ArraySource):
    """Images of one size and their labels in IDX files; a t10k or test pair is the test split."""

    kind = "idx"
    expected_layout = "IDX files (train-images-idx3-ubyte[.gz] with train-labels-idx1-ubyte[.gz])"

    @classmethod
    def detect(
        cls,
        archive: Archive,
        options: LayoutOptions | None = None,
        chosen: str | None = None,
        only: str | None = None,
    ) -> Self | None:
        """Return the archive's dataset, None if no file has the name of IDX images.

        `chosen` selects one dataset of several, `only` selects "train" or "test". Raises
        LayoutError for several datasets and SourceError for damaged files.
        """
        found = find_pairs(archive.names, chosen, only)
        if not found:
            return None
        index = {name: i for i, name in enumerate(archive.names)}
        known, copies = _Contents(archive, index), 0
        for parts in found.values():
            for split, pairs in parts.items():
                parts[split] = distinct = known.distinct(pairs)
                copies += len(pairs) - len(distinct)
        datasets = dict(found)
        for key in sorted(found, key=lambda key: (len(found[key]), key)):
            others = (parts for other, parts in datasets.items() if other != key)
            if any(known.holds(parts, datasets[key]) for parts in others):
                copies += len(datasets.pop(key))
        most = max(len(pairs) for parts in datasets.values() for pairs in parts.values())
        if len(datasets) > 1 or most > 1:
            raise _several(archive, datasets, chosen, only)
        [((_, prefix), parts)] = datasets.items()
        chosen_pairs = {split: pairs[0] for split, pairs in sorted(parts.items())}
        return cls._read(archive, index, prefix, chosen_pairs, copies, options or LayoutOptions())

    @classmethod
    def _read(
        cls,
        archive: Archive,
        index: Mapping[str, int],
        prefix: str,
        pairs: Mapping[int, IdxPair],
        copies: int,
        options: LayoutOptions,
    ) -> Self:
        files = [(split, *_open_pair(archive, index, pair)) for split, pair in pairs.items()]
        tables = [_labels_and_writers(labels) for _, _, labels in files]
        first = next(iter(pairs.values())).images
        labelled = label_classes(archive, first, prefix, [labels for labels, _ in tables], options)
        parts = []
        for (split, images, _), pair, (labels, writers) in zip(
            files, pairs.values(), tables, strict=True
        ):
            rows = ArrayImages(
                images.stored,
                images.start,
                images.dtype,
                images.shape[0],
                images.shape[1:],
                transposed=labelled.transposed,
                trusted=True,
            )
            indices = index[pair.images], index[pair.labels or pair.images]
            parts.append(Part(base.SPLITS[split], split, rows, labels, indices, writers))
        notes = [*labelled.notes, *sorted({part.images.note for part in parts} - {""})]
        if copies:
            notes.append("the archive holds files with equal contents; one of each is read")
        layout = Layout(
            reader=cls.kind,
            class_from=", ".join(pair.labels or "" for pair in pairs.values()),
            split_from=split_source(parts, "file names"),
            writer_from="column 2 of the labels" if parts[0].writers is not None else "",
            dataset=labelled.dataset,
            left_out=left_out(archive, [i for part in parts for i in part.indices]),
            notes=tuple(notes),
            warnings=labelled.warnings,
        )
        return cls(archive, parts, labelled, layout)


Key = tuple[str, str]  # the folder and prefix of a dataset


def find_pairs(
    names: Sequence[str], chosen: str | None = None, only: str | None = None
) -> dict[Key, dict[int, list[IdxPair]]]:
    """Return the pairs of each dataset by split, found by names alone.

    Files that differ in their gzip suffix alone are one, and the plain one is used.
    """
    found: dict[Key, dict[int, list[IdxPair]]] = {}
    labels: dict[tuple[Key, int], list[str]] = {}
    # The pattern is slow, and an archive may hold a million other names.
    names = [n for n in names if "images" in (lower := n.lower()) or "labels" in lower]
    for name in names:
        if parsed := _parse(name, LABELS):
            labels.setdefault(parsed, []).append(name)
    plain = set()
    for name in sorted(names):  # a file comes before its .gz
        parsed = _parse(name, IMAGES)
        if parsed is None or re.sub(r"(?i)\.gz$", "", name) in plain:
            continue
        key, split = parsed
        part = "test" if split == base.TEST else "train"
        if chosen in (None, key[1]) and only in (None, part):
            plain.add(re.sub(r"(?i)\.gz$", "", name))
            pair = IdxPair(name, _match_labels(name, labels.get(parsed, [])))
            found.setdefault(key, {}).setdefault(split, []).append(pair)
    return found


def _parse(name: str, pattern: re.Pattern[str]) -> tuple[Key, int] | None:
    """Return the dataset and split of a file's name, None for other names."""
    match = pattern.fullmatch(basename(name))
    if match is None:
        return None
    folder = dirname(name)
    if pattern.fullmatch(basename(folder)):  # a folder of the file's own name
        folder = dirname(folder)
    if basename(folder).lower() in SPLIT_WORDS:
        folder = dirname(folder)
    return (folder, match["set"]), SPLIT_WORDS[match["part"].lower()]


def _match_labels(images: str, labels: Sequence[str]) -> str | None:
    """Return the labels whose name is most like that of the images, None if there are none."""

    def rank(name: str) -> tuple[bool, bool, bool, str]:
        return (
            _stem(name) != _stem(images),
            dirname(name) != dirname(images),
            ("idx2" in name) == any("idx1" in other for other in labels),
            name,
        )

    return min(labels, key=rank, default=None)


def _stem(name: str) -> str:
    """Return a path that is equal for images and their labels."""
    return re.sub(r"images|labels", "", re.sub(r"idx[0-9]|\.gz$", "", name.lower()))


class _Contents:
    """Compares files by their contents; each file is read at most once."""

    def __init__(self, archive: Archive, index: Mapping[str, int]) -> None:
        self._archive, self._index = archive, index
        self._digests: dict[str, str] = {}

    def distinct(self, pairs: Sequence[IdxPair]) -> list[IdxPair]:
        """Return the pairs with different contents."""
        if len(pairs) == 1:
            return list(pairs)
        return list({self._digest(pair): pair for pair in reversed(pairs)}.values())[::-1]

    def holds(self, whole: Mapping[int, list[IdxPair]], part: Mapping[int, list[IdxPair]]) -> bool:
        """Return whether all pairs of `part` are in `whole`."""
        return part.keys() <= whole.keys() and all(
            {*map(self._digest, part[split])} <= {*map(self._digest, whole[split])}
            for split in part
        )

    def _digest(self, pair: IdxPair) -> tuple[str, str]:
        return self._digest_of(pair.images), self._digest_of(pair.labels) if pair.labels else ""

    def _digest_of(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = StoredBytes(self._archive, self._index[name]).digest()
        return self._digests[name]


def _open_pair(
    archive: Archive, index: Mapping[str, int], pair: IdxPair
) -> tuple[IdxFile, IdxFile]:
    """Return the images and their labels.

    Raises SourceError if the labels are missing or their count differs.
    """
    place = archive.place(index[pair.images])
    if pair.labels is None:
        plain = re.sub(r"\.gz$", "", basename(pair.images))
        plain = plain.replace("images", "labels").replace("idx3", "idx1")
        raise SourceError(f"{place}: no labels, expected {plain}[.gz] in the same folder")
    images = IdxFile(archive, index[pair.images], (3, 4))
    labels = IdxFile(archive, index[pair.labels], (1, 2))
    if labels.shape[0] != images.shape[0]:
        raise SourceError(f"{place}: got {images.shape[0]} images and {labels.shape[0]} labels")
    if labels.dtype.kind == "f" or labels.shape[1:] not in ((), (1,), (_WRITER_COLUMNS,)):
        raise labels.stored.error(
            f"got labels {labels.shape} of type {labels.dtype.name}, expected whole numbers: one "
            f"a row, or QMNIST's {_WRITER_COLUMNS}"
        )
    return images, labels


def _labels_and_writers(file: IdxFile) -> tuple[NDArray[Any], list[str] | None]:
    """Return the labels (n,), and the writers' names where the file has QMNIST's columns."""
    values = file.values().astype(np.int64)
    if values.shape[1:] == (_WRITER_COLUMNS,):
        return values[:, 0], [f"{writer:04}" for writer in values[:, 2].tolist()]
    return values.reshape(-1), None


def _several(
    archive: Archive,
    datasets: Mapping[Key, Mapping[int, Sequence[IdxPair]]],
    chosen: str | None,
    only: str | None,
) -> LayoutError:
    """Return the error for several datasets, with options and paths that select one."""
    paths = [
        f"{archive.path / folder / prefix}"
        for folder, prefix in datasets
        if prefix and _opens(archive, folder, prefix)
    ]
    pairs = [pair for parts in datasets.values() for pairs in parts.values() for pair in pairs]
    files = ", ".join(pair.images for pair in pairs)
    suggestions = []
    for parts in datasets.values():
        first = {split: pairs[0] for split, pairs in parts.items()}
        others = {split: pairs[-1] for split, pairs in parts.items()}
        for wanted in (first, others) if first != others else (first,):
            if pattern := _pattern(archive.names, wanted, chosen, only):
                suggestions.append(f"--include {quote(pattern)}")
    also = f", each also a path of its own: {', '.join(paths)}" if paths else ""
    return LayoutError(
        f"{archive.path}: got several IDX datasets, expected one: {files}{also}",
        suggestions,
    )


def _opens(archive: Archive, folder: str, prefix: str) -> bool:
    """Return whether FOLDER/PREFIX is a path that `open_idx` opens as one dataset."""
    names = archive.names
    if isinstance(archive, Folder):
        names = [basename(name) for name in names if dirname(name) == folder]
    found = find_pairs(names, prefix)
    return len(found) == 1 and all(len(p) == 1 for parts in found.values() for p in parts.values())


def _pattern(
    names: Sequence[str], wanted: Mapping[int, IdxPair], chosen: str | None, only: str | None
) -> str | None:
    """Return a pattern that selects exactly these pairs, None if no simple one does."""
    for pattern in _patterns(next(iter(wanted.values())).images):
        options = LayoutOptions(include=(pattern,))
        found = find_pairs([name for name in names if options.selects(name)], chosen, only)
        if [{split: [pair] for split, pair in wanted.items()}] == list(found.values()):
            return pattern
    return None


def _patterns(images: str) -> Iterator[str]:
    """Yield patterns for a dataset, from its folder to the form of its files' names."""
    folder, name = dirname(images), basename(images)
    match = IMAGES.fullmatch(name)
    prefix = match["set"] if match else ""
    within = glob.escape(folder)
    while folder:
        yield f"{glob.escape(folder)}/*"
        folder = dirname(folder)
    if prefix:
        yield join(within, f"{glob.escape(prefix)}[-_.]*")
    separator = "." if ".idx" in name else "-"
    suffix = ".gz" if name.endswith(".gz") else ""
    yield join(within, f"*[!/]{separator}idx[0-9]-*{suffix}")
    yield f"*-idx[0-9]-ubyte{suffix}/*"
    yield f"*[ls].idx[0-9]-ubyte{suffix}"


def open_idx(path: Path, options: LayoutOptions | None = None) -> Idx | None:
    """Return the dataset at a file of images or at FOLDER/DATASET, None if `path` is neither.

    A training file includes its test pair; a test file does not include its training pair.
    """
    match = IMAGES.fullmatch(path.name) if path.is_file() else None
    chosen = match["set"] if match else path.name
    only = "test" if match and match["part"].lower() in ("test", "t10k") else None
    folder = path.parent
    if match and IMAGES.fullmatch(folder.name):  # a folder of the file's own name
        return Idx.detect(Folder(folder.parent), options, chosen, only)
    if folder.is_dir():
        return Idx.detect(Folder(folder, nested=False), options, chosen, only)
    if not folder.is_file() or isinstance(archive := open_archive(folder), SingleFile):
        return None
    return Idx.detect(archive, options, chosen, only)
