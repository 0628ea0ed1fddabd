"""Write a file: samples in, encoded by several processes, laid out once all sizes are known.

Payloads wait, in order, in a nameless spool beside the target; so pages suit the data, no byte of
the file depends on the number of workers, and a disk must hold the payloads twice for a moment.
The file is written under a temporary name, synced and renamed: its own name is either what it was
or the whole file.
"""

import itertools
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beton.assembly import assemble, plan
from beton.errors import BetonError, SampleError
from beton.fields import Field
from beton.layout import (
    DESCRIPTOR,
    HEADER,
    MAX_PAGE_SIZE,
    MIN_PAGE_SIZE,
    check_name,
    metadata_dtype,
)

Ints = NDArray[np.int64]
Info = Mapping[str, Any]

CHUNK = 32  # samples that a worker gets at once


@dataclass(frozen=True)
class Skip:
    """Given in the place of a sample: leave it out, and say why."""

    reason: str


@dataclass(frozen=True)
class Summary:
    """What was written: samples, those left out as (index, reason), bytes per field and in all.

    `file_bytes` is 0 as long as the file is not there.
    """

    samples: int
    skipped: list[tuple[int, str]]
    payload_bytes: dict[str, int]
    file_bytes: int = 0


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
    """Write `samples` to a new file at `path`, replacing one that is there.

    `samples` has `len()` and indices (each worker gets a pickled copy and calls `samples[i]`) or is
    an iterable (pulled here, encoded by the workers). A sample is a tuple or list in the order of
    `fields`, a mapping by field name, or a `Skip`. `info` goes into the manifest (JSON); a callable
    is given the summary once all is encoded, and may raise to end it all with nothing written.
    `progress` is called with the number of samples done since the last call. With more than one
    worker the calling script must be importable (`if __name__ == "__main__":`).

    Raises SampleError for a value that its field cannot store; what the data set raises comes
    through as it is, with a note saying at which sample; OSError when the disk is full.
    """
    target = Path(path)
    job = _Job(str(target), dict(fields), samples if _is_indexable(samples) else None)
    try:
        _check_arguments(target, fields, samples, workers, page_size)
        with tempfile.TemporaryFile(dir=target.parent) as spool:
            return _write(target, job, samples, info, workers, page_size, progress, spool)
    except BetonError as error:
        error.at(file=target)
        raise


def _is_indexable(samples: Any) -> bool:
    return hasattr(samples, "__getitem__") and hasattr(samples, "__len__")


def _check_arguments(
    target: Path, fields: Mapping[str, Field], samples: Any, workers: int, page_size: int | None
) -> None:
    if not fields:
        raise SampleError("no fields")
    for name in fields:
        check_name(name)
    if not _is_indexable(samples) and not isinstance(samples, Iterable):
        raise SampleError(
            "samples", got=type(samples).__name__, expected="an iterable, or indices and len()"
        )
    if workers < 1:
        raise SampleError("workers", got=workers, expected="at least 1")
    if page_size is not None and (
        page_size & (page_size - 1) or not MIN_PAGE_SIZE <= page_size <= MAX_PAGE_SIZE
    ):
        raise SampleError(
            "page size", got=page_size, expected=f"a power of 2, {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE}"
        )
    if target.is_dir():
        raise SampleError("a folder is there already")


# Encoding: what a worker does.


class _Chunk(NamedTuple):
    """Consecutive samples of a data set; their values, unless the workers can look them up."""

    indices: range
    values: Sequence[Any] | None


