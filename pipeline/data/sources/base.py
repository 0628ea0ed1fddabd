"""What a source is: a labelled set of pictures that lists cheaply and decodes one at a time.

A source knows its classes, and each picture's label, writer and name, without decoding any; it can
be pickled, and what it has open stays with its process. Each kind of source is one file here.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
UNASSIGNED = -1  # the source does not say which split
UNKNOWN_WRITER = -1  # the source does not say which writer


class SourceError(ValueError):
    """A source cannot be used as a whole; the message is one line that names it and says why."""


class ImageError(ValueError):
    """One picture cannot be decoded; the message is the reason, without the picture's name."""


@dataclass(frozen=True)
class Annotations:
    """What is known of n pictures without decoding them.

    `labels` (n,) index `classes`, `writers` (n,) index `writer_names` or are UNKNOWN_WRITER, `splits` (n,)
    are the splits that the source comes with: indices into SPLITS, or UNASSIGNED.
    """

    classes: tuple[str, ...]
    labels: Ints
    writers: Ints
    writer_names: tuple[str, ...]
    splits: Ints

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        labels: Sequence[int] | Ints,
        *,
        writers: Sequence[str | None] | None = None,
        splits: Sequence[int] | Ints | None = None,
    ) -> Self:
        """Build entries from labels, names of writers (None: unknown) and given splits."""
        n = len(labels)
        writer_names = sorted({name for name in writers or () if name is not None})
        index: dict[str | None, int] = {name: i for i, name in enumerate(writer_names)}
        return cls(
            tuple(classes),
            np.asarray(labels, np.int64),
            np.array([index.get(name, UNKNOWN_WRITER) for name in writers or [None] * n], np.int64),
            tuple(writer_names),
            np.full(n, UNASSIGNED) if splits is None else np.asarray(splits, np.int64),
        )


class Source(ABC):
    """A labelled set of pictures.

    `origin` is "real" or "synthetic", `ignored_files` the number of files that were there and are
    not part of it, `generator` the settings of what is synthetic.
    """

    kind: str
    expected_layout: str  # what a path must hold to be of this kind, for a message
    origin: str = "real"

    path: Path
    annotations: Annotations
    ignored_files: int = 0
    generator: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.annotations.labels)

    def __str__(self) -> str:
        line = f"{self.kind}: {len(self):,} pictures, {len(self.annotations.classes)} classes"
        if writers := len(self.annotations.writer_names):
            line += f", {writers} writers"
        if self.ignored_files:
            line += f"; {self.ignored_files:,} other files passed over"
        return line

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what the source calls the picture."""

    @abstractmethod
    def image(self, index: int) -> Pixels:
        """Decode a picture: uint8 (h, w). Raises PictureError; SourceError or OSError for all."""

    @abstractmethod
    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the pictures `rows` (n,)."""

    @abstractmethod
    def digest(self) -> str:
        """Return "sha256:…" of all that the pictures and labels are made from."""

    def check(self, classes: int = 2) -> Self:
        """Return the source itself. Raises SourceError if it has fewer classes, or no pictures."""
        if not len(self):
            raise SourceError(f"{self.path}: holds no pictures")
        present = np.unique(self.annotations.labels)
        if len(present) < classes:
            name = self.annotations.classes[present[0]]
            raise SourceError(
                f"{self.path}: all {len(self)} pictures are of one class, {name!r}; "
                "a set with one class cannot be learned"
            )
        return self


class ClassSubset(Source):
    """Some classes of another source, numbered in the order given."""

    expected_layout = "some classes of another source"

    def __init__(self, source: Source, classes: Sequence[str]) -> None:
        entries = source.annotations
        if missing := [name for name in classes if name not in entries.classes]:
            raise SourceError(
                f"{source.path}: has no classes {', '.join(missing)}; "
                f"it has {', '.join(entries.classes)}"
            )
        number = np.full(len(entries.classes), -1)
        number[[entries.classes.index(name) for name in classes]] = np.arange(len(classes))
        labels = number[entries.labels]
        rows = np.flatnonzero(labels >= 0)
        self._source, self._rows = source, rows
        self.annotations = replace(
            entries,
            classes=tuple(classes),
            labels=labels[rows],
            writers=entries.writers[rows],
            splits=entries.splits[rows],
        )
        self.kind, self.origin, self.path = source.kind, source.origin, source.path
        self.ignored_files, self.generator = source.ignored_files, source.generator

    def name(self, index: int) -> str:
        """Return what the other source calls the picture."""
        return self._source.name(int(self._rows[index]))

    def image(self, index: int) -> Pixels:
        """Have the other source decode the picture."""
        return self._source.image(int(self._rows[index]))

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the pictures `rows` (n,)."""
        return self._source.size(self._rows[rows])

    def digest(self) -> str:
        """Return the whole source's digest."""
        return self._source.digest()
