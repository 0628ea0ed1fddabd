"""Whether pretraining helps: two arms of trainings, paired by seed. Reads no files.

One metric, chosen in advance, answers the question: accuracy at the end. All others describe the
training. If the arms do not differ at all, one in twenty metrics is still shown to differ.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import stats
from pipeline.analysis.stats import ACCURACY, EPOCHS, LOSS, SECONDS, Bands, Interval, Metric
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.evaluation.run_dir import TrainingResult
from pipeline.loading.dataset import Provenance

ARMS = ("pretrained", "scratch")
NAMES = ("pretrained", "from scratch")
THRESHOLDS = (0.95, 0.97, 0.98, 0.99, 0.994)
CURVE_POINTS = 100  # of the training loss

SPIKES = Metric("spikes", "rougher", "smoother")
NORM = Metric("in norm", "larger", "smaller")
LENGTH = Metric("% of its first weights' length", "farther from them", "closer to them", 100)


@dataclass(frozen=True)
class Start:
    """The initial weights of a training, and their distance from the final ones.

    `accuracy`, from 0 to 1, is that of the initial weights on the validation samples. `moved` is
    the L2 distance of the final weights from the initial ones, relative to the norm of the initial
    ones, by group of layers: stem, body, head, and all of them as "whole".
    """

    accuracy: float
    moved: Mapping[str, float]


@dataclass(frozen=True)
class TrainingCurve:
    """A finished training: its validated epochs, the losses of its steps, and its start."""

    history: Sequence[EpochMetrics]
    losses: Sequence[float]
    start: Start


Arms = tuple[Sequence[TrainingCurve], Sequence[TrainingCurve]]
Figure = Callable[[TrainingCurve], float | None]
Figures = Callable[[TrainingCurve], list[float]]


@dataclass(frozen=True)
class MetricComparison:
    """A metric of both arms by seed, None where a threshold was never reached.

    The means are over the seeds that have a value. `comparison` is pretrained minus scratch, and
    `words` describes it.
    """

    name: str
    measure: Metric
    pretrained: tuple[float | None, ...]
    scratch: tuple[float | None, ...]
    pretrained_mean: stats.Estimate | None
    scratch_mean: stats.Estimate | None
    comparison: stats.Comparison
    words: str


@dataclass(frozen=True)
class Spread:
    """The spread of accuracy over the seeds of each arm after an epoch (counted from 1).

    `pretrained` and `scratch` are sample standard deviations; `ratio` is the first over the second,
    with its 95 % `interval`; `shown` says whether that excludes 1. Undefined values are None.
    """

    epoch: int
    pretrained: float | None
    scratch: float | None
    ratio: float | None
    interval: Interval | None
    shown: bool


@dataclass(frozen=True)
class Analysis:
    """A comparison of two arms of trainings, paired by seed.

    `end` starts with the metric that answers the question, `progress` describes the training,
    `times` are the epochs and seconds to each threshold, `stability` are loss spikes and gradient
    norms, `movement` are the distances of `Start`; `spreads` has an entry per epoch. `curves` are
    by name, then by arm. `answer` is two sentences.
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
    """A dataset in the experiment: its file, its origin, and the use of its images.

    The training used `learned` images of the splits `learn_from`, and the validation `validated`
    images of the split `validate_on`.
    """

    file: str
    provenance: Provenance
    learn_from: str
    learned: int
    validate_on: str
    validated: int


@dataclass(frozen=True)
class PretrainingResult:
    """The result.json of part 2. `trainings` are by the names of their folders."""

    provenance: Provenance
    digits: DatasetUse
    mnist: DatasetUse
    analysis: Analysis
    trainings: dict[str, TrainingResult]
    seconds_in_all: float


def analyse(
    seeds: Sequence[int], pretrained: Sequence[TrainingCurve], scratch: Sequence[TrainingCurve]
) -> Analysis:
    """Compare the trainings of each seed, one from each arm.

    Raises ValueError for arms of different lengths, trainings with different numbers of epochs, or
    epochs without validation.
    """
    lengths = {len(run.history) for run in (*pretrained, *scratch)}
    if not len(seeds) == len(pretrained) == len(scratch) or len(lengths) != 1:
        raise ValueError(
            f"analyse: got {len(seeds)} seeds, {len(pretrained)} pretrained and {len(scratch)} "
            f"trainings from scratch of {sorted(lengths)} epochs, expected equal numbers"
        )
    (epochs,) = lengths
    arms = (pretrained, scratch)

    def compare_metric(name: str, measure: Metric, figure: Figure) -> MetricComparison:
        first, second = (tuple(map(figure, arm)) for arm in arms)
        means = _estimate_reached(first), _estimate_reached(second)
        comparison = stats.compare(first, second)
        words = stats.describe_difference(comparison, *NAMES, measure)
        return MetricComparison(name, measure, first, second, *means, comparison, words)

    end = (
        compare_metric("accuracy at the end", ACCURACY, lambda run: _accuracies(run)[-1]),
        compare_metric(
            "balanced accuracy", ACCURACY, lambda run: run.history[-1].balanced_accuracy
        ),
        compare_metric("loss at the end", LOSS, lambda run: _losses(run)[-1]),
    )
    progress = (
        compare_metric("accuracy before step 1", ACCURACY, lambda run: run.start.accuracy),
        compare_metric("accuracy after epoch 1", ACCURACY, lambda run: _accuracies(run)[0]),
        compare_metric(
            "area under accuracy",
            ACCURACY,
            lambda run: stats.area_under_curve(_epochs(run), _accuracies(run)),
        ),
        compare_metric("mean training loss", LOSS, lambda run: float(np.mean(run.losses))),
    )
    return Analysis(
        seeds=tuple(seeds),
        epochs=epochs,
        end=end,
        progress=progress,
        times=tuple(
            compare_metric(f"{unit} to {100 * level:g} %", measure, _when_reached(level, at))
            for level in THRESHOLDS
            for unit, measure, at in (("epochs", EPOCHS, _epochs), ("seconds", SECONDS, _seconds))
        ),
        stability=(
            compare_metric("loss spikes", SPIKES, lambda run: stats.count_spikes(run.losses)),
            compare_metric("gradient norm", NORM, lambda run: float(np.mean(_norms(run)))),
        ),
        movement=tuple(
            compare_metric(f"{name} moved", LENGTH, _moved(name))
            for name in pretrained[0].start.moved
        ),
        spreads=_spreads(arms),
        curves=_curves(arms),
        answer=_answer(epochs, end[0], progress),
    )


