"""Results of `bench throughput` as rows: for the terminal and for the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.benchmarks.results import Figures, Throughput, WorkloadResult

RATES = ["", "images/s", "slowest to fastest", "inkrun is × as fast", "mean diff.", "largest diff."]
COSTS = [
    "",
    "first batch (s)",
    "kernels uncached (s)",
    "CPU µs/image",
    "peak memory (MB)",
    "disk (MB)",
    "preparation (s)",
]
BAR = ["bar", "at least", "measured", ""]
CACHED = 0.02  # of a cold epoch's files in the page cache: more, and it was not cold


@dataclass(frozen=True)
class Bar:
    """An aim: how many times as fast as the fastest of some methods inkrun is on a workload.

    `of` starts the methods' names; `whole` says whether they decode whole pages in each epoch.
    """

    workload: str
    of: str
    least: float
    whole: bool = True


BARS = (
    Bar("pages-224", "Pillow, box", 400),
    Bar("pages-224", "FFCV", 150),
    Bar("pages-224", "FFCV", 6, whole=False),
    Bar("grey-224", "Pillow, box", 40),
    Bar("digits", "FFCV", 3),
    Bar("digits", "DataLoader over tensors", 3),
    Bar("digits", "index_select", 2),
)


def bar_rows(result: Throughput) -> Iterator[Sequence[str]]:
    """Return a row for each aim that was measured, with the columns BAR."""
    figures = {one.name: one.figures for one in result.workloads}
    for bar in BARS:
        peers = [
            one
            for one in figures.get(bar.workload, ())
            if one.name.startswith(bar.of) and one.whole == bar.whole
        ]
        if peers:
            fastest = max(peers, key=lambda one: one.rate)
            met = "met" if fastest.factor.value >= bar.least else "not met"
            name = f"{bar.workload}: × {fastest.name}"
            yield [name, f"{bar.least:g}", str(fastest.factor), met]


def rate_rows(result: WorkloadResult) -> Iterator[Sequence[str]]:
    """Return a row for each method with the columns RATES."""
    for one in result.figures:
        yield [
            label(one),
            f"{one.rate:,.0f}",
            f"{min(one.rates):,.0f} to {max(one.rates):,.0f}",
            str(one.factor),
            f"{one.mean_difference:.3f}",
            f"{one.largest_difference:.2f}",
        ]


def cost_rows(result: WorkloadResult) -> Iterator[Sequence[str]]:
    """Return a row for each method with the columns COSTS."""
    for one in result.figures:
        uncached = one.first_batch_uncached
        yield [
            label(one),
            f"{one.first_batch:.2f}",
            "–" if uncached is None else f"{uncached:.2f}",
            f"{1e6 * one.cpu_seconds:,.1f}",
            f"{one.peak_rss / 1e6:,.0f}",
            f"{one.disk_bytes / 1e6:,.1f}",
            f"{one.preparation_seconds:,.1f}",
        ]


def label(one: Figures) -> str:
    """Return a method's name, with what a reader must know about its figures."""
    notes = []
    if not one.whole:
        notes.append("resized before")
    if one.cached is not None and one.cached > CACHED:
        notes.append(f"not cold: {one.cached:.0%} stayed in the page cache")
    return f"{one.name} ({'; '.join(notes)})" if notes else one.name


def skipped_lines(result: Throughput) -> Iterator[str]:
    """Return a line about each peer and method that was not measured."""
    return (f"{one.name}: skipped: {one.reason}" for one in result.skipped)
