"""The interface of a source: a labelled dataset that decodes one image at a time.

A source knows its classes and each image's label, writer and name without decoding any image. It
can be pickled; open files stay with their process. Each kind of source has its own file here.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
# Grey levels (h, w): uint8, or deeper (uint16, int32 or float32), in the units of the file.
Grey = NDArray[Any]

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
SYNTHETIC = "synthetic"  # reader of a source without files
# Of the files that hold images; their formats are in pixels/formats.py.
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".bmp", ".dib", ".gif"),
    *(".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".avif", ".heic", ".heif", ".hif"),
)
NO_SPLIT = -1  # the source does not name the image's split
UNKNOWN_WRITER = -1  # the source does not name the image's writer


class SourceError(ValueError):
    """A source cannot be used; the message is one line with its path and the reason."""


class LayoutError(SourceError):
    """A layout is ambiguous or contradictory; `suggestions` are options that settle it.

    Each suggestion is a string of command-line options. The message ends with all of them.
    """

    def __init__(self, reason: str, suggestions: Sequence[str] = ()) -> None:
        super().__init__(reason, tuple(suggestions))  # both, for pickle
        self.reason, self.suggestions = reason, tuple(suggestions)

    def __str__(self) -> str:
        if not self.suggestions:
            return self.reason
        return f"{self.reason}; use {', or '.join(self.suggestions)}"


class ImageError(ValueError):
    """An image cannot be decoded; the message is the reason, without the image's name."""


def is_dataset_file(path: Path) -> bool:
    """Return whether a path names a .beton file, by its suffix; a folder holds raw data."""
    return path.suffix.lower() == ".beton" and not path.is_dir()


def check_seed(seed: int) -> None:
    """Raise SourceError for a seed outside 0 to 2^63 - 1."""
    if not 0 <= seed < 1 << 63:
        raise SourceError(f"seed {seed}: expected 0 to 2^63 - 1")


def digest_of(*values: object) -> str:
    """Return "sha256:…" of JSON values."""
    return f"sha256:{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()}"


@dataclass(frozen=True)
class Layout:
    """The meaning of a source's paths and tables; it is printed and stored in the manifest.

    `class_from`, `split_from` and `writer_from` name a folder level, a pattern or a table as the
    options --class-from, --split-from and --writer-from do where these can, or describe it in
    words; "" means that the source does not define it. `dataset` is the known name of the dataset,
    if any. `left_out` counts the files that are not part of the dataset, by kind. `notes` are
    facts, `warnings` are doubts, one sentence each.
    """

    reader: str
    class_from: str = ""
    split_from: str = ""
    writer_from: str = ""
    dataset: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Decoded(NamedTuple):
    """A decoded image: grey levels (h, w), how the file stored them, and how they were changed.

    `mode` is Pillow's mode of the file (L, RGB, RGBA, P, 1, I;16, F …), with ";16" for colours of
    16 bits, which become 8 bits. `changes` are words such as "turned upright" or "composited on
    white paper". `colour`, uint8 (h, w, 3), is the same image of a file with colours, None for grey
    files; where all channels are equal, it may be a view of `grey` by `in_channels`. `jpeg` are the
    bytes of the file where they may be stored as they are: a JPEG of three components that is
    upright and unchanged.
    """

    grey: Grey
    mode: str = "L"
    changes: tuple[str, ...] = ()
    colour: Pixels | None = None
    jpeg: bytes | None = None

    @property
    def repeats_grey(self) -> bool:
        """Whether `colour` is a view of `grey`, so that all its channels are equal."""
        return self.colour is not None and self.colour.strides[2] == 0


def has_same_writers(info: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two datasets are synthetic pages of the same writers, from their info.

    Writers are numbered from 0 for each seed, so the strokes of their characters are the same.
    """
    one, two = (each.get("generator") or {} for each in (info, other))
    return one.get("set") == two.get("set") == "pages" and one["seed"] == two["seed"]


def in_channels(grey: Pixels) -> Pixels:
    """Return grey levels (h, w) as colours (h, w, 3): a view without a copy, read-only."""
    return np.broadcast_to(grey[:, :, None], (*grey.shape, 3))


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

    `origin` is "real" or "synthetic"; `layout` says what the paths and tables of its files mean;
    `generator` holds the settings of synthetic images or labels. `seconds_per_image` is the
    approximate time for an image of few pixels. `groups` (n,) are equal for images of one file,
    which must share a split; None if each image has a file of its own.
    """

    kind: str
    expected_layout: str  # of a path of this kind, for error messages
    origin: str = "real"
    seconds_per_image: float = 40e-6

    path: Path
    annotations: Annotations
    layout: Layout = Layout(SYNTHETIC)
    generator: Mapping[str, Any] | None = None
    groups: Ints | None = None

    def __len__(self) -> int:
        return len(self.annotations.labels)

    def __str__(self) -> str:
        line = f"{self.kind}: {len(self):,} images, {len(self.annotations.classes)} classes"
        if writers := len(self.annotations.writer_names):
            line += f", {writers} writers"
        return line

    @abstractmethod
    def name(self, index: int) -> str:
        """Return an image's name in the source."""

    @abstractmethod
    def image(self, index: int) -> Grey:
        """Decode an image: grey levels (h, w).

        Raises ImageError if this image alone cannot be decoded, else SourceError or OSError.
        """

    def decoded(self, index: int) -> Decoded:
        """Decode an image, with how the file stored it. Raises as `image` does."""
        return Decoded(self.image(index))

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
        self.layout = source.layout
        self.generator = source.generator
        self.groups = None if source.groups is None else source.groups[rows]

    def name(self, index: int) -> str:
        """Return an image's name in the other source."""
        return self._source.name(int(self._rows[index]))

    def image(self, index: int) -> Grey:
        """Decode an image: grey levels (h, w)."""
        return self._source.image(int(self._rows[index]))

    def decoded(self, index: int) -> Decoded:
        """Decode an image, with how the file stored it."""
        return self._source.decoded(int(self._rows[index]))

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
