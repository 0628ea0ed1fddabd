"""Measures methods of loading on one workload: preparation, first batch, rounds, differences."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.benchmarks.harness import take_turns
from pipeline.benchmarks.results import Figures, Skipped
from pipeline.benchmarks.throughput.catalog import MethodEntry, Peer
from pipeline.benchmarks.throughput.processes import WorkerProcess
from pipeline.benchmarks.throughput.request import Request
from pipeline.benchmarks.throughput.workloads import Workload
from pipeline.errors import UserError


@dataclass(frozen=True)
class Pace:
    """How to measure: `rounds` of at least `seconds` each, in whole epochs, by `threads` threads.

    With `uncached`, the time to a first batch without compiled kernels is measured too.
    """

    rounds: int
    seconds: float
    threads: int
    uncached: bool


@dataclass(frozen=True)
class Prepared:
    """The folder of a method's files, their bytes, and the seconds to make them."""

    folder: Path
    disk_bytes: int
    seconds: float


@dataclass(frozen=True)
class Started:
    """A worker after its warm-up, and what was measured of it so far."""

    peer: Peer
    entry: MethodEntry
    worker: WorkerProcess
    prepared: Prepared
    first_batch: float
    first_batch_uncached: float | None
    largest: float
    mean: float


@dataclass(frozen=True)
class Round:
    """One turn of a method: images/s, CPU seconds per image, and what stayed in the page cache."""

    rate: float
    cpu_seconds: float
    cached: float | None


class WorkloadBench:
    """The methods on one workload, whose images are in `folder`/source.

    `reference` is that of `write_reference`. `prepared` has the files that were made before, by
    folder. Methods that cannot be measured go to `skipped`; `report` gets a line about each other.
    Workers stay until the end of `stack`.
    """

    def __init__(
        self,
        workload: Workload,
        pace: Pace,
        folder: Path,
        reference: Path,
        prepared: dict[Path, Prepared],
        skipped: list[Skipped],
        report: Callable[[str], None],
    ) -> None:
        self._workload, self._pace, self._folder = workload, pace, folder
        self._reference, self._prepared = reference, prepared
        self._skipped, self._report = skipped, report

    def start(self, stack: ExitStack, python: Path, peer: Peer, entry: MethodEntry) -> Started:
        """Start a method and load an epoch. Raises UserError with the reason if it fails."""
        prepared = self._prepare(python, peer, entry)
        request, log = self._request(peer, entry, prepared.folder), self._log(peer)
        kernels = None
        if self._pace.uncached:
            kernels = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder)))
        uncached = None
        exact = None
        if self._workload.crop or self._pace.uncached:
            whole = replace(request, crop=False)
            with WorkerProcess(python, whole, log, kernels) as worker:
                exact = worker.ask("start", str(self._reference))
                if self._pace.uncached:
                    uncached = exact["first"] - worker.started
        worker = stack.enter_context(WorkerProcess(python, request, log, kernels))
        warm = worker.ask("start", *([] if exact else [str(self._reference)]))
        exact = exact or warm
        return Started(
            peer,
            entry,
            worker,
            prepared,
            warm["first"] - worker.started,
            uncached,
            exact["largest"],
            exact["mean"],
        )

    def measure(self, reference: Started, others: Sequence[Started]) -> list[Figures]:
        """Run rounds of methods in turn; return the figures of each that has not failed."""
        started = [reference, *(one for one in others if one is not reference)]
        tasks = {number: self._turn(one) for number, one in enumerate(started)}
        rounds = take_turns(tasks, self._pace.rounds)
        rates = _rates(rounds[0])
        if rates is None:
            raise UserError(f"{reference.peer.name}: {self._skipped[-1].reason}")
        found = []
        for number, one in enumerate(started):
            own = rounds[number]
            if one in others and (own_rates := _rates(own)) is not None:
                whole = one.entry.whole or self._workload.kind != "pages"
                found.append(_figures(one, whole, own_rates, rates, [r for r in own if r]))
                self._report(f"{self._workload.name}: {found[-1].name}: {found[-1].rate:,.0f}/s")
        return found

    def skip(self, entry: MethodEntry, error: UserError) -> None:
        """Note that a method cannot be measured."""
        self._skipped.append(Skipped(f"{self._workload.name}: {entry.name}", str(error)))
        self._report(f"{self._workload.name}: {entry.name}: skipped: {error}")

    def _turn(self, one: Started) -> Callable[[], Round | None]:
        failed = False
        command = ("cold",) if self._workload.cold else ("load", self._pace.seconds)

        def run() -> Round | None:
            nonlocal failed
            if failed:
                return None
            before = one.worker.cpu_seconds()
            try:
                reply = one.worker.ask(*command)
            except UserError as error:
                failed = True
                self.skip(one.entry, error)
                return None
            used = one.worker.cpu_seconds() - before
            images = reply["images"]
            return Round(images / reply["seconds"], used / images, reply.get("cached"))

        return run

    def _prepare(self, python: Path, peer: Peer, entry: MethodEntry) -> Prepared:
        source = self._folder / "source"
        if not entry.files:
            return Prepared(source, size_of(source), 0.0)
        size = "" if entry.whole else f"-{self._workload.size}"
        folder = self._folder / f"{peer.name}-{entry.files}{size}"
        if folder not in self._prepared:
            self._report(f"{self._workload.name}: {entry.name}: preparing")
            folder.mkdir()
            try:
                request = self._request(peer, entry, folder)
                with WorkerProcess(python, request, self._log(peer), None) as worker:
                    seconds = worker.ask("prepare")["seconds"]
            except BaseException:
                shutil.rmtree(folder)
                raise
            os.sync()  # pages that are not on disk yet cannot be dropped from the page cache
            self._prepared[folder] = Prepared(folder, size_of(folder), seconds)
        return self._prepared[folder]

    def _request(self, peer: Peer, entry: MethodEntry, folder: Path) -> Request:
        load = self._workload
        return Request(
            peer.module,
            entry.name,
            load.kind,
            str(self._folder / "source"),
            str(folder),
            load.size,
            load.batch_size,
            self._pace.threads,
            load.mean,
            load.std,
            load.crop,
        )

    def _log(self, peer: Peer) -> Path:
        return self._folder / f"{peer.name}.log"


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _rates(rounds: Sequence[Round | None]) -> tuple[float, ...] | None:
    """Return the rates of all rounds, None if one has failed."""
    rates = tuple(one.rate for one in rounds if one)
    return rates if len(rates) == len(rounds) else None


def _figures(
    one: Started,
    whole: bool,
    rates: tuple[float, ...],
    reference: tuple[float, ...],
    rounds: Sequence[Round],
) -> Figures:
    cached = [r.cached for r in rounds if r.cached is not None]
    return Figures(
        one.peer.name,
        one.entry.name,
        whole,
        rates,
        reference,
        one.first_batch,
        one.first_batch_uncached,
        sum(r.cpu_seconds for r in rounds) / len(rounds),
        one.worker.peak_rss,
        one.prepared.disk_bytes,
        one.prepared.seconds,
        one.largest,
        one.mean,
        max(cached, default=None),
    )
