"""Encode samples as records and payloads, in worker processes and in chunks."""

import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.util import get_temp_dir
from typing import IO, Any, NamedTuple

import numpy as np

from beton.arrays import Array, Int64Array
from beton.errors import BetonError, SampleError
from beton.fields.base import Field
from beton.format.layout import metadata_dtype

CHUNK = 32  # samples per task of a worker
STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True)
class Skip:
    """A placeholder for a sample that the writer leaves out, and the reason."""

    reason: str


@dataclass(frozen=True)
class Noted:
    """A sample with a note: bytes for the writer's caller that are not stored in the file."""

    sample: Any
    note: bytes


def is_indexable(samples: Any) -> bool:
    """Return whether samples have `len()` and indices, so that workers can index them."""
    return hasattr(samples, "__getitem__") and hasattr(samples, "__len__")


class _Chunk(NamedTuple):
    """Consecutive samples of a dataset; `values` is None if workers index the dataset."""

    indices: range
    values: Sequence[Any] | None


class _EncodedChunk(NamedTuple):
    """Records, payloads and notes of a chunk; `sizes` (regions,) are in sample order."""

    metadata: bytes
    notes: bytes
    sizes: Int64Array
    payload: bytes
    skipped: list[tuple[int, str]]
    done: int


@dataclass(frozen=True)
class Job:
    """The file's name and fields, and the dataset if workers index it (otherwise None)."""

    file: str
    fields: dict[str, Field]
    samples: Any

    def encode(self, chunk: _Chunk) -> _EncodedChunk:
        """Encode a chunk. Exceptions carry a note that names the sample."""
        metadata = np.zeros(len(chunk.indices), metadata_dtype(self.fields.values()))
        payloads: list[Any] = []
        notes = []
        skipped = []
        encoded = 0
        for position, index in enumerate(chunk.indices):
            try:
                sample = self.samples[index] if chunk.values is None else chunk.values[position]
                if isinstance(sample, Skip):
                    skipped.append((index, sample.reason))
                    continue
                if isinstance(sample, Noted):
                    notes.append(sample.note)
                    sample = sample.sample
                payloads += self._encode_sample(sample, metadata[encoded : encoded + 1], index)
            except BetonError as error:
                error.at(file=self.file, sample=index)
                raise
            except Exception as error:
                error.add_note(f"at sample {index} of the dataset for {self.file}")
                raise
            encoded += 1
        records, data = metadata[:encoded].tobytes(), b"".join(payloads)
        sizes = np.array([len(payload) for payload in payloads], np.int64)
        return _EncodedChunk(records, b"".join(notes), sizes, data, skipped, len(chunk.indices))

    def _encode_sample(self, sample: Any, record: Array, index: int) -> Iterator[Any]:
        values = self._values(sample)
        for position, (name, field) in enumerate(self.fields.items()):
            try:
                payload = field.encode(values[position], record[f"f{position}"], index)
            except BetonError as error:
                error.at(field=name)
                raise
            except Exception as error:
                error.add_note(f"while encoding field {name!r}")
                raise
            if payload is not None:
                # FFCV identifies regions by their pointers: each needs at least one byte.
                yield payload or b"\0"

    def _values(self, sample: Any) -> Sequence[Any]:
        """Return a sample's values in the order of the fields."""
        if isinstance(sample, Mapping):
            if sample.keys() != self.fields.keys():
                raise SampleError("field names", got=list(sample), expected=list(self.fields))
            return [sample[name] for name in self.fields]
        if isinstance(sample, tuple | list) and len(sample) == len(self.fields):
            return sample
        count = f" of {len(sample)}" if isinstance(sample, tuple | list) else ""
        expected = f"{len(self.fields)} values, or values by name"
        raise SampleError("not a sample", got=type(sample).__name__ + count, expected=expected)


_job: Job  # of this worker process


def _start_worker(job: Job, sockets: str) -> None:
    global _job  # a worker of the executor has no other place to store it
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and stops its workers
    threading.Thread(target=_exit_with_parent, args=(sockets,), daemon=True).start()


def _exit_with_parent(sockets: str) -> None:
    """Exit when the parent was killed; remove its folder of sockets (pymp-…), as it would have."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(sockets, ignore_errors=True)
    os._exit(1)


def _encode(chunk: _Chunk) -> _EncodedChunk:
    try:
        return _job.encode(chunk)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception that cannot be pickled would break the pool
            substitute = RuntimeError(f"{type(error).__name__}: {error}")
            for note in getattr(error, "__notes__", ()):
                substitute.add_note(note)
            raise substitute from None
        raise


def _chunks(samples: Any, file: str) -> Iterator[_Chunk]:
    if is_indexable(samples):
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
            error.add_note(f"at sample {start + len(values)} of the dataset for {file}")
            raise
        if not values:
            return
        yield _Chunk(range(start, start + len(values)), values)


@contextmanager
def _signals_delayed() -> Iterator[None]:
    """Delay signals while a worker starts: one whose start is interrupted prints a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _encode_all(job: Job, samples: Any, workers: int) -> Generator[_EncodedChunk, None, None]:
    """Yield the encoded chunks in order, with a bounded number of pending chunks."""
    chunks = _chunks(samples, job.file)
    if is_indexable(samples):
        workers = min(workers, max(1, -(-len(samples) // CHUNK)))
    if workers == 1:
        yield from map(job.encode, chunks)
        return
    context = multiprocessing.get_context("forkserver")
    forkserver.ensure_running()  # before signals are delayed: workers inherit its signal mask
    with ProcessPoolExecutor(workers, context, _start_worker, (job, get_temp_dir())) as pool:
        pending: deque[Future[_EncodedChunk]] = deque()
        try:
            for chunk in chunks:
                with _signals_delayed():
                    pending.append(pool.submit(_encode, chunk))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def encode_into(
    spool: IO[bytes], job: Job, samples: Any, workers: int, progress: Callable[[int], None] | None
) -> tuple[bytearray, Int64Array, list[tuple[int, str]], bytes]:
    """Append all payloads to the spool; return records, sizes of regions, skips and notes."""
    metadata, notes = bytearray(), bytearray()
    sizes = [np.zeros(0, np.int64)]
    skipped: list[tuple[int, str]] = []
    with closing(_encode_all(job, samples, workers)) as chunks:
        for chunk in chunks:
            spool.write(chunk.payload)
            metadata += chunk.metadata
            notes += chunk.notes
            sizes.append(chunk.sizes)
            skipped += chunk.skipped
            if progress is not None:
                progress(chunk.done)
    spool.seek(0)
    return metadata, np.concatenate(sizes), skipped, bytes(notes)
