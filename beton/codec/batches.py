"""The compiled kernels that read whole batches of ink images; `beton.ops` calls them.

The records that they get are views of a file, which another program may change at any time. So a
kernel reads each number of a record once, and checks it (`_read`).
"""

from typing import Any

import numpy as np

from beton.arrays import Array, Ids, RunArray
from beton.codec.resizing import (
    EXACT,
    WINDOW_HEIGHT,
    WINDOW_WIDTH,
    parts_of_pixel,
    resize,
    resize_exactly,
    set_columns,
)
from beton.codec.unpacking import GREY, RAW, unpack
from beton.jit import inlined, kernel, prefetch, signed, unsigned

LINE = 64  # bytes of a cache line
AHEAD = 4  # samples ahead whose payloads are prefetched
PREFETCHED = 1024  # bytes of a payload; the CPU prefetches the rest of a long one itself


@inlined
def _read(data: Array, record: Any) -> tuple[bool, int, int, int, int, int, int, int, int]:
    """Return whether kernels can rely on a record, and its numbers, all int64.

    They are pointer, size, mode, background, ink, runs, height and width. The payload must be in
    the file. What else `InkField` requires is checked only if memory depends on it.
    """
    pointer, size = signed(record["ptr"]), signed(record["size"])
    mode, runs = signed(record["mode"]), signed(record["runs"])
    background, ink = signed(record["background"]), signed(record["ink"])
    height, width = signed(record["height"]), signed(record["width"])
    valid = height > 0 and width > 0 and runs <= size and mode <= GREY
    valid &= (size == 0 and mode != RAW) or 0 <= pointer <= data.size - size
    valid &= mode != RAW or size == height * width
    return valid, pointer, size, mode, background, ink, runs, height, width


@inlined
def _room(scratch: RunArray, count: int) -> RunArray:
    """Return `scratch`, or more memory if it holds fewer than `count` runs."""
    return scratch if count <= scratch.shape[0] else np.empty((2 * count, 4), np.uint16)


@inlined
def _prefetch_ahead(data: Array, records: Array, ids: Ids, i: int) -> None:
    """Start to load later samples into the CPU's caches: they are at random places.

    A payload's position is in its record, so the records are loaded twice as far ahead.
    """
    if i + 2 * AHEAD < ids.size:  # a record may be on two cache lines
        at = ids[i + 2 * AHEAD] * records.strides[0]
        prefetch(records, at)
        prefetch(records, at + records.itemsize - 1)
    if i + AHEAD < ids.size:
        record = records[ids[i + AHEAD]]
        start, size = signed(record["ptr"]), signed(record["size"])
        for offset in range(0, min(size, PREFETCHED), LINE):
            prefetch(data, start + offset)


@kernel
def _scale_raw(
    data: Array, records: Array, ids: Ids, gain: np.float32, offset: np.float32, out: Array
) -> int:
    """Fill rows of out (b, n) with those images that are stored as pixels; return their number.

    Returns -1 - row for an image of another size. No slice is made here: each would count a
    reference, which waits for what is being prefetched.
    """
    done = 0
    for i in range(ids.size):
        _prefetch_ahead(data, records, ids, i)
        valid, pointer, size, mode, _, _, _, _, _ = _read(data, records[ids[i]])
        if mode == RAW:
            if not valid or size != out.shape[1]:
                return -1 - i
            first, row = unsigned(pointer), unsigned(i)
            for k in range(unsigned(size)):
                out[row, k] = out.dtype.type(np.float32(data[first + k]) * gain + offset)
            done += 1
    return done


