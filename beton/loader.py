"""Batches of a .beton file, prepared ahead by threads.

One thread makes one batch: the kernels release the interpreter lock, so threads run side by side,
and a batch is the same whichever thread made it. A batch's arrays belong to whoever holds them, or
a view of them: their memory is written again only when nobody does, so that a plain loop reuses a
few slots and `list(loader)` is correct too. Tasks never wait for each other, so leaving a loop
early, or an exception anywhere, leaves nothing behind.
"""

import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from beton.ops import Draw, Op, Spec, Step, default
from beton.order import Ids, Shard, batch_ids, count_batches, epoch_order
from beton.reader import Reader

Array = NDArray[Any]
Allocate = Callable[[tuple[int, ...], DTypeLike], Array]


@dataclass(frozen=True, eq=False)
class Batch:
    """Arrays by name, of b = batch_size // shard.count rows each.

    `ids` int64 (b,) are the samples' numbers in the file, `valid` bool (b,) says which rows are
    samples: an epoch's last batch is padded with rows of zeros, their id -1.
    """

    arrays: Mapping[str, Array]
    ids: Ids
    valid: NDArray[np.bool_]

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]


class Slots:
    """Sets of arrays of the same shapes, handed out again once nobody refers to them."""

    def __init__(self, specs: Mapping[str, Spec], allocate: Allocate) -> None:
        self._specs = specs
        self._allocate = allocate
        self._slots: list[tuple[dict[str, Array], list[int]]] = []
        self._lock = Lock()

    def take(self) -> dict[str, Array]:
        """Return views of a free set; the set is free again when all views of it are gone."""
        with self._lock:
            for arrays, idle in self._slots:
                if _references(arrays) == idle:
                    return {name: array[...] for name, array in arrays.items()}
            arrays = {name: self._make(name) for name in self._specs}
            self._slots.append((arrays, _references(arrays)))
            return {name: array[...] for name, array in arrays.items()}

    def _make(self, name: str) -> Array:
        shape, dtype = self._specs[name]
        array = self._allocate(shape, dtype)
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"allocate: got {array.dtype} {array.shape} for {name!r}, "
                f"expected C-contiguous {dtype} {shape}"
            )
        # A view of a view refers to the array that owns the memory; a buffer between them keeps the
        # count of references on this one.
        return np.asarray(memoryview(array.data)) if isinstance(array.base, np.ndarray) else array


def _references(arrays: Mapping[str, Array]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays.values()]


