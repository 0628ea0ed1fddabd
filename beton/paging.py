"""Put a file together: samples encoded and their sizes known, into pages, and under its name."""

import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from beton.errors import SampleError
from beton.fields.base import Field
from beton.layout import (
    ALLOCATION,
    DESCRIPTOR,
    HEADER,
    MANIFEST_ALIGNMENT,
    MANIFEST_ID,
    MAX_PAGE_SIZE,
    VERSION,
    align,
)
from beton.manifest import Manifest

Ints = NDArray[np.int64]

SMALLEST_CHOSEN_PAGE = 1 << 16
WASTE = 0.05  # of the payload: padding that a page size may cost


def paginate(sizes: Ints, page_size: int) -> Ints:
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


def choose_page_size(sizes: Ints, head_size: int) -> int:
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
class Plan:
    """Where everything goes: bytes of payload in each page, and every region's pointer."""

    page_size: int
    data_start: int
    data_end: int
    filled: Ints  # (pages,)
    pointers: Ints  # (samples, fields with payloads)


def plan(sizes: Ints, head_size: int, page_size: int | None = None) -> Plan:
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
    return Plan(size, start, end, filled, pointers)


def assemble(
    target: Path,
    fields: Mapping[str, Field],
    metadata: NDArray[Any],
    sizes: Ints,
    spool: IO[bytes],
    layout: Plan,
    info: Mapping[str, Any],
) -> int:
    """Write the file; returns its size. `spool` gives the payloads of all samples, in order."""
    table = np.zeros(sizes.size + 1, ALLOCATION)
    table["sample_id"][:-1] = np.repeat(np.arange(len(metadata)), sizes.shape[1])
    table["ptr"][:-1] = layout.pointers.reshape(-1)
    table["size"][:-1] = sizes.reshape(-1)
    settings = {name: field.settings() for name, field in fields.items()}
    pages = np.zeros(len(layout.filled), np.uint32)
    manifest = Manifest(info, settings, head=0, table=0, pages=pages)
    # Its length is the same with all checksums filled in, so the table's place is known now.
    manifest_start = align(layout.data_end, MANIFEST_ALIGNMENT)
    table_start = manifest_start + len(manifest.pack())
    table[-1] = (MANIFEST_ID, manifest_start, table_start - manifest_start)
    head = _head(fields, metadata, layout, table_start)
    with _replacing(target) as file:
        file.write(head)
        for k, page in enumerate(_pages(layout, spool)):
            pages[k] = zlib.crc32(page)
            file.write(page)
        file.write(bytes(manifest_start - layout.data_end))
        rows = table.tobytes()
        file.write(replace(manifest, head=zlib.crc32(head), table=zlib.crc32(rows)).pack())
        file.write(rows)
    return table_start + table.nbytes


def _head(
    fields: Mapping[str, Field], metadata: NDArray[Any], layout: Plan, table_start: int
) -> bytes:
    header = np.array(
        [(VERSION, len(fields), layout.page_size, len(metadata), table_start)], HEADER
    )
    descriptors = np.zeros(len(fields), DESCRIPTOR)
    for descriptor, (name, field) in zip(descriptors, fields.items(), strict=True):
        arguments = field.arguments()
        descriptor["type_id"] = field.type_id
        descriptor["name"][: len(name)] = list(name.encode("ascii"))
        descriptor["arguments"][: len(arguments)] = list(arguments)
    parts = header.tobytes() + descriptors.tobytes() + metadata.tobytes()
    return parts.ljust(layout.data_start, b"\0")


def _pages(layout: Plan, spool: IO[bytes]) -> Iterator[bytes]:
    """Yield the pages, all but the last padded to their full size."""
    for filled in layout.filled[:-1]:
        yield spool.read(filled).ljust(layout.page_size, b"\0")
    for filled in layout.filled[-1:]:
        yield spool.read(filled)


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that takes the name `target` only once it is whole and on the disk."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
