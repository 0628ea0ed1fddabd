"""The parts of a file: their dtypes and constants, and the checks of every number in them.

FORMAT.md has the tables. This module decodes no payload and computes no checksum, and needs little
memory for each sample. (`paging` decides where a writer puts the payloads.)
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from beton.arrays import Array, BoolArray, Int64Array, Uint8Array
from beton.errors import BetonError, FormatError, located
from beton.fields import field_from
from beton.fields.base import ARGUMENTS_SIZE, UNKNOWN, Field, first_true

VERSION = 2
NAME_SIZE = 16
MIN_PAGE_SIZE, MAX_PAGE_SIZE = 1 << 12, 1 << 31
PAGE_SIZES = f"a power of 2, {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE}"
MANIFEST_ID = 2**64 - 1
MANIFEST_ALIGNMENT = 8
BLOCK = 1 << 16  # rows that are copied and checked at a time: they stay in the CPU's caches

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
DESCRIPTOR = np.dtype(
    [("type_id", "<u1"), ("name", "<u1", NAME_SIZE), ("arguments", "<u1", ARGUMENTS_SIZE)]
)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])


def align(offset: int, to: int) -> int:
    """Round `offset` up to a multiple of `to`."""
    return -(-offset // to) * to


def is_page_size(size: int) -> bool:
    """Return whether `size` is one of PAGE_SIZES."""
    return size & (size - 1) == 0 and MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE


def metadata_start(fields: int) -> int:
    """Return the position of the records in a file with a number of fields."""
    return HEADER.itemsize + fields * DESCRIPTOR.itemsize


def metadata_dtype(fields: Iterable[Field]) -> np.dtype[Any]:
    """Return the dtype of a sample's record, with members f0, f1, ... in field order."""
    return np.dtype([("", field.metadata_dtype) for field in fields], align=True)


def check_name(name: str) -> None:
    """Raise FormatError for a field name that FFCV cannot read or that cannot be printed."""
    if not (1 <= len(name) <= NAME_SIZE and name.isascii() and name.isprintable()):
        expected = f"1 to {NAME_SIZE} printable ASCII characters"
        raise FormatError("invalid name of a field", got=repr(name), expected=expected)


@dataclass(frozen=True)
class Layout:
    """The parts of a file. `metadata` and `regions` are views of its bytes where possible."""

    page_size: int
    fields: dict[str, Field]
    metadata: Array  # (samples,) records, read-only
    regions: Array  # ALLOCATION rows of all regions that have bytes, in the order of the data
    manifest: tuple[int, int] | None  # start and end
    data_start: int
    data_end: int  # the end of the last region
    table_start: int

    def column(self, name: str) -> Array:
        """Return the records (samples,) of one field."""
        return self.metadata[f"f{list(self.fields).index(name)}"]


def parse(data: Uint8Array) -> Layout:
    """Find the parts of a file in its bytes (n,). Raises FormatError if they do not fit in it.

    Every number is compared with the file's size before it determines an allocation.
    """
    total = len(data)
    if total < HEADER.itemsize:
        raise FormatError("too short for a header", got=total, expected=HEADER.itemsize)
    header = data[: HEADER.itemsize].view(HEADER)[0]
    version, count, page_size, samples, table_start = (int(number) for number in header.item())
    if version != VERSION:
        raise FormatError("unsupported version of the format", got=version, expected=VERSION)
    if not is_page_size(page_size):
        raise FormatError("page size", got=page_size, expected=PAGE_SIZES)
    start = metadata_start(count)
    if not HEADER.itemsize < start <= total:
        raise FormatError("number of fields", got=count, expected=f"1 to {total // 1041}")
    fields = _parse_fields(data[HEADER.itemsize : start].view(DESCRIPTOR))
    dtype = metadata_dtype(fields.values())
    metadata_end = start + samples * dtype.itemsize
    if not start < metadata_end <= total:
        most = (total - start) // dtype.itemsize
        raise FormatError("number of samples", got=samples, expected=f"1 to {most}")
    if not metadata_end <= table_start <= total or (total - table_start) % ALLOCATION.itemsize:
        expected = f"{metadata_end} to {total}, whole rows of {ALLOCATION.itemsize} bytes"
        raise FormatError("position of the allocation table", got=table_start, expected=expected)
    metadata = data[start:metadata_end].view(dtype)
    metadata.setflags(write=False)
    data_start = align(metadata_end, page_size)
    table = data[table_start:].view(ALLOCATION)
    if len(table) == 0 and table_start > data_start:
        raise FormatError(
            "data without an allocation table", got=table_start, expected=metadata_end
        )
    manifest = None
    if len(table) and table[-1]["sample_id"] == MANIFEST_ID:
        at, size = int(table[-1]["ptr"]), int(table[-1]["size"])
        if at < data_start or at + size != table_start:
            raise FormatError("position of the manifest", got=at, expected=table_start - size)
        manifest = at, at + size
        table = table[:-1]
    elif table_start > data_start and (table_start - data_start) % page_size:
        # FFCV writes whole pages, so there was a manifest, and its row is lost.
        expected = f"{data_start} and whole pages of {page_size}, or a manifest"
        raise FormatError("position of the allocation table", got=table_start, expected=expected)
    if not table["size"].all():  # FFCV's pointer to an empty region means nothing
        table = table[table["size"] > 0]
    regions = table
    if (table["ptr"][1:] < table["ptr"][:-1]).any():
        regions = table[np.argsort(table["ptr"], kind="stable")]
    limit = manifest[0] if manifest else table_start
    data_end = _validate_table(regions, samples, page_size, data_start, limit)
    if manifest and limit != align(data_end, MANIFEST_ALIGNMENT):
        raise FormatError("position of the manifest", got=limit, expected=f"next to {data_end}")
    if manifest and data[data_end:limit].any():
        raise FormatError("nonzero bytes before the manifest", got=data_end)
    return Layout(page_size, fields, metadata, regions, manifest, data_start, data_end, table_start)


