"""The ranking of several settings of a training, and paired differences to the best of them.

The best of several settings is chosen by the same trainings that its lead is measured on, so the
best of equal settings always seems to lead. A difference is therefore *shown* only if its 95 %
interval excludes zero after a correction for every pair of settings (Bonferroni), whichever pair
the choice of the best selects. Reads no files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats as distributions

from pipeline.analysis import stats
from pipeline.analysis.stats import (
    ACCURACY,
    CONFIDENCE,
    UNBOUNDED,
    UNIT_INTERVAL,
    Comparison,
    Estimate,
    Interval,
)
from pipeline.evaluation.sweep_config import Setting


@dataclass(frozen=True)
class Outcome:
    """One finished training: its folder in the run directory, and its results.

    Accuracies are fractions of `samples` validation images. A training that diverged has no
    results, and a `reason`.
    """

    training: str
    samples: int | None = None
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    loss: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Difference:
    """The accuracy of the best setting minus that of another, paired by seed.

    `comparison` is None where a training of either diverged. `shown` includes the correction for
    the choice of the best. `words` describe it in a sentence without full stop.
    """

    comparison: Comparison | None
    shown: bool
    words: str


@dataclass(frozen=True)
class SettingResult:
    """The trainings of a setting, one for each seed of the sweep, in the order of the seeds.

    Estimates are over the trainings that did not diverge, None if all did. `difference` is None for
    the best setting.
    """

    setting: Setting
    outcomes: tuple[Outcome, ...]
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    loss: Estimate | None
    seconds: Estimate | None
    difference: Difference | None = None

    @property
    def accuracies(self) -> list[float | None]:
        """The accuracy of each training, None for one that diverged."""
        return [outcome.accuracy for outcome in self.outcomes]

    @property
    def diverged(self) -> int:
        """The number of trainings that diverged."""
        return self.accuracies.count(None)


@dataclass(frozen=True)
class Ranking:
    """Settings, the most accurate first; settings with trainings that diverged come last.

    `pairs` is the number of pairs of settings that the correction is for. `answer` is some
    sentences.
    """

    seeds: tuple[int, ...]
    settings: tuple[SettingResult, ...]
    pairs: int
    answer: str

    @property
    def best(self) -> SettingResult:
        """The setting with the highest mean accuracy."""
        return self.settings[0]


@dataclass(frozen=True)
class SweepResult:
    """The result.json of a sweep: the ranking of its settings."""

    ranking: Ranking


def rank(
    settings: Sequence[Setting], outcomes: Sequence[Sequence[Outcome]], seeds: Sequence[int]
) -> Ranking:
    """Rank settings by mean accuracy; `outcomes` has a row for each, with an entry for each seed.

    Equal means keep their order. Raises ValueError for no settings or seeds.
    """
    if not settings or not seeds:
        raise ValueError(f"rank: got {len(settings)} settings and {len(seeds)} seeds")
    results = [_result(s, tuple(row)) for s, row in zip(settings, outcomes, strict=True)]
    results.sort(key=lambda one: (one.diverged, -one.accuracy.mean if one.accuracy else math.inf))
    pairs = math.comb(len(results), 2)
    best, *others = results
    compared = (replace(one, difference=_difference(best, one, pairs)) for one in others)
    ranked = (best, *compared)
    return Ranking(tuple(seeds), ranked, pairs, _answer(ranked, len(seeds)))


def holds_for(comparison: Comparison, pairs: int) -> bool:
    """Return whether a difference is shown after a Bonferroni correction for `pairs` of arms."""
    c = comparison
    if pairs <= 1 or not c.shown:
        return c.shown
    assert c.difference is not None
    assert c.deviation  # equal differences are never shown
    t = abs(c.difference) / (c.deviation / math.sqrt(c.pairs))
    return 2 * float(distributions.t.sf(t, c.pairs - 1)) * pairs <= 1 - CONFIDENCE


def _result(setting: Setting, outcomes: tuple[Outcome, ...]) -> SettingResult:
    def estimate(name: str, limits: Interval = UNBOUNDED) -> Estimate | None:
        values = [value for one in outcomes if (value := getattr(one, name)) is not None]
        return stats.estimate(values, limits) if values else None

    return SettingResult(
        setting,
        outcomes,
        estimate("accuracy", UNIT_INTERVAL),
        estimate("balanced_accuracy", UNIT_INTERVAL),
        estimate("loss"),
        estimate("seconds"),
    )


def _difference(best: SettingResult, other: SettingResult, pairs: int) -> Difference:
    seeds = len(other.outcomes)
    for one in (other, best):
        if one.diverged:
            words = f"{one.setting.name} diverged in {one.diverged} of {seeds} trainings"
            return Difference(None, False, f"{words}, so the two are not compared")
    comparison = stats.compare(best.accuracies, other.accuracies)
    names = best.setting.name, other.setting.name
    words, shown = stats.describe_difference(comparison, *names, ACCURACY), comparison.shown
    if shown and not holds_for(comparison, pairs):
        shown = False
        words = (
            f"no difference was shown ({words.removesuffix(': shown')}; corrected for the choice "
            f"of the best, one of {pairs} pairs, the interval includes zero)"
        )
    return Difference(comparison, shown, words)


def _answer(ranked: Sequence[SettingResult], seeds: int) -> str:
    best, *others = ranked
    if best.accuracy is None:
        return f"All trainings of all {len(ranked)} settings diverged."
    over = f"over {seeds} seeds" if seeds > 1 else "with one seed"
    accuracy = f"{100 * best.accuracy.mean:.2f} %"
    if interval := best.accuracy.interval:
        accuracy += f" (95 % interval {100 * interval.low:.2f} to {100 * interval.high:.2f})"
    sentences = [
        f"Of {len(ranked)} settings, {best.setting.name} has the highest validation accuracy, "
        f"{accuracy} {over}."
        if others
        else f"{best.setting.name} has a validation accuracy of {accuracy} {over}."
    ]
    if best.diverged:
        sentences.append("Every setting has trainings that diverged.")
    elif others and seeds == 1:
        sentences.append("One seed shows no difference between settings.")
    elif others:
        shown = sum(one.difference is not None and one.difference.shown for one in others)
        diverged = sum(one.diverged > 0 for one in others)
        rest = len(others) - shown - diverged
        counts = (
            (shown, "is shown to be less accurate", "are shown to be less accurate"),
            (rest, "is not shown to differ from it", "are not shown to differ from it"),
            (diverged, "has trainings that diverged", "have trainings that diverged"),
        )
        if len(others) == 1:
            sentences.append(f"The other one {next(one for n, one, _ in counts if n)}.")
        else:
            parts = [f"{n} {one if n == 1 else many}" for n, one, many in counts if n]
            sentences.append(f"Of the other {len(others)}, {', '.join(parts)}.")
    return " ".join(sentences)
