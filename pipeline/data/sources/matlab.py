"""MATLAB's files of version 5: EMNIST's, SVHN's, and others with images and labels.

In MATLAB's arrays the first axis is the fastest: (h, w, channels, n) holds one image after the
other, each by columns; (n, pixels) is copied into rows once a process.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data import base
from pipeline.data.archives import Archive
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
    split_source,
)
from pipeline.data.sources.known_sets import EMNIST
from pipeline.data.sources.mat_file import MatArray, read_arrays
from pipeline.data.sources.stored_bytes import Bytes, ColumnMajor, distinct_files

_IMAGE_WORDS = {"x", "images", "image", "imgs", "data", "fea"}
_LABEL_WORDS = {"y", "labels", "label", "targets", "gnd"}


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
        kept = distinct_files(archive, files, _split_of)
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
            if flat:
                height, width = rows.shape
                notes.append(f"rows of {height * width} pixels are images of {height}×{width}")
            if flat and not labelled.transposed:
                warnings.append(
                    "a file of MATLAB does not show whether rows of pixels are images by rows or "
                    "by columns; read by rows: see that the images stand upright"
                )
        layout = Layout(
            reader=cls.kind,
            class_from=", ".join(dict.fromkeys(pair.labels.name for pair in pairs.values())),
            split_from=split_source(parts, "names of files and arrays"),
            writer_from=first.writers.name if first.writers else "",
            dataset=labelled.dataset,
            left_out=left_out(archive, [pair.index for pair in pairs.values()]),
            notes=tuple(dict.fromkeys(notes)),
            warnings=tuple(dict.fromkeys(warnings)),
        )
        return cls(archive, parts, labelled, layout)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.lower())


def _split_of(file: str) -> int:
    """Return the split that a file's name and folders give."""
    return next((SPLIT_WORDS[w] for w in _words(file) if w in SPLIT_WORDS), base.NO_SPLIT)


def _pairs(file: str, index: int, arrays: Sequence[MatArray]) -> list[tuple[int, _Pair]]:
    """Return the images and labels of each split in a file."""
    roles: dict[tuple[int, str], list[MatArray]] = {}
    for array in arrays:
        words = _words(array.name)
        split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), _split_of(file))
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
