"""Measures all peers on all workloads, in turns with this project's own loader."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmarks.results import (
    Figures,
    Skipped,
    Throughput,
    WorkloadResult,
    load_average,
)
from pipeline.benchmarks.throughput.catalog import OURS, PEERS, MethodEntry, Peer
from pipeline.benchmarks.throughput.environments import python_of
from pipeline.benchmarks.throughput.measure import Pace, Prepared, WorkloadBench
from pipeline.benchmarks.throughput.photos import write_photos
from pipeline.benchmarks.throughput.workloads import (
    Workload,
    copy_pages,
    write_digits,
    write_pages,
    write_reference,
)
from pipeline.errors import UserError


@dataclass(frozen=True)
class Plan:
    """What to measure, at which pace.

    `source` is a zip archive or folder of PNG pages, None for pages of `writers` synthetic writers.
    `compared` images of each workload are compared with the exact area average. With `quick`, only
    the methods of --quick are measured.
    """

    workloads: tuple[Workload, ...]
    peers: tuple[str, ...]
    source: Path | None
    writers: int
    digits: int
    photos: int
    compared: int
    pace: Pace
    quick: bool


class Bench:
    """Runs a plan in the folder `scratch`; `report` gets a line about each step."""

    def __init__(
        self, plan: Plan, scratch: Path, environments: Path, report: Callable[[str], None]
    ) -> None:
        self._plan, self._scratch, self._report = plan, scratch, report
        self._environments = environments
        self._skipped: list[Skipped] = []
        self._prepared: dict[Path, Prepared] = {}

    def run(self) -> Throughput:
        """Measure everything. What cannot be measured is in the result, with its reason."""
        before = load_average()
        pythons = self._pythons()
        results, folder = [], ""
        for workload in self._plan.workloads:
            if workload.folder != folder:
                if folder:  # the next images need the disk
                    shutil.rmtree(self._scratch / folder)
                folder = workload.folder
                self._write(workload)
            results.append(self._measure(workload, pythons))
        return Throughput(
            self._plan.pace.rounds,
            self._plan.pace.threads,
            (before, load_average()),
            tuple(results),
            tuple(self._skipped),
        )

    def _pythons(self) -> Mapping[str, Path]:
        """Return the Python of each peer that can be had; this project's is the first."""
        pythons = {}
        for name in dict.fromkeys((OURS, *self._plan.peers)):
            try:
                pythons[name] = python_of(PEERS[name], self._environments, self._report)
            except UserError as error:
                self._skipped.append(Skipped(name, str(error)))
                self._report(f"{name}: skipped: {error}")
        return pythons

    def _write(self, workload: Workload) -> None:
        plan, folder = self._plan, self._scratch / workload.folder / "source"
        folder.parent.mkdir()
        self._report(f"{workload.folder}: writing the images")
        if workload.kind == "digits":
            write_digits(plan.digits, folder)
        elif workload.kind == "photos":
            write_photos(plan.photos, folder)
        elif workload.folder == "pages" and plan.source:
            copy_pages(plan.source, folder)
        else:
            write_pages(plan.writers, workload.folder == "grey", folder)

    def _measure(self, workload: Workload, pythons: Mapping[str, Path]) -> WorkloadResult:
        folder = self._scratch / workload.folder
        exact = folder / f"exact-{workload.name}"
        images = write_reference(workload, folder / "source", self._plan.compared, exact)
        bench = WorkloadBench(
            workload, self._plan.pace, folder, exact, self._prepared, self._skipped, self._report
        )
        figures: list[Figures] = []
        with ExitStack() as stack:
            ours = PEERS[OURS]
            first, *others = self._entries(ours, workload)
            reference = bench.start(stack, pythons[OURS], ours, first)
            started = [reference]
            for name, python in pythons.items():
                entries = others if name == OURS else self._entries(PEERS[name], workload)
                with ExitStack() as group:  # the workers of a peer end before the next peer's start
                    for entry in entries:
                        try:
                            started.append(bench.start(group, python, PEERS[name], entry))
                        except UserError as error:
                            bench.skip(entry, error)
                    if started:
                        figures += bench.measure(reference, started)
                started = []
        return WorkloadResult(workload.name, workload.title, images, tuple(figures))

    def _entries(self, peer: Peer, workload: Workload) -> list[MethodEntry]:
        """Return the methods of a peer on a workload."""
        return [
            one
            for one in peer.methods
            if workload.kind in one.kinds and (one.quick or not self._plan.quick)
        ]
