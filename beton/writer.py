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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beton.errors import BetonError, SampleError
from beton.fields.base import Field
from beton.layout import (
    DESCRIPTOR,
    HEADER,
    MAX_PAGE_SIZE,
    MIN_PAGE_SIZE,
    check_name,
    metadata_dtype,
)
from beton.paging import assemble, plan

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
    try:
        _check_arguments(target, fields, samples, workers, page_size)
        job = _Job(str(target), dict(fields), samples if _is_indexable(samples) else None)
        with tempfile.TemporaryFile(dir=target.parent) as spool:
            raw, flat_sizes, skipped = _encode_into(spool, job, samples, workers, progress)
            dtype = metadata_dtype(fields.values())
            metadata = np.ndarray(len(raw) // dtype.itemsize, dtype, raw)
            stored = _stored(fields, metadata)
            sizes = flat_sizes.reshape(len(metadata), len(stored))
            totals = dict.fromkeys(fields, 0)
            totals |= zip(stored, sizes.sum(axis=0).tolist(), strict=True)
            summary = Summary(len(metadata), skipped, totals)
            given = info(summary) if callable(info) else info or {}
            _check_columns(fields, metadata)
            head_size = HEADER.itemsize + len(fields) * DESCRIPTOR.itemsize + metadata.nbytes
            layout = plan(sizes, head_size, page_size)
            for position, pointers in enumerate(stored.values()):
                pointers[:] = layout.pointers[:, position]
            size = assemble(target, fields, metadata, sizes, spool, layout, given)
    except BetonError as error:
        error.at(file=target)
        raise
    return replace(summary, file_bytes=size)


def _stored(fields: Mapping[str, Field], metadata: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return, for the fields that have payloads, their pointers to be set."""
    regions = {name: f.regions(metadata[f"f{i}"]) for i, (name, f) in enumerate(fields.items())}
    return {name: found[0] for name, found in regions.items() if found is not None}


def _check_columns(fields: Mapping[str, Field], metadata: NDArray[Any]) -> None:
    if not len(metadata):
        raise SampleError("no samples")
    for position, (name, field) in enumerate(fields.items()):
        try:
            field.finish(metadata[f"f{position}"])
        except BetonError as error:
            error.at(field=name)
            raise


def _is_indexable(samples: Any) -> bool:
    return hasattr(samples, "__getitem__") and hasattr(samples, "__len__")


def _check_arguments(
    target: Path, fields: Mapping[str, Field], samples: Any, workers: int, page_size: int | None
) -> None:
    if not 1 <= len(fields) < 2**16:
        raise SampleError("number of fields", got=len(fields), expected="1 to 65535")
    for name, field in fields.items():
        check_name(name)
        if not isinstance(field, Field):
            raise SampleError("not a field", field=name, got=repr(field))
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
    """A chunk as bytes; `sizes` of its regions, sample by sample."""

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
        payloads: list[Any] = []
        skipped = []
        kept = 0
        for position, index in enumerate(chunk.indices):
            try:
                sample = self.samples[index] if chunk.values is None else chunk.values[position]
                if isinstance(sample, Skip):
                    skipped.append((index, sample.reason))
                    continue
                payloads += self._encode_sample(sample, metadata[kept : kept + 1], index)
            except BetonError as error:
                error.at(file=self.file, sample=index)
                raise
            except Exception as error:
                error.add_note(f"at sample {index} of the data set for {self.file}")
                raise
            kept += 1
        sizes = np.array([len(payload) for payload in payloads], np.int64)
        data = b"".join(payloads)
        return _Encoded(metadata[:kept].tobytes(), sizes, data, skipped, len(chunk.indices))

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


def _encode_all(job: _Job, samples: Any, workers: int) -> Generator[_Encoded, None, None]:
    """Yield the chunks, encoded, in order, with a bounded number of them under way."""
    chunks = _chunks(samples, job.file)
    if _is_indexable(samples):
        workers = min(workers, max(1, -(-len(samples) // CHUNK)))
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


def _encode_into(
    spool: IO[bytes], job: _Job, samples: Any, workers: int, progress: Callable[[int], None] | None
) -> tuple[bytearray, Ints, list[tuple[int, str]]]:
    """Append all payloads to the spool; returns the metadata, the regions' sizes, the skipped."""
    metadata = bytearray()
    sizes = [np.zeros(0, np.int64)]
    skipped: list[tuple[int, str]] = []
    with closing(_encode_all(job, samples, workers)) as chunks:
        for chunk in chunks:
            spool.write(chunk.payload)
            metadata += chunk.metadata
            sizes.append(chunk.sizes)
            skipped += chunk.skipped
            if progress is not None:
                progress(chunk.done)
    spool.seek(0)
    return metadata, np.concatenate(sizes), skipped
