"""Parquet files as Hugging Face stores images: encoded images or their paths, and labels.

A dataset is several files, shards and splits, of one form. Rows are read in small batches, so that
no file is ever whole in memory. The package pyarrow reads the format; it is an extra.
"""

import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from posixpath import basename, dirname, join, normpath
from typing import Any, Self

import numpy as np

from pipeline.data import base
from pipeline.data.archives import Archive
from pipeline.data.base import Decoded, Grey, ImageError, Ints, Layout, LayoutError, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.pixels.image_decoder import decode
from pipeline.data.sources.array_labels import Labelled, label_classes, to_labels
from pipeline.data.sources.array_source import (
    SPLIT_WORDS,
    ArraySource,
    Part,
    left_out,
    several_datasets,
    split_source,
)
from pipeline.data.sources.stored_bytes import PositionedReader, StoredBytes

_IMAGE_NAMES = {"image", "img", "images", "jpg", "png", "picture", "bytes", "image_bytes"}
_LABEL_NAMES = {"label", "labels", "class", "target", "character", "digit", "letter"}
_WRITER_NAMES = {"writer", "writer_id"}
_BATCH = 64  # rows that are read together
_MOST_ROWS, _MOST_FILES = 50_000_000, 10_000
_SHARD = re.compile(r"[-_]?([0-9]+)-of-([0-9]+)(-[0-9a-f]{8,})?$")


