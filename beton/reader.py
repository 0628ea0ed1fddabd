"""Read a .beton file through a memory map.

Opening a file checks every number in it (`layout.validate`). If the file has a manifest, opening
also verifies all checksums except those of pages; a page is verified on first use.

Records stay in the memory map, so that a file of any length takes little memory. Another program
may change the file in place after it was checked, and kernels still never read or write out of
bounds: those of ink check every record that they read, and others get what `Column.take` has copied
and checked. `check_unchanged` finds changes at the start of an epoch.

The memory map remains valid if the file is deleted or replaced by a rename, but not if it is
truncated in place: reading beyond its new end kills the process (SIGBUS).
"""

import errno
import mmap
import os
import stat
import weakref
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from beton.arrays import Array, Ids, Int64Array, Uint8Array
from beton.errors import BetonError, ChecksumError, FormatError, located
from beton.fields.base import UNKNOWN, Field, first_true
from beton.format import layout
from beton.format.manifest import Manifest

NO_CHECKSUMS = "no checksums: written by another program"  # about a file without a manifest
CHANGED = "was changed in place while it was open; replace it by a rename instead"


class Taken(NamedTuple):
    """Samples of a column: copies of their records, and the places of their payloads in `data`.

    All numbers are checked: payloads are inside the file. `starts` and `sizes`, int64 (n,) each,
    are their positions in `data`, uint8 (bytes,), and their sizes in bytes. An empty payload has
    the position 0. A field without payloads has neither: both are (0,).
    """

    records: Array
    starts: Int64Array
    sizes: Int64Array
    data: Uint8Array

    def payloads(self) -> Iterator[Uint8Array]:
        """Yield views of the payloads."""
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            yield self.data[start : start + size]


@dataclass(frozen=True)
class Column:
    """One field of a file, as read-only arrays.

    `metadata` (samples,) are the field's records and `data` uint8 (n,) is the whole file. Both are
    views of the file, which another program may change: `records` and `take` return copies of some,
    which are checked. `pages` are the start and end of all payloads in `data`. `stored_sizes`,
    int64 (samples,), are those of payloads whose records do not have them. A file that
    `has_checksums` is of this package's writer, which accepts complete JPEGs alone
    (`RGBImageField.encode`); they have not changed since.
    """

    file: str
    name: str
    field: Field
    metadata: Array
    data: Uint8Array
    pages: tuple[int, int]
    stored_sizes: Int64Array | None = None
    has_checksums: bool = False

    def records(self, ids: Ids) -> Array:
        """Return a copy of the records of samples `ids` (n,), which is checked as at open.

        Raises FormatError if they have become invalid.
        """
        # As plain bytes, since numpy copies structures member by member.
        raw = self.metadata.view(f"V{self.metadata.itemsize}")[ids]
        records: Array = raw.view(self.metadata.dtype)
        try:
            self.field.validate(records)
        except FormatError as error:
            sample = None if error.sample is None else int(ids[error.sample])
            raise self.changed(error.reason, sample, error.got, error.expected) from error
        return records

    def take(self, ids: Ids | None = None) -> Taken:
        """Return the samples `ids` (n,), or all. Raises FormatError if they have become invalid."""
        if ids is None:
            ids = np.arange(len(self.metadata))
        records = self.records(ids)
        found = self.field.regions(records)
        if found is None:
            return Taken(records, np.empty(0, np.int64), np.empty(0, np.int64), self.data)
        pointers, sizes = found
        if self.stored_sizes is not None:
            declared, sizes = sizes, self.stored_sizes[ids]
            if (row := first_true((declared != UNKNOWN) & (declared != sizes))) is not None:
                numbers = int(declared[row]), int(sizes[row])
                raise self.changed("size of a payload", int(ids[row]), *numbers)
        starts = np.where(sizes > 0, pointers, 0).astype(np.int64)
        low, high = self.pages
        outside = (sizes > 0) & ((starts < low) | (sizes > high - starts))
        if (row := first_true(outside)) is not None:
            got, expected = f"{sizes[row]} bytes at {pointers[row]}", f"{low} to {high}"
            raise self.changed("payload outside the data", int(ids[row]), got, expected)
        return Taken(records, starts, sizes, self.data)

    def payload(self, sample: int) -> Uint8Array:
        """Return a view of one sample's payload; empty for a field without payloads."""
        return next(self.take(np.array([sample])).payloads(), self.data[:0])

    def decode(self, sample: int) -> Any:
        """Return the value of one sample. Raises BetonError if its payload is damaged."""
        with located(file=self.file, field=self.name, sample=sample):
            taken = self.take(np.array([sample]))
            return self.field.decode(taken.records[0], next(taken.payloads(), self.data[:0]))

    def changed(
        self, what: str, sample: int | None = None, got: object = None, expected: object = None
    ) -> FormatError:
        """Return the error for what is no longer as it was when the file was opened."""
        return FormatError(
            f"{CHANGED}: {what}",
            file=self.file,
            field=self.name,
            sample=sample,
            got=got,
            expected=expected,
        )


