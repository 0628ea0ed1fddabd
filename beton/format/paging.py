"""Place payloads on pages, so that every sample lies on one page: pure functions of sizes.

`layout` has the dtypes of a file's parts; this module computes where the payloads go.
"""

from dataclasses import dataclass

import numpy as np

from beton.arrays import Int64Array
from beton.errors import SampleError
from beton.fields.base import first_true
from beton.format.layout import MAX_PAGE_SIZE, align

SMALLEST_CHOSEN_PAGE = 1 << 16
MAX_PADDING = 0.05  # as a fraction of the payload


def paginate(sizes: Int64Array, page_size: int) -> Int64Array:
    """Assign samples of `sizes` (n,) to pages, in order; return bounds (pages + 1,).

    Page k has the samples bounds[k] to bounds[k + 1]. A new page starts when a sample does not fit.
    Sizes are 1 to `page_size`.
    """
    ends = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = ends[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(int(np.searchsorted(ends, start + page_size, "right")))
    return np.array(bounds, np.int64)


def choose_page_size(sizes: Int64Array, head_size: int) -> int:
    """Return the page size for samples of `sizes` (n,) after a head of `head_size` bytes.

    It is the smallest power of two, at least 64 KiB, that fits every sample and costs at most 5 %
    of the payload in padding, or else the power of two that costs least. Padding precedes the first
    page and ends every page except the last.
    """
    total, largest = int(sizes.sum()), int(sizes.max(initial=0))
    if largest > MAX_PAGE_SIZE:
        raise SampleError("sample too large", got=largest, expected=f"up to {MAX_PAGE_SIZE}")
    paddings = {}  # by page size
    page_size = SMALLEST_CHOSEN_PAGE
    while page_size < largest:
        page_size *= 2
    while page_size <= MAX_PAGE_SIZE:
        bounds = paginate(sizes, page_size)
        in_last = int(sizes[bounds[-2] :].sum()) if len(bounds) > 1 else 0
        span = max(0, len(bounds) - 2) * page_size + in_last
        paddings[page_size] = align(head_size, page_size) - head_size + span - total
        if paddings[page_size] <= MAX_PADDING * total:
            return page_size
        if page_size >= total:  # a larger page only pads the head more
            break
        page_size *= 2
    return min(paddings, key=paddings.__getitem__)


@dataclass(frozen=True)
class Placement:
    """The position of every page and region: `filled` are the bytes of payload on each page."""

    page_size: int
    data_start: int
    data_end: int
    filled: Int64Array  # (pages,)
    pointers: Int64Array  # (samples, fields with payloads)


def place(sizes: Int64Array, head_size: int, page_size: int | None = None) -> Placement:
    """Place regions of `sizes` (samples, fields with payloads); a sample's regions are adjacent.

    Raises SampleError for a sample that does not fit on a page.
    """
    whole = sizes.sum(axis=1) if sizes.shape[1] else np.zeros(0, np.int64)
    size = choose_page_size(whole, head_size) if page_size is None else page_size
    if (i := first_true(whole > size)) is not None:
        got = f"{whole[i]} bytes"
        raise SampleError("sample larger than a page", sample=i, got=got, expected=f"up to {size}")
    bounds = paginate(whole, size)
    start = align(head_size, size)
    offsets = np.concatenate([[0], np.cumsum(whole)])[bounds]  # of pages in the payload
    filled = np.diff(offsets)
    pages = len(filled)
    shifts = start + np.arange(pages) * size - offsets[:-1]
    in_payload = (np.cumsum(sizes) - sizes.reshape(-1)).reshape(sizes.shape)
    pointers = in_payload + np.repeat(shifts, np.diff(bounds))[:, None] if pages else in_payload
    end = start + (pages - 1) * size + int(filled[-1]) if pages else start
    return Placement(size, start, end, filled, pointers)
