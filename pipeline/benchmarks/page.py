"""The HTML page of a benchmark, and its plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pipeline.benchmarks import tables
from pipeline.benchmarks.convergence import page as convergence
from pipeline.benchmarks.device import page as device_page
from pipeline.benchmarks.device import tables as device_tables
from pipeline.benchmarks.harness import Ratio, busy_line
from pipeline.benchmarks.plots import RateBar, plot_rates
from pipeline.benchmarks.prep import page as prep_page
from pipeline.benchmarks.prep import tables as prep_tables
from pipeline.benchmarks.results import (
    JOB,
    Config,
    Results,
    Throughput,
    WorkloadResult,
    read_results,
)
from pipeline.benchmarks.scaling import page as scaling_page
from pipeline.errors import UserError
from pipeline.reporting.common import command, distinct, hardware
from pipeline.reporting.html import Block, Page, Plot, Section, SourceRun, Sources, Table, Warnings
from pipeline.runtime.files import read_as, read_json


def page_of(paths: Sequence[Path]) -> Page:
    """Return the page of the latest of several benchmarks; it names the others.

    Raises UserError for a folder that is not that of a finished benchmark.
    """
    *earlier, run = distinct(paths)
    config, results = read_as(run / "config.json", Config), read_results(run)
    content = content_of(results)
    if content is None and results.convergence is None:
        raise UserError(f"{run}: got a benchmark without results")
    subject = content.subject if content else "convergence"
    machine = read_json(run, "machine.json")
    given = {name: value for name, value in config.options.items() if value != []}
    source = SourceRun(str(run), command(subject, given, JOB), machine, "all results")
    notes: list[Block] = [f"Not shown: {path}, an earlier benchmark." for path in earlier]
    if content is None:
        assert results.convergence is not None
        return convergence.page(results.convergence, config.provenance, machine, source, notes)
    busy = busy_line(content.load[0], int(machine["cores"]))
    return Page(
        content.title,
        content.question,
        content.answer,
        config.provenance,
        [
            *([Section("Read first", [Warnings([busy])])] if busy else []),
            *content.sections,
            Section("Sources", [*notes, hardware(machine), Sources([source])]),
        ],
    )


@dataclass(frozen=True)
class Content:
    """What the page of one subject shows; `load` is the load average before and after."""

    subject: str
    title: str
    question: str
    answer: str
    sections: Sequence[Section]
    load: tuple[float, float]


def content_of(results: Results) -> Content | None:
    """Return what a page shows of a benchmark, None for one without results."""
    if (measured := results.device) is not None:
        return Content(
            "device",
            device_page.TITLE,
            device_page.QUESTION,
            device_tables.answer(measured),
            device_page.sections(measured),
            measured.load,
        )
    if (scaled := results.scaling) is not None:
        return Content(
            "scaling",
            scaling_page.TITLE,
            scaling_page.QUESTION,
            scaling_page.answer(scaled),
            scaling_page.sections(scaled),
            scaled.load,
        )
    if (prepared := results.prep) is not None:
        return Content(
            "prep",
            prep_page.TITLE,
            prep_page.QUESTION,
            prep_tables.answer(prepared),
            prep_page.sections(prepared),
            prepared.load,
        )
    if (throughput := results.throughput) is not None:
        return Content(
            "throughput",
            "Loading speed",
            "How fast does inkrun load images, against other loaders on the same machine?",
            answer(throughput),
            throughput_sections(throughput),
            throughput.load,
        )
    return None


def throughput_sections(throughput: Throughput) -> list[Section]:
    """Return a section for each workload, and how it was measured."""
    found = [workload_section(one) for one in throughput.workloads]
    if bars := list(tables.bar_rows(throughput)):
        found.append(Section("Aims", [Table("Aims.", tables.BAR, bars, "lrrl")]))
    found.append(Section("How it was measured", method_lines(throughput)))
    if throughput.skipped:
        found.append(Section("Not measured", list(tables.skipped_lines(throughput))))
    return found


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
            Plot(
                plot_workload(result), f"Images per second of each method: {result.title}", caption
            ),
            Table("Speed and exactness.", tables.RATES, [*tables.rate_rows(result)], wide=True),
            Table("What it costs.", tables.COSTS, [*tables.cost_rows(result)], wide=True),
        ],
    )


def plot_workload(result: WorkloadResult) -> Figure:
    """Plot the rates of all methods on a workload."""
    bars = [RateBar(one.name, one.rates, one.peer == "inkrun") for one in result.figures]
    return plot_rates({"": bars})
