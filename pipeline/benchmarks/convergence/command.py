"""The command `bench convergence`: its options, its tables and its run directory."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from pipeline.benchmarks.convergence import tables
from pipeline.benchmarks.convergence.data import DataPlan
from pipeline.benchmarks.convergence.outcome import Convergence
from pipeline.benchmarks.convergence.page import plot_part
from pipeline.benchmarks.convergence.parts import PARTS
from pipeline.benchmarks.convergence.run import Bench, Plan
from pipeline.benchmarks.harness import table
from pipeline.benchmarks.plots import save_plots
from pipeline.benchmarks.results import Results, new_run, write_results
from pipeline.errors import UserError
from pipeline.experiments.command import options_of
from pipeline.loading.dataset import source_line
from pipeline.runtime.hardware import machine

FOLDER = Path(".bench")  # in the checkout: data while it runs
LIMIT, QUICK_LIMIT = 3 * 3_600.0, 90.0  # seconds
PartName = Literal["1", "2", "3", "fashion"]


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    part: tuple[PartName, ...] = ()
    """Parts to train. Default: all; part 1 with --quick."""
    seeds: int | None = None
    """Trainings of each arm, each from other random weights. Default: 3; 1 with --quick."""
    limit: float | None = None
    """Time limit of the whole benchmark, in seconds. Trainings that would take longer than their
    part of what is left of it are cut short, and extrapolated.
    Default: 10,800; 90 with --quick."""
    quick: bool = False
    """Few synthetic images and epochs, under two minutes: it shows that all runs, no accuracy."""
    source: Path | None = None
    """Data of the part: a zip archive or folder. Default: data/raw, or else synthetic data."""
    writers: int = 40
    """Writers of synthetic pages of part 1."""
    auxiliary_writers: int = 200
    """Writers of the auxiliary synthetic pages of part 1, for inkrun's recipe."""
    held_out: int = 4
    """Writers of part 1 to validate on."""


def plan_of(options: Options) -> Plan:
    """Return what the options ask for. Raises UserError for options that do not fit."""
    parts: tuple[str, ...] = options.part or (("1",) if options.quick else tuple(PARTS))
    seeds = (1 if options.quick else 3) if options.seeds is None else options.seeds
    limit = (QUICK_LIMIT if options.quick else LIMIT) if options.limit is None else options.limit
    counts = {name: getattr(options, name) for name in ("writers", "auxiliary_writers", "held_out")}
    for name, value in {"seeds": seeds, **counts}.items():
        if value < 1:
            raise UserError(f"{name}: got {value}, expected 1 or more")
    if not limit > 0:
        raise UserError(f"limit: got {limit:g}, expected more than 0 seconds")
    parts = tuple(dict.fromkeys(parts))
    if options.source is not None and len(parts) > 1:
        raise UserError(f"source: got {len(parts)} parts, expected one: --part 1")
    return Plan(parts, seeds, limit, DataPlan(options.source, **counts, quick=options.quick))


def run(options: Options, runs: Path) -> Path:
    """Run the benchmark, print its tables, and write its run directory; return its path."""
    plan = plan_of(options)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{machine()}; {plan.seeds} seeds, at most {plan.limit:,.0f} s")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="training-", dir=FOLDER) as scratch:
        result = Bench(plan, Path(scratch).resolve(), console.print).run()
    provenance = tuple(dict.fromkeys(tuple(part.provenance.items()) for part in result.parts))
    path = new_run(runs, options_of(options), tuple(dict(items) for items in provenance))
    save_plots(path, {f"convergence-{part.name}": plot_part(part) for part in result.parts})
    write_results(path, Results(convergence=result))
    print_tables(result, Console(width=150, highlight=False, markup=False))
    console.print(f"results: {path}")
    return path


def print_tables(result: Convergence, console: Console) -> None:
    """Print the tables of each part, with what a reader must know."""
    for part in result.parts:
        title = f"{part.title}; {source_line(part.provenance)}"
        align = "lll" + "r" * (len(tables.TIMES) - 3)
        console.print(table(tables.TIMES, tables.time_rows(part), align, title))
        align = "l" + "r" * (len(tables.TRAININGS) - 1)
        console.print(table(tables.TRAININGS, tables.training_rows(part), align))
        for line in tables.notes(result, part):
            console.print(line)
