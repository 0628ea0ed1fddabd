"""The interface of a source: a labelled dataset that decodes one image at a time.

A source knows its classes and each image's label, writer and name without decoding any image. It
can be pickled; open files stay with their process. Each kind of source has its own file here.
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
NO_SPLIT = -1  # the source does not name the image's split
UNKNOWN_WRITER = -1  # the source does not name the image's writer


class SourceError(ValueError):
    """A source cannot be used; the message is one line with its path and the reason."""


class ImageError(ValueError):
    """An image cannot be decoded; the message is the reason, without the image's name."""


@dataclass(frozen=True)
class Annotations:
    """Labels, writers and splits of n images.

    `labels` (n,) index `classes`; `writers` (n,) index `writer_names` or are UNKNOWN_WRITER;
    `splits` (n,) are the splits that the source defines: indices into SPLITS, or NO_SPLIT.
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
        """Build annotations from labels, writers' names (None: unknown) and predefined splits."""
        n = len(labels)
        writer_names = sorted({name for name in writers or () if name is not None})
        index: dict[str | None, int] = {name: i for i, name in enumerate(writer_names)}
        return cls(
            tuple(classes),
            np.asarray(labels, np.int64),
            np.array([index.get(name, UNKNOWN_WRITER) for name in writers or [None] * n], np.int64),
            tuple(writer_names),
            np.full(n, NO_SPLIT) if splits is None else np.asarray(splits, np.int64),
        )


class Source(ABC):
    """A labelled dataset of images.

    `origin` is "real" or "synthetic"; `ignored_files` counts the files that are not part of the
    dataset; `generator` holds the settings of synthetic images or labels.
    """

    kind: str
    expected_layout: str  # of a path of this kind, for error messages
    origin: str = "real"

    path: Path
    annotations: Annotations
    ignored_files: int = 0
    generator: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.annotations.labels)

    def __str__(self) -> str:
        line = f"{self.kind}: {len(self):,} images, {len(self.annotations.classes)} classes"
        if writers := len(self.annotations.writer_names):
            line += f", {writers} writers"
        if self.ignored_files:
            line += f"; {self.ignored_files:,} other files ignored"
        return line

    @abstractmethod
    def name(self, index: int) -> str:
        """Return an image's name in the source."""

    @abstractmethod
    def image(self, index: int) -> Pixels:
        """Decode an image: uint8 (h, w).

        Raises ImageError if this image alone cannot be decoded, else SourceError or OSError.
        """

    @abstractmethod
    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the images `rows` (n,)."""

    @abstractmethod
    def digest(self) -> str:
        """Return "sha256:…" of everything that determines the images and labels."""

    def check(self, min_classes: int = 2) -> Self:
        """Return the source itself. Raises SourceError for no images or too few classes."""
        if not len(self):
            raise SourceError(f"{self.path}: holds no images")
        present = np.unique(self.annotations.labels)
        if len(present) < min_classes:
            name = self.annotations.classes[present[0]]
            raise SourceError(
                f"{self.path}: got one class, {name!r}, for all {len(self)} images, "
                f"expected at least {min_classes} classes"
            )
        return self


class DerivedSource(Source):
    """The images `rows` (n,) of another source, with annotations of their own."""

    expected_layout = "another source"

    def __init__(self, source: Source, rows: Ints, annotations: Annotations) -> None:
        self._source, self._rows, self.annotations = source, rows, annotations
        self.kind, self.origin, self.path = source.kind, source.origin, source.path
        self.ignored_files, self.generator = source.ignored_files, source.generator

    def name(self, index: int) -> str:
        """Return an image's name in the other source."""
        return self._source.name(int(self._rows[index]))

    def image(self, index: int) -> Pixels:
        """Decode an image: uint8 (h, w)."""
        return self._source.image(int(self._rows[index]))

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the images `rows` (n,)."""
        return self._source.size(self._rows[rows])

    def digest(self) -> str:
        """Return the other source's digest."""
        return self._source.digest()


class ClassSubset(DerivedSource):
    """Some classes of another source, numbered in the order of `classes`."""

    def __init__(self, source: Source, classes: Sequence[str]) -> None:
        annotations = source.annotations
        if missing := [name for name in classes if name not in annotations.classes]:
            raise SourceError(
                f"{source.path}: has no classes {', '.join(missing)}; "
                f"it has {', '.join(annotations.classes)}"
            )
        number = np.full(len(annotations.classes), -1)
        number[[annotations.classes.index(name) for name in classes]] = np.arange(len(classes))
        labels = number[annotations.labels]
        rows = np.flatnonzero(labels >= 0)
        selected = replace(
            annotations,
            classes=tuple(classes),
            labels=labels[rows],
            writers=annotations.writers[rows],
            splits=annotations.splits[rows],
        )
        super().__init__(source, rows, selected)
