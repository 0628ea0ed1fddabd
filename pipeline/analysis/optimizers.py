"""The published comparison of optimizers, as published and fairly. Reads no files.

As published, each optimizer has one learning rate, so pairs are compared, not optimizers. Fairly,
each optimizer has the best learning rate of its grid, chosen with a seed that the comparison does
not use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.analysis.sweep import Ranking, SettingResult

OPTIMIZER, RATE = "optimizer", "learning_rate"  # options of every setting


@dataclass(frozen=True)
class OptimizerResult:
    """The result.json of the comparison of optimizers.

    `published` are the accuracies that others reported, by optimizer. `as_published` ranks the
    published pairs of optimizer and learning rate, `grid` all pairs of the grids, `fair` each
    optimizer at its best learning rate. `protocol` describes all trainings, `findings` are
    sentences: what is shown, and what is not.
    """

    published: Mapping[str, float]
    as_published: Ranking
    grid: Ranking
    fair: Ranking
    protocol: str
    findings: tuple[str, ...]


def optimizer_of(result: SettingResult) -> str:
    """Return the optimizer of a setting."""
    return str(result.setting.options[OPTIMIZER])


def best_rates(grid: Ranking) -> dict[str, SettingResult]:
    """Return the most accurate setting of each optimizer that has one which did not diverge."""
    found: dict[str, SettingResult] = {}
    for one in grid.settings:  # the most accurate first
        if not one.diverged:
            found.setdefault(optimizer_of(one), one)
    return found


def conclude(
    published: Mapping[str, float],
    as_published: Ranking,
    grid: Ranking,
    fair: Ranking,
    protocol: str,
) -> OptimizerResult:
    """Return the comparison with its findings."""
    findings = (
        _order(published, as_published),
        f"As published: {as_published.answer} These are pairs of an optimizer and one learning "
        f"rate ({_pairs(as_published)}), so they do not compare optimizers.",
        f"Fairly, each optimizer at the best learning rate of its grid ({_pairs(fair)}): "
        f"{fair.answer}",
        _spread(as_published, fair),
        *_edges(grid),
        *_missing(published, fair),
    )
    findings = tuple(filter(None, findings))
    return OptimizerResult(published, as_published, grid, fair, protocol, findings)


def _pairs(ranking: Ranking) -> str:
    rows = sorted(ranking.settings, key=optimizer_of)
    return ", ".join(f"{optimizer_of(one)} at {one.setting.options[RATE]:g}" for one in rows)


def _order(published: Mapping[str, float], ranking: Ranking) -> str:
    reported = sorted(published, key=lambda name: -published[name])
    ours = [optimizer_of(one) for one in ranking.settings]
    orders = " > ".join(reported), " > ".join(ours)
    if reported == ours:
        return f"The published order of the pairs repeats: {orders[0]}."
    return f"The published order of the pairs is {orders[0]}; here it is {orders[1]}."


def _spread(as_published: Ranking, fair: Ranking) -> str:
    """Return how far the means of both comparisons lie apart, empty where trainings diverged."""
    spans = []
    for ranking in (as_published, fair):
        means = [one.accuracy.mean for one in ranking.settings if one.accuracy is not None]
        if len(means) < len(ranking.settings):
            return ""
        spans.append(100 * (max(means) - min(means)))
    return (
        f"The best and the worst mean lie {spans[0]:.1f} points apart as published, and "
        f"{spans[1]:.1f} points at each optimizer's best learning rate."
    )


def _edges(grid: Ranking) -> list[str]:
    """Return a sentence about optimizers whose best learning rate is an end of their grid."""
    rates: dict[str, list[float]] = {}
    for one in grid.settings:
        rates.setdefault(optimizer_of(one), []).append(one.setting.options[RATE])
    found = [
        f"{name} at {best.setting.options[RATE]:g}"
        for name, best in sorted(best_rates(grid).items())
        if best.setting.options[RATE] in (min(rates[name]), max(rates[name]))
    ]
    if not found:
        return []
    return [
        f"At the edge of its grid: {', '.join(found)}. A learning rate beyond it may be better, so "
        "the comparison may be unfair to it."
    ]


def _missing(published: Sequence[str] | Mapping[str, float], fair: Ranking) -> list[str]:
    left = sorted({*published} - {optimizer_of(one) for one in fair.settings})
    return [f"All learning rates of its grid diverged: {', '.join(left)}."] if left else []
