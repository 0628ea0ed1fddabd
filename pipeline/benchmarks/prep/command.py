"""The command `bench prep`: its options, its tables and its run directory."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from pipeline.benchmarks.harness import table, take_turns
from pipeline.benchmarks.plots import save_plots
from pipeline.benchmarks.prep import tables
from pipeline.benchmarks.prep.images import Dataset, as_jpeg, copied, generated, read_pages
from pipeline.benchmarks.prep.page import plots
from pipeline.benchmarks.prep.profile import profile_both
from pipeline.benchmarks.prep.results import (
    DECODES,
    OURS,
    REPLACED,
    DatasetFigures,
    PrepResult,
    WriterFigures,
)
from pipeline.benchmarks.prep.writers import (
    PEERS_OF_WRITERS,
    WRITERS,
    PeerWriter,
    PillowFiles,
    WriterEntry,
    on_cores,
    run_pillow,
    run_prep,
    timed,
)
from pipeline.benchmarks.results import (
    Results,
    load_average,
    new_run,
    origins,
    write_results,
)
from pipeline.benchmarks.throughput.catalog import PEERS
from pipeline.benchmarks.throughput.environments import python_of
from pipeline.data.sources.image_files import ImageFiles
from pipeline.data.synth.handwriting import DigitCounts, SyntheticDigits
from pipeline.errors import UserError
from pipeline.experiments.command import options_of
from pipeline.runtime.hardware import machine

FOLDER = Path(".bench")  # in the checkout: environments of peers, and images while it runs
NO_PEERS = "none"
Started = list[tuple[WriterEntry, PeerWriter]]


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    source: Path | None = None
    """A zip archive of PNG pages with one folder per class; generated pages without one."""
    pages: int = 310
    """Most pages of the source, or about the number of generated pages."""
    copies: int = 3
    """Copies of each page; other writers write one."""
    digits: int = 20_000
    """Number of 28×28 digits."""
    processes: int = 1
    """Processes and cores of each task; each process that starts imports torch, which takes
    seconds of a core."""
    rounds: int = 5
    """Rounds of each comparison."""
    peers: tuple[str, ...] = ()
    """Other writers of the pages: ffcv, litdata, mosaic, or none. Default: all."""


def check(options: Options) -> None:
    """Raise UserError for options that do not fit."""
    for name in ("pages", "copies", "digits", "processes", "rounds"):
        if (value := getattr(options, name)) < 1:
            raise UserError(f"{name}: got {value}, expected 1 or more")
    unknown = [name for name in options.peers if name not in PEERS_OF_WRITERS]
    if unknown and options.peers != (NO_PEERS,):
        expected = f"some of {', '.join(PEERS_OF_WRITERS)}, or {NO_PEERS} alone"
        raise UserError(f"peers: got {unknown[0]}, expected {expected}")


def run(options: Options, runs: Path) -> Path:
    """Run the benchmark, print its tables, and write its run directory; return its path."""
    check(options)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{machine()}; {options.rounds} rounds, {options.processes} processes")
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="prep-", dir=FOLDER) as name,
        on_cores(options.processes),
    ):
        result = measure(options, Path(name).resolve(), console.print)
    path = new_run(runs, options_of(options), origins(options.source, "generated pages and digits"))
    save_plots(path, plots(result))
    write_results(path, Results(prep=result))
    print_tables(result, Console(width=130, highlight=False))
    console.print(f"results: {path}")
    return path


def measure(options: Options, folder: Path, report: Callable[[str], None]) -> PrepResult:
    """Measure all datasets, with files in `folder`; other writers write the first one's pages."""
    before, skipped = load_average(), list[str]()
    digits = SyntheticDigits(DigitCounts(options.digits, 0, 1000))
    pages = [*read_pages(options.source, options.pages)]
    kinds = {
        "RGB pages in PNG files": copied(iter(pages), options.copies),
        "digits of 28×28 in PNG files": generated(digits, options.digits, "L"),
        "RGB pages in JPEG files": as_jpeg(iter(pages)),
    }
    found = []
    for number, (title, images) in enumerate(kinds.items()):
        report(f"{title}: writing the images")
        dataset = Dataset.write(title, folder / str(number), images)
        with ExitStack() as stack:
            started: Started = []
            if number == 0:
                place = folder / "peers"
                place.mkdir()
                started += start(stack, dataset, options, place, skipped, report)
            found.append(measure_dataset(dataset, options, folder, started, report))
    load = before, load_average()
    return PrepResult(options.rounds, options.processes, load, tuple(found), tuple(skipped))


