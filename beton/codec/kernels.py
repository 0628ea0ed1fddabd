"""The compiled kernels of ink: pixels to runs, runs to bytes, and back; resizing; whole batches.

`beton.codec.ink` explains runs and their bytes, and calls these kernels for single images;
`beton.ops` calls the `*_batch` kernels. Kernels that call each other are in one file, because numba
recompiles a cached kernel only if its own file changes.
"""

from typing import Any

import numpy as np

from beton.arrays import Array, Float64Array, Ids, Int64Array, RunArray, Uint8Array
from beton.jit import kernel, prefetch

RAW, FLAT, GREY = 0, 1, 2
SOFT = 14  # the most pixels of a soft edge
PAIRS = 255  # the first byte of a span of (value, length) pairs
LINE = 64  # bytes of a cache line
AHEAD = 4  # samples ahead whose payloads are prefetched
PREFETCHED = 1024  # bytes of a payload; the CPU prefetches the rest of a long one itself

DAMAGES = {
    -1: "the payload ends early or has extra bytes",
    -2: "a run is outside the image or out of order",
    -3: "the number of runs differs from the metadata",
}

# Columns of `table`: the metadata of ink images.
POINTER, SIZE, MODE, BACKGROUND, INK, RUNS, HEIGHT, WIDTH = range(8)

# Columns of `geometry`: the window of the source that `resize` maps to the output.
X0, Y0, WINDOW_WIDTH, WINDOW_HEIGHT, SHEAR, CENTRE = range(6)


@kernel
def _wide(number: Any) -> Any:
    """Convert a byte or a coordinate to int64, so that differences do not wrap around."""
    return np.int64(number)


@kernel
def count_equal(flat: Uint8Array, value: int) -> int:
    """Return the number of pixels with a value."""
    count = 0
    for i in range(flat.size):
        count += flat[i] == value
    return count


@kernel
def histogram(flat: Uint8Array) -> Int64Array:
    """Return the number of pixels with each value: int64 (256,)."""
    counts = np.zeros(256, np.int64)
    for i in range(flat.size):
        counts[flat[i]] += 1
    return counts


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
def _put_run(runs: RunArray, n: int, row: int, start: int, end: int, value: int) -> None:
    runs[n, 0] = row
    runs[n, 1] = start
    runs[n, 2] = end
    runs[n, 3] = value


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
                _put_run(runs, n, y, start, x, value)
                n += 1
    return n


@kernel
def paint(runs: RunArray, image: Uint8Array) -> None:
    """Paint runs on an image of the background."""
    for i in range(runs.shape[0]):
        image[runs[i, 0], runs[i, 1] : runs[i, 2]] = runs[i, 3]


@kernel
def _put_varint(out: Uint8Array, at: int, number: int) -> int:
    while number >= 128:
        out[at] = (number & 127) | 128
        number >>= 7
        at += 1
    out[at] = number
    return at + 1


@kernel
def _put_difference(out: Uint8Array, at: int, new: int, old: int) -> int:
    difference = new - old
    if -127 <= difference <= 127:
        out[at] = difference + 128
        return at + 1
    out[at] = 0
    out[at + 1] = new & 255
    out[at + 2] = new >> 8
    return at + 3


@kernel
def _spans_of_row(runs: RunArray, i: int, spans: Int64Array) -> tuple[int, int]:
    """Merge adjacent runs of the row of run i to spans; return (spans, first run after the row)."""
    row = runs[i, 0]
    n = 0
    while i < runs.shape[0] and runs[i, 0] == row:
        if n > 0 and runs[i, 1] == spans[n - 1, 1]:
            spans[n - 1, 1] = runs[i, 2]
        else:
            spans[n, 0] = runs[i, 1]
            spans[n, 1] = runs[i, 2]
            n += 1
        i += 1
    return n, i


