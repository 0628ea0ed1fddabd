"""Read a .beton file through a memory map.

Opening a file checks every number that kernels rely on (`layout.validate`). If the file has a
manifest, opening also verifies all checksums except those of pages; a page is verified on first
use. The metadata is copied at open, so that checked numbers cannot change. The memory map remains
valid if the file is deleted or replaced by a rename, but not if it is truncated in place: reading
beyond its new end kills the process (SIGBUS). `check_unchanged` finds it before that.
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
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from beton.arrays import Array, Ids, Int64Array, Uint8Array
from beton.errors import BetonError, ChecksumError, FormatError, located
from beton.fields.base import Field
from beton.format import layout
from beton.format.manifest import Manifest

NO_CHECKSUMS = "no checksums: written by another program"  # about a file without a manifest
EVERY = slice(None)


@dataclass(frozen=True)
class Column:
    """One field of a file, as read-only arrays for kernels.

    `metadata` (samples,) are the field's checked records and `data` uint8 (n,) is the whole file.
    `stored_sizes`, int64 (samples,), are those of payloads whose records do not have them.
    A file that `has_checksums` is of this package's writer, which accepts complete JPEGs alone
    (`RGBImageField.encode`); they have not changed since.
    """

    file: str
    name: str
    field: Field
    metadata: Array
    data: Uint8Array
    stored_sizes: Int64Array | None = None
    has_checksums: bool = False

    def regions(self, ids: Ids | slice = EVERY) -> tuple[Int64Array, Int64Array]:
        """Return the positions of payloads in `data`, and their sizes in bytes, int64 (n,) each.

        An empty payload has the position 0. A field without payloads has none.
        """
        found = self.field.regions(self.metadata[ids])
        if found is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        pointers, sizes = found
        if self.stored_sizes is not None:
            sizes = self.stored_sizes[ids]
        return np.where(sizes > 0, pointers, 0).astype(np.int64), sizes

    def payload(self, sample: int) -> Uint8Array:
        """Return a view of one sample's payload; empty for a field without payloads."""
        return next(self.payloads(np.array([sample])), self.data[:0])

    def payloads(self, ids: Ids) -> Iterator[Uint8Array]:
        """Yield views of the payloads of samples, which are found faster than one by one."""
        starts, sizes = self.regions(ids)
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            yield self.data[start : start + size]

    def decode(self, sample: int) -> Any:
        """Return the value of one sample. Raises BetonError if its payload is damaged."""
        with located(file=self.file, field=self.name, sample=sample):
            return self.field.decode(self.metadata[sample], self.payload(sample))


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
        sizes = layout.validate(parts)
        self._pages_start, self._pages_end = parts.data_start, parts.data_end
        self.fields = parts.fields
        self.metadata = parts.metadata
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
                sizes.get(name),
                self.manifest is not None,
            )

    def __len__(self) -> int:
        return len(self.metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Its memory map is released with the last column."""
        self._columns = {}
        self._data = self._data[:0].copy()
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
                pointers, sizes = column.regions(ids)
                wanted[(pointers[sizes > 0] - self._pages_start) // self.page_size] = True
        self._verify_pages(np.flatnonzero(wanted & self._unverified))

    def check_unchanged(self) -> None:
        """Raise FormatError if the open file has another size than when it was opened.

        A new date of modification makes all pages unverified, so that each is verified again on its
        next use. A loader calls this method at the start of each epoch.
        """
        self._require_open()
        status = os.fstat(self._descriptor)
        if status.st_size != len(self._data):
            raise FormatError(
                "was changed in place while it was open; replace it by a rename instead",
                file=self.path,
                got=f"{status.st_size} bytes",
                expected=f"{len(self._data)} bytes",
            )
        if status.st_mtime_ns != self._modified:
            self._modified = status.st_mtime_ns
            self._unverified[:] = True

    def fingerprint(self) -> str:
        """Return 8 hex digits that identify the file's content: the CRC-32 of its checksums.

        Without a manifest, they are the CRC-32 of the metadata.
        """
        if self.manifest is None:
            return f"{zlib.crc32(self.metadata.tobytes()):08x}"
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