class Reader:
    """An open file: a sequence of samples, each a dict from field name to value.

    `fields` are the fields by name, `metadata` (samples,) all records, and `info` the content that
    the writer's caller stored ({} without a manifest). A Reader is a context manager; its columns
    remain valid after it is closed. Raises BetonError if the file is damaged, and OSError if it
    cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with located(file=self.path):
            self._data, self._descriptor = _map(self.path)
            self._close_descriptor = weakref.finalize(self, os.close, self._descriptor)
            self._modified = os.fstat(self._descriptor).st_mtime_ns
            self._open(self._data)

    def _open(self, data: Uint8Array) -> None:
        parts = layout.parse(data)
        self.manifest: Manifest | None = None
        self._unverified = np.zeros(0, np.bool_)
        self._head, self._head_crc = parts.metadata.view(np.uint8), 0
        if parts.manifest is not None:
            start, end = parts.manifest
            self.manifest = Manifest.unpack(data[start:end].tobytes())
            pages = -(-(parts.data_end - parts.data_start) // parts.page_size)
            if (found := len(self.manifest.pages)) != pages:
                raise FormatError("number of page checksums", got=found, expected=pages)
            for what, expected, part in (
                ("head", self.manifest.head, data[: parts.data_start]),
                ("allocation table", self.manifest.table, data[parts.table_start :]),
            ):
                if zlib.crc32(part.data) != expected:
                    raise ChecksumError(f"{what} has changed since it was written")
            self._unverified = np.ones(pages, np.bool_)
            self._head, self._head_crc = data[: parts.data_start], self.manifest.head
        else:
            self._head_crc = zlib.crc32(self._head.data)
        sizes = layout.validate(parts)
        self._pages_start, self._pages_end = parts.data_start, parts.data_end
        self.fields = parts.fields
        self._metadata, self._samples = parts.metadata, len(parts.metadata)
        self.page_size = parts.page_size
        self.info: dict[str, Any] = dict(self.manifest.info) if self.manifest else {}
        self._columns = {}
        for name, field in self.fields.items():
            self._columns[name] = Column(
                str(self.path),
                name,
                field,
                parts.column(name),
                data,
                (parts.data_start, parts.data_end),
                sizes.get(name),
                self.manifest is not None,
            )

    def __len__(self) -> int:
        return self._samples

    @property
    def metadata(self) -> Array:
        """All records (samples,): a view of the file, like those of columns."""
        self._require_open()
        return self._metadata

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Its memory map is released with the last column."""
        self._columns = {}
        self._data, self._metadata, self._head = (
            part[:0].copy() for part in (self._data, self._metadata, self._head)
        )
        self._close_descriptor()

    def column(self, name: str) -> Column:
        """Return one field's arrays. Raises BetonError if the file has no field of this name."""
        self._require_open()
        if name not in self._columns:
            names = ", ".join(self.fields)
            raise BetonError("no such field", file=self.path, field=name, expected=names)
        return self._columns[name]

    def _require_open(self) -> None:
        if not self._columns:
            raise BetonError("the reader is closed", file=self.path)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Verify and decode one sample; a negative index counts from the end."""
        sample = index + len(self) if index < 0 else index
        if not 0 <= sample < len(self):
            raise IndexError(f"{self.path}: sample {index} of {len(self)}")
        self.check(np.array([sample]))
        return {name: self.column(name).decode(sample) for name in self.fields}

    def check(self, ids: Ids, names: Container[str] | None = None) -> None:
        """Verify the pages of the samples `ids` (n,) that are not yet verified.

        `names` restricts this to the pages of some fields. Any thread may call this method. Raises
        ChecksumError.
        """
        self._require_open()
        if not self._unverified.any():
            return
        wanted = np.zeros_like(self._unverified)
        for name, column in self._columns.items():
            if names is None or name in names:
                taken = column.take(ids)
                starts = taken.starts[taken.sizes > 0]
                wanted[(starts - self._pages_start) // self.page_size] = True
        self._verify_pages(np.flatnonzero(wanted & self._unverified))

    def check_unchanged(self) -> None:
        """Raise BetonError if the open file has another size than when it was opened.

        After a new date of modification, everything before the pages is verified again, without
        checksums as it was when the file was opened. All pages become unverified, so that each is
        verified again on its next use. A loader calls this method at the start of each epoch.
        """
        self._require_open()
        status = os.fstat(self._descriptor)
        if status.st_size != len(self._data):
            raise FormatError(
                CHANGED,
                file=self.path,
                got=f"{status.st_size} bytes",
                expected=f"{len(self._data)} bytes",
            )
        if status.st_mtime_ns != self._modified:
            if zlib.crc32(self._head.data) != self._head_crc:
                raise ChecksumError(CHANGED, file=self.path)
            self._modified = status.st_mtime_ns
            self._unverified[:] = True

    def fingerprint(self) -> str:
        """Return 8 hex digits that identify the file's content: the CRC-32 of its checksums.

        Without a manifest, they are the CRC-32 of the metadata.
        """
        if self.manifest is None:
            return f"{self._head_crc:08x}"
        return f"{zlib.crc32(self.manifest.pages.tobytes(), self.manifest.head):08x}"

    def verify(self) -> None:
        """Verify every page, so that every byte of the file is checked. Raises ChecksumError."""
        self._require_open()
        self._verify_pages(np.arange(len(self._unverified)))

    def _verify_pages(self, pages: NDArray[np.intp]) -> None:
        if self.manifest is None:
            return
        data = self._data  # a reference: another thread may close the reader meanwhile
        self._require_open()
        for page in pages:
            start = self._pages_start + int(page) * self.page_size
            end = min(start + self.page_size, self._pages_end)
            if zlib.crc32(data[start:end].data) != self.manifest.pages[page]:
                what = f"page {page} (bytes {start} to {end})"
                raise ChecksumError(f"{what} has changed since it was written", file=self.path)
            self._unverified[page] = False


def _map(path: Path) -> tuple[Uint8Array, int]:
    """Return a file's content as a memory map, and an open descriptor."""
    # Opening a named pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise FormatError("not a regular file")
        if status.st_size == 0:  # an empty file cannot be mapped
            raise FormatError("the file is empty")
        data = np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
    except BaseException:
        os.close(descriptor)
        raise
    return data, descriptor