@kernel
def pack_spans(runs: RunArray, out: Uint8Array, at: int) -> int:
    """Write the span stream to `out` from `at`; return its end, or -1 if `out` is full."""
    total = runs.shape[0]
    longest = 0
    first = 0
    for i in range(total):
        if runs[i, 0] != runs[first, 0]:
            first = i
        longest = max(longest, i - first + 1)
    above = np.empty((longest, 2), np.int64)
    spans = np.empty((longest, 2), np.int64)
    end_row = 0  # the row after the previous segment
    i = 0
    while i < total:
        top = _wide(runs[i, 0])
        n, following = _spans_of_row(runs, i, spans)
        # Count the next rows with as many spans: the segment's height precedes its rows.
        rows = 1
        j = following
        while j < total and runs[j, 0] == top + rows:
            m, j = _spans_of_row(runs, j, above)
            if m != n:
                break
            rows += 1
        if at + 15 > out.size:
            return -1
        at = _put_varint(out, at, top - end_row)
        at = _put_varint(out, at, rows)
        at = _put_varint(out, at, n)
        end = 0
        for k in range(n):
            if at + 15 > out.size:
                return -1
            at = _put_varint(out, at, spans[k, 0] - end)
            at = _put_varint(out, at, spans[k, 1] - spans[k, 0])
            end = spans[k, 1]
        i = following
        for _ in range(1, rows):
            above[:n] = spans[:n]
            n, i = _spans_of_row(runs, i, spans)
            for k in range(n):
                if at + 15 > out.size:
                    return -1
                at = _put_difference(out, at, spans[k, 0], above[k, 0])
                at = _put_difference(out, at, spans[k, 1], above[k, 1])
        end_row = top + rows
    return at


@kernel
def pack_values(runs: RunArray, ink: int, out: Uint8Array, at: int) -> int:
    """Write the value stream to `out` from `at`; return its end, or -1 if `out` is full."""
    total = runs.shape[0]
    first = 0
    while first < total:
        stop = first + 1  # the span has the runs first to stop - 1
        while (
            stop < total and runs[stop, 0] == runs[first, 0] and runs[stop, 1] == runs[stop - 1, 2]
        ):
            stop += 1
        solid = -1  # the run of ink, if the span has one
        inks = 0
        for i in range(first, stop):
            if runs[i, 3] == ink:
                solid = i
                inks += 1
        if at + 2 * SOFT + 1 > out.size:
            return -1
        begin, end = _wide(runs[first, 1]), _wide(runs[stop - 1, 2])
        left = _wide(runs[solid, 1]) - begin if inks else end - begin
        right = end - _wide(runs[solid, 2]) if inks else 0
        if inks <= 1 and left <= SOFT and right <= SOFT:
            out[at] = left << 4 | right
            at += 1
            for i in range(first, stop):
                if i != solid:
                    for _ in range(runs[i, 1], runs[i, 2]):
                        out[at] = runs[i, 3]
                        at += 1
        else:
            out[at] = PAIRS
            at += 1
            for i in range(first, stop):
                if at + 4 > out.size:
                    return -1
                out[at] = runs[i, 3]
                at = _put_varint(out, at + 1, _wide(runs[i, 2]) - _wide(runs[i, 1]))
        first = stop
    return at


@kernel
def _get_varint(data: Uint8Array, at: int, stop: int) -> tuple[int, int]:
    """Return (number, position after it); the number is -1 if the stream is damaged."""
    number = 0
    for shift in range(0, 21, 7):
        if at >= stop:
            return -1, at
        byte = _wide(data[at])
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    return -1, at


@kernel
def _get_difference(data: Uint8Array, at: int, stop: int, old: int) -> tuple[int, int]:
    """Return (new value, position after it); the value is -1 if the stream ends early."""
    if at >= stop:
        return -1, at
    byte = _wide(data[at])
    if byte != 0:
        return old + byte - 128, at + 1
    if at + 3 > stop:
        return -1, at
    return _wide(data[at + 1]) | (_wide(data[at + 2]) << 8), at + 3