def spread_ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval] | None:
    """Return the ratio of the standard deviations of two paired arms, and its 95 % interval.

    The interval is exact for normal pairs, correlated or not (Pitman 1939, Morgan 1939). None for
    fewer than three pairs, an arm without spread, or perfectly correlated arms.
    """
    if len(first) < 3 or not np.ptp(first) or not np.ptp(second):
        return None
    ratio = float(np.std(first) / np.std(second))
    apart = 1 - float(np.corrcoef(first, second)[0, 1]) ** 2
    if apart < 1e-12:
        return None
    freedom = len(first) - 2
    middle = 1 + 2 * apart * stats.t_quantile(freedom) ** 2 / freedom
    factor = math.sqrt(middle + math.sqrt(middle**2 - 1))
    return ratio, Interval(ratio / factor, ratio * factor)


def _accuracies(training: TrainingCurve) -> list[float]:
    return _all_validated([epoch.accuracy for epoch in training.history])


def _losses(training: TrainingCurve) -> list[float]:
    return _all_validated([epoch.loss for epoch in training.history])


def _all_validated(values: Sequence[float | None]) -> list[float]:
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        raise ValueError("analyse: got epochs that were not validated, expected validated ones")
    return present


def _epochs(training: TrainingCurve) -> list[float]:
    return [float(epoch.epoch + 1) for epoch in training.history]


def _seconds(training: TrainingCurve) -> list[float]:
    return [epoch.seconds for epoch in training.history]


def _norms(training: TrainingCurve) -> list[float]:
    return [epoch.gradient_norm for epoch in training.history]


def _when_reached(threshold: float, at: Figures) -> Figure:
    return lambda run: stats.first_reached(at(run), _accuracies(run), threshold)


def _moved(group: str) -> Figure:
    return lambda run: run.start.moved[group]


def _estimate_reached(values: Sequence[float | None]) -> stats.Estimate | None:
    reached = [value for value in values if value is not None]
    return stats.estimate(reached) if reached else None


def _spreads(arms: Arms) -> tuple[Spread, ...]:
    spreads = []
    by_epoch = (np.array([*map(_accuracies, arm)]).T.tolist() for arm in arms)
    for epoch, values in enumerate(zip(*by_epoch, strict=True), 1):
        pretrained, scratch = (stats.estimate(arm).deviation for arm in values)
        ratio, interval = spread_ratio(*values) or (None, None)
        shown = interval is not None and not interval.low <= 1 <= interval.high
        spreads.append(Spread(epoch, pretrained, scratch, ratio, interval, shown))
    return tuple(spreads)


def _curves(arms: Arms) -> dict[str, dict[str, Bands]]:
    def mean_curves(x: Figures, y: Figures) -> dict[str, Bands]:
        both = zip(NAMES, arms, strict=True)
        return {name: stats.bands([*map(x, arm)], [*map(y, arm)]) for name, arm in both}

    return {
        "accuracy over epochs": mean_curves(_epochs, _accuracies),
        "accuracy over seconds": mean_curves(_seconds, _accuracies),
        "loss over epochs": mean_curves(_epochs, _losses),
        "training loss": mean_curves(_chunk_epochs, _chunk_means),
        "gradient norm": mean_curves(_epochs, _norms),
    }


def _chunks(training: TrainingCurve) -> list[NDArray[np.float64]]:
    """Split the losses of the steps into chunks of nearly equal lengths."""
    losses = np.array(training.losses, np.float64)
    return np.array_split(losses, min(CURVE_POINTS, len(losses)))


def _chunk_means(training: TrainingCurve) -> list[float]:
    return [float(chunk.mean()) for chunk in _chunks(training)]


def _chunk_epochs(training: TrainingCurve) -> list[float]:
    """Return the epochs (float) at the middle of each chunk."""
    ends = np.cumsum([len(chunk) for chunk in _chunks(training)])
    middles = ends - np.diff(ends, prepend=0) / 2
    epochs: list[float] = (middles * len(training.history) / len(training.losses)).tolist()
    return epochs


def _answer(epochs: int, final: MetricComparison, progress: Sequence[MetricComparison]) -> str:
    difference = final.comparison.difference
    verdict = "Undecided"
    if final.comparison.shown and difference:
        verdict = "Yes" if difference > 0 else "No, it harms"
    before, _, over_all, _ = progress
    unit = "epoch" if epochs == 1 else "epochs"
    return (
        f"{verdict}: after {epochs} {unit}, networks that start from the digits' weights have "
        f"{_percent(final.pretrained_mean)} accuracy and networks trained from scratch "
        f"{_percent(final.scratch_mean)}; {final.words}. Before the first step, they have "
        f"{_percent(before.pretrained_mean)} and {_percent(before.scratch_mean)}; over all epochs "
        f"(area under the accuracy curve), {over_all.words}."
    )


def _percent(mean: stats.Estimate | None) -> str:
    assert mean is not None
    return f"{100 * mean.mean:.2f} %"
