"""Results of `bench scaling` as rows: for the terminal and for the page."""

from collections.abc import Iterator, Sequence

from pipeline.benchmarks.harness import Ratio, rate_cells
from pipeline.benchmarks.scaling.results import DataFigures, Scaling

PARTS = ("compute", "all_reduce", "loader", "stalls")
TRAINING = [
    "processes",
    "rows each",
    "images/s",
    "range",
    "× 1 process, same rows in all",
    "× 1 process, same rows each",
    "compute",
    "all-reduce",
    "loader",
    "stalls",
]
CHECKS = ["rows each", "step, measured (ms)", "step, predicted (ms)", "error"]
PREDICTIONS = ["processes (predicted)", "kind", "rows each", "images/s", "efficiency"]
DATA = [
    "",
    "samples",
    "file (MB)",
    "opened (s)",
    "images/s",
    "range",
    "× smallest file",
    "order, fraction",
    "RssAnon (MB)",
    "× smallest file",
]
SLOWED = 1.2  # times the rate of one process: more than processes can gain
SLOW = "this says nothing: other work on the machine slowed the one process, whose threads wait"
BAR_PROCESSES, BAR_FLAT, BAR_MILLION, BAR_OPENED = 0.85, 0.1, 0.85, 1.0


def training_rows(result: Scaling) -> Iterator[Sequence[str]]:
    """Return a row for each number of processes and rows with the columns TRAINING."""
    for one in result.training:
        yield [
            str(one.processes),
            str(one.rows),
            *rate_cells(one.rates),
            *(_ratio(one.factor(base)) for base in ("strong", "weak")),
            *(f"{one.share(part):.1%}" for part in PARTS),
        ]


def check_rows(result: Scaling) -> Iterator[Sequence[str]]:
    """Return a row for each check of the model with the columns CHECKS."""
    for one in result.checks:
        times = (f"{1000 * seconds:,.1f}" for seconds in (one.measured, one.predicted))
        yield [str(one.rows), *times, f"{one.error:+.1%}"]


def prediction_rows(result: Scaling) -> Iterator[Sequence[str]]:
    """Return a row for each prediction with the columns PREDICTIONS."""
    for one in result.predictions:
        yield [
            str(one.processes),
            one.kind,
            str(one.rows),
            f"{one.rate:,.0f}",
            f"{one.efficiency:.0%}",
        ]


def data_rows(result: Scaling) -> Iterator[Sequence[str]]:
    """Return a row for each file with the columns DATA."""
    for one in result.data:
        yield [
            one.kind,
            f"{one.samples:,}",
            f"{one.file_bytes / 1e6:,.1f}",
            f"{one.opened:.3f}",
            *rate_cells(one.rates),
            str(one.factor),
            f"{one.order_share:.1%}",
            f"{one.anonymous / 1e6:,.0f}",
            f"{one.anonymous / one.reference_anonymous:.2f}",
        ]


def bar_lines(result: Scaling) -> Iterator[str]:
    """Return a line for each bar, and whether it is met."""
    pairs = [one.factor("strong") for one in result.training if one.processes == 2]
    found = [ratio.value for ratio in pairs if ratio is not None]
    if found:
        name, best = "two processes over one with the same cores", max(found)
        line = _bar(name, best, best >= BAR_PROCESSES, "0.85")
        yield line if best < SLOWED else f"{line}; {SLOW}"
    for kind in dict.fromkeys(one.kind for one in result.data):
        files = [one for one in result.data if one.kind == kind]
        yield from _pages(files[-1]) if kind == "pages" else _small(files[-1])


def _pages(one: DataFigures) -> Iterator[str]:
    name, value = f"images/s of {one.samples:,} pages over the smallest file", one.factor.value
    yield _bar(name, value, value >= 1 - BAR_FLAT, "0.90")
    name = f"anonymous memory of {one.samples:,} pages over the smallest file"
    value = one.anonymous / one.reference_anonymous
    yield _bar(name, value, value <= 1 + BAR_FLAT, "at most 1.10")


def _small(one: DataFigures) -> Iterator[str]:
    name, value = f"images/s of {one.samples:,} {one.kind}, over the small file", one.factor.value
    yield _bar(name, value, value >= BAR_MILLION, "0.85")
    name = f"seconds to open {one.samples:,} {one.kind}"
    yield _bar(name, one.opened, one.opened < BAR_OPENED, "less than 1")


def _bar(name: str, value: float, met: bool, expected: str) -> str:
    return f"{'met' if met else 'not met'}: {name}: got {value:.2f}, expected {expected}"


def _ratio(ratio: Ratio | None) -> str:
    return "–" if ratio is None else str(ratio)
