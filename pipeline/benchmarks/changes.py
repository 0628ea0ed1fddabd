"""What changed between two benchmarks of one subject, beyond the spread of their rounds.

The rounds of two benchmarks are no pairs: the interval of a change is that of Welch's t test on the
logarithms of what was measured. It does not cover a machine that was busier in one of the two. A
ratio to a reference was measured in turns, so its change is the safer one. The seeds of trainings
count as rounds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from pipeline.analysis.stats import Interval
from pipeline.benchmarks.harness import Ratio, Series, table
from pipeline.benchmarks.results import Config, Results, read_results
from pipeline.errors import UserError
from pipeline.runtime.files import read_as, read_json

ABSENT = "not given"
PLACES = ("runs", "compare")  # options that change nothing of what is measured


@dataclass(frozen=True)
class Change:
    """A method in two benchmarks. `value` and `factor` are ratios of the second to the first.

    `factor` is that of the method's ratio to its reference, None where there is no reference.
    """

    before: Series
    after: Series
    value: Ratio
    factor: Ratio | None


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


def changes(before: Mapping[str, Series], after: Mapping[str, Series]) -> Iterator[Change]:
    """Return the change of each method, by name, that both benchmarks have measured."""
    for name, new in after.items():
        if (old := before.get(name)) is not None:
            both = old.factors and new.factors
            factor = change(old.factors, new.factors) if both else None
            yield Change(old, new, change(old.values, new.values), factor)


def compare(first: Path, second: Path, console: Console) -> None:
    """Print what changed between two benchmarks.

    Raises UserError for other folders, for benchmarks of two subjects, and if the two have no
    method in common.
    """
    results = read_results(first), read_results(second)
    subjects = [_subject(path, one) for path, one in zip((first, second), results, strict=True)]
    if subjects[0] != subjects[1]:
        raise UserError(
            f"compare: got benchmarks of {subjects[0]} and of {subjects[1]}, expected one subject"
        )
    before, after = ({one.name: one for one in result.series()} for result in results)
    found = list(changes(before, after))
    if not found:
        raise UserError(f"compare: {first} and {second} have measured nothing in common")
    reference = results[1].reference
    headings = ["", "unit", "before", "after", "change", "", f"{reference}, change", ""]
    title = f"{subjects[1]}: {second} against {first}"
    console.print(table(headings, map(_cells, found), "llrrrlrl", title))
    for line in (*differences(first, second), *missing(first, before, second, after)):
        console.print(line, markup=False)
    for name, changed in (
        ("what was measured", [one.value for one in found]),
        (reference, [one.factor for one in found if one.factor is not None]),
    ):
        beyond = sum(verdict(one) in ("more", "less") for one in changed)
        console.print(f"{name} changed beyond noise in {beyond} of {len(changed)} comparisons")


def _subject(path: Path, results: Results) -> str:
    if results.subject is None:
        raise UserError(f"{path}: got a benchmark without results")
    return results.subject


def _cells(one: Change) -> list[str]:
    factor = ["–", ""] if one.factor is None else [str(one.factor), verdict(one.factor)]
    numbers = [_number(median(each.values)) for each in (one.before, one.after)]
    return [one.after.name, one.after.unit, *numbers, str(one.value), verdict(one.value), *factor]


def _number(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 2}f}"


def missing(
    first: Path, before: Mapping[str, Series], second: Path, after: Mapping[str, Series]
) -> Iterator[str]:
    """Return a line about what only one of two benchmarks has measured, for each of them."""
    for path, own, other in ((first, before, after), (second, after, before)):
        if names := [name for name in own if name not in other]:
            yield f"only measured in {path}: {'; '.join(names)}"


def differences(first: Path, second: Path) -> Iterator[str]:
    """Return a line each if two benchmarks differ in the machine, in options or in data."""
    machines = [read_json(path, "machine.json") for path in (first, second)]
    configs = [read_as(path / "config.json", Config) for path in (first, second)]
    options = [
        {name: value for name, value in one.options.items() if name not in PLACES}
        for one in configs
    ]
    data = [{"origin": [dict(one) for one in config.provenance]} for config in configs]
    for name, pair in (("machines", machines), ("options", options), ("data", data)):
        old, new = (flat(one) for one in pair)
        parts = [
            f"{key}: {old.get(key, ABSENT)}, then {new.get(key, ABSENT)}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if parts:
            yield f"different {name}: {'; '.join(parts)}"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under names with dots, without empty ones."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value not in (None, [], ()):
            found[f"{prefix}{name}"] = value
    return found
