"""Does pretraining help? Two arms of trainings, paired by seed: numbers in, numbers and words out.

The question is answered by one figure that was chosen before looking: accuracy at the end. All
others describe how the arms got there. Where nothing differs at all, one in twenty of them is shown
to differ by chance.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.analysis.stats import (
    ACCURACY,
    CONFIDENCE,
    EPOCHS,
    LOSS,
    SECONDS,
    Bands,
    Comparison,
    Estimate,
    Interval,
    Metric,
    area_under_curve,
    bands,
    compare,
    count_spikes,
    describe_difference,
    estimate,
    first_reached,
)
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.evaluation.run_dir import TrainingResult

ARMS = ("pretrained", "scratch")
NAMES = ("pretrained", "from scratch")
THRESHOLDS = (0.95, 0.97, 0.98, 0.99, 0.994)
CURVE_POINTS = 100  # of the course of the training loss

SPIKES = Metric("spikes", "rougher", "smoother")
NORM = Metric("in norm", "larger", "smaller")
LENGTH = Metric("% of its first weights' length", "farther from them", "nearer to them", 100)


@dataclass(frozen=True)
class Start:
    """A training before its first step, and after its last.

    `accuracy`, from 0 to 1, is that of its first weights on its validation samples. `moved` is how
    far its last weights are from these, relative to their length (L2), by group of layers: stem,
    body, head, and all of them as "whole".
    """

    accuracy: float
    moved: Mapping[str, float]


@dataclass(frozen=True)
class TrainingCurve:
    """A finished training: its validated epochs, the losses of its steps, and how it began."""

    history: Sequence[EpochMetrics]
    losses: Sequence[float]
    start: Start


@dataclass(frozen=True)
class MetricComparison:
    """A figure of both arms by seed, None where it was never reached, and what that shows.

    The means are over the seeds that have one. `comparison` is pretrained minus scratch, and
    `words` say it.
    """

    name: str
    measure: Metric
    pretrained: tuple[float | None, ...]
    scratch: tuple[float | None, ...]
    pretrained_mean: Estimate | None
    scratch_mean: Estimate | None
    comparison: Comparison
    words: str


@dataclass(frozen=True)
class Spread:
    """How much the seeds of an arm differ in accuracy after an epoch (counted from 1).

    `pretrained` and `scratch` are sample standard deviations; `ratio` is the first over the second,
    with its 95 % `interval`; `shown`: that excludes 1. All are None where they are not defined.
    """

    epoch: int
    pretrained: float | None
    scratch: float | None
    ratio: float | None
    interval: Interval | None
    shown: bool


@dataclass(frozen=True)
class Analysis:
    """What two arms of trainings, paired by seed, say about pretraining.

    `end` begins with the figure that answers the question, `progress` is the way there, `times` are
    the epochs and seconds to each threshold, `stability` and `movement` are what their names say;
    `spreads` has an entry per epoch. `curves` are by name, then by arm. `answer` is two sentences.
    """

    seeds: tuple[int, ...]
    epochs: int
    end: tuple[MetricComparison, ...]
    progress: tuple[MetricComparison, ...]
    times: tuple[MetricComparison, ...]
    stability: tuple[MetricComparison, ...]
    movement: tuple[MetricComparison, ...]
    spreads: tuple[Spread, ...]
    curves: Mapping[str, Mapping[str, Bands]]
    answer: str


@dataclass(frozen=True)
class DatasetUse:
    """A dataset in the experiment: its file, its origin, and how many images had which use.

    `learned` images of the splits `learn_from` were trained on, `validated` images of the split
    `validate_on` were validated on.
    """

    file: str
    provenance: dict[str, Any]
    learn_from: str
    learned: int
    validate_on: str
    validated: int


@dataclass(frozen=True)
class PretrainingResult:
    """The result.json of part 2. `trainings` are by the names of their folders."""

    provenance: dict[str, Any]
    digits: DatasetUse
    mnist: DatasetUse
    analysis: Analysis
    trainings: dict[str, TrainingResult]
    seconds_in_all: float


def analyse(
    seeds: Sequence[int], pretrained: Sequence[TrainingCurve], scratch: Sequence[TrainingCurve]
) -> Analysis:
    """Compare the trainings of each seed, one from each arm.

    Raises ValueError for arms that are not equally long, epochs that are not equally many, or not
    validated.
    """
    lengths = {len(one.history) for one in (*pretrained, *scratch)}
    if not len(seeds) == len(pretrained) == len(scratch) or len(lengths) != 1:
        raise ValueError(
            f"analyse: got {len(seeds)} seeds, {len(pretrained)} pretrained and {len(scratch)} "
            f"trainings from scratch of {sorted(lengths)} epochs, expected as many of each"
        )
    (epochs,) = lengths

    def quantity(
        name: str, measure: Metric, figure: Callable[[TrainingCurve], float | None]
    ) -> MetricComparison:
        return _compare_metric(name, measure, *([figure(one) for one in arm] for arm in arms))

    arms = (pretrained, scratch)
    end = (
        quantity("accuracy at the end", ACCURACY, lambda one: accuracies(one)[-1]),
        quantity("loss at the end", LOSS, lambda one: losses(one)[-1]),
    )
    progress = (
        quantity("accuracy before step 1", ACCURACY, lambda one: one.start.accuracy),
        quantity("accuracy after epoch 1", ACCURACY, lambda one: accuracies(one)[0]),
        quantity(
            "area under accuracy",
            ACCURACY,
            lambda one: area_under_curve(_epochs(one), accuracies(one)),
        ),
        quantity(
            "mean training loss",
            LOSS,
            lambda one: float(np.mean(one.losses)),
        ),
    )
    times = tuple(
        quantity(f"{unit} to {100 * threshold:g} %", measure, _when_reached(threshold, at))
        for threshold in THRESHOLDS
        for unit, measure, at in (("epochs", EPOCHS, _epochs), ("seconds", SECONDS, _seconds))
    )
    stability = (
        quantity("loss spikes", SPIKES, lambda one: count_spikes(one.losses)),
        quantity(
            "gradient norm",
            NORM,
            lambda one: float(np.mean([epoch.gradient_norm for epoch in one.history])),
        ),
    )
    movement = tuple(
        quantity(f"{name} moved", LENGTH, _moved(name)) for name in pretrained[0].start.moved
    )
    return Analysis(
        tuple(seeds),
        epochs,
        end,
        progress,
        times,
        stability,
        movement,
        _spreads(arms),
        _curves(arms),
        _answer(epochs, end[0], progress),
    )


def spread_ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval] | None:
    """Return the ratio of two arms' standard deviations, pair by pair, and its 95 % interval.

    It holds exactly for normal pairs, correlated or not (Pitman 1939, Morgan 1939). None for fewer
    than three pairs, an arm without spread, or arms of which one is the other but for its scale.
    """
    if len(first) < 3 or not np.ptp(first) or not np.ptp(second):
        return None
    ratio = float(np.std(first) / np.std(second))
    apart = 1 - float(np.corrcoef(first, second)[0, 1]) ** 2
    if apart < 1e-12:
        return None
    freedom = len(first) - 2
    bound = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    middle = 1 + 2 * apart * bound**2 / freedom
    factor = math.sqrt(middle + math.sqrt(middle**2 - 1))
    return ratio, Interval(ratio / factor, ratio * factor)


def accuracies(training: TrainingCurve) -> list[float]:
    """Return the validation accuracy after each epoch. Raises ValueError if there is none."""
    return _all_validated([epoch.accuracy for epoch in training.history])


def losses(training: TrainingCurve) -> list[float]:
    """Return the validation loss after each epoch. Raises ValueError if there is none."""
    return _all_validated([epoch.loss for epoch in training.history])


def _all_validated(values: Sequence[float | None]) -> list[float]:
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        raise ValueError("analyse: got epochs that were not validated, expected all to be")
    return there


def _epochs(training: TrainingCurve) -> list[float]:
    return [float(epoch.epoch + 1) for epoch in training.history]


def _seconds(training: TrainingCurve) -> list[float]:
    return [epoch.seconds for epoch in training.history]


def _when_reached(
    threshold: float, at: Callable[[TrainingCurve], list[float]]
) -> Callable[[TrainingCurve], float | None]:
    return lambda one: first_reached(at(one), accuracies(one), threshold)


def _moved(group: str) -> Callable[[TrainingCurve], float | None]:
    return lambda one: one.start.moved[group]


def _compare_metric(
    name: str, measure: Metric, first: Sequence[float | None], second: Sequence[float | None]
) -> MetricComparison:
    comparison = compare(first, second)
    return MetricComparison(
        name,
        measure,
        tuple(first),
        tuple(second),
        _estimate_reached(first),
        _estimate_reached(second),
        comparison,
        describe_difference(comparison, *NAMES, measure),
    )


def _estimate_reached(values: Sequence[float | None]) -> Estimate | None:
    there = [value for value in values if value is not None]
    return estimate(there) if there else None


Arms = tuple[Sequence[TrainingCurve], Sequence[TrainingCurve]]


def _spreads(arms: Arms) -> tuple[Spread, ...]:
    found = []
    first, second = (np.array([accuracies(one) for one in arm]).T.tolist() for arm in arms)
    for number, (ours, theirs) in enumerate(zip(first, second, strict=True)):
        ratio, interval = spread_ratio(ours, theirs) or (None, None)
        found.append(
            Spread(
                number + 1,
                estimate(ours).deviation,
                estimate(theirs).deviation,
                ratio,
                interval,
                shown=interval is not None and not interval.low <= 1 <= interval.high,
            )
        )
    return tuple(found)


def _curves(arms: Arms) -> dict[str, dict[str, Bands]]:
    def drawn(
        x: Callable[[TrainingCurve], Sequence[float]], y: Callable[[TrainingCurve], Sequence[float]]
    ) -> dict[str, Bands]:
        return {
            name: bands([x(one) for one in arm], [y(one) for one in arm])
            for name, arm in zip(NAMES, arms, strict=True)
        }

    return {
        "accuracy over epochs": drawn(_epochs, accuracies),
        "accuracy over seconds": drawn(_seconds, accuracies),
        "loss over epochs": drawn(_epochs, losses),
        "training loss": drawn(_chunk_epochs, lambda one: [float(p.mean()) for p in _chunks(one)]),
        "gradient norm": drawn(_epochs, lambda one: [e.gradient_norm for e in one.history]),
    }


def _chunks(training: TrainingCurve) -> list[NDArray[np.float64]]:
    """Return the losses of the steps, in pieces that are nearly equally long."""
    return np.array_split(
        np.array(training.losses, np.float64), min(CURVE_POINTS, len(training.losses))
    )


def _chunk_epochs(training: TrainingCurve) -> list[float]:
    """Return how many epochs were over at the middle of each piece."""
    ends = np.cumsum([len(piece) for piece in _chunks(training)])
    middles = ends - np.diff(ends, prepend=0) / 2
    places: list[float] = (middles * len(training.history) / len(training.losses)).tolist()
    return places


def _answer(epochs: int, final: MetricComparison, progress: Sequence[MetricComparison]) -> str:
    difference = final.comparison.difference
    verdict = "Undecided"
    if final.comparison.shown and difference:
        verdict = "Yes" if difference > 0 else "No, it harms"
    before, _, over_all, _ = progress
    return (
        f"{verdict}: after {_count(epochs)} networks that begin with the digits' weights read "
        f"{_percent(final.pretrained_mean)} and networks from scratch "
        f"{_percent(final.scratch_mean)}; {final.words}. Before the first step they read "
        f"{_percent(before.pretrained_mean)} and {_percent(before.scratch_mean)}; over all epochs "
        f"(the area under the learning curve), {over_all.words}."
    )


def _count(epochs: int) -> str:
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


def _percent(mean: Estimate | None) -> str:
    assert mean is not None
    return f"{100 * mean.mean:.2f} %"
