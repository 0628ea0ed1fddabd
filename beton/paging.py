"""Put a file together: samples encoded and their sizes known, into pages, and under its name."""

from dataclasses import dataclass

import numpy as np

from beton.arrays import Int64Array
from beton.errors import SampleError
from beton.layout import (
    MAX_PAGE_SIZE,
    align,
)

SMALLEST_CHOSEN_PAGE = 1 << 16
WASTE = 0.05  # of the payload: padding that a page size may cost


def paginate(sizes: Int64Array, page_size: int) -> Int64Array:
    """Cut samples of `sizes` (n,) into pages, in order: returns bounds (pages + 1,).

    Page k holds the samples bounds[k] to bounds[k + 1]; each goes into the page before it if it
    fits there whole. No size may be above `page_size`, or 0.
    """
    ends = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = ends[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(int(np.searchsorted(ends, start + page_size, "right")))
    return np.array(bounds, np.int64)


def choose_page_size(sizes: Int64Array, head_size: int) -> int:
    """Return the page size for samples of `sizes` (n,) behind a head of `head_size` bytes.

    The smallest power of two, from 64 KiB, that holds any sample and pads by at most 5 % of the
    payload; where there is none, the one that pads least. Padding comes before the first page and
    at the end of all others but the last.
    """
    total, largest = int(sizes.sum()), int(sizes.max(initial=0))
    best, least = 0, -1
    page_size = SMALLEST_CHOSEN_PAGE
    while page_size <= MAX_PAGE_SIZE:
        if page_size >= largest:
            bounds = paginate(sizes, page_size)
            in_last = int(sizes[bounds[-2] :].sum()) if len(bounds) > 1 else 0
            span = max(0, len(bounds) - 2) * page_size + in_last
            waste = align(head_size, page_size) - head_size + span - total
            if waste <= WASTE * total:
                return page_size
            if least < 0 or waste < least:
                best, least = page_size, waste
            if page_size >= total:  # a larger page only pads the head more
                break
        page_size *= 2
    if not best:
        raise SampleError("a sample is too large", got=largest, expected=f"up to {MAX_PAGE_SIZE}")
    return best


@dataclass(frozen=True)
class Placement:
    """Where everything goes: bytes of payload in each page, and every region's pointer."""

    page_size: int
    data_start: int
    data_end: int
    filled: Int64Array  # (pages,)
    pointers: Int64Array  # (samples, fields with payloads)


def place(sizes: Int64Array, head_size: int, page_size: int | None = None) -> Placement:
    """Lay out regions of `sizes` (samples, fields with payloads), a sample's own side by side."""
    whole = sizes.sum(axis=1) if sizes.shape[1] else np.zeros(0, np.int64)
    size = choose_page_size(whole, head_size) if page_size is None else page_size
    if (whole > size).any():
        i = int((whole > size).argmax())
        raise SampleError(
            "does not fit into a page", sample=i, got=f"{whole[i]} bytes", expected=f"up to {size}"
        )
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