class Loader:
    """Iterates over a .beton file in batches of plain arrays.

    `file` is a path or an open Reader. `batch_size` is the global one; `shard` says which part of
    every batch this rank takes. `fields` maps names to ops; without it every field comes as it is.
    `indices` restricts to some samples. Iterating runs the next epoch; `batches` runs any. The
    batches of an epoch are a function of (file, seed, epoch, batch_size), whatever the number of
    threads, ranks or batches prepared `ahead`. `allocate(shape, dtype)` makes the arrays.

    Raises ValueError for arguments that make no sense and BetonError for what is wrong with the
    file. An exception in an op reaches the consumer with a note that says op, field, file, sample.
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
        ahead: int | None = None,
        allocate: Allocate = np.empty,
    ) -> None:
        self.shard = shard or Shard()
        self.batch_size = batch_size
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self.ahead = max(self.threads, 1) if ahead is None else ahead
        if batch_size < 1 or batch_size % self.shard.count:
            expected = f"a positive multiple of {self.shard.count}, the number of shards"
            raise ValueError(f"batch_size: got {batch_size}, expected {expected}")
        if order not in ("shuffled", "sequential"):
            raise ValueError(f"order: got {order!r}, expected 'shuffled' or 'sequential'")
        if self.threads < 0 or (self.threads and self.ahead < 1):
            raise ValueError(
                f"threads, ahead: got {self.threads}, {self.ahead}, expected 0 or more, 1 or more"
            )
        self._seed, self._order, self._drop_last = seed, order, drop_last
        self._owned = not isinstance(file, Reader)
        self._reader = file if isinstance(file, Reader) else Reader(Path(file))
        self._indices = _as_indices(indices, len(self._reader))
        if len(self) == 0:
            raise ValueError(
                f"batch_size: got {batch_size} with drop_last, "
                f"expected at most {len(self._indices)}, the number of samples"
            )
        self._steps = self._bind(fields)
        self._slots = Slots(
            {
                _array_name(name, suffix): spec
                for name, step in self._steps.items()
                for suffix, spec in step.outputs.items()
            },
            allocate,
        )
        self._position = (0, 0)  # epoch and batch that a resumed run would begin with
        self._next = (0, 0)  # where the next iteration begins
        self._running: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()
        self._closed = False

    def _bind(self, fields: Mapping[str, Op] | None) -> dict[str, Step]:
        columns = {name: self._reader.column(name) for name in fields or self._reader.fields}
        rows = self.batch_size // self.shard.count
        return {
            name: (fields[name] if fields else default(column)).bind(column, self._indices, rows)
            for name, column in columns.items()
        }

    def __len__(self) -> int:
        return count_batches(len(self._indices), self.batch_size, self._drop_last)

    def specs(self) -> Mapping[str, Spec]:
        """Return shape and dtype of every array of a batch."""
        return self._slots._specs

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, from number `start` on."""
        if self._closed:
            raise ValueError("the loader is closed")
        running = self._run(epoch, start)
        self._running.add(running)
        return running

    def _run(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        order = self._indices
        if self._order == "shuffled":
            order = order[epoch_order(len(order), self._seed, epoch)]
        numbers = range(start, len(self))
        if self.threads == 0:
            for number in numbers:
                yield self._make(order, epoch, number)
            return
        pool = ThreadPoolExecutor(self.threads, "beton-loader")
        pending: deque[Future[Batch]] = deque()
        try:
            for number in numbers:
                pending.append(pool.submit(self._make, order, epoch, number))
                if len(pending) > self.ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, order: Ids, epoch: int, number: int) -> Batch:
        ids = batch_ids(order, number, self.batch_size, self.shard)
        valid = ids >= 0
        arrays = self._slots.take()
        samples = ids[valid]
        if len(samples) < len(ids):
            for array in arrays.values():
                array[...] = np.zeros((), array.dtype)
        self._reader.check(samples)
        draw = Draw(self._seed, epoch)
        for name, step in self._steps.items():
            out = {suffix: arrays[_array_name(name, suffix)] for suffix in step.outputs}
            try:
                step.run(samples, draw, out)
            except Exception as error:
                sample = _culprit(step, samples, draw, out)
                error.add_note(
                    f"in {type(step).__name__.lstrip('_')} on field {name!r}, "
                    f"{'sample ' + str(sample) if sample is not None else 'several samples'} "
                    f"of {self._reader.path} (epoch {epoch}, batch {number})"
                )
                raise
        return Batch(arrays, ids, valid)

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._position = self._next
        self._next = (epoch + 1, 0)
        for number, batch in enumerate(self.batches(epoch, start), start + 1):
            self._position = (epoch, number)
            yield batch
        self._position = self._next

    def state_dict(self) -> dict[str, Any]:
        """Return where a resumed run goes on, after the last batch handed out; JSON-like."""
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where `state` says; the number of ranks may differ.

        Raises ValueError if the state is of a loader with other batches.
        """
        for name, expected in self._identity().items():
            if state.get(name) != expected:
                raise ValueError(
                    f"loader state: {name}: got {state.get(name)!r}, expected {expected!r}"
                )
        self._position = self._next = (int(state["epoch"]), int(state["batch"]))

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "order": self._order,
            "batch_size": self.batch_size,
            "drop_last": self._drop_last,
            "samples": len(self._indices),
        }

    def close(self) -> None:
        """End every running iteration and let go of the file."""
        self._closed = True
        for running in list(self._running):
            running.close()
        if self._owned:
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _array_name(field: str, suffix: str) -> str:
    return f"{field}.{suffix}" if suffix else field


def _as_indices(indices: Sequence[int] | NDArray[np.integer[Any]] | None, n: int) -> Ids:
    if indices is None:
        return np.arange(n, dtype=np.int64)
    array = np.asarray(indices)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"indices: got {array.dtype} {array.shape}, expected at least one integer in one row"
        )
    if array.min() < 0 or array.max() >= n:
        raise ValueError(
            f"indices: got {array.min()} to {array.max()}, expected 0 to {n - 1}, as in the file"
        )
    return array.astype(np.int64)


def _culprit(step: Step, samples: Ids, draw: Draw, out: Mapping[str, Array]) -> int | None:
    """Find the sample at which a step fails, by trying them one at a time."""
    for sample in samples:
        try:
            step.run(np.array([sample]), draw, out)
        except Exception:  # the failure that is looked for; the first one is on its way up
            return int(sample)
    return None
