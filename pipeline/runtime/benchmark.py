"""Rates of several ways to do the same work, measured in turn.

The speed of a shared machine drifts. So every round runs each task once, and results are medians
over the rounds: of a task's rate, and of its ratio to the baseline in the same round.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True)
class Rates:
    """Items per second of each task, one number per round."""

    rounds: Mapping[str, list[float]]
    baseline: str

    def ratio(self, name: str) -> float:
        """Return the median over the rounds of a task's rate divided by the baseline's."""
        pairs = zip(self.rounds[name], self.rounds[self.baseline], strict=True)
        return median(rate / base for rate, base in pairs)

    def table(self, title: str, unit: str) -> Table:
        """Return a row for each task: median, slowest and fastest round, ratio to the baseline."""
        table = Table(title=title, title_justify="left")
        for heading in ("", f"{unit}/s (median)", "slowest", "fastest", f"× {self.baseline}"):
            table.add_column(heading, justify="right" if heading else "left", overflow="fold")
        for name, rates in self.rounds.items():
            numbers = median(rates), min(rates), max(rates)
            table.add_row(name, *(f"{rate:,.0f}" for rate in numbers), f"{self.ratio(name):,.2f}")
        return table


def measure(tasks: Mapping[str, Callable[[], int]], rounds: int, baseline: str) -> Rates:
    """Run every task once per round, in turn, after a warm-up; a task returns its item count."""
    for task in tasks.values():
        task()
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            items = task()
            rates[name].append(items / (time.perf_counter() - start))
    return Rates(rates, baseline)
