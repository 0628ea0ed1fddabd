"""The command `bench scaling`: its options, its tables and its run directory."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from pipeline.benchmarks.harness import table
from pipeline.benchmarks.plots import save_plots
from pipeline.benchmarks.results import Results, load_average, new_run, write_results
from pipeline.benchmarks.scaling import data, model, processes, tables
from pipeline.benchmarks.scaling.page import plots
from pipeline.benchmarks.scaling.repeated import VALIDATED, write_repeated
from pipeline.benchmarks.scaling.results import DataFigures, Scaling
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.errors import UserError
from pipeline.experiments.command import options_of
from pipeline.runtime.cgroup import usable_cores
from pipeline.runtime.hardware import machine

FOLDER = Path(".bench")  # in the checkout: datasets, while the benchmark runs
FITTED = (16, 64)  # rows a process that the model is fitted to; the others check it
PROVENANCE = {"kind": "synthetic", "source": "repeated pages and digits"}


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    quick: bool = False
    """Fewer pages, samples, steps and rounds: under two minutes on two cores."""
    only: Literal["processes", "data"] | None = None
    """Measure one and two processes alone, or large files alone. Default: both."""
    rounds: int | None = None
    """Rounds of each comparison. Default: 5; 2 with --quick."""
    steps: int | None = None
    """Steps of each training. Default: 20; 4 with --quick."""
    pages: int | None = None
    """Pages of the smallest file; others have 10 and 100 times as many. Default: 2480; 248 with
    --quick."""
    samples: int | None = None
    """Samples of the large file of small ones. Default: 1,000,000; 100,000 with --quick."""


def check(options: Options) -> None:
    """Raise UserError for options that do not fit."""
    for name, least in (("rounds", 1), ("steps", 1), ("pages", 1), ("samples", 2)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"{name}: got {value}, expected {least} or more")


def run(options: Options, runs: Path) -> Path:
    """Run the benchmark, print its tables, and write its run directory; return its path."""
    check(options)
    console = Console(highlight=False, soft_wrap=True)
    console.print(machine())
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=FOLDER) as name:
        result = measure(options, Path(name).resolve(), console.print)
    path = new_run(runs, options_of(options), (PROVENANCE,))
    save_plots(path, plots(result))
    write_results(path, Results(scaling=result))
    print_tables(result, Console(width=150, highlight=False))
    console.print(f"results: {path}")
    return path


def measure(options: Options, folder: Path, report: Callable[[str], None]) -> Scaling:
    """Measure what the options ask for, with files in `folder`."""
    quick, before, cores = options.quick, load_average(), usable_cores()
    rounds = options.rounds or (2 if quick else 5)
    steps = options.steps or (4 if quick else 20)
    rows = (16, 32, 64) if quick else (16, 32, 64, 128)
    measured = processes.Measured((), (), 0)
    if options.only != "data":
        pages = write_pages(folder / "train.beton", steps * 2 * max(rows))
        plan = processes.Plan(pages, rows, steps, rounds, cores)
        measured = processes.measure(plan, folder, report)
        pages.unlink()
    two = [one for one in measured.figures if one.processes == 2]
    fitted = None
    if two:
        fitting = [one for one in two if one.rows in FITTED]
        fitted = model.fit(fitting, measured.reduced, measured.gradient_bytes)
    files: list[DataFigures] = []
    if options.only != "processes":
        sizes = options.pages or (248 if quick else 2_480), options.samples
        samples = sizes[1] or (100_000 if quick else 1_000_000)
        pace = (rounds, 0.3, cores, 1) if quick else (rounds, 1.0, cores, 3)
        files += data.measure(data.Plan(sizes[0], samples, *pace), folder, report)
    return Scaling(
        rounds,
        cores,
        steps,
        (before, load_average()),
        measured.figures,
        fitted,
        tuple(model.checks(fitted, [one for one in two if one.rows not in FITTED]))
        if fitted
        else (),
        tuple(model.predictions(fitted)) if fitted else (),
        tuple(files),
    )


def write_pages(path: Path, images: int) -> Path:
    """Write a dataset with this many training images, which repeat synthetic pages."""
    source = SyntheticPages(data.WRITERS)
    pages = [source.image(number) for number in range(len(source))]
    labels = source.annotations.labels.tolist()
    return write_repeated(path, pages, labels, images + VALIDATED)


def print_tables(result: Scaling, console: Console) -> None:
    """Print all tables, and whether the bars are met."""
    if result.training:
        title = f"training on {result.cores} cores in all, fractions of the time of a step"
        console.print(table(tables.TRAINING, tables.training_rows(result), "r" * 10, title))
        title = "the model of a step, at rows that it was not fitted to"
        console.print(table(tables.CHECKS, tables.check_rows(result), "rrrr", title))
        title = "prediction, not measured: processes with cores and links like these two"
        console.print(table(tables.PREDICTIONS, tables.prediction_rows(result), "rlrrr", title))
    if result.data:
        console.print(table(tables.DATA, tables.data_rows(result), "lrrrrrrrrr", "loading"))
    for line in tables.bar_lines(result):
        console.print(line, markup=False)
