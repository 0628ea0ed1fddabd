"""Rates of several ways to do the same work, measured in turn so that a comparison holds.

Machines are shared and drift: every round runs each way once, and what is quoted is the median over
the rounds of a way's rate, and of its ratio to the baseline of the same round.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True)
class Rates:
    """Items per second, a number for each round."""

    rounds: Mapping[str, list[float]]
    baseline: str

    def ratio(self, name: str) -> float:
        """Return the median over the rounds of `name`'s rate to the baseline's."""
        pairs = zip(self.rounds[name], self.rounds[self.baseline], strict=True)
        return median(rate / base for rate, base in pairs)

    def table(self, title: str, unit: str) -> Table:
        """Return one row per way: median, slowest and fastest round, ratio to the baseline."""
        table = Table(title=title, title_justify="left")
        for heading in ("", f"{unit}/s (median)", "slowest", "fastest", f"× {self.baseline}"):
            table.add_column(heading, justify="right" if heading else "left", overflow="fold")
        for name, rates in self.rounds.items():
            numbers = median(rates), min(rates), max(rates)
            table.add_row(name, *(f"{rate:,.0f}" for rate in numbers), f"{self.ratio(name):,.2f}")
        return table


def measure(ways: Mapping[str, Callable[[], int]], rounds: int, baseline: str) -> Rates:
    """Run every way once per round, in turn, after a warm-up; a way returns the items it did."""
    for way in ways.values():
        way()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            items = way()
            rates[name].append(items / (time.perf_counter() - start))
    return Rates(rates, baseline)
