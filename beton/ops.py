"""What a loader does to a field on the way into a batch, declared as small frozen dataclasses.

An op is bound to a column of a file once; the step that comes out says the shape and dtype of what
it makes and fills rows of a batch, from any thread. A project adds its own by writing a class with
`bind`. Ops know the bytes of a sample and where its record says they lie, and no file layout.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from beton import fields, ink, rng
from beton.arrays import Array, Float64Array, Ids, Int64Array
from beton.errors import BetonError, FormatError
from beton.kernels import (
    BACKGROUND,
    DAMAGES,
    HEIGHT,
    RUNS,
    WIDTH,
    gather,
    gather_padded,
    pixels_batch,
    resize_batch,
    runs_batch,
)
from beton.reader import Column


class Draw(NamedTuple):
    """What a batch's random numbers depend on, besides the samples."""

    seed: int
    epoch: int


class Spec(NamedTuple):
    """Shape, the batch dimension included, and dtype of an array of every batch."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Step(Protocol):
    """An op bound to a column."""

    @property
    def outputs(self) -> Mapping[str, Spec]:
        """The arrays it makes, by suffix: "" is named after the field, "size" is "field.size"."""
        ...

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:
        """Fill rows 0 to len(ids) of `out` with the samples `ids`, at least one.

        Several threads call it at once.
        """
        ...


class Op(Protocol):
    """A declaration of what to do to a field: hashable, comparable, of arguments only."""

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:
        """Prepare for batches of `batch` rows drawn from the samples `ids` of a column.

        Raises BetonError if the column's field does not suit.
        """
        ...


@dataclass(frozen=True)
class Jitter:
    """Random geometry of a picture, in run space: it costs nothing.

    The window of the picture that fills the output is the whole picture divided by a zoom drawn
    from `scale`, its aspect (width to height) multiplied by one drawn from `aspect`, moved by up
    to `translate` (x, y) of the picture's size either way, its rows sheared by up to `shear`
    source pixels per row either way, about the middle. All are uniform and per sample.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    translate: tuple[float, float] = (0.0, 0.0)
    shear: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("aspect", self.aspect)):
            if not 0 < low <= high < math.inf:
                raise ValueError(f"jitter {name}: got {low, high}, expected 0 < low <= high")
        for name, strengths in (("translate", self.translate), ("shear", (self.shear,))):
            if not all(0 <= strength < math.inf for strength in strengths):
                raise ValueError(f"jitter {name}: got {strengths}, expected 0 or more")

    def geometry(self, draw: Draw, ids: Ids, sizes: Array) -> Float64Array:
        """Return the windows (n, 6) of samples `ids` (n,) with `sizes` (n, 2) = (height, width).

        A row is (x0, y0, width, height, shear, centre), as `kernels.resize` takes it.
        """
        numbers = rng.uniform(draw.seed, draw.epoch, ids, rng.JITTER, 5)
        scale = self.scale[0] + numbers[:, 0] * (self.scale[1] - self.scale[0])
        aspect = self.aspect[0] + numbers[:, 1] * (self.aspect[1] - self.aspect[0])
        geometry = whole(sizes)
        heights, widths = geometry[:, 3].copy(), geometry[:, 2].copy()
        geometry[:, 2] = widths / scale * np.sqrt(aspect)
        geometry[:, 3] = heights / scale / np.sqrt(aspect)
        move = (2 * numbers[:, 2:4] - 1) * np.array(self.translate)
        geometry[:, 0] = (widths - geometry[:, 2]) / 2 + move[:, 0] * widths
        geometry[:, 1] = (heights - geometry[:, 3]) / 2 + move[:, 1] * heights
        geometry[:, 4] = (2 * numbers[:, 4] - 1) * self.shear
        return geometry


def whole(sizes: Array) -> Float64Array:
    """Return the windows (n, 6) that show pictures of `sizes` (n, 2) = (height, width) whole."""
    geometry = np.zeros((len(sizes), 6))
    geometry[:, 2] = sizes[:, 1]
    geometry[:, 3] = sizes[:, 0]
    geometry[:, 5] = sizes[:, 0] / 2
    return geometry


@dataclass(frozen=True)
class Scalar(Op):
    """A number per sample: int64 or float64 (b,)."""

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:  # noqa: ARG002
        """Bind to an int or float field."""
        _expect(column, self, fields.IntField, fields.FloatField)
        values = np.ascontiguousarray(column.metadata)
        return _Scalar({"": Spec((batch,), values.dtype)}, values)


@dataclass(frozen=True)
class _Scalar:
    outputs: Mapping[str, Spec]
    values: Array

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:  # noqa: ARG002
        np.take(self.values, ids, out=out[""][: len(ids)])