class _Encoded(NamedTuple):
    """A chunk as bytes. `sizes` (samples kept, fields with payloads) are those of the regions."""

    metadata: bytes
    sizes: Ints
    payload: bytes
    skipped: list[tuple[int, str]]
    done: int


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know."""

    file: str
    fields: dict[str, Field]
    samples: Any

    def encode(self, chunk: _Chunk) -> _Encoded:
        """Encode a chunk. An exception comes through with a note that names the sample."""
        metadata = np.zeros(len(chunk.indices), metadata_dtype(self.fields.values()))
        sizes: list[list[int]] = []
        payloads: list[Any] = []
        skipped = []
        for position, index in enumerate(chunk.indices):
            try:
                sample = self.samples[index] if chunk.values is None else chunk.values[position]
                if isinstance(sample, Skip):
                    skipped.append((index, sample.reason))
                    continue
                kept = len(sizes)
                parts = list(self._encode_sample(sample, metadata[kept : kept + 1], index))
            except BetonError as error:
                error.at(file=self.file, sample=index)
                raise
            except Exception as error:
                error.add_note(f"at sample {index} of the data set for {self.file}")
                raise
            sizes.append([len(part) for part in parts])
            payloads += parts
        rows = np.array(sizes, np.int64).reshape(len(sizes), -1)
        kept_metadata = metadata[: len(sizes)].tobytes()
        return _Encoded(kept_metadata, rows, b"".join(payloads), skipped, len(chunk.indices))

    def _encode_sample(self, sample: Any, record: NDArray[Any], index: int) -> Iterator[Any]:
        for position, (name, field) in enumerate(self.fields.items()):
            value = self._value(sample, name, position)
            try:
                payload = field.encode(value, record[f"f{position}"], index)
            except BetonError as error:
                error.at(field=name)
                raise
            except Exception as error:
                error.add_note(f"while encoding field {name!r}")
                raise
            if payload is not None:
                # FFCV tells regions apart by their pointers: none may be without a byte of its own.
                yield payload or b"\0"

    def _value(self, sample: Any, name: str, position: int) -> Any:
        if isinstance(sample, Mapping):
            if sample.keys() != self.fields.keys():
                raise SampleError("names", got=list(sample), expected=list(self.fields))
            return sample[name]
        if not isinstance(sample, tuple | list) or len(sample) != len(self.fields):
            got = f"{type(sample).__name__}"
            if isinstance(sample, tuple | list):
                got += f" of {len(sample)}"
            raise SampleError(
                "sample", got=got, expected=f"{len(self.fields)} values in a tuple, list or mapping"
            )
        return sample[position]


# Processes: who does it.

_job: _Job  # of this worker process


def _start_worker(job: _Job) -> None:
    global _job  # the executor's workers have no other place to keep it
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode(chunk: _Chunk) -> _Encoded:
    try:
        return _job.encode(chunk)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # it could not travel, and would break the pool
            substitute = RuntimeError(f"{type(error).__name__}: {error}")
            for note in getattr(error, "__notes__", ()):
                substitute.add_note(note)
            raise substitute from None
        raise


def _chunks(samples: Any, file: str) -> Iterator[_Chunk]:
    if _is_indexable(samples):
        total = len(samples)
        for start in range(0, total, CHUNK):
            yield _Chunk(range(start, min(start + CHUNK, total)), None)
        return
    iterator = iter(samples)
    for start in itertools.count(0, CHUNK):
        values: list[Any] = []
        try:
            for sample in itertools.islice(iterator, CHUNK):
                values.append(sample)
        except Exception as error:
            error.add_note(f"at sample {start + len(values)} of the data set for {file}")
            raise
        if not values:
            return
        yield _Chunk(range(start, start + len(values)), values)


def _encode_all(job: _Job, samples: Any, workers: int) -> Iterator[_Encoded]:
    """Yield the chunks, encoded, in order, with a bounded number of them under way."""
    chunks = _chunks(samples, job.file)
    if workers == 1:
        yield from map(job.encode, chunks)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, _start_worker, (job,)) as pool:
        pending: deque[Future[_Encoded]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_encode, chunk))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


# Laying out: what the parent does.


def _write(
    target: Path,
    job: _Job,
    samples: Any,
    info: Info | Callable[[Summary], Info] | None,
    workers: int,
    page_size: int | None,
    progress: Callable[[int], None] | None,
    spool: IO[bytes],
) -> Summary:
    metadata_bytes = bytearray()
    sizes_of_chunks: list[Ints] = []
    skipped: list[tuple[int, str]] = []
    for encoded in _encode_all(job, samples, workers):
        spool.write(encoded.payload)
        metadata_bytes += encoded.metadata
        sizes_of_chunks.append(encoded.sizes)
        skipped += encoded.skipped
        if progress is not None:
            progress(encoded.done)
    spool.seek(0)
    dtype = metadata_dtype(job.fields.values())
    metadata = np.frombuffer(metadata_bytes, dtype)
    columns = {name: metadata[f"f{i}"] for i, name in enumerate(job.fields)}
    found = {name: job.fields[name].regions(column) for name, column in columns.items()}
    stored = [name for name, regions in found.items() if regions is not None]
    kept = [chunk for chunk in sizes_of_chunks if len(chunk)]
    sizes = np.concatenate(kept) if kept else np.zeros((0, len(stored)), np.int64)
    totals = dict(zip(stored, sizes.sum(axis=0).tolist(), strict=True))
    summary = Summary(len(metadata), skipped, {name: totals.get(name, 0) for name in job.fields})
    manifest_info = info(summary) if callable(info) else info or {}
    if not len(metadata):
        raise SampleError("no samples")
    for name, column in columns.items():
        try:
            job.fields[name].finish(column)
        except BetonError as error:
            error.at(field=name)
            raise
    head_size = HEADER.itemsize + len(job.fields) * DESCRIPTOR.itemsize + metadata.nbytes
    layout = plan(sizes, head_size, page_size)
    for position, name in enumerate(stored):
        regions = found[name]
        assert regions is not None
        regions[0][:] = layout.pointers[:, position]
    size = assemble(target, job.fields, metadata, sizes, spool, layout, manifest_info)
    return replace(summary, file_bytes=size)
