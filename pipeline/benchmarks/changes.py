"""What changed between two benchmarks, beyond the spread of their rounds.

The rounds of two benchmarks are no pairs: the interval of a change is that of Welch's t test on the
logarithms of the rates. It does not cover a machine that was busier in one of the two. A lead is a
ratio of rates that were measured in turns, so its change is the safer one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from pipeline.analysis.stats import Interval
from pipeline.benchmarks.harness import Ratio, table
from pipeline.benchmarks.results import Figures, Results, read_results
from pipeline.errors import UserError
from pipeline.runtime.files import read_json

COLUMNS = ["", "images/s, before", "after", "change", "", "inkrun's lead, change", ""]


@dataclass(frozen=True)
class Change:
    """A method in two benchmarks. `rate` and `lead` are ratios of the second to the first.

    `lead` is that of how many times as fast this project's loader is as the method.
    """

    name: str
    before: float
    after: float
    rate: Ratio
    lead: Ratio


def change(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """Return how many times as large the second numbers are, with its 95 % interval.

    None in place of the interval for fewer than two rounds, or without a spread.
    """
    first, second = np.log(before), np.log(after)
    ratio = math.exp(second.mean() - first.mean())
    if min(len(first), len(second)) < 2 or max(first.std(), second.std()) == 0:
        return Ratio(ratio, None)
    interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    return Ratio(ratio, Interval(math.exp(interval.low), math.exp(interval.high)))


def verdict(ratio: Ratio) -> str:
    """Return whether a change is beyond noise: its interval excludes 1."""
    if ratio.interval is None:
        return "one round: unknown" if ratio.value != 1 else "same"
    if ratio.interval.low > 1:
        return "more"
    return "less" if ratio.interval.high < 1 else "within noise"


def changes(before: Results, after: Results) -> Iterator[Change]:
    """Return the change of each method that both benchmarks have measured."""
    if before.throughput is None or after.throughput is None:
        return
    first = {one.name: one for one in before.throughput.workloads}
    for workload in after.throughput.workloads:
        for new in workload.figures:
            old = first[workload.name].find(new.name) if workload.name in first else None
            if old is not None:
                yield Change(
                    f"{workload.name}: {new.name}",
                    old.rate,
                    new.rate,
                    change(old.rates, new.rates),
                    change(_leads(old), _leads(new)),
                )


def _leads(figures: Figures) -> list[float]:
    return [a / b for a, b in zip(figures.reference_rates, figures.rates, strict=True)]


def compare(first: Path, second: Path, console: Console) -> None:
    """Print what changed between two benchmarks.

    Raises UserError for other folders, and if the two have no method in common.
    """
    found = list(changes(read_results(first), read_results(second)))
    if not found:
        raise UserError(f"compare: {first} and {second} have measured nothing in common")
    rows = [
        [
            one.name,
            f"{one.before:,.0f}",
            f"{one.after:,.0f}",
            str(one.rate),
            verdict(one.rate),
            str(one.lead),
            verdict(one.lead),
        ]
        for one in found
    ]
    console.print(table(COLUMNS, rows, "lrrrlrl", f"{second} against {first}"))
    for line in differences(*(read_json(folder, "machine.json") for folder in (first, second))):
        console.print(line, markup=False)
    beyond = [one.name for one in found if verdict(one.lead) in ("more", "less")]
    console.print(
        f"inkrun's lead changed beyond noise in {len(beyond)} of {len(found)} comparisons"
    )


def differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """Return a line about each part of the machine's description that differs."""
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield f"different {name}: {first.get(name)}, then {second.get(name)}"