@dataclass(frozen=True)
class FixedArray(Op):
    """An array of the field's dtype and shape per sample: (b, *shape)."""

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:  # noqa: ARG002
        """Bind to an ndarray or torch tensor field."""
        _expect(column, self, fields.NDArrayField)
        declared = column.field
        assert isinstance(declared, fields.NDArrayField)
        spec = Spec((batch, *declared.shape), np.dtype(declared.dtype))
        return _FixedArray({"": spec}, column)


@dataclass(frozen=True)
class _FixedArray:
    outputs: Mapping[str, Spec]
    column: Column

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:  # noqa: ARG002
        rows = out[""].reshape(len(out[""]), -1).view(np.uint8)
        gather(self.column.data, self.column.pointers, ids, rows)


@dataclass(frozen=True)
class Bytes(Op):
    """Bytes or JSON text per sample: uint8 (b, longest), zero-padded, and "size" int64 (b,)."""

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:
        """Bind to a bytes or JSON field."""
        _expect(column, self, fields.BytesField)
        longest = int(column.sizes[ids].max())
        outputs = {
            "": Spec((batch, longest), np.dtype(np.uint8)),
            "size": Spec((batch,), np.dtype(np.int64)),
        }
        return _Bytes(outputs, column)


@dataclass(frozen=True)
class _Bytes:
    outputs: Mapping[str, Spec]
    column: Column

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:  # noqa: ARG002
        np.take(self.column.sizes, ids, out=out["size"][: len(ids)])
        gather_padded(self.column.data, self.column.pointers, self.column.sizes, ids, out[""])


@dataclass(frozen=True)
class Rgb(Op):
    """A decoded colour picture per sample, all of one size: uint8 (b, h, w, 3)."""

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:
        """Bind to an RGB image field whose pictures all have the same size."""
        _expect(column, self, fields.RGBImageField)
        height, width = _one_size(column, ids)
        spec = Spec((batch, height, width, 3), np.dtype(np.uint8))
        return _Rgb({"": spec}, column)


@dataclass(frozen=True)
class _Rgb:
    outputs: Mapping[str, Spec]
    column: Column

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:  # noqa: ARG002
        for row, sample in enumerate(ids):
            out[""][row] = self.column.decode(int(sample))


