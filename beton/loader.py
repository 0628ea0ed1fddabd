"""Batches of a .beton file, prefetched by threads.

One thread makes one batch. Kernels release the interpreter lock, so threads run in parallel, and a
batch does not depend on the thread. The memory of a batch is reused only after its last reference,
or view, is gone: a plain loop reuses a few slots, and `list(loader)` is also correct. Tasks do not
wait for each other, and an abandoned iteration cancels its pending tasks, so nothing can hang.
"""

import operator
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from beton.arrays import Array, BoolArray, Ids
from beton.ops import Op, Spec, Step, default
from beton.order import Orders, Shard, as_indices, batch_ids, count_batches
from beton.reader import Reader
from beton.rng import Key

Allocate = Callable[[tuple[int, ...], DTypeLike], Array]

CLOSED = "the loader is closed"


@dataclass(frozen=True, eq=False)
class Batch:
    """Arrays by name, each of b = batch_size // shard.count rows.

    `ids` int64 (b,) are the samples' indices in the file. `valid` bool (b,) is False for padding:
    the last batch of an epoch is padded with rows of zeros, whose id is -1.
    """

    arrays: Mapping[str, Array]
    ids: Ids
    valid: BoolArray

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]


class Slots:
    """A pool of at most `limit` slots: arrays of one batch, free while nothing references them."""

    def __init__(self, specs: Mapping[str, Spec], allocate: Allocate, limit: int) -> None:
        self._specs = specs
        self._allocate = allocate
        self._limit = limit
        self._slots: list[tuple[dict[str, Array], list[int]]] = []
        self._lock = Lock()

    def take(self) -> dict[str, Array]:
        """Return views of a free slot's arrays, or of new arrays if no slot is free."""
        with self._lock:
            for arrays, idle in self._slots:
                if _references(arrays) == idle:
                    break
            else:
                arrays = {name: self._make(name) for name in self._specs}
                if len(self._slots) < self._limit:
                    self._slots.append((arrays, _references(arrays)))
            return {name: array[...] for name, array in arrays.items()}

    def clear(self) -> None:
        """Release all slots."""
        with self._lock:
            self._limit = 0
            self._slots.clear()

    def _make(self, name: str) -> Array:
        shape, dtype = self._specs[name]
        array = self._allocate(shape, dtype)
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"allocate: got {array.dtype} {array.shape} for {name!r}, "
                f"expected C-contiguous {dtype} {shape}"
            )
        # A view of a view references the array that owns the memory. A buffer in between makes it
        # reference this array, whose references are counted.
        return np.asarray(memoryview(array.data)) if isinstance(array.base, np.ndarray) else array


def _references(arrays: Mapping[str, Array]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays.values()]