@kernel
def pixels_batch(
    data: Array, records: Array, ids: Ids, gain: np.float32, offset: np.float32, out: Array
) -> tuple[int, int]:
    """Fill out (b, h, w) with images as stored. Return (row, status); a status < 0 is damage."""
    height, width = out.shape[1], out.shape[2]
    flat = out.reshape((out.shape[0], height * width))
    done = _scale_raw(data, records, ids, gain, offset, flat)
    if done < 0:
        return -1 - done, -4
    if done == ids.size:
        return 0, 0
    scratch = np.empty((0, 4), np.uint16)
    for i in range(ids.size):
        valid, pointer, size, mode, background, value, count, own_height, own_width = _read(
            data, records[ids[i]]
        )
        if mode == RAW:
            continue
        if not valid or own_height != height or own_width != width:
            return i, -4
        scratch = _room(scratch, count)
        runs = scratch[:count]
        status = unpack(data, pointer, size, mode, background, value, height, width, runs)
        if status < 0:
            return i, status
        flat[i, :] = out.dtype.type(np.float32(background) * gain + offset)
        for k in range(count):
            level = out.dtype.type(np.float32(runs[k, 3]) * gain + offset)
            out[i, runs[k, 0], runs[k, 1] : runs[k, 2]] = level
    return 0, 0


@kernel
def resize_batch(
    data: Array, records: Array, ids: Ids, geometry: Array, gain: float, offset: float, out: Array
) -> tuple[int, int]:
    """Fill out (b, H, W) with area-averaged images. Return (row, status) like `pixels_batch`."""
    scratch = np.empty((0, 4), np.uint16)
    sums = np.zeros(out.shape[2] + 2)
    for i in range(ids.size):
        valid, pointer, size, mode, background, value, count, height, width = _read(
            data, records[ids[i]]
        )
        _prefetch_ahead(data, records, ids, i)
        if not valid:
            return i, -4
        scratch = _room(scratch, count)
        runs = scratch[:count]
        status = unpack(data, pointer, size, mode, background, value, height, width, runs)
        if status < 0:
            return i, status
        resize(runs, background, geometry[i], gain, offset, sums, out[i])
    return 0, 0


@kernel
def resize_whole_batch(data: Array, records: Array, ids: Ids, out: Array) -> tuple[int, int]:
    """Do what `resize_batch` does to whole images, rounded: out (b, H, W) uint8."""
    scratch = np.empty((0, 4), np.uint16)
    columns = np.empty(0, np.uint64)
    out_height, out_width = out.shape[1], out.shape[2]
    sums, exact_sums = np.zeros(out_width + 2), np.zeros(out_width + 2, np.int64)
    geometry = np.zeros(6)
    last = -1  # the width that `columns` is for
    for i in range(ids.size):
        valid, pointer, size, mode, background, value, count, height, width = _read(
            data, records[ids[i]]
        )
        _prefetch_ahead(data, records, ids, i)
        if not valid:
            return i, -4
        scratch = _room(scratch, count)
        runs = scratch[:count]
        status = unpack(data, pointer, size, mode, background, value, height, width, runs)
        if status < 0:
            return i, status
        parts = parts_of_pixel(height, width, out_height, out_width)
        if parts % 2 and parts < EXACT:
            if width != last:
                if width >= columns.size:
                    columns = np.empty(width + 1, np.uint64)
                set_columns(width, out_width, columns)
                last = width
            resize_exactly(runs, background, height, width, columns, exact_sums, out[i])
        else:
            geometry[WINDOW_WIDTH], geometry[WINDOW_HEIGHT] = width, height
            resize(runs, background, geometry, 1.0, 0.5, sums, out[i])
    return 0, 0


@kernel
def runs_batch(data: Array, records: Array, ids: Ids, offsets: Ids, out: Array) -> tuple[int, int]:
    """Fill out (capacity, 4) with the samples' runs. Return (row, status) like `pixels_batch`."""
    for i in range(ids.size):
        valid, pointer, size, mode, background, value, _, height, width = _read(
            data, records[ids[i]]
        )
        if not valid:
            return i, -4
        runs = out[offsets[i] : offsets[i + 1]]
        status = unpack(data, pointer, size, mode, background, value, height, width, runs)
        if status < 0:
            return i, status
    return 0, 0
