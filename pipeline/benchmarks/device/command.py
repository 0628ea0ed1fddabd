"""The command `bench device`: its options, its tables and its run directory."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from pipeline.benchmarks.device import decoding, tables, training
from pipeline.benchmarks.device.page import plots
from pipeline.benchmarks.device.results import DecodingFigures, DeviceResult
from pipeline.benchmarks.harness import table
from pipeline.benchmarks.plots import save_plots
from pipeline.benchmarks.results import Results, load_average, new_run, write_results
from pipeline.data.prepare import prepare
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.errors import UserError
from pipeline.experiments.command import open_data, options_of
from pipeline.runtime.cgroup import usable_cores
from pipeline.runtime.hardware import Precision, environment, machine
from pipeline.training.distributed import Processes, join_processes

FOLDER = Path(".bench")  # in the checkout: datasets, while the benchmark runs


@dataclass(frozen=True)
class Options:
    """Options of the benchmark."""

    quick: bool = False
    """Few pages, rounds and recipes: under a minute on two cores."""
    data: Path | None = None
    """Pages that prep wrote. Default: synthetic pages."""
    sizes: tuple[int, ...] = (28, 64, 224)
    """Sides of the images, in pixels."""
    rounds: int | None = None
    """Rounds of each comparison. Default: 5; 3 with --quick."""
    batch_size: int = 64
    """Images in a batch that is decoded."""
    recipes: tuple[str, ...] = ()
    """Recipes to train: those of part 1, and fashion. Default: all on a GPU; on a CPU fast,
    accurate and fashion; with --quick only fast."""
    steps: int | None = None
    """Steps of each training. Default: 40; 2 with --quick."""
    precision: Precision = "auto"
    """Precision of the trainings."""


def check(options: Options) -> None:
    """Raise UserError for options that do not fit."""
    if not options.sizes or min(options.sizes) < 16:
        raise UserError(f"sizes: got {options.sizes}, expected at least one, of 16 or more")
    for name in ("rounds", "batch_size", "steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{name}: got {value}, expected 1 or more")
    if unknown := [name for name in options.recipes if name not in training.PRESETS]:
        expected = ", ".join(training.PRESETS)
        raise UserError(f"recipes: got {unknown[0]}, expected one of {expected}")


def recipes_of(options: Options, device: torch.device, skipped: list[str]) -> list[str]:
    """Return the recipes to train; a line about each one left out goes to `skipped`."""
    if options.recipes:
        return [*options.recipes]
    if options.quick:
        return ["fast"]
    fit = [*training.PRESETS] if device.type == "cuda" else [*training.ON_A_CPU]
    skipped += [
        f"training of {name}: a step takes a CPU too long; --recipes {name} measures it"
        for name in training.PRESETS
        if name not in fit
    ]
    return fit


def run(options: Options, runs: Path) -> Path:
    """Run the benchmark, print its tables, and write its run directory; return its path."""
    check(options)
    console = Console(highlight=False, soft_wrap=True)
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="device-", dir=FOLDER) as name,
        join_processes(options.precision) as processes,
    ):
        console.print(f"{machine()}; device: {processes.device}")
        data = options.data
        if data is None:
            data = Path(name) / "pages.beton"
            console.print("writing synthetic pages")
            prepare(SyntheticPages(4 if options.quick else 40), data, workers=usable_cores())
        with open_data(data) as pages:
            provenance = pages.info["provenance"]
        result = measure(options, processes, data, Path(name), console.print)
        described = environment(processes.device, processes.precision, 1)
    path = new_run(runs, options_of(options), (provenance,), described)
    save_plots(path, plots(result))
    write_results(path, Results(device=result))
    print_tables(result, Console(width=150, highlight=False))
    console.print(f"results: {path}")
    return path


def measure(
    options: Options,
    processes: Processes,
    data: Path,
    scratch: Path,
    report: Callable[[str], None],
) -> DeviceResult:
    """Measure decoding at all sizes, then the trainings."""
    quick, device, before = options.quick, processes.device, load_average()
    rounds = options.rounds or (3 if quick else 5)
    pace = decoding.Pace(rounds, 0.1 if quick else 1.0, 1 if quick else 20)
    skipped: list[str] = []
    decoded: list[DecodingFigures] = []
    with open_data(data) as pages:
        for size in options.sizes:
            report(f"decoding at {size}×{size}")
            decoded += decoding.measure(pages, size, options.batch_size, device, pace, skipped)
        names = recipes_of(options, device, skipped)
        report(f"training: {', '.join(names)}")
        steps = options.steps or (2 if quick else 40)
        trained = [*training.measure_all(processes, names, pages, scratch, steps, rounds)]
    on_gpu = device.type == "cuda"
    return DeviceResult(
        device.type,
        torch.cuda.get_device_name(device) if on_gpu else "",
        processes.precision,
        rounds,
        torch.get_num_threads(),
        options.batch_size,
        (before, load_average()),
        tuple(decoded),
        tuple(trained),
        tuple(dict.fromkeys(skipped)),
    )


def print_tables(result: DeviceResult, console: Console) -> None:
    """Print both tables, and what was skipped."""
    title = f"decode, resize, augmentation; {tables.place(result)}"
    console.print(table(tables.DECODING, tables.decoding_rows(result), "lrrrrrrrr", title))
    title = f"training; {tables.place(result)}"
    console.print(table(tables.TRAINING, tables.training_rows(result), "llrlrrrrr", title))
    for line in result.skipped:
        console.print(f"skipped: {line}", markup=False)