class Loader:
    """Iterates over a .beton file in batches of numpy arrays.

    `file` is a path or an open Reader. `batch_size` is global; `shard` is the part of every batch
    that this rank takes. `fields` maps field names to ops; by default, all fields are loaded as
    they are stored. `indices` selects samples. An iteration is the next epoch; `batches` gives any
    epoch. The batches of an epoch depend on (file, indices, order, seed, epoch, batch_size), and
    not on the numbers of threads, ranks and prefetched batches (`prefetch`). `allocate(shape,
    dtype)` allocates the arrays. In a forked child, the next epoch starts threads of its own.

    Raises ValueError for invalid arguments and BetonError for a damaged file or an op that does not
    support its field. An exception in an op carries a note with the op, field, file and sample.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | Reader,
        batch_size: int,
        fields: Mapping[str, Op] | None = None,
        *,
        order: Literal["shuffled", "sequential"] = "shuffled",
        seed: int = 0,
        indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        shard: Shard | None = None,
        drop_last: bool = False,
        threads: int | None = None,
        prefetch: int | None = None,
        allocate: Allocate = np.empty,
    ) -> None:
        self.shard = shard or Shard()
        self.batch_size = batch_size
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self.prefetch = max(self.threads, 1) if prefetch is None else prefetch
        if batch_size < 1 or batch_size % self.shard.count:
            expected = f"a positive multiple of {self.shard.count}, the number of shards"
            raise ValueError(f"batch_size: got {batch_size}, expected {expected}")
        if order not in ("shuffled", "sequential"):
            raise ValueError(f"order: got {order!r}, expected 'shuffled' or 'sequential'")
        if self.threads < 0 or (self.threads and self.prefetch < 1):
            got = f"{self.threads}, {self.prefetch}"
            raise ValueError(f"threads, prefetch: got {got}, expected 0 or more, 1 or more")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed: got {seed}, expected 0 to 2**63 - 1")
        self._seed, self._order, self._drop_last = operator.index(seed), order, drop_last
        self._owned = not isinstance(file, Reader)
        self._reader = file if isinstance(file, Reader) else Reader(Path(file))
        count = len(self._reader)
        self._selection = None if indices is None else as_indices(indices, count)
        self._samples = count if self._selection is None else len(self._selection)
        if len(self) == 0:
            raise ValueError(
                f"batch_size: got {batch_size} with drop_last, "
                f"expected at most {self._samples}, the number of samples"
            )
        columns = {name: self._reader.column(name) for name in fields or self._reader.fields}
        self._ops = fields or {name: default(column) for name, column in columns.items()}
        rows, ids = batch_size // self.shard.count, self._indices()
        self._steps: dict[str, Step] = {}
        self._specs: dict[str, Spec] = {}
        for field, column in columns.items():
            step = self._steps[field] = self._ops[field].bind(column, ids, rows)
            for suffix, spec in step.outputs.items():
                name = _array_name(field, suffix)
                if name in self._specs:
                    raise ValueError(f"fields: two arrays of a batch have the name {name!r}")
                self._specs[name] = spec
        self._allocate = allocate
        self._position = (0, 0)  # epoch and batch of state_dict
        self._next = (0, 0)  # epoch and batch at which the next iteration starts
        self._closed = False
        self._start_threads()

    def _start_threads(self) -> None:
        # The prefetched batches, one per thread, the consumer's, and one between them.
        self._slots = Slots(self._specs, self._allocate, self.prefetch + self.threads + 2)
        self._pool = ThreadPoolExecutor(max(self.threads, 1), "beton-loader")
        self._orders = Orders(self._samples, self._seed, ahead=self.threads > 0)
        self._process = os.getpid()

    def __len__(self) -> int:
        return count_batches(self._samples, self.batch_size, self._drop_last)

    def _indices(self) -> Ids:
        # Those of a whole file are not stored, which would be 8 bytes for each sample.
        return np.arange(self._samples) if self._selection is None else self._selection

    def specs(self) -> Mapping[str, Spec]:
        """Return the shape and dtype of every array of a batch."""
        return self._specs

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from number `start`, without a change of `state_dict`."""
        self._check_position(epoch, start)
        if self._process != os.getpid():  # a fork copies no threads
            self._start_threads()
        self._reader.check_unchanged()
        order = self._shuffled(epoch) if self._order == "shuffled" else self._indices()
        return self._run(order, epoch, start)

    def _shuffled(self, epoch: int) -> Ids:
        try:
            order = self._orders.get(epoch)
        except CancelledError:
            raise ValueError(CLOSED) from None
        return order if self._selection is None else self._selection[order]

    def _run(self, order: Ids, epoch: int, start: int) -> Generator[Batch, None, None]:
        if self.threads == 0:
            for number in range(start, len(self)):
                self._require_open()
                yield self._make(order, epoch, number)
            return
        process = os.getpid()
        pending: deque[Future[Batch]] = deque()
        try:
            for number in range(start, len(self)):
                _require_process(process)
                pending.append(self._submit(order, epoch, number))
                if len(pending) > self.prefetch:
                    yield self._result(pending.popleft())
            while pending:
                _require_process(process)
                yield self._result(pending.popleft())
        finally:
            if process == os.getpid():
                for future in pending:
                    future.cancel()

    def _submit(self, order: Ids, epoch: int, number: int) -> Future[Batch]:
        self._require_open()
        try:
            return self._pool.submit(self._make, order, epoch, number)
        except RuntimeError:  # no room for a thread, or another thread has just closed the loader
            self._require_open()
            raise

    def _result(self, future: Future[Batch]) -> Batch:
        self._require_open()
        try:
            return future.result()
        except CancelledError:
            raise ValueError(CLOSED) from None

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(CLOSED)

    def _check_position(self, epoch: int, batch: int) -> None:
        self._require_open()
        if epoch < 0 or not 0 <= batch <= len(self):
            raise ValueError(
                f"epoch, batch: got {epoch}, {batch}, expected 0 or more, 0 to {len(self)}"
            )

    def _make(self, order: Ids, epoch: int, number: int) -> Batch:
        ids = batch_ids(order, number, self.batch_size, self.shard)
        valid = ids >= 0
        arrays = self._slots.take()
        samples = ids[valid]
        if len(samples) < len(ids):
            for array in arrays.values():
                array[...] = np.zeros((), array.dtype)
        for name in self._steps if len(samples) else ():
            try:
                self._fill(name, samples, epoch, arrays)
            except Exception as error:
                sample = self._first_failing(name, samples, epoch, arrays)
                error.add_note(
                    f"in {type(self._ops[name]).__name__} on field {name!r}, "
                    f"{'sample ' + str(sample) if sample is not None else 'several samples'} "
                    f"of {self._reader.path} (epoch {epoch}, batch {number})"
                )
                raise
        return Batch(arrays, ids, valid)

    def _fill(self, name: str, samples: Ids, epoch: int, arrays: Mapping[str, Array]) -> None:
        step = self._steps[name]
        self._reader.check(samples, (name,))
        out = {suffix: arrays[_array_name(name, suffix)] for suffix in step.outputs}
        step.run(samples, Key(self._seed, epoch), out)

    def _first_failing(
        self, name: str, samples: Ids, epoch: int, arrays: Mapping[str, Array]
    ) -> int | None:
        """Return the first sample that fails alone, or None."""
        for sample in samples:
            try:
                self._fill(name, np.array([sample]), epoch, arrays)
            except Exception:  # expected: the caller raises the original exception
                return int(sample)
        return None

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._position = self._next
        self._next = (epoch + 1, 0)
        for number, batch in enumerate(self.batches(epoch, start), start + 1):
            self._position = (epoch, number)
            yield batch
        self._position = self._next

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch of the iteration, as JSON values."""
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the position in `state`; the number of ranks may differ.

        Raises ValueError for the state of a loader with different batches.
        """
        for name, expected in self._identity().items():
            if (got := state.get(name)) != expected:
                raise ValueError(f"loader state: {name}: got {got!r}, expected {expected!r}")
        position = int(state["epoch"]), int(state["batch"])
        self._check_position(*position)
        self._position = self._next = position

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "order": self._order,
            "batch_size": self.batch_size,
            "drop_last": self._drop_last,
            "samples": self._samples,
            "indices": f"{zlib.crc32(self._indices().data):08x}",
            "file": self._reader.fingerprint(),
        }

    def close(self) -> None:
        """Stop the threads and release the file and memory; a current iteration raises ValueError.

        Any thread may call this method, any number of times.
        """
        self._closed = True
        if self._process == os.getpid():  # a forked child has no threads to wait for
            self._pool.shutdown(cancel_futures=True)
            self._orders.close()
        self._steps = {}
        self._slots.clear()
        if self._owned:
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _require_process(process: int) -> None:
    if process != os.getpid():  # whose threads would never make the pending batches
        raise ValueError("the process was forked during an epoch; start another one in the child")


def _array_name(field: str, suffix: str) -> str:
    return f"{field}.{suffix}" if suffix else field
