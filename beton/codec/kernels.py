"""The compiled kernels of ink: pixels to runs, bytes to runs; resizing; whole batches.

`beton.codec.ink` explains runs and their bytes, and calls these kernels for single images;
`beton.ops` calls the `*_batch` kernels. Positions are unsigned: numba then leaves out the code for
negative indices.

The records that `*_batch` kernels get are views of a file, which another program may change at any
time. So a kernel reads each number of a record once, and checks it (`_read`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton.arrays import Array, Float64Array, Ids, Int64Array, RunArray, Uint8Array
from beton.jit import inlined, kernel, prefetch

Numbers = NDArray[np.uint64]
Position = Any  # uint64

RAW, FLAT, GREY = 0, 1, 2
SOFT = 14  # the most pixels of a soft edge
PAIRS = 255  # the first byte of a span of (value, length) pairs
LINE = 64  # bytes of a cache line
AHEAD = 4  # samples ahead whose payloads are prefetched
PREFETCHED = 1024  # bytes of a payload; the CPU prefetches the rest of a long one itself
ONE = np.uint64(1)
COORDINATE = np.uint64(0xFFFF)
EXACT = 1 << 22  # the most equal parts of an output pixel that `resize_exactly` divides by
SHIFT = 54

DAMAGES = {
    -1: "the payload ends early or has extra bytes",
    -2: "a run is outside the image or out of order",
    -3: "the number of runs differs from the metadata",
    -4: "the record was changed in place while the file was open",
}

# Columns of `geometry`: the window of the source that `resize` maps to the output.
X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT, SHEAR, CENTRE = range(6)


@inlined
def _signed(number: Any) -> Any:
    """Convert a byte, coordinate or position to int64, so that differences do not wrap around."""
    return np.int64(number)


@inlined
def _unsigned(number: Any) -> Any:
    """Convert a number that is not negative to uint64."""
    return np.uint64(number)


@kernel
def _is_blank(row: Uint8Array, background: int) -> bool:
    # Most rows are blank; without an early exit, the comparison compiles to vector instructions.
    differing = np.uint8(0)
    for x in range(row.size):
        differing |= row[x] ^ np.uint8(background)
    return bool(differing == 0)


@kernel
def count_runs(image: Uint8Array, background: int) -> int:
    """Return the number of runs of an image."""
    count = 0
    for y in range(image.shape[0]):
        row = image[y]
        if _is_blank(row, background):
            continue
        before = background
        for start in range(0, row.size, LINE):
            block = row[start : start + LINE]
            if _is_blank(block, background):
                before = background
                continue
            for x in range(block.size):
                count += (block[x] != before) & (block[x] != background)
                before = block[x]
    return count


@kernel
def find_runs(image: Uint8Array, background: int, runs: RunArray) -> int:
    """Write the image's runs to `runs`; return their number, or -3 if they do not fit."""
    n = 0
    width = image.shape[1]
    for y in range(image.shape[0]):
        row = image[y]
        if _is_blank(row, background):
            continue
        x = 0
        while x < width:
            value = row[x]
            start = x
            while x < width and row[x] == value:
                blank = value == background and x % LINE == 0
                if blank and _is_blank(row[x : x + LINE], background):
                    x = min(x + LINE, width)
                else:
                    x += 1
            if value != background:
                if n == runs.shape[0]:
                    return -3
                runs[n, 0], runs[n, 1], runs[n, 2], runs[n, 3] = y, start, x, value
                n += 1
    return n


@kernel
def paint(runs: RunArray, image: Uint8Array) -> None:
    """Paint runs on an image of the background."""
    for i in range(runs.shape[0]):
        image[runs[i, 0], runs[i, 1] : runs[i, 2]] = runs[i, 3]


@inlined
def _run(row: int, start: int, end: int, value: int) -> Position:
    """Return a run as one number: uint16 (4,) in little-endian memory."""
    low = _unsigned(row) | _unsigned(start) << _unsigned(16)
    return low | _unsigned(end) << _unsigned(32) | _unsigned(value) << _unsigned(48)