@kernel
def _unpack_values(
    data: Uint8Array, at: int, stop: int, ink: int, runs: RunArray, n: int, row: int, a: int, b: int
) -> tuple[int, int]:
    """Read the values of span [a, b) into runs, from number n.

    Returns (runs written so far, position), or (a negative key of `DAMAGES`, position).
    """
    if at >= stop:
        return -1, at
    head = _wide(data[at])
    at += 1
    left, right = head >> 4, head & 15
    if head != PAIRS and (left > SOFT or right > SOFT or left + right > b - a):
        return -2, at
    first = n
    x = a
    while x < b:
        end = x + 1
        value = ink
        if head == PAIRS or x < a + left or x >= b - right:
            if at >= stop:
                return -1, at
            value = _wide(data[at])
            at += 1
            if head == PAIRS:
                length, at = _get_varint(data, at, stop)
                end = x + length
        else:
            end = b - right
        if end <= x or end > b:
            return -2, at
        if n > first and runs[n - 1, 3] == value:  # equal neighbours are one run
            runs[n - 1, 2] = end
        else:
            if n == runs.shape[0]:
                return -3, at
            _put_run(runs, n, row, x, end, value)
            n += 1
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
    stop = start + size
    if mode == RAW:
        image = data[start:stop].reshape((height, width))
        return total if find_runs(image, background, runs) == total else -3
    at = start
    value_at = stop
    value_stop = stop
    if mode == GREY:
        if size < 4:
            return -1
        length = 0
        for k in range(4):
            length |= _wide(data[start + k]) << (8 * k)
        at = start + 4
        if length > stop - at:
            return -1
        value_at = at + length
        stop = value_at
    n = 0  # runs written
    row = 0
    while at < stop:
        skip, at = _get_varint(data, at, stop)
        rows, at = _get_varint(data, at, stop)
        count, at = _get_varint(data, at, stop)
        if skip < 0 or rows < 1 or count < 1:
            return -1
        row += skip
        if row + rows > height:
            return -2
        above = n  # the first run of the row above (FLAT: a run is a span)
        for r in range(rows):
            end = -1  # of the previous span; spans do not touch
            here = n
            source = above
            for _ in range(count):
                if r == 0:
                    gap, at = _get_varint(data, at, stop)
                    length, at = _get_varint(data, at, stop)
                    if gap < 0 or length < 0:
                        return -1
                    a = max(end, 0) + gap
                    b = a + length
                else:
                    # The span above: the start of its first run, and the end of its last run.
                    last = source
                    while last + 1 < here and runs[last + 1, 1] == runs[last, 2]:
                        last += 1
                    a, at = _get_difference(data, at, stop, _wide(runs[source, 1]))
                    if a < 0:
                        return -1 if at >= stop else -2
                    b, at = _get_difference(data, at, stop, _wide(runs[last, 2]))
                    source = last + 1
                if a <= end or b <= a or b > width:
                    return -2
                end = b
                if mode == FLAT:
                    if n == total:
                        return -3
                    _put_run(runs, n, row + r, a, b, ink)
                    n += 1
                else:
                    n, value_at = _unpack_values(
                        data, value_at, value_stop, ink, runs, n, row + r, a, b
                    )
                    if n < 0:
                        return n
            above = here
        row += rows
    if n != total:
        return -3
    if value_at != value_stop:
        return -1
    return n


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
    blank = out.dtype.type(background * gain + offset)
    total = runs.shape[0]
    first = 0
    for j in range(height):
        top = y0 + j * rows
        bottom = y0 + (j + 1) * rows
        while first < total and runs[first, 0] + 1.0 <= top:
            first += 1
        low = width + 1
        high = -1
        k = first
        while k < total:
            row = float(runs[k, 0])
            if row >= bottom:
                break
            weight = (min(row + 1.0, bottom) - max(row, top)) / rows
            shift = x0 + shear * (row + 0.5 - centre)
            a = min(max((runs[k, 1] - shift) * across, 0.0), float(width))
            b = min(max((runs[k, 2] - shift) * across, 0.0), float(width))
            if b > a:
                weight *= float(runs[k, 3]) - background
                ia = int(a)
                ib = int(b)
                part = weight * (a - ia)
                sums[ia] += weight - part
                sums[ia + 1] += part
                part = weight * (b - ib)
                sums[ib] -= weight - part
                sums[ib + 1] -= part
                low = min(low, ia)
                high = max(high, ib + 1)
            k += 1
        out[j, :] = blank
        running = 0.0
        for i in range(low, high + 1):
            running += sums[i]
            sums[i] = 0.0
            if i < width:
                out[j, i] = out.dtype.type(
                    min(max(background + running, 0.0), 255.0) * gain + offset
                )