@dataclass(frozen=True)
class Normalize:
    """(grey level - mean) / std as float32; both in grey levels, 0 to 255."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"normalize std: got {self.std}, expected more than 0")


def _scaling(normalize: Normalize | None) -> tuple[np.dtype[Any], float, float]:
    """Return (dtype, gain, offset): stored is value * gain + offset, cut to the dtype."""
    if normalize is None:
        return np.dtype(np.uint8), 1.0, 0.5
    return np.dtype(np.float32), 1 / normalize.std, -normalize.mean / normalize.std


@dataclass(frozen=True)
class Pixels(Op):
    """An ink picture per sample as it is, all of one size.

    uint8 (b, h, w), or float32 if normalised.
    """

    normalize: Normalize | None = None

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:
        """Bind to an ink field whose pictures all have the same size."""
        _expect(column, self, fields.InkField)
        height, width = _one_size(column, ids)
        dtype, gain, offset = _scaling(self.normalize)
        table = ink_table(column)
        outputs = {"": Spec((batch, height, width), dtype)}
        return _Pixels(outputs, column, table, np.float32(gain), np.float32(offset))


@dataclass(frozen=True)
class _Pixels:
    outputs: Mapping[str, Spec]
    column: Column
    table: Array
    gain: np.float32
    offset: np.float32

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:  # noqa: ARG002
        row, status = pixels_batch(
            self.column.data, self.table, ids, self.gain, self.offset, out[""]
        )
        _raise_damage(self.column, ids, row, status)


@dataclass(frozen=True)
class Resize(Op):
    """An ink picture per sample, area-averaged to (height, width) straight from its runs.

    uint8 (b, height, width), or float32 if normalised. Every pixel is within half a grey level of
    the exact box filter, up- and downscaling alike; proportions are not kept.
    """

    height: int
    width: int
    jitter: Jitter | None = None
    normalize: Normalize | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.height <= ink.LIMIT and 1 <= self.width <= ink.LIMIT):
            got = self.height, self.width
            raise ValueError(f"resize: got {got}, expected 1 to {ink.LIMIT} pixels a side")

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:  # noqa: ARG002
        """Bind to an ink field."""
        _expect(column, self, fields.InkField)
        dtype, gain, offset = _scaling(self.normalize)
        outputs = {"": Spec((batch, self.height, self.width), dtype)}
        return _Resize(outputs, column, ink_table(column), self.jitter, gain, offset)


@dataclass(frozen=True)
class _Resize:
    outputs: Mapping[str, Spec]
    column: Column
    table: Array
    jitter: Jitter | None
    gain: float
    offset: float

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:
        sizes = self.table[ids, HEIGHT : WIDTH + 1]
        geometry = self.jitter.geometry(draw, ids, sizes) if self.jitter else whole(sizes)
        row, status = resize_batch(
            self.column.data, self.table, ids, geometry, self.gain, self.offset, out[""]
        )
        _raise_damage(self.column, ids, row, status)


@dataclass(frozen=True)
class Runs(Op):
    """The runs themselves, for a device that makes pictures of them.

    uint16 (capacity, 4) rows of (row, start, end, value), the samples' runs one after another;
    "offsets" int64 (b + 1,); "size" int32 (b, 2) = (height, width); "background" uint8 (b,);
    "geometry" float64 (b, 6), the windows as `Jitter.geometry` draws them. The capacity is what
    the `b` samples with the most runs need; what lies past offsets[-1] is unspecified.
    """

    jitter: Jitter | None = None

    def bind(self, column: Column, ids: Ids, batch: int) -> Step:
        """Bind to an ink field."""
        _expect(column, self, fields.InkField)
        table = ink_table(column)
        capacity = int(np.sort(table[ids, RUNS])[-batch:].sum())
        outputs = {
            "": Spec((capacity, 4), np.dtype(np.uint16)),
            "offsets": Spec((batch + 1,), np.dtype(np.int64)),
            "size": Spec((batch, 2), np.dtype(np.int32)),
            "background": Spec((batch,), np.dtype(np.uint8)),
            "geometry": Spec((batch, 6), np.dtype(np.float64)),
        }
        return _Runs(outputs, column, table, self.jitter)


@dataclass(frozen=True)
class _Runs:
    outputs: Mapping[str, Spec]
    column: Column
    table: Array
    jitter: Jitter | None

    def run(self, ids: Ids, draw: Draw, out: Mapping[str, Array]) -> None:
        n = len(ids)
        sizes = self.table[ids, HEIGHT : WIDTH + 1]
        offsets = out["offsets"]
        offsets[0] = 0
        np.cumsum(self.table[ids, RUNS], out=offsets[1 : n + 1])
        offsets[n + 1 :] = offsets[n]
        out["size"][:n] = sizes
        out["background"][:n] = self.table[ids, BACKGROUND]
        out["geometry"][:n] = (
            self.jitter.geometry(draw, ids, sizes) if self.jitter else whole(sizes)
        )
        row, status = runs_batch(self.column.data, self.table, ids, offsets, out[""])
        _raise_damage(self.column, ids, row, status)


def default(column: Column) -> Op:
    """Return the op that hands a field over as it is."""
    kinds: list[tuple[type[fields.Field], Op]] = [
        (fields.IntField, Scalar()),
        (fields.FloatField, Scalar()),
        (fields.NDArrayField, FixedArray()),
        (fields.BytesField, Bytes()),
        (fields.RGBImageField, Rgb()),
        (fields.InkField, Pixels()),
    ]
    return next(op for kind, op in kinds if isinstance(column.field, kind))


def ink_table(column: Column) -> Int64Array:
    """Return an ink column's metadata as int64 (N, 8), for kernels."""
    records = column.metadata
    names = ("mode", "background", "ink", "runs", "height", "width")
    parts = [column.pointers, column.sizes, *(records[name] for name in names)]
    return np.stack([part.astype(np.int64) for part in parts], axis=1)


def _expect(column: Column, op: Op, *kinds: type[fields.Field]) -> None:
    if not isinstance(column.field, kinds):
        raise BetonError(
            f"{type(op).__name__} does not suit the field",
            file=column.file,
            field=column.name,
            got=type(column.field).__name__,
            expected=" or ".join(kind.__name__ for kind in kinds),
        )


def _one_size(column: Column, ids: Ids) -> tuple[int, int]:
    sizes = np.stack([column.metadata["height"][ids], column.metadata["width"][ids]], axis=1)
    different = np.flatnonzero((sizes != sizes[0]).any(axis=1))
    if len(different):
        raise BetonError(
            "pictures of several sizes cannot share a batch as they are; resize them",
            file=column.file,
            field=column.name,
            sample=int(ids[different[0]]),
            got=tuple(sizes[different[0]].tolist()),
            expected=tuple(sizes[0].tolist()),
        )
    return int(sizes[0, 0]), int(sizes[0, 1])


def _raise_damage(column: Column, ids: Ids, row: int, status: int) -> None:
    if status < 0:
        raise FormatError(
            DAMAGES[status], file=column.file, field=column.name, sample=int(ids[row])
        )