@inlined
def _numbers(runs: RunArray) -> Numbers:
    """Return runs (n, 4) as numbers of `_run`: uint64 (n,) in the same memory."""
    return runs.reshape(runs.size).view(np.uint64)


@inlined
def _get_varint(data: Uint8Array, at: Position, stop: Position) -> tuple[int, Position]:
    """Return (number, position after it); the number is -1 if the stream is damaged."""
    number = 0
    for shift in range(0, 21, 7):
        if at >= stop:
            return -1, at
        byte = _signed(data[at])
        at += ONE
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    return -1, at


@inlined
def _get_difference(
    data: Uint8Array, at: Position, stop: Position, old: int
) -> tuple[int, Position]:
    """Return (new value, position after it); the value is -1 if the stream ends early."""
    if at >= stop:
        return -1, at
    byte = _signed(data[at])
    if byte != 0:
        return old + byte - 128, at + ONE
    if at + _unsigned(3) > stop:
        return -1, at
    high = _signed(data[at + _unsigned(2)])
    return _signed(data[at + ONE]) | high << 8, at + _unsigned(3)


@kernel
def _unpack_values(
    data: Uint8Array,
    at: Position,
    stop: Position,
    ink: int,
    runs: Numbers,
    n: int,
    row: int,
    a: int,
    b: int,
) -> tuple[int, Position]:
    """Read the values of span [a, b) into runs, from number n.

    Returns (runs written so far, position), or (a negative key of `DAMAGES`, position).
    """
    if at >= stop:
        return -1, at
    head = _signed(data[at])
    at += ONE
    left, right = head >> 4, head & 15
    if head != PAIRS and (left > SOFT or right > SOFT or left + right > b - a):
        return -2, at
    before = -1  # the value of the run before; equal neighbours are one run
    start = x = a
    while x < b:
        end = x + 1
        value = ink
        if head == PAIRS or x < a + left or x >= b - right:
            if at >= stop:
                return -1, at
            value = _signed(data[at])
            at += ONE
            if head == PAIRS:
                length, at = _get_varint(data, at, stop)
                end = x + length
        else:
            end = b - right
        if end <= x or end > b:
            return -2, at
        if value != before:
            if n == _signed(runs.size):
                return -3, at
            start = x
            n += 1
        runs[_unsigned(n - 1)] = _run(row, start, end, value)
        before = value
        x = end
    return n, at


@kernel
def unpack(
    data: Uint8Array,
    start: int,
    size: int,
    mode: int,
    background: int,
    ink: int,
    height: int,
    width: int,
    runs: RunArray,
) -> int:
    """Read the payload data[start : start + size] into `runs` and check every bound.

    `runs` is uint16 (n, 4), n the number of runs in the metadata. Returns n, or a negative key of
    `DAMAGES`.
    """
    total = runs.shape[0]
    if mode == RAW:
        image = data[start : start + size].reshape((height, width))
        return total if find_runs(image, background, runs) == total else -3
    at = _unsigned(start)
    stop = at + _unsigned(size)
    value_at = value_stop = stop
    if mode == GREY:
        if size < 4:
            return -1
        length = 0
        for k in range(4):
            length |= _signed(data[start + k]) << (8 * k)
        at += _unsigned(4)
        if _unsigned(length) > stop - at:
            return -1
        value_at = stop = at + _unsigned(length)
    numbers = _numbers(runs)
    spans = np.empty(width + 1, np.int64)  # starts and ends of the row above
    n = 0  # runs written
    row = 0
    while at < stop:
        skip, at = _get_varint(data, at, stop)
        rows, at = _get_varint(data, at, stop)
        count, at = _get_varint(data, at, stop)
        if skip < 0 or rows < 1 or count < 1:
            return -1
        row += skip
        if row + rows > height or 2 * count > width + 1:
            return -2
        for r in range(rows):
            end = -1  # of the previous span; spans do not touch
            for span in range(count):
                k = _unsigned(2 * span)
                if r == 0:
                    gap, at = _get_varint(data, at, stop)
                    length, at = _get_varint(data, at, stop)
                    if gap < 0 or length < 0:
                        return -1
                    a = max(end, 0) + gap
                    b = a + length
                else:
                    a, at = _get_difference(data, at, stop, spans[k])
                    if a < 0:
                        return -1 if at >= stop else -2
                    b, at = _get_difference(data, at, stop, spans[k + ONE])
                if a <= end or b <= a or b > width:
                    return -2
                spans[k] = a
                spans[k + ONE] = end = b
                if mode == FLAT:
                    if n == total:
                        return -3
                    numbers[_unsigned(n)] = _run(row + r, a, b, ink)
                    n += 1
                else:
                    n, value_at = _unpack_values(
                        data, value_at, value_stop, ink, numbers, n, row + r, a, b
                    )
                    if n < 0:
                        return n
        row += rows
    if n != total:
        return -3
    if value_at != value_stop:
        return -1
    return n


