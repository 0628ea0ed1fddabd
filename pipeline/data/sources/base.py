"""The interface of a source: a labelled dataset that decodes one image at a time.

A source knows its classes and each image's label, writer and name without decoding any image. It
can be pickled; open files stay with their process. Each kind of source has its own file here.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

# Of the MIDAS task, in the order of their classes.
SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
NO_SPLIT = -1  # the source does not name the image's split
UNKNOWN_WRITER = -1  # the source does not name the image's writer


class SourceError(ValueError):
    """A source cannot be used; the message is one line with its path and the reason."""


class ImageError(ValueError):
    """An image cannot be decoded; the message is the reason, without the image's name."""


def check_seed(seed: int) -> None:
    """Raise SourceError for a seed outside 0 to 2^63 - 1."""
    if not 0 <= seed < 1 << 63:
        raise SourceError(f"seed {seed}: expected 0 to 2^63 - 1")


def digest_of(*values: object) -> str:
    """Return "sha256:…" of JSON values."""
    return f"sha256:{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()}"


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

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the images `rows` (n,): 0 without files."""
        del rows
        return 0

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
        whole = source.annotations
        if missing := [name for name in classes if name not in whole.classes]:
            raise SourceError(
                f"{source.path}: has no classes {', '.join(missing)}; "
                f"it has {', '.join(whole.classes)}"
            )
        numbers = [classes.index(name) if name in classes else -1 for name in whole.classes]
        labels = np.array(numbers)[whole.labels]
        rows = np.flatnonzero(labels >= 0)
        selected = Annotations(
            tuple(classes),
            labels[rows],
            whole.writers[rows],
            whole.writer_names,
            whole.splits[rows],
        )
        super().__init__(source, rows, selected)
