"""Ops for colour images: as they are stored, or a window resized to one size."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from beton import fields
from beton.arrays import Array, Float64Array, Ids, Int64Array
from beton.codec import area, gather, jpeg
from beton.codec.resizing import WINDOW_HEIGHT, WINDOW_WIDTH
from beton.crop import Crop
from beton.errors import located
from beton.fields.base import first_true
from beton.ops.step import Op, Spec, Step, common_size, image_sizes, require_field
from beton.reader import Column
from beton.rng import Key
from beton.transforms import RgbNormalize

RAW = fields.RGBImageField.RAW
LIMIT = 65535  # pixels a side of an output


@dataclass(frozen=True)
class Rgb(Op):
    """A decoded colour image per sample, all of one size: uint8 (b, h, w, 3)."""

    def bind(self, column: Column, ids: Ids, rows: int) -> Step:
        """Bind to an RGB image field whose images all have the same size."""
        require_field(column, self, fields.RGBImageField)
        size = common_size(column, ids)
        shape = (rows, *size, 3)

        def run(ids: Ids, _key: Key, out: Mapping[str, Array]) -> None:
            images, taken = out[""], column.take(ids)
            records = taken.records
            different = (records["height"] != size[0]) | (records["width"] != size[1])
            if (changed := first_true(different)) is not None:
                raise column.changed("size of an image", int(ids[changed]), expected=size)
            raw = records["mode"] == RAW
            if raw.all():
                gather.gather(column.data, taken.starts, images.reshape(rows, -1))
                return
            for row, data in enumerate(taken.payloads()):
                if raw[row]:
                    images[row] = data.reshape(*size, 3)
                else:
                    with _located(column, int(ids[row])):
                        whole = (0, 0, size[1], size[0])
                        intact = column.has_checksums
                        jpeg.decode_window(data, size, 1, whole, intact, images[row].reshape(-1))

        return Step({"": Spec(shape, np.dtype(np.uint8))}, run)


@dataclass(frozen=True)
class RgbResize(Op):
    """A window of a colour image per sample, area-averaged to one size.

    The output is uint8 (b, height, width, 3), or (b, 3, height, width) with the layout "NCHW"; with
    `normalize`, float32. `crop` chooses the window; without one, the whole image is stretched to
    the output. As in `Resize`, every pixel is within half a grey level of the exact box filter, for
    upscaling and downscaling: an output pixel is the mean of the source area that it covers.

    A JPEG is decoded once, at the scale 1/2, 1/4 or 1/8 if the window at that scale still has at
    least the output's pixels. The box filter then averages the pixels of the reduced image, which
    are libjpeg-turbo's and close to, but not equal to, the means of blocks of the full image.
    """

    height: int
    width: int
    crop: Crop | None = None
    normalize: RgbNormalize | None = None
    layout: Literal["NHWC", "NCHW"] = "NHWC"

    def __post_init__(self) -> None:
        if not (1 <= self.height <= LIMIT and 1 <= self.width <= LIMIT):
            got = self.height, self.width
            raise ValueError(f"resize: got {got}, expected 1 to {LIMIT} pixels a side")
        if self.layout not in ("NHWC", "NCHW"):
            raise ValueError(f"layout: got {self.layout!r}, expected 'NHWC' or 'NCHW'")

    def bind(self, column: Column, _ids: Ids, rows: int) -> Step:
        """Bind to an RGB image field."""
        require_field(column, self, fields.RGBImageField)
        dtype, gain, offset = self._scaling()
        planar = self.layout == "NCHW"
        image = (3, self.height, self.width) if planar else (self.height, self.width, 3)

        def run(ids: Ids, key: Key, out: Mapping[str, Array]) -> None:
            images = out[""].transpose(0, 2, 3, 1) if planar else out[""]
            taken = column.take(ids)
            sizes = image_sizes(taken.records)
            windows = self._windows(key, ids, sizes)
            raw = taken.records["mode"] == RAW
            places = np.flatnonzero(raw)
            area.resize(
                column.data,
                taken.starts[places],
                sizes[places],
                windows[places],
                places,
                gain,
                offset,
                images,
            )
            places = np.flatnonzero(~raw)
            if not len(places):
                return
            reductions = self._reductions(sizes[places], windows[places])
            small = -(-sizes[places] // reductions[:, None])
            windows[places] /= reductions[:, None]
            buffer = np.empty(3 * int(small.prod(axis=1).max()), np.uint8)
            pixels = buffer.view()
            pixels.setflags(write=False)  # like the file's, so that one compiled kernel does both
            start = np.zeros(1, np.int64)
            payloads = [*taken.payloads()]
            for k, row in enumerate(places.tolist()):
                height, width = sizes[row].tolist()
                with _located(column, int(ids[row])):
                    jpeg.decode_window(
                        payloads[row],
                        (height, width),
                        int(reductions[k]),
                        windows[row].tolist(),
                        column.has_checksums,
                        buffer,
                    )
                one = slice(row, row + 1)
                area.resize(
                    pixels,
                    start,
                    small[k : k + 1],
                    windows[one],
                    places[k : k + 1],
                    gain,
                    offset,
                    images,
                )

        return Step({"": Spec((rows, *image), dtype)}, run)

    def _scaling(self) -> tuple[np.dtype[Any], Array, Array]:
        """Return dtype, gain and offset per channel, float32 (3,)."""
        if self.normalize is None:
            return np.dtype(np.uint8), np.ones(3, np.float32), np.full(3, 0.5, np.float32)
        mean, std = np.array(self.normalize.mean), np.array(self.normalize.std)
        gain, offset = (1 / std).astype(np.float32), (-mean / std).astype(np.float32)
        return np.dtype(np.float32), gain, offset

    def _windows(self, key: Key, ids: Ids, sizes: Int64Array) -> Float64Array:
        if self.crop is not None:
            return self.crop.windows(key, ids, sizes, self.width / self.height)
        windows = np.zeros((len(ids), 4))
        windows[:, WINDOW_HEIGHT], windows[:, WINDOW_WIDTH] = sizes.T
        return windows

    def _reductions(self, sizes: Int64Array, windows: Float64Array) -> Int64Array:
        """Return 1, 2, 4 or 8 for each JPEG (n,): the window keeps at least the output's pixels."""
        result = np.ones(len(sizes), np.int64)
        spare = np.minimum(
            windows[:, WINDOW_HEIGHT] / self.height, windows[:, WINDOW_WIDTH] / self.width
        )
        spare[sizes.min(axis=1) < jpeg.SMALLEST] = 1
        for reduction in sorted(jpeg.REDUCTIONS):
            result[spare >= reduction] = reduction
        return result


def _located(column: Column, sample: int) -> AbstractContextManager[None]:
    return located(file=column.file, field=column.name, sample=sample)