@kernel
def _fill(out: Array, value: Any) -> None:
    flat = out.reshape(out.size)
    for i in range(flat.size):
        flat[i] = value


@kernel
def resize(
    runs: RunArray,
    background: int,
    geometry: Float64Array,
    gain: float,
    offset: float,
    sums: Float64Array,
    out: Array,
) -> None:
    """Area-average an image given as runs (n, 4) into out (H, W), uint8 or float32.

    `geometry` (6,) has the columns X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT, SHEAR and CENTRE, in source
    pixels: this window of the source fills the output, its rows shifted by shear * (row centre -
    centre). Outside the image is background. A pixel is stored as value * gain + offset, cast to
    the dtype of `out`: (1, 0.5) rounds to uint8. `sums` is a scratch array of W + 2 zeros, and
    zeros again afterwards.

    Box filtering is linear in the runs. Along an output row, the coverage of a run [a, b) is the
    cumulative sum of four numbers: +1 at a and -1 at b, each split over two neighbouring columns in
    proportion to its position. So the cost is O(runs + pixels touched).
    """
    height, width = out.shape
    x0, y0, window_width, window_height, shear, centre = geometry
    across = width / window_width
    rows = window_height / height  # source rows in an output row
    ground, right = float(background), float(width)
    _fill(out, out.dtype.type(background * gain + offset))
    numbers = _numbers(runs)
    total = _unsigned(numbers.size)
    first = _unsigned(0)
    for j in range(height):
        top = y0 + j * rows
        bottom = y0 + (j + 1) * rows
        while first < total and float(_signed(numbers[first] & COORDINATE)) + 1.0 <= top:
            first += ONE
        low, high = _unsigned(width + 1), _unsigned(0)
        k = first
        seen = -1.0  # the row that `share` and `shift` are of
        share = shift = 0.0
        while k < total:
            run = numbers[k]
            row = float(_signed(run & COORDINATE))
            if row != seen:
                if row >= bottom:
                    break
                share = (min(row + 1.0, bottom) - max(row, top)) / rows
                shift = x0 + shear * (row + 0.5 - centre)
                seen = row
            start = float(_signed(run >> _unsigned(16) & COORDINATE))
            end = float(_signed(run >> _unsigned(32) & COORDINATE))
            a = min(max((start - shift) * across, 0.0), right)
            b = min(max((end - shift) * across, 0.0), right)
            if b > a:
                weight = share * (float(_signed(run >> _unsigned(48))) - ground)
                ia, ib = _unsigned(_signed(a)), _unsigned(_signed(b))
                part = weight * (a - _signed(a))
                sums[ia] += weight - part
                sums[ia + ONE] += part
                part = weight * (b - _signed(b))
                sums[ib] -= weight - part
                sums[ib + ONE] -= part
                low = min(low, ia)
                high = max(high, ib)
            k += ONE
        running = 0.0
        line = out[j]
        for i in range(low, min(high + _unsigned(2), _unsigned(width))):
            running += sums[i]
            sums[i] = 0.0
            line[i] = out.dtype.type(min(max(ground + running, 0.0), 255.0) * gain + offset)
        sums[width:] = 0.0


