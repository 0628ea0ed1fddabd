"""Tasks in turns: rates in rounds, their medians, and their ratios pair by pair.

The speed of a shared machine drifts. So every round runs each task once, and two tasks are compared
within a round: the ratio of their rates is the geometric mean over the rounds, and its interval is
the 95 % t interval of the mean of its logarithm. The interval covers the spread of the rounds, not
what differs between machines.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from rich import box
from rich.markup import escape
from rich.table import Table

from pipeline.analysis.stats import Interval, estimate

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """A ratio of rates with its 95 % interval, None for a single round or rounds that agree."""

    value: float
    interval: Interval | None

    def __str__(self) -> str:
        digits = 0 if self.value >= 100 else 2
        text = f"{self.value:,.{digits}f}"
        if self.interval is None:
            return text
        return f"{text} ({self.interval.low:,.{digits}f} to {self.interval.high:,.{digits}f})"


@dataclass(frozen=True)
class Series:
    """What was measured of one method in each round, or with each seed, in `unit`.

    `factors` are its ratios to a reference that took turns with it, empty where there is none.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    factors: tuple[float, ...] = ()


class Rates:
    """A result's rates, images/s in each round, and those of its reference in the same rounds."""

    rates: tuple[float, ...]
    reference_rates: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return median(self.rates)

    @property
    def factor(self) -> Ratio:
        """How many times as fast as its reference it is, round by round."""
        return ratio(self.rates, self.reference_rates)

    def series(self, name: str) -> Series:
        """Return the rates of all rounds, and their ratios to the reference, under a name."""
        return rate_series(name, self.rates, self.reference_rates)


def rate_series(name: str, rates: Sequence[float], reference: Sequence[float]) -> Series:
    """Return rates, and their ratios to a reference in the same rounds if there is one."""
    factors = (own / base for own, base in zip(rates, reference, strict=True)) if reference else ()
    return Series(name, "images/s", tuple(rates), tuple(factors))


def take_turns(tasks: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Run every task once per round, in turn; return its results in the order of the rounds."""
    results: dict[K, list[T]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            results[name].append(task())
    return results


def ratio(rates: Sequence[float], base: Sequence[float]) -> Ratio:
    """Return the ratio of two tasks' rates, pair by pair. Raises ValueError for unequal rounds."""
    return _ratio_of([math.log(own / other) for own, other in zip(rates, base, strict=True)])


def _ratio_of(logs: Sequence[float]) -> Ratio:
    mean = estimate(logs)
    interval = mean.interval
    if interval is not None:
        interval = Interval(math.exp(interval.low), math.exp(interval.high))
    return Ratio(math.exp(mean.mean), interval)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    align: str,
    title: str | None = None,
    style: box.Box = box.HEAVY_HEAD,
) -> Table:
    """Return a table; `align` has an "l" or "r" for each column."""
    made = Table(title=title, title_justify="left", box=style)
    for heading, side in zip(headings, align, strict=True):
        made.add_column(heading, justify="right" if side == "r" else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def rate_cells(rates: Sequence[float]) -> list[str]:
    """Return the median rate and its range as cells of a table."""
    return [f"{median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}"]


BUSY = 0.5  # processes that run already, for each core: from there on, times are too long


def busy_line(load: float, cores: int) -> str:
    """Return a warning if other processes ran on the machine before the benchmark."""
    if load < BUSY * cores:
        return ""
    return (
        f"The machine was busy: a load of {load:.1f} on {cores} cores before the benchmark. Tasks "
        "took turns, so ratios mean something; times are longer than those of an idle machine."
    )