def _parse_fields(descriptors: Array) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for descriptor in descriptors:
        raw = descriptor["name"].tobytes()
        name = raw.rstrip(b"\0").decode("latin-1")
        check_name(name)
        if name in fields:
            raise FormatError("duplicate name of a field", got=repr(name))
        with located(field=name):
            fields[name] = field_from(int(descriptor["type_id"]), descriptor["arguments"].tobytes())
    return fields


def _validate_table(table: Array, samples: int, page_size: int, start: int, limit: int) -> int:
    """Check that regions are inside the data and do not overlap; return the end of the last one."""
    end = start
    for first in range(0, len(table), BLOCK):
        block = table[first : first + BLOCK].copy()
        end = _validate_regions(block, samples, page_size, start, limit, end)
    return end


def _validate_regions(
    table: Array, samples: int, page_size: int, start: int, limit: int, end: int
) -> int:
    """Do what `_validate_table` does for rows that follow a region with this end."""

    def reject(reason: str, wrong: BoolArray, expected: str | None = None) -> None:
        if (i := first_true(wrong)) is not None:
            row = table[i]
            got = f"{row['size']} bytes at {row['ptr']}"
            raise FormatError(reason, sample=int(row["sample_id"]), got=got, expected=expected)

    pointers, sizes = (np.ascontiguousarray(table[name]) for name in ("ptr", "size"))
    unknown = table["sample_id"] >= samples
    reject("region of a sample that does not exist", unknown, f"below {samples}")
    # The subtraction wraps around only in rows that the comparison before it rejects.
    outside = (pointers < start) | (pointers > limit) | (sizes > limit - pointers)
    reject("region outside the data", outside, f"{start} to {limit}")
    crosses = ((pointers - start) & (page_size - 1)) + sizes > page_size
    reject("region crosses a page boundary", crosses, f"pages of {page_size} bytes")
    ends = pointers + sizes
    reject("regions overlap", pointers < np.append(np.uint64(end), ends[:-1]))
    return int(ends[-1])


def validate(layout: Layout) -> dict[str, Int64Array]:
    """Check all records; return the sizes of payloads, int64 (samples,), that records do not have.

    They are those of the fields without `sizes_in_records`. A payload must be a region of the same
    sample and of the size in its record. Raises FormatError.
    """
    starts = np.ascontiguousarray(layout.regions["ptr"])
    sizes = {}
    for name, field in layout.fields.items():
        column, parts = layout.column(name), []
        for first in range(0, len(column), BLOCK):
            block = column[first : first + BLOCK].copy()
            with located(field=name), _counted_from(first):
                found = _validate_block(field, block, first, layout.regions, starts)
            if not field.sizes_in_records:
                parts.append(found)
        if not field.sizes_in_records:
            sizes[name] = np.concatenate(parts)
    return sizes


@contextmanager
def _counted_from(first: int) -> Iterator[None]:
    """Add `first` to the sample of a BetonError: the block's records are counted from there."""
    try:
        yield
    except BetonError as error:
        if error.sample is not None:
            error.sample += first
        raise


def _validate_block(
    field: Field, column: Array, first: int, regions: Array, starts: Array
) -> Int64Array:
    """Check the records of a field from the sample `first` on; return their payloads' sizes.

    `starts` are the pointers of `regions`, ascending and distinct.
    """
    field.validate(column)
    found = field.regions(column)
    result = np.zeros(len(column), np.int64)
    if found is None:
        return result
    samples = np.flatnonzero(found[1])
    pointers, sizes = (part[samples] for part in found)
    assert not field.sizes_in_records or (sizes != UNKNOWN).all()

    def reject(reason: str, wrong: BoolArray, got: Array, expected: Array | None = None) -> None:
        if (i := first_true(wrong)) is not None:
            wanted = None if expected is None else int(expected[i])
            raise FormatError(reason, sample=int(samples[i]), got=int(got[i]), expected=wanted)

    at = np.searchsorted(starts, pointers)
    reject("pointer to no region", at == len(starts), pointers)
    reject("pointer to no region", starts[at] != pointers, pointers)
    owners, stored = regions["sample_id"][at], regions["size"][at]
    reject("region belongs to another sample", owners != samples + first, owners)
    different = (sizes != UNKNOWN) & (sizes != stored)
    reject("size of a region differs from its record", different, stored, sizes)
    result[samples] = stored
    return result