@kernel
def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@kernel
def parts_of_pixel(height: int, width: int, out_height: int, out_width: int) -> int:
    """Return the number of parts in which source pixels divide the area of each output pixel."""
    return (height // _gcd(height, out_height)) * (width // _gcd(width, out_width))


@kernel
def _set_columns(width: int, out_width: int, columns: Numbers) -> None:
    """Set columns[x], x from 0 to width, to x in output pixels: whole << 32 | parts of a pixel."""
    divisor = _gcd(width, out_width)
    parts, step = width // divisor, out_width // divisor
    whole = part = 0
    for x in range(width + 1):
        columns[x] = _unsigned(whole) << _unsigned(32) | _unsigned(part)
        part += step
        whole += part // parts
        part %= parts


@kernel
def resize_exactly(
    runs: RunArray,
    background: int,
    height: int,
    width: int,
    columns: Numbers,
    sums: Int64Array,
    out: Uint8Array,
) -> None:
    """Do what `resize` does to a whole image of (height, width), in integers: out (H, W) uint8.

    `columns` is that of `_set_columns`, `sums` a scratch array of W + 2 zeros. `parts_of_pixel` is
    odd and less than `EXACT`. Then no mean is halfway between two levels, so that the float64 of
    `resize`, whose error is far below the distance to the next half, rounds to the same bytes.

    Sums are twice the mean, in parts of a pixel, so that a half is a whole number too. A division
    by a constant is a multiplication by its reciprocal (Granlund and Montgomery 1994, "Division by
    invariant integers using multiplication").
    """
    out_height, out_width = out.shape
    divisor = _gcd(height, out_height)
    row_parts, row_step = height // divisor, out_height // divisor
    column_parts = width // _gcd(width, out_width)
    parts = row_parts * column_parts
    base = (2 * background + 1) * parts
    reciprocal = _unsigned((1 << SHIFT) // (2 * parts) + 1)
    _fill(out, np.uint8(background))
    numbers = _numbers(runs)
    total = _unsigned(numbers.size)
    first = _unsigned(0)
    for j in range(out_height):
        top = j * row_parts
        bottom = top + row_parts
        while first < total and (_signed(numbers[first] & COORDINATE) + 1) * row_step <= top:
            first += ONE
        low, high = _unsigned(out_width + 1), _unsigned(0)
        k = first
        while k < total:
            run = numbers[k]
            y = _signed(run & COORDINATE) * row_step
            if y >= bottom:
                break
            rows = min(y + row_step, bottom) - max(y, top)
            weight = 2 * rows * (_signed(run >> _unsigned(48)) - background)
            a = columns[run >> _unsigned(16) & COORDINATE]
            b = columns[run >> _unsigned(32) & COORDINATE]
            ia, ib = a >> _unsigned(32), b >> _unsigned(32)
            part = weight * _signed(a & _unsigned(0xFFFFFFFF))
            sums[ia] += weight * column_parts - part
            sums[ia + ONE] += part
            part = weight * _signed(b & _unsigned(0xFFFFFFFF))
            sums[ib] -= weight * column_parts - part
            sums[ib + ONE] -= part
            low = min(low, ia)
            high = max(high, ib)
            k += ONE
        running = base
        line = out[j]
        i, stop = low, min(high + _unsigned(2), _unsigned(out_width))
        while i < stop:
            running += sums[i]
            sums[i] = 0
            line[i] = np.uint8(_unsigned(running) * reciprocal >> _unsigned(SHIFT))
            i += ONE
        sums[out_width:] = 0


@inlined
def _read(data: Array, record: Any) -> tuple[bool, int, int, int, int, int, int, int, int]:
    """Return whether kernels can rely on a record, and its numbers, all int64.

    They are pointer, size, mode, background, ink, runs, height and width. The payload must be in
    the file. What else `InkField` requires is checked only if memory depends on it.
    """
    pointer, size = _signed(record["ptr"]), _signed(record["size"])
    mode, runs = _signed(record["mode"]), _signed(record["runs"])
    background, ink = _signed(record["background"]), _signed(record["ink"])
    height, width = _signed(record["height"]), _signed(record["width"])
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
        start, size = _signed(record["ptr"]), _signed(record["size"])
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
            first, row = _unsigned(pointer), _unsigned(i)
            for k in range(_unsigned(size)):
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
                _set_columns(width, out_width, columns)
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
