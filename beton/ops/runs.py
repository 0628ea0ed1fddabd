"""Ops for ink images: as pixels, resized from their runs, or as runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from beton import fields
from beton.arrays import Array, Ids
from beton.codec import batches, ink
from beton.codec.unpacking import DAMAGES
from beton.errors import FormatError
from beton.ops.step import Op, Spec, Step, common_size, image_sizes, require_field
from beton.reader import Column
from beton.rng import Key
from beton.transforms import Jitter, Normalize, full_geometry


def _scaling(normalize: Normalize | None) -> tuple[np.dtype[Any], tuple[float, float]]:
    """Return dtype, (gain, offset): a pixel is stored as value * gain + offset, cast to dtype."""
    if normalize is None:
        return np.dtype(np.uint8), (1.0, 0.5)
    return np.dtype(np.float32), (1 / normalize.std, -normalize.mean / normalize.std)


@dataclass(frozen=True)
class Pixels(Op):
    """An ink image per sample at its stored size, the same for all: uint8 (b, h, w).

    With `normalize`, float32.
    """

    normalize: Normalize | None = None

    def bind(self, column: Column, ids: Ids, rows: int) -> Step:
        """Bind to an ink field whose images all have the same size."""
        require_field(column, self, fields.InkField)
        shape = (rows, *common_size(column, ids))
        dtype, (gain, offset) = _scaling(self.normalize)
        scale = np.float32(gain), np.float32(offset)
        records = column.metadata

        def run(ids: Ids, _key: Key, out: Mapping[str, Array]) -> None:
            row, status = batches.pixels_batch(column.data, records, ids, *scale, out[""])
            _raise_if_damaged(column, ids, row, status)

        return Step({"": Spec(shape, dtype)}, run)


@dataclass(frozen=True)
class Resize(Op):
    """An ink image per sample, area-averaged from its runs: uint8 (b, height, width).

    With `normalize`, float32. Every pixel is within half a grey level of the exact box filter, for
    upscaling and downscaling. Without a `proportion` (width / height), every image is stretched to
    the output. With one, the output shows a window of that proportion around the whole image, with
    the image's background outside of it.
    """

    height: int
    width: int
    jitter: Jitter | None = None
    normalize: Normalize | None = None
    proportion: float | None = None

    def __post_init__(self) -> None:
        _check_window(self.jitter, self.proportion)
        if not (1 <= self.height <= ink.LIMIT and 1 <= self.width <= ink.LIMIT):
            got = self.height, self.width
            raise ValueError(f"resize: got {got}, expected 1 to {ink.LIMIT} pixels a side")

    def bind(self, column: Column, _ids: Ids, rows: int) -> Step:
        """Bind to an ink field."""
        require_field(column, self, fields.InkField)
        dtype, scale = _scaling(self.normalize)
        records = column.metadata
        whole = self.jitter is None and self.proportion is None and self.normalize is None

        def run(ids: Ids, key: Key, out: Mapping[str, Array]) -> None:
            if whole:
                row, status = batches.resize_whole_batch(column.data, records, ids, out[""])
            else:
                sizes = image_sizes(column.records(ids))
                windows = _windows(self.jitter, self.proportion, key, ids, sizes)
                row, status = batches.resize_batch(
                    column.data, records, ids, windows, *scale, out[""]
                )
            _raise_if_damaged(column, ids, row, status)

        return Step({"": Spec((rows, self.height, self.width), dtype)}, run)


@dataclass(frozen=True)
class Runs(Op):
    """The runs themselves, for a device that rasterizes them.

    uint16 (capacity, 4) rows of (row, start, end, value), one sample after another; "offsets" int64
    (b + 1,), where each sample's runs start; "size" int32 (b, 2) = (height, width); "background"
    uint8 (b,); "geometry" float64 (b, 6), the windows of `Jitter.geometry`, or whole images; a
    `proportion` is as in `Resize`. `capacity` fits any `b` samples. The rows after offsets[-1] are
    unspecified.
    """

    jitter: Jitter | None = None
    proportion: float | None = None

    def __post_init__(self) -> None:
        _check_window(self.jitter, self.proportion)

    def bind(self, column: Column, ids: Ids, rows: int) -> Step:
        """Bind to an ink field."""
        require_field(column, self, fields.InkField)
        records = column.metadata
        capacity = int(np.sort(records["runs"][ids])[-rows:].sum(dtype=np.int64))
        outputs = {
            "": Spec((capacity, 4), np.dtype(np.uint16)),
            "offsets": Spec((rows + 1,), np.dtype(np.int64)),
            "size": Spec((rows, 2), np.dtype(np.int32)),
            "background": Spec((rows,), np.dtype(np.uint8)),
            "geometry": Spec((rows, 6), np.dtype(np.float64)),
        }

        def run(ids: Ids, key: Key, out: Mapping[str, Array]) -> None:
            n, chosen = len(ids), column.records(ids)
            sizes = image_sizes(chosen)
            offsets = out["offsets"]
            offsets[0] = 0
            np.cumsum(chosen["runs"], dtype=np.int64, out=offsets[1 : n + 1])
            offsets[n + 1 :] = offsets[n]
            if (got := int(offsets[n])) > capacity:
                raise column.changed("runs of a batch", got=got, expected=f"at most {capacity}")
            out["size"][:n] = sizes
            out["background"][:n] = chosen["background"]
            out["geometry"][:n] = _windows(self.jitter, self.proportion, key, ids, sizes)
            row, status = batches.runs_batch(column.data, records, ids, offsets, out[""])
            _raise_if_damaged(column, ids, row, status)

        return Step(outputs, run)


def _check_window(jitter: Jitter | None, proportion: float | None) -> None:
    if proportion is None:
        return
    if not 0 < proportion < math.inf:
        raise ValueError(f"proportion: got {proportion}, expected a width / height above 0")
    if jitter is not None:
        raise ValueError("proportion: got a jitter too, expected one of them: each sets the window")


def _windows(
    jitter: Jitter | None, proportion: float | None, key: Key, ids: Ids, sizes: Array
) -> Array:
    return jitter.geometry(key, ids, sizes) if jitter else full_geometry(sizes, proportion)


def _raise_if_damaged(column: Column, ids: Ids, row: int, status: int) -> None:
    if status < 0:
        raise FormatError(
            DAMAGES[status], file=column.file, field=column.name, sample=int(ids[row])
        )
