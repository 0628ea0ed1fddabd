"""Write a .beton file from samples, which several processes encode.

Encoded payloads go to a temporary file, the spool, in the target's folder. When all sizes are
known, they are placed on pages and copied to the file. So the page size suits the data, the bytes
do not depend on the number of workers, and the disk must have space for the payloads twice. The
file is written under a temporary name, synced and renamed, so the target is never incomplete.
"""

import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import IO, Any

import numpy as np

from beton.arrays import Array, Int64Array
from beton.errors import SampleError, located
from beton.fields.base import Field
from beton.format import layout
from beton.format.encoding import Job, encode_into, is_indexable
from beton.format.encoding import Noted as Noted
from beton.format.encoding import Skip as Skip
from beton.format.manifest import Manifest
from beton.format.paging import Placement, place
from beton.format.storage import naming, replacing

Info = Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """Samples written, samples skipped as (index, reason), and bytes of each field and the file.

    `file_bytes` is 0 until the file is written. `notes` are those of all `Noted` samples, in order.
    `records` (samples,) are each field's records, for `info` alone.
    """

    samples: int
    skipped: list[tuple[int, str]]
    payload_bytes: dict[str, int]
    file_bytes: int = 0
    notes: bytes = b""
    records: Mapping[str, Array] = dataclass_field(default_factory=dict, repr=False)


def write(
    path: str | os.PathLike[str],
    fields: Mapping[str, Field],
    samples: Any,
    *,
    info: Info | Callable[[Summary], Info] | None = None,
    workers: int = 1,
    page_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Write `samples` to the file `path`, replacing an existing file.

    `samples` has `len()` and indices (each worker gets a pickled copy and calls `samples[i]`) or is
    an iterable (this process iterates, the workers encode). A sample is a tuple or list in the
    order of `fields`, a mapping by field name, a `Noted` sample, or a `Skip`. `info` is stored in
    the manifest as JSON; a callable receives the summary after all samples are encoded. It may
    change `summary.records`, and may raise to abort before the file is written. `page_size` is
    chosen from the samples by default. `progress` is called with the number of samples done since
    the last call. With more than one worker, the calling script must be importable (`if __name__ ==
    "__main__":`).

    Raises SampleError for an invalid argument or a value that its field cannot store, and OSError
    with the path if the disk is full. An exception of the dataset passes through, with a note that
    names the sample.
    """
    target = Path(path)
    with located(file=target), naming(target):
        _check_arguments(target, fields, samples, workers, page_size)
        job = Job(str(target), dict(fields), samples if is_indexable(samples) else None)
        with tempfile.TemporaryFile(dir=target.parent) as spool:
            raw, flat_sizes, skipped, notes = encode_into(spool, job, samples, workers, progress)
            dtype = layout.metadata_dtype(fields.values())
            metadata = np.ndarray(len(raw) // dtype.itemsize, dtype, raw)
            pointers = _pointers(fields, metadata)
            sizes = flat_sizes.reshape(len(metadata), len(pointers))
            totals = dict.fromkeys(fields, 0)
            totals |= zip(pointers, sizes.sum(axis=0).tolist(), strict=True)
            records = {name: metadata[f"f{i}"] for i, name in enumerate(fields)}
            summary = Summary(len(metadata), skipped, totals, notes=notes, records=records)
            given = info(summary) if callable(info) else info or {}
            _check_columns(fields, metadata)
            head_size = layout.metadata_start(len(fields)) + metadata.nbytes
            placement = place(sizes, head_size, page_size)
            for position, column in enumerate(pointers.values()):
                column[:] = placement.pointers[:, position]
            size = _assemble(target, fields, metadata, sizes, spool, placement, given)
    return replace(summary, file_bytes=size, records={})


def _pointers(fields: Mapping[str, Field], metadata: Array) -> dict[str, Array]:
    """Return writable pointers (samples,) for each field with payloads."""
    regions = {name: f.regions(metadata[f"f{i}"]) for i, (name, f) in enumerate(fields.items())}
    return {name: found[0] for name, found in regions.items() if found is not None}


def _check_columns(fields: Mapping[str, Field], metadata: Array) -> None:
    if not len(metadata):
        raise SampleError("no samples")
    for position, (name, field) in enumerate(fields.items()):
        with located(field=name):
            field.check_column(metadata[f"f{position}"])


def _check_arguments(
    target: Path, fields: Mapping[str, Field], samples: Any, workers: int, page_size: int | None
) -> None:
    if not 1 <= len(fields) < 2**16:
        raise SampleError("number of fields", got=len(fields), expected="1 to 65535")
    for name, field in fields.items():
        layout.check_name(name)
        if not isinstance(field, Field):
            raise SampleError("not a field", field=name, got=repr(field))
    if not is_indexable(samples) and not isinstance(samples, Iterable):
        raise SampleError(
            "samples", got=type(samples).__name__, expected="an iterable, or indices and len()"
        )
    if workers < 1:
        raise SampleError("workers", got=workers, expected="at least 1")
    if page_size is not None and not layout.is_page_size(page_size):
        raise SampleError("page size", got=page_size, expected=layout.PAGE_SIZES)
    if target.is_dir():
        raise SampleError("the target is a folder")


def _assemble(
    target: Path,
    fields: Mapping[str, Field],
    metadata: Array,
    sizes: Int64Array,
    spool: IO[bytes],
    placement: Placement,
    info: Mapping[str, Any],
) -> int:
    """Write the file and return its size in bytes; `spool` yields all payloads in order."""
    table = np.zeros(sizes.size + 1, layout.ALLOCATION)
    table["sample_id"][:-1] = np.repeat(np.arange(len(metadata)), sizes.shape[1])
    table["ptr"][:-1] = placement.pointers.reshape(-1)
    table["size"][:-1] = sizes.reshape(-1)
    settings = {name: field.settings() for name, field in fields.items()}
    pages = np.zeros(len(placement.filled), np.uint32)
    manifest = Manifest(info, settings, head=0, table=0, pages=pages)
    # Its length does not depend on the checksums, so the table's position is known now.
    manifest_start = layout.align(placement.data_end, layout.MANIFEST_ALIGNMENT)
    table_start = manifest_start + len(manifest.pack())
    table[-1] = (layout.MANIFEST_ID, manifest_start, table_start - manifest_start)
    head = _head(fields, metadata, placement, table_start)
    with replacing(target) as file:
        file.write(head)
        for k, filled in enumerate(placement.filled):
            page = spool.read(filled)
            if k + 1 < len(pages):  # the last page is not padded
                page = page.ljust(placement.page_size, b"\0")
            pages[k] = zlib.crc32(page)
            file.write(page)
        file.write(bytes(manifest_start - placement.data_end))
        rows = table.tobytes()
        file.write(replace(manifest, head=zlib.crc32(head), table=zlib.crc32(rows)).pack())
        file.write(rows)
    return table_start + table.nbytes


def _head(
    fields: Mapping[str, Field], metadata: Array, placement: Placement, table_start: int
) -> bytes:
    numbers = layout.VERSION, len(fields), placement.page_size, len(metadata), table_start
    header = np.array([numbers], layout.HEADER)
    descriptors = np.zeros(len(fields), layout.DESCRIPTOR)
    for descriptor, (name, field) in zip(descriptors, fields.items(), strict=True):
        arguments = field.arguments()
        descriptor["type_id"] = field.type_id
        descriptor["name"][: len(name)] = list(name.encode("ascii"))
        descriptor["arguments"][: len(arguments)] = list(arguments)
    parts = header.tobytes() + descriptors.tobytes() + metadata.tobytes()
    return parts.ljust(placement.data_start, b"\0")