@kernel
def gather(data: Array, pointers: Array, ids: Ids, out: Array) -> None:
    """Copy payloads of out.shape[1] bytes each into rows of `out`."""
    size = out.shape[1]
    for i in range(ids.size):
        start = pointers[ids[i]]
        out[i] = data[start : start + size]


@kernel
def gather_padded(data: Array, pointers: Array, sizes: Array, ids: Ids, out: Array) -> None:
    """Copy payloads of any size into rows of `out`, padded with zeros."""
    for i in range(ids.size):
        start, size = pointers[ids[i]], sizes[ids[i]]
        out[i, :size] = data[start : start + size]
        out[i, size:] = 0


@kernel
def _prefetch_payload(data: Array, start: int, size: int) -> None:
    """Start to load a payload into the CPU's caches: samples are at random positions."""
    for offset in range(0, min(size, PREFETCHED), LINE):
        prefetch(data, start + offset)


@kernel
def _scale(source: Array, gain: np.float32, offset: np.float32, out: Array) -> None:
    for k in range(source.size):
        out[k] = out.dtype.type(np.float32(source[k]) * gain + offset)


@kernel
def pixels_batch(
    data: Array, table: Array, ids: Ids, gain: np.float32, offset: np.float32, out: Array
) -> tuple[int, int]:
    """Fill out (b, h, w) with images as stored. Return (row, status); a status < 0 is damage."""
    height, width = out.shape[1], out.shape[2]
    flat = out.reshape((out.shape[0], height * width))
    longest = 0
    for i in range(ids.size):
        if table[ids[i], MODE] != RAW:
            longest = max(longest, table[ids[i], RUNS])
    scratch = np.empty((longest, 4), np.uint16)
    for i in range(ids.size):
        pointer, size, mode, background, value, count, _, _ = table[ids[i]]
        if i + AHEAD < ids.size:
            _prefetch_payload(data, table[ids[i + AHEAD], POINTER], table[ids[i + AHEAD], SIZE])
        if mode == RAW:
            _scale(data[pointer : pointer + size], gain, offset, flat[i])
            continue
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
    data: Array, table: Array, ids: Ids, geometry: Array, gain: float, offset: float, out: Array
) -> tuple[int, int]:
    """Fill out (b, H, W) with area-averaged images. Return (row, status) like `pixels_batch`."""
    longest = 0
    for i in range(ids.size):
        longest = max(longest, table[ids[i], RUNS])
    scratch = np.empty((longest, 4), np.uint16)
    sums = np.zeros(out.shape[2] + 2)
    for i in range(ids.size):
        pointer, size, mode, background, value, count, height, width = table[ids[i]]
        runs = scratch[:count]
        status = unpack(data, pointer, size, mode, background, value, height, width, runs)
        if status < 0:
            return i, status
        resize(runs, background, geometry[i], gain, offset, sums, out[i])
    return 0, 0


@kernel
def runs_batch(data: Array, table: Array, ids: Ids, offsets: Ids, out: Array) -> tuple[int, int]:
    """Fill out (capacity, 4) with the samples' runs. Return (row, status) like `pixels_batch`."""
    for i in range(ids.size):
        pointer, size, mode, background, value, _, height, width = table[ids[i]]
        runs = out[offsets[i] : offsets[i + 1]]
        status = unpack(data, pointer, size, mode, background, value, height, width, runs)
        if status < 0:
            return i, status
    return 0, 0
