"""What the readers of arrays have in common: images in rows, and parts that are splits.

Arrays in colour give grey levels as in Pillow's `convert("L")`, and colours of 8 bits.

One image is read at a time, so that no dataset is ever whole in memory.
"""

import glob
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from shlex import quote
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data import base
from pipeline.data.archives import Archive
from pipeline.data.base import (
    IMAGE_SUFFIXES,
    Annotations,
    Decoded,
    Grey,
    Ints,
    Layout,
    LayoutError,
    Source,
    SourceError,
)
from pipeline.data.layout.folders import vocabulary
from pipeline.data.layout.folders.split_level import predefined
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.pixels.luma import luma
from pipeline.data.pixels.png.decoder import LONGEST_SIDE
from pipeline.data.sources.array_labels import Labelled
from pipeline.data.sources.stored_bytes import BLOCK, Bytes

SPLIT_WORDS = {**vocabulary.SPLIT_WORDS, "t10k": base.TEST}
LEAST_RANGE = 32  # of 8-bit grey levels
_FEWEST_PIXELS = 16  # of a row whose shape is inferred; fewer are hardly an image
MANY_IMAGES = 10  # image files that make a source one of images


def image_shape(
    columns: int, options: LayoutOptions, place: str, *, surely: bool = True
) -> tuple[int, ...] | None:
    """Return the shape of images in rows of values: the option's, or (height, width) of a square.

    None if neither fits and the rows are not `surely` images; else LayoutError.
    """
    if options.shape is not None:
        if prod(options.shape) != columns:
            shape = "x".join(map(str, options.shape))
            raise SourceError(
                f"{place}: got rows of {columns} pixels, expected {prod(options.shape)} for "
                f"--shape {shape}"
            )
        return options.shape
    if (side := isqrt(columns)) ** 2 == columns >= _FEWEST_PIXELS:
        return side, side
    if not surely:
        return None
    if (side := isqrt(columns // 3)) ** 2 * 3 == columns and side**2 >= _FEWEST_PIXELS:
        raise LayoutError(
            f"{place}: got rows of {columns} values, which may be the colours of {side}×{side} "
            "pixels, one channel after the other or one pixel after the other",
            [f"--shape 3x{side}x{side}", f"--shape {side}x{side}x3"],
        )
    heights = [n for n in range(1, isqrt(columns) + 1) if columns % n == 0][-2:]
    shapes = [shape for n in heights for shape in ((n, columns // n), (columns // n, n))]
    raise LayoutError(
        f"{place}: got rows of {columns} pixels, expected a square image of at least "
        f"{_FEWEST_PIXELS} pixels",
        [f"--shape {height}x{width}" for height, width in shapes],
    )


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the height and width of an image of a shape with or without channels."""
    channels = channel_axis(shape)
    height, width = (side for axis, side in enumerate(shape) if axis != channels)
    return height, width


class Images(Protocol):
    """Images that are read by their number."""

    mode: str
    note: str  # about the values, for people

    def image(self, row: int) -> Grey:
        """Return an image: grey levels (h, w), upright. Raises SourceError for a damaged file."""

    def decoded(self, row: int) -> Decoded:
        """Return an image, with its colours and how it was stored. Raises SourceError likewise."""


class ArrayImages:
    """Images in rows of an array that begins at byte `start` of `data`, a row each `stride` bytes.

    Rows with a stride of their own are `trusted` bytes. `shape` of one image is (h, w), (h, w, 1),
    (1, h, w), (h, w, 3) or (3, h, w). Integers and floats whose values are all whole numbers from 0
    to 255 become 8-bit grey, bool becomes 0 and 255. Other values stay as they are, and so do
    numbers that use less than an eighth of a byte's range: the dataset's scale applies to them.
    Bytes with `trusted` are 8-bit as they are, whatever their range. Colours of other ranges become
    8 bits by the range of their format; without a known format, only grey levels remain.
    """

    def __init__(
        self,
        data: Bytes,
        start: int,
        dtype: np.dtype[Any],
        count: int,
        shape: tuple[int, ...],
        *,
        stride: int | None = None,
        transposed: bool = False,
        trusted: bool = False,
    ) -> None:
        self._data, self._start, self._dtype, self.count = data, start, dtype, count
        self._shape, self._transposed = shape, transposed
        self._channels = channel_axis(shape)
        self._bytes = dtype.itemsize * prod(shape)
        self._stride = stride or self._bytes
        colours = 1 if self._channels is None else shape[self._channels]
        height, width = sides(shape)
        if colours not in (1, 3):
            raise data.error(f"got images with {colours} channels, expected 1 or 3")
        if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE):
            size = f"{width}×{height} pixels"
            raise data.error(f"got images of {size}, expected 1 to 65,535 pixels a side")
        self.shape = height, width
        self.mode = "RGB" if colours == 3 else "L"
        self.note = ""
        self._target: np.dtype[Any] = np.dtype(np.uint8)
        self._white: float | None = 255.0  # the value of full colour, None if it is not known
        if count and not (trusted and dtype == np.uint8):
            assert self._stride == self._bytes
            self.note = self._choose_depth(colours)
        if shape[::2] in ((3, 3), (1, 3), (3, 1)) and not transposed:
            found = "×".join(map(str, shape))
            doubt = f"images of shape {found} may have channels first or last: read as last"
            self.note = "; ".join(filter(None, (self.note, doubt)))

    def image(self, row: int) -> Grey:
        """Return one image (h, w), upright. Raises SourceError for a damaged file."""
        return self.decoded(row).grey

    def decoded(self, row: int) -> Decoded:
        """Return one image, with its colours and mode. Raises SourceError for a damaged file."""
        data = self._data.pread(self._bytes, self._start + row * self._stride)
        values = np.frombuffer(data, self._dtype).reshape(self._shape)
        if self._dtype == np.bool_:
            values = values.astype(np.uint8) * 255
        if self._channels is not None:
            values = np.moveaxis(values, self._channels, 0)
            if len(values) == 3:
                planes = values.swapaxes(1, 2) if self._transposed else values
                return self._in_colour(planes)
            values = values[0]
        values = values.astype(self._target, copy=False)
        return Decoded(np.ascontiguousarray(values.T if self._transposed else values), self.mode)

    def _in_colour(self, planes: NDArray[Any]) -> Decoded:
        """Return the image of red, green and blue values (3, h, w)."""
        grey = np.ascontiguousarray(luma(planes.astype(self._target, copy=False)))
        if self._white is None:
            return Decoded(grey, self.mode)
        if self._white != 255 or self._target != np.uint8:
            planes = np.rint(planes.astype(np.float64) * (255 / self._white))
        colour = np.ascontiguousarray(np.moveaxis(planes, 0, 2).astype(np.uint8))
        return Decoded(grey, self.mode, (), colour)

    def _choose_depth(self, colours: int) -> str:
        """Read all values once, choose the type of the grey levels, and return a note about it."""
        if self._dtype == np.bool_:
            self.mode = "1"
            return "pixels are true and false: 255 and 0"
        low, high, whole = self._range()
        kind = self._dtype.name
        if whole and low >= 0 and LEAST_RANGE <= high <= 255:
            if self._dtype == np.uint8:
                return ""
            return f"pixels are {kind} from {low:g} to {high:g}: read as 8-bit grey"
        if self._dtype == np.int8:
            raise self._data.error(
                f"got signed bytes from {low:g} to {high:g} as pixels, expected 0 to 255"
            )
        if self._dtype.kind == "f":
            self._target, self.mode = np.dtype(np.float32), "F"
        elif low >= 0 and high < 1 << 16:
            self._target, self.mode = np.dtype(np.uint16), "I;16"
        elif low >= -(1 << 31) and high < 1 << 31:
            self._target, self.mode = np.dtype(np.int32), "I"
        else:
            raise self._data.error(f"got pixels from {low:g} to {high:g}, expected 32 bits")
        found = f"pixels are {kind} from {low:g} to {high:g}"
        if colours == 1:
            return f"{found}: the scale is the dataset's"
        self._target, self.mode = np.dtype(np.float32), "F"
        self._white = _full_colour(self._dtype, low, high)
        if self._white is None:
            return f"{found}, no known range of colours: only grey levels remain"
        return f"{found}: colours from 0 to {self._white:g} become 0 to 255, rounded"

    def _range(self) -> tuple[float, float, bool]:
        """Return the lowest and highest value, and whether all are whole numbers."""
        low, high, whole = np.inf, -np.inf, True
        end, step = self.count * self._bytes, BLOCK // 16 * 16
        for offset in range(0, end, step):
            data = self._data.pread(min(step, end - offset), self._start + offset)
            values = np.frombuffer(data, self._dtype)
            if self._dtype.kind == "f":
                if not np.isfinite(values).all():
                    raise self._data.error("got pixels that are NaN or infinite")
                whole = whole and bool((values == np.rint(values)).all())
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if self._dtype.kind == "f" and high > np.finfo(np.float32).max:
            raise self._data.error(f"got pixels up to {high:g}, expected 32-bit floats")
        return low, high, whole


def _full_colour(dtype: np.dtype[Any], low: float, high: float) -> float | None:
    """Return the greatest value of the format of colours from `low` to `high`, None if unknown."""
    fractions = (1.0, 255.0) if dtype.kind == "f" else ()
    deep = [float((1 << bits) - 1) for bits in (10, 12, 14, 16)]
    tops = [*fractions, *deep] if high > 255 or fractions else []
    return next((top for top in tops if low >= 0 and high <= top), None)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis of an image's channels, the last where both can be; None without one."""
    if len(shape) == 2:
        return None
    return 0 if shape[0] in (1, 3) and shape[2] not in (1, 3) else 2


@dataclass(frozen=True)
class Part:
    """A part of a dataset, with the split that it is; NO_SPLIT for all in one part.

    `labels` (n,) are whole numbers or strings, `indices` the archive's files that hold the part.
    """

    name: str
    split: int
    images: Images
    labels: NDArray[Any]
    indices: tuple[int, ...]
    writers: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def split_source(parts: Iterable[Part], names: str) -> str:
    """Return `names`, which give the parts' splits, or "" if prep divides all images."""
    splits = predefined(np.array([part.split for part in parts], np.int64))
    return names if (splits != base.NO_SPLIT).any() else ""


class ArraySource(Source):
    """A dataset in parts: training, validation and test, in this order."""

    def __init__(
        self, archive: Archive, parts: Sequence[Part], labelled: Labelled, layout: Layout
    ) -> None:
        self.path, self.layout = archive.path, layout
        self._archive, self._parts = archive, list(parts)
        self._used = sorted({index for part in parts for index in part.indices})
        counts = [len(part) for part in parts]
        self._starts = np.cumsum([0, *counts])
        writers: list[str | None] = []
        for part in parts:
            writers += part.writers if part.writers is not None else [None] * len(part)
        self.annotations = Annotations.of(
            labelled.classes,
            labelled.labels,
            writers=writers if any(part.writers is not None for part in parts) else None,
            splits=predefined(np.repeat([part.split for part in parts], counts)),
        )

    @classmethod
    def detect(cls, archive: Archive, options: LayoutOptions | None = None) -> Self | None:
        """Return the archive's dataset, None if it has no arrays of this kind.

        Arrays beside many image files that are no dataset themselves are ignored. Raises
        LayoutError for several datasets, SourceError for damaged files and missing labels.
        """
        try:
            return cls.find(archive, options or LayoutOptions())
        except SourceError:
            if sum(name.lower().endswith(IMAGE_SUFFIXES) for name in archive.names) < MANY_IMAGES:
                raise
            return None

    @classmethod
    def find(cls, archive: Archive, options: LayoutOptions) -> Self | None:
        """Return the archive's dataset, whatever other files it has."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Return "train/N" or "test/N", N counted from 0."""
        part, row = self._place(index)
        return f"{part.name}/{row}"

    def image(self, index: int) -> Grey:
        """Return one image (h, w), upright. Raises SourceError for a damaged file."""
        return self.decoded(index).grey

    def decoded(self, index: int) -> Decoded:
        """Return one image, with its colours and how the file stored it."""
        part, row = self._place(index)
        return part.images.decoded(row)

    def size(self, rows: Ints) -> int:
        """Return the bytes of all the dataset's files, whichever images `rows` are."""
        del rows
        return sum(self._archive.sizes[index] for index in self._used)

    def digest(self) -> str:
        """Return the digest of the dataset's files, or of the zip archive."""
        return self._archive.digest(self._used)

    def _place(self, index: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return self._parts[number], index - int(self._starts[number])


def several_datasets(
    archive: Archive, groups: Iterable[tuple[str, str, Collection[str]]]
) -> LayoutError:
    """Return the error for several datasets, with an option that selects each, if one does.

    `groups` are the folder of each dataset, the prefix of its files' names, and its files.
    """
    groups = list(groups)
    counts = Counter(name for *_, files in groups for name in {*files})
    every = {*counts}
    suggestions = []
    for folder, prefix, own in groups:
        if any(counts[name] > 1 for name in own):
            continue  # no choice of files selects one of the datasets in a file
        others = sorted(every - {*own})
        patterns = [f"{folder}/*"] if folder else []
        patterns += [f"{folder}/{prefix}*".lstrip("/")] if prefix else []
        options = [("--include", escaped(pattern)) for pattern in (*patterns, *own)]
        options += [("--exclude", escaped(name)) for name in others[:1]]
        for option, pattern in options:
            choice = ((pattern,), ()) if option == "--include" else ((), (pattern,))
            selects = LayoutOptions(include=choice[0], exclude=choice[1]).selects
            if {name for name in every if selects(name)} == {*own}:
                suggestions.append(f"{option} {quote(pattern)}")
                break
    return LayoutError(
        f"{archive.path}: got several datasets, expected one: {', '.join(sorted(every))}",
        suggestions,
    )


def escaped(pattern: str) -> str:
    """Escape the characters of a pattern that match others, but not a * at its end."""
    star = pattern.endswith("*")
    return glob.escape(pattern.removesuffix("*")) + "*" * star


def left_out(archive: Archive, used: Sequence[int], **kinds: int) -> dict[str, int]:
    """Count the files that are not `used`, by kind: the archive's own, `kinds`, and others."""
    counts: dict[str, int] = dict(archive.left_out)
    named = {kind.replace("_", " "): count for kind, count in kinds.items() if count}
    others = len(archive.names) - len(set(used)) - sum(named.values())
    return {**counts, **named, **({"other files": others} if others > 0 else {})}