class ParquetFile:
    """A Parquet file and the columns that matter: read in order, it reads each batch once."""

    def __init__(self, archive: Archive, index: int) -> None:
        self.stored, self.index = StoredBytes(archive, index), index
        self._reader: tuple[int, Any] | None = None  # the process that opened it, and pyarrow's
        self._batches: Iterator[Any] = iter(())
        self._held: tuple[int, list[Any]] = 0, []
        with self.damage_reported():
            metadata = self.reader.metadata
            self.groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self.schema = self.reader.schema_arrow
        if not all(count >= 0 for count in self.groups) or sum(self.groups) > _MOST_ROWS:
            raise self.stored.error(f"got {sum(self.groups):,} rows, expected up to {_MOST_ROWS:,}")
        self.features = _features(self.schema.metadata)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_batches": iter(()), "_held": (0, [])}

    def __len__(self) -> int:
        return sum(self.groups)

    @property
    def reader(self) -> Any:
        """Return pyarrow's file, opened once in each process."""
        if self._reader is None or self._reader[0] != os.getpid():
            pq, source = _pyarrow(self.stored), PositionedReader(self.stored)
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
            self._reader, self._batches, self._held = (os.getpid(), file), iter(()), (0, [])
        return self._reader[1]

    def column(self, name: str) -> list[Any]:
        """Return the values of a column, or of a part of it: "image.path"."""
        values: list[Any] = []
        with self.damage_reported():
            for batch in self.reader.iter_batches(1 << 14, columns=[name], use_threads=False):
                values += batch.column(0).to_pylist()
        if len(values) != len(self):
            raise self.stored.error(f"damaged: got {len(values)} rows, expected {len(self)}")
        return values

    def value(self, column: str, row: int) -> Any:
        """Return a value. Rows in ascending order are read once."""
        with self.damage_reported():
            reader = self.reader
            start, held = self._held
            if not start <= row < start + len(held) + _BATCH or not held:
                first, group = 0, 0
                while row >= first + self.groups[group]:
                    first += self.groups[group]
                    group += 1
                start, held = first, []
                self._batches = reader.iter_batches(
                    _BATCH,
                    row_groups=list(range(group, len(self.groups))),
                    columns=[column],
                    use_threads=False,
                )
            while row >= start + len(held):
                start, held = start + len(held), next(self._batches).column(0).to_pylist()
            self._held = start, held
            return held[row - start]

    @contextmanager
    def damage_reported(self) -> Iterator[None]:
        """Raise SourceError for the errors of pyarrow."""
        try:
            yield
        except SourceError:
            raise
        except (ValueError, OSError, KeyError, TypeError, StopIteration, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            raise self.stored.error(f"damaged: {reason or type(error).__name__}") from None
        except (NotImplementedError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise self.stored.error(f"cannot be read: {reason}") from None


@dataclass(frozen=True)
class Columns:
    """The columns of images, labels and writers; `names` are the classes that are stored."""

    image: str
    label: str
    writer: str | None
    names: tuple[str, ...]


class ParquetImages:
    """The encoded images of several files.

    `rows` (n, 3) are a file, a row in it, and the archive's file that the row names, or -1.
    """

    mode, note = "", ""

    def __init__(
        self, archive: Archive, files: Sequence[ParquetFile], column: str, rows: Ints
    ) -> None:
        self._archive, self._files, self._column, self._rows = archive, files, column, rows

    def image(self, row: int) -> Grey:
        """Decode an image: grey levels (h, w). Raises ImageError if it is damaged or missing."""
        return self.decoded(row).grey

    def decoded(self, row: int) -> Decoded:
        """Decode an image, with how it was stored. Raises ImageError likewise."""
        file, position, linked = map(int, self._rows[row])
        value = self._files[file].value(self._column, position)
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is not None:
            return decode(data)
        if linked >= 0:
            return decode(self._archive.read(linked))
        path = value.get("path") if isinstance(value, dict) else None
        raise ImageError(f"the row has no bytes, and its file {path!r} is not in the source")


class Parquet(ArraySource):
    """Images in rows of Parquet files, with a label in each row."""

    kind = "parquet"
    expected_layout = "Parquet files with a column of images and a column of labels"

    @classmethod
    def find(cls, archive: Archive, options: LayoutOptions) -> Self | None:
        """Return the archive's dataset, whatever other files it has; None without .parquet files.

        Raises SourceError without pyarrow.
        """
        names = [(i, name) for i, name in enumerate(archive.names) if _is_parquet(name)]
        if not names:
            return None
        if len(names) > _MOST_FILES:
            raise SourceError(f"{archive.path}: got {len(names)} Parquet files, expected fewer")
        datasets: dict[tuple[str, str], dict[int, list[int]]] = {}
        for index, name in names:
            key, split = _dataset(name)
            datasets.setdefault(key, {}).setdefault(split, []).append(index)
        if len(datasets) > 1:
            groups = [
                (folder, rest, {archive.names[i] for found in splits.values() for i in found})
                for (folder, rest), splits in datasets.items()
            ]
            raise several_datasets(archive, groups)
        [((_, prefix), splits)] = datasets.items()
        files = {s: [ParquetFile(archive, i) for i in found] for s, found in sorted(splits.items())}
        return cls._of(archive, prefix, files, options)

    @classmethod
    def _of(
        cls,
        archive: Archive,
        prefix: str,
        files: Mapping[int, list[ParquetFile]],
        options: LayoutOptions,
    ) -> Self:
        first = next(iter(files.values()))[0]
        columns = choose_columns(first, options)
        members = {name: i for i, name in enumerate(archive.names)}
        parts, unlabelled, linked = [], 0, 0
        for split, shards in files.items():
            rows, labels, used = [], [], [file.index for file in shards]
            writers: list[str] = []
            for number, file in enumerate(shards):
                _check_columns(file, columns, archive.names[first.index])
                values, links = file.column(columns.label), _links(archive, file, columns, members)
                given = [i for i, v in enumerate(values) if v is not None and v != -1]
                unlabelled += len(values) - len(given)
                rows += [(number, i, links[i]) for i in given]
                labels += [values[i] for i in given]
                if columns.writer:
                    names = file.column(columns.writer)
                    writers += [str(names[i]) for i in given]
            if not labels:
                continue
            if not all(isinstance(label, int | float | str) for label in labels):
                raise first.stored.error(
                    f"got labels that are no numbers or strings in its column {columns.label!r}"
                )
            table = to_labels(np.array(labels), first.stored.path)
            places = np.array(rows, np.int64)
            files_of_rows = np.unique(places[:, 2])
            used += files_of_rows[files_of_rows >= 0].tolist()
            linked += int((places[:, 2] >= 0).sum())
            images = ParquetImages(archive, shards, columns.image, places)
            part = "row" if split == base.NO_SPLIT else base.SPLITS[split]
            written = writers if columns.writer else None
            parts.append(Part(part, split, images, table, tuple(used), written))
        if not parts:
            raise first.stored.error(f"got no row with a label in its column {columns.label!r}")
        labelled = _classes(archive, first, prefix, parts, columns, options)
        notes = [*labelled.notes, f"images are in the column {columns.image}"]
        if unlabelled:
            notes.append(f"{unlabelled:,} rows without a label are left out")
        if linked:
            notes.append(f"{linked:,} images are files that the table names")
        layout = Layout(
            reader=cls.kind,
            class_from=f"column {columns.label}",
            split_from=split_source(parts, "file names"),
            writer_from=f"column {columns.writer}" if columns.writer else "",
            dataset=labelled.dataset,
            left_out=left_out(archive, [i for part in parts for i in part.indices]),
            notes=tuple(notes),
            warnings=(*labelled.warnings, *_missing_shards(archive, files)),
        )
        return cls(archive, parts, labelled, layout)


def _is_parquet(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))


def _pyarrow(stored: StoredBytes) -> Any:
    """Return pyarrow's module for Parquet. Raises SourceError without it."""
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise stored.error(
            "needs the package pyarrow to be read: ./launch.sh setup parquet"
        ) from None


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Return the description of the columns that Hugging Face stores, {} without one."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: form for name, form in features.items() if isinstance(form, dict)}


def choose_columns(file: ParquetFile, options: LayoutOptions) -> Columns:
    """Return the columns of a file. Raises LayoutError if several may be the images or labels."""
    types = {field.name: field.type for field in file.schema}
    kinds = {name: form.get("_type") for name, form in file.features.items() if name in types}
    images = [n for n, kind in kinds.items() if kind == "Image"] or [
        name for name, form in types.items() if _holds_images(form)
    ]
    labels = [n for n, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [name for name in types if name.lower() in _LABEL_NAMES]
    labels = labels or [name for name in types if name.lower().endswith(("label", "class"))]
    images = _chosen(file, options, "file") or _preferred(images, _IMAGE_NAMES)
    labels = _chosen(file, options, "label") or _preferred(labels, _LABEL_NAMES)
    writers = _chosen(file, options, "writer") or [
        name for name in types if name.lower() in _WRITER_NAMES
    ]
    if not images or not labels:
        missing = "labels" if images else "images"
        raise file.stored.error(f"got no column of {missing}; it has {', '.join(types)[:200]}")
    if len(images) > 1 or len(labels) > 1:
        raise LayoutError(
            f"{file.stored.path}: got several columns of images ({', '.join(images)}) or of labels "
            f"({', '.join(labels)})",
            [f"--columns file={image},label={label}" for image in images for label in labels],
        )
    writer = writers[0] if writers else None
    return Columns(images[0], labels[0], writer, _stored_names(file, labels[0]))


def _stored_names(file: ParquetFile, label: str) -> tuple[str, ...]:
    """Return the classes' names that a column of labels stores, () without them."""
    names = file.features.get(label, {}).get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _chosen(file: ParquetFile, options: LayoutOptions, column: str) -> list[str]:
    """Return the column that the user names, if any. Raises SourceError if it is not there."""
    name = options.columns.get(column)
    if name is None:
        return []
    if name not in file.schema.names:
        held = ", ".join(file.schema.names)[:200]
        raise file.stored.error(f"got no column {name!r}; it has {held}")
    return [name]


def _preferred(names: list[str], words: set[str]) -> list[str]:
    """Return the first of several names only if it alone is a usual one."""
    usual = [name for name in names if name.lower() in words]
    return usual if len(usual) == 1 else names


def _holds_images(form: Any) -> bool:
    text = str(form)
    return text in ("binary", "large_binary") or (
        text.startswith("struct<") and "bytes: " in text and "path: " in text
    )


def _check_columns(file: ParquetFile, columns: Columns, first: str) -> None:
    """Raise SourceError if a file has other columns or classes than the file `first`."""
    missing = {columns.image, columns.label, columns.writer} - {*file.schema.names, None}
    if missing:
        raise file.stored.error(f"got no column {missing.pop()}, which {first} has")
    if _stored_names(file, columns.label) != columns.names:
        raise file.stored.error(f"names other classes than {first}, or in another order")


def _classes(
    archive: Archive,
    first: ParquetFile,
    prefix: str,
    parts: Sequence[Part],
    columns: Columns,
    options: LayoutOptions,
) -> Labelled:
    """Return the classes: the stored names, or what the labels are."""
    tables = [part.labels for part in parts]
    if not columns.names or any(table.dtype.kind != "i" for table in tables):
        return label_classes(archive, archive.names[first.index], prefix, tables, options)
    labels, count = np.concatenate(tables), len(columns.names)
    if not 0 <= labels.min() <= labels.max() < count:
        raise first.stored.error(
            f"got labels from {labels.min()} to {labels.max()}, expected 0 to {count - 1}: it "
            f"names {count} classes"
        )
    if len({*columns.names}) < count:
        raise first.stored.error("names two classes alike")
    counts = np.bincount(labels, minlength=count).tolist()
    empty = [name for name, held in zip(columns.names, counts, strict=True) if not held]
    warnings = (f"{len(empty)} of {count} classes have no images: {', '.join(empty[:20])}",)
    notes = (f"classes have the names that the column {columns.label!r} stores",)
    return Labelled(columns.names, labels, notes=notes, warnings=warnings if empty else ())


def _links(
    archive: Archive, file: ParquetFile, columns: Columns, members: Mapping[str, int]
) -> list[int]:
    """Return the archive's file that each row names relative to its table, or -1."""
    if "path: " not in str(file.schema.field(columns.image).type):
        return [-1] * len(file)
    folder = dirname(archive.names[file.index])
    paths = file.column(f"{columns.image}.path")
    paths = [path.get("path") if isinstance(path, dict) else path for path in paths]
    return [
        members.get(normpath(join(folder, path)), -1) if isinstance(path, str) else -1
        for path in paths
    ]


def _dataset(name: str) -> tuple[tuple[str, str], int]:
    """Return the dataset and the split that a file's name and folders give."""
    stem = _SHARD.sub("", re.sub(r"(?i)\.(parquet|pq)$", "", basename(name)))
    split, rest, folders = base.NO_SPLIT, [], []
    for word in re.findall(r"[^\W_]+", stem.lower()):
        if word in SPLIT_WORDS:
            split = SPLIT_WORDS[word]
        elif not word.isdecimal():
            rest.append(word)
    for folder in dirname(name).split("/"):
        words = re.findall(r"[^\W_]+", folder.lower())
        if words and words[-1] in SPLIT_WORDS and len(words) <= 2:
            split = SPLIT_WORDS[words[-1]] if split == base.NO_SPLIT else split
        else:
            folders.append(folder)
    return ("/".join(folders), "-".join(rest)), split


def _missing_shards(archive: Archive, files: Mapping[int, list[ParquetFile]]) -> list[str]:
    """Return a warning for each split of which some shards are missing."""
    warnings = []
    for shards in files.values():
        stems = [archive.names[f.index].rpartition(".")[0] for f in shards]
        totals = [int(match[2]) for stem in stems if (match := _SHARD.search(stem))]
        if totals and len(totals) < max(totals):
            warnings.append(
                f"{len(totals)} of {max(totals)} shards are there beside "
                f"{archive.names[shards[0].index]}"
            )
    return warnings
