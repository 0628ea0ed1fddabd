"""Results of `bench throughput` as rows: for the terminal and for the page."""

from collections.abc import Iterator, Sequence

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
CACHED = 0.02  # of a cold epoch's files in the page cache: more, and it was not cold


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