def start(
    stack: ExitStack,
    dataset: Dataset,
    options: Options,
    folder: Path,
    skipped: list[str],
    report: Callable[[str], None],
) -> Iterator[tuple[WriterEntry, PeerWriter]]:
    """Yield the other writers after a first turn; the reason of each other goes to `skipped`."""
    entries = [one for one in WRITERS if one.peer in (options.peers or PEERS_OF_WRITERS)]
    if not entries:
        return
    count = dataset.link(folder / "source", options.copies)
    for entry in entries:
        peer = PEERS[entry.peer]
        try:
            python = python_of(peer, FOLDER.resolve(), report)
            writer = PeerWriter(
                python, peer.module, entry, folder / "source", count, options.processes
            )
            stack.enter_context(writer.process)
            writer.turn()
        except UserError as error:
            skipped.append(f"{entry.name}: {error}")
            report(f"skipped: {skipped[-1]}")
        else:
            yield entry, writer


def measure_dataset(
    dataset: Dataset,
    options: Options,
    folder: Path,
    others: Sequence[tuple[WriterEntry, PeerWriter]],
    report: Callable[[str], None],
) -> DatasetFigures:
    """Run all tasks of a dataset in turns.

    Raises UserError if inkrun prepares other bytes than with Pillow's decoder.
    """
    report(f"{dataset.title}: measuring")
    processes, archive, files = options.processes, dataset.archive, dataset.files
    outs = {REPLACED: folder / "pillow.beton", OURS: folder / "ours.beton"}
    tasks = {
        DECODES: timed(partial(run_pillow, files, processes)),
        REPLACED: timed(partial(run_prep, PillowFiles, archive, outs[REPLACED], processes)),
        OURS: timed(partial(run_prep, ImageFiles, archive, outs[OURS], processes)),
    }
    for task in tasks.values():
        task()
    tasks |= {entry.name: writer.turn for entry, writer in others}
    rates = take_turns(tasks, options.rounds)
    if outs[REPLACED].read_bytes() != outs[OURS].read_bytes():
        raise UserError(f"{dataset.title}: got other bytes than with Pillow's decoder")
    count = len(files)
    written = {name: out.stat().st_size / count for name, out in outs.items()}
    written |= {entry.name: writer.written() for entry, writer in others}
    counts = {entry.name: writer.count for entry, writer in others}
    figures = (
        WriterFigures(name, counts.get(name, count), written.get(name), tuple(own))
        for name, own in rates.items()
    )
    size = sum(path.stat().st_size for path in files) / count
    profiled = profile_both(archive, folder / "profiled.beton")
    return DatasetFigures(dataset.title, count, size, tuple(figures), profiled)


def print_tables(result: PrepResult, console: Console) -> None:
    """Print two tables for each dataset, and what was skipped."""
    noun = "process" if result.processes == 1 else "processes"
    for one in result.datasets:
        title = f"{one.images:,} {one.title}, at most {result.processes} {noun}"
        console.print(table(tables.RATES, tables.rate_rows(one), "lrrrrr", title))
        title = f"One process, {one.title}"
        console.print(table(tables.PROFILE, tables.profile_rows(one), "lrr", title))
    for line in result.skipped:
        console.print(f"skipped: {line}", markup=False)
