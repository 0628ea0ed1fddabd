"""The command `bench throughput`: its options, its tables and its run directory."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from pipeline.benchmarks import tables
from pipeline.benchmarks.harness import table
from pipeline.benchmarks.page import plot_workload
from pipeline.benchmarks.plots import save_plots
from pipeline.benchmarks.results import Results, Throughput, new_run, origins, write_results
from pipeline.benchmarks.throughput.catalog import OURS, PEERS
from pipeline.benchmarks.throughput.measure import Pace
from pipeline.benchmarks.throughput.run import Bench, Plan
from pipeline.benchmarks.throughput.workloads import Workload, workloads
from pipeline.errors import UserError
from pipeline.experiments.command import options_of
from pipeline.runtime.cgroup import usable_cores
from pipeline.runtime.hardware import machine

FOLDER = Path(".bench")  # in the checkout: environments of peers, and images while it runs
QUICK = ("pages", "digits")  # workloads of --quick
QUICK_PEERS = ("pillow", "memory")

Name = Literal["pages", "cold", "grey", "digits", "photos"]


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    quick: bool = False
    """Few pages and digits, and peers that need no installation: under two minutes."""
    peers: tuple[str, ...] = ()
    """Peers to compare with. Default: all; pillow and memory with --quick."""
    workloads: tuple[Name, ...] = ()
    """Images to load. Default: all; pages and digits with --quick."""
    sizes: tuple[int, ...] = (224, 64)
    """Sides of the images that are loaded, in pixels. With --quick, only the first."""
    rounds: int | None = None
    """Rounds of each comparison. Default: 5; 3 with --quick."""
    source: Path | None = None
    """Full-resolution pages: a zip archive or folder of PNG files. Default: synthetic pages."""
    threads: int | None = None
    """Threads or processes of each loader. Default: the number of cores."""
    batch_size: int = 64
    """Pages or photos in a batch."""
    digit_batch: int = 512
    """Digits in a batch."""


def plan_of(options: Options) -> Plan:
    """Return what the options ask for. Raises UserError for options that do not fit."""
    sizes = options.sizes[:1] if options.quick else options.sizes
    if not sizes or min(sizes) < 1:
        raise UserError(f"sizes: got {sizes}, expected at least one, of 1 or more")
    for name in ("batch_size", "digit_batch", "threads", "rounds"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{name}: got {value}, expected 1 or more")
    others = [name for name in PEERS if name != OURS]
    if unknown := [name for name in options.peers if name not in others]:
        raise UserError(f"peers: got {unknown[0]}, expected one of {', '.join(others)}")
    peers = options.peers or (QUICK_PEERS if options.quick else tuple(others))
    kinds = options.workloads or (QUICK if options.quick else ())
    quick = options.quick
    return Plan(
        tuple(
            one
            for one in workloads(sizes, options.batch_size, options.digit_batch)
            if not kinds or workload_kind(one) in kinds
        ),
        peers,
        options.source,
        writers=2 if quick else 40,
        digits=6_000 if quick else 60_000,
        photos=100 if quick else 2_000,
        compared=32 if quick else 256,
        pace=Pace(
            rounds=options.rounds or (3 if quick else 5),
            seconds=0.3 if quick else 1.0,
            threads=options.threads or usable_cores(),
            uncached=not quick,
        ),
        quick=quick,
    )


def workload_kind(workload: Workload) -> str:
    """Return what a workload is called in the options."""
    return workload.name.partition("-")[0]


def run(options: Options, runs: Path) -> Path:
    """Run the benchmark, print its tables, and write its run directory; return its path."""
    plan = plan_of(options)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{machine()}; {plan.pace.rounds} rounds, {plan.pace.threads} threads")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="images-", dir=FOLDER) as scratch:
        result = Bench(plan, Path(scratch).resolve(), FOLDER.resolve(), console.print).run()
    path = new_run(
        runs,
        options_of(options),
        origins(options.source, "generated pages, digits of noise, photos"),
    )
    save_plots(path, {f"throughput-{one.name}": plot_workload(one) for one in result.workloads})
    write_results(path, Results(throughput=result))
    print_tables(result, Console(width=130, highlight=False))
    console.print(f"results: {path}")
    return path


def print_tables(result: Throughput, console: Console) -> None:
    """Print two tables for each workload, and what was skipped."""
    for one in result.workloads:
        title = f"{one.title}: {one.images:,} images"
        console.print(table(tables.RATES, tables.rate_rows(one), "lrrrrr", title))
        console.print(table(tables.COSTS, tables.cost_rows(one), "lrrrrrr"))
    if bars := list(tables.bar_rows(result)):
        console.print(table(tables.BAR, bars, "lrrl", "Aims, measured in this run"))
    for line in tables.skipped_lines(result):
        console.print(line, markup=False)
