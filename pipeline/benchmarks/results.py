"""Results of benchmarks, as they are written to runs/bench/<time>/ and read back."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch

from pipeline.benchmarks.convergence.outcome import Convergence
from pipeline.benchmarks.device.results import DeviceResult
from pipeline.benchmarks.harness import Ratio, Series, ratio
from pipeline.benchmarks.prep.results import PrepResult
from pipeline.benchmarks.scaling.results import Scaling
from pipeline.data.archives.open import open_archive
from pipeline.data.base import IMAGE_SUFFIXES
from pipeline.data.pixels.png.chunks import is_marked_synthetic
from pipeline.errors import UserError
from pipeline.evaluation.run_dir import RunDir
from pipeline.runtime.files import read_as
from pipeline.runtime.hardware import environment

JOB = "bench"
RESULTS = "results.json"


@dataclass(frozen=True)
class Config:
    """The config.json of a benchmark: its options, and the origins of its data."""

    job: str
    options: dict[str, Any]
    provenance: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Figures:
    """What was measured of one method of loading.

    `rates` are images/s in each round, `reference_rates` those of this project's first method in
    the same rounds. Times of first batches are in seconds from the start of the
    process, without and with cached kernels. `cpu_seconds` are per image, of all its processes;
    `peak_rss` is the largest sum of their resident memory, in bytes, mapped files included.
    `disk_bytes` are those of the files that it reads, `preparation_seconds` the time to make them.
    Differences, in grey levels, are those from the exact area average. `cached` is the largest
    fraction of a cold epoch's files that was still in the page cache. A method that is not `whole`
    has decoded its pages before.
    """

    peer: str
    method: str
    whole: bool
    rates: tuple[float, ...]
    reference_rates: tuple[float, ...]
    first_batch: float
    first_batch_uncached: float | None
    cpu_seconds: float
    peak_rss: int
    disk_bytes: int
    preparation_seconds: float
    largest_difference: float
    mean_difference: float
    cached: float | None = None

    @property
    def name(self) -> str:
        """The name in tables: this project's methods say whose they are."""
        return f"inkrun, {self.method}" if self.peer == "inkrun" else self.method

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return median(self.rates)

    @property
    def factor(self) -> Ratio:
        """How many times as fast as this method the reference is, round by round."""
        return ratio(self.reference_rates, self.rates)


@dataclass(frozen=True)
class WorkloadResult:
    """All methods on the same images; `images` is the number of images in an epoch."""

    name: str
    title: str
    images: int
    figures: tuple[Figures, ...]

    def find(self, name: str) -> Figures | None:
        """Return the figures of a method by its name in tables."""
        return next((one for one in self.figures if one.name == name), None)


@dataclass(frozen=True)
class Skipped:
    """A peer, or one method on one workload, that could not be measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Throughput:
    """The results of `bench throughput`. `load` is the machine's load average before and after."""

    REFERENCE: ClassVar[str] = "inkrun's lead"

    rounds: int
    threads: int
    load: tuple[float, float]
    workloads: tuple[WorkloadResult, ...]
    skipped: tuple[Skipped, ...]

    def series(self) -> Iterator[Series]:
        """Yield the rates of each method on each workload, and inkrun's lead over it."""
        for workload in self.workloads:
            for one in workload.figures:
                pairs = zip(one.reference_rates, one.rates, strict=True)
                leads = tuple(ours / own for ours, own in pairs)
                yield Series(f"{workload.name}: {one.name}", "images/s", one.rates, leads)


@dataclass(frozen=True)
class Results:
    """The results.json of a benchmark: its subjects, None for one that was not run."""

    throughput: Throughput | None = None
    device: DeviceResult | None = None
    scaling: Scaling | None = None
    convergence: Convergence | None = None
    prep: PrepResult | None = None

    @property
    def subject(self) -> str | None:
        """The name of the subject that was run, None if there is none."""
        names = (field.name for field in fields(self))
        return next((name for name in names if getattr(self, name) is not None), None)

    @property
    def reference(self) -> str:
        """What the ratios of `series` are to."""
        return "" if (found := self._found) is None else found.REFERENCE

    def series(self) -> Iterator[Series]:
        """Yield what was measured in each round of each method."""
        if (found := self._found) is not None:
            yield from found.series()

    @property
    def _found(self) -> Throughput | DeviceResult | Scaling | Convergence | PrepResult | None:
        subject = self.subject
        return None if subject is None else getattr(self, subject)


def origins(source: Path | None, generated: str) -> tuple[dict[str, str], ...]:
    """Return the provenance of images of an archive, if there is one, and of generated ones.

    Files that this project generated are marked: they are called synthetic.
    """
    synthetic = {"kind": "synthetic", "source": generated}
    if source is None:
        return (synthetic,)
    archive = open_archive(source)
    images = (n for n, name in enumerate(archive.names) if name.lower().endswith(IMAGE_SUFFIXES))
    first = next(images, None)
    is_marked = first is not None and is_marked_synthetic(archive.read(first))
    return {"kind": "synthetic" if is_marked else "real", "source": source.name}, synthetic


def new_run(
    runs: Path,
    options: Mapping[str, Any],
    provenance: tuple[dict[str, Any], ...],
    machine: Mapping[str, Any] | None = None,
) -> Path:
    """Create runs/bench/<time> with config.json and machine.json; return its path.

    `machine` describes the hardware, by default that of a benchmark on the CPU.
    """
    run = RunDir.new(runs / JOB)
    config = Config(JOB, dict(options), provenance)
    run.write_json("config.json", asdict(config))
    described = machine or environment(torch.device("cpu"), "no", 1)
    run.write_json("machine.json", dict(described))
    return run.path


def write_results(path: Path, results: Results) -> None:
    """Write the results, and point the link `latest`, beside their folder, to them."""
    run = RunDir(path)
    run.write_json(RESULTS, asdict(results))
    run.link_latest()


def read_results(path: Path) -> Results:
    """Return the results of a benchmark. Raises UserError for any other folder."""
    if not (path / RESULTS).exists():
        raise UserError(f"{path}: it has no {RESULTS}: got no finished benchmark")
    return read_as(path / RESULTS, Results)


def load_average() -> float:
    """Return the average number of running processes in the last minute."""
    return os.getloadavg()[0]
