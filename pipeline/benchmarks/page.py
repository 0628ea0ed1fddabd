"""The HTML page of a benchmark, and its plots."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pipeline.benchmarks import tables
from pipeline.benchmarks.convergence import page as convergence
from pipeline.benchmarks.harness import Ratio
from pipeline.benchmarks.results import (
    JOB,
    Config,
    Throughput,
    WorkloadResult,
    read_results,
)
from pipeline.errors import UserError
from pipeline.reporting.common import command, distinct, hardware
from pipeline.reporting.html import Block, Page, Plot, Section, SourceRun, Sources, Table, Warnings
from pipeline.reporting.plots import COLOURS, new_figure, styled
from pipeline.runtime.files import read_as, read_json

BUSY = 0.5  # processes that run already, for each core: from there on, rates are too low


def page_of(paths: Sequence[Path]) -> Page:
    """Return the page of the latest of several benchmarks; it names the others.

    Raises UserError for a folder that is not that of a finished benchmark.
    """
    *earlier, run = distinct(paths)
    config, results = read_as(run / "config.json", Config), read_results(run)
    throughput, subject = results.throughput, "convergence" if results.convergence else "throughput"
    machine = read_json(run, "machine.json")
    given = {name: value for name, value in config.options.items() if value != []}
    source = SourceRun(str(run), command(subject, given, JOB), machine, "all results")
    notes: list[Block] = [f"Not shown: {path}, an earlier benchmark." for path in earlier]
    if results.convergence is not None:
        return convergence.page(results.convergence, config.provenance, machine, source, notes)
    if throughput is None:
        raise UserError(f"{run}: got a benchmark without results")
    bars = list(tables.bar_rows(throughput))
    busy = busy_line(throughput, int(machine["cores"]))
    return Page(
        "Loading speed",
        "How fast does inkrun load images, against other loaders on the same machine?",
        answer(throughput),
        config.provenance,
        [
            *([Section("Read first", [Warnings([busy])])] if busy else []),
            *(workload_section(one) for one in throughput.workloads),
            *([Section("Aims", [Table("Aims.", tables.BAR, bars, "lrrl")])] if bars else []),
            Section("How it was measured", [*method_lines(throughput), hardware(machine)]),
            *(
                [Section("Not measured", list(tables.skipped_lines(throughput)))]
                if throughput.skipped
                else []
            ),
            Section("Sources", [*notes, Sources([source])]),
        ],
    )


def answer(result: Throughput) -> str:
    """Return how many times as fast as the first peer of each workload this project is."""
    parts = []
    for workload in result.workloads:
        peer = next((one for one in workload.figures if one.peer != "inkrun"), None)
        if peer is not None:
            parts.append(f"{workload.name}: {_times(peer.factor)} times as fast as {peer.name}")
    return "; ".join(parts) or "Only inkrun itself was measured."


def _times(ratio: Ratio) -> str:
    return f"{ratio.value:,.0f}" if ratio.value >= 10 else f"{ratio.value:.2f}"


def busy_line(result: Throughput, cores: int) -> str:
    """Return a warning if other processes ran on the machine before the benchmark."""
    if result.load[0] < BUSY * cores:
        return ""
    return (
        f"The machine was busy: a load of {result.load[0]:.1f} on {cores} cores before the "
        "benchmark. Ratios were measured in turns; rates are lower than those of an idle machine."
    )


def method_lines(result: Throughput) -> list[Block]:
    """Return what a reader must know about the figures."""
    return [
        f"Each method loads in a process of its own, with {result.threads} threads or worker "
        f"processes. After a warm-up, the methods take turns for {result.rounds} rounds of whole "
        "epochs. Rates are medians. Ratios are geometric means over the rounds, with a 95 % "
        "interval: this project's first method against each other one, round by round.",
        "In every epoch each sample came once, in another order than in the epoch before. "
        "Differences are those from the exact area average of the whole image, in grey levels.",
        "Memory is the largest sum over all processes of a method: what processes share counts "
        "several times, and so do pages of mapped files.",
    ]


def workload_section(result: WorkloadResult) -> Section:
    """Return the tables and the plot of a workload."""
    caption = f"{result.title}. {result.images:,} images."
    return Section(
        result.title,
        [
            Plot(plot_rates(result), f"Images per second of each method: {result.title}", caption),
            Table("Speed and exactness.", tables.RATES, [*tables.rate_rows(result)], wide=True),
            Table("What it costs.", tables.COSTS, [*tables.cost_rows(result)], wide=True),
        ],
    )


@styled
def plot_rates(result: WorkloadResult) -> Figure:
    """Plot the median rate of each method as a bar, with its range, on a logarithmic axis."""
    figure = new_figure(6.4, 0.32 * len(result.figures) + 0.9)
    axes = figure.subplots()
    for row, one in enumerate(result.figures):
        colour = COLOURS[0] if one.peer == "inkrun" else COLOURS[4]
        axes.barh(row, one.rate, color=colour, height=0.7)
        axes.plot([min(one.rates), max(one.rates)], [row, row], color="black", linewidth=1)
    axes.set_yticks(range(len(result.figures)), [one.name for one in result.figures], fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set(xlabel="images/s")
    return figure
