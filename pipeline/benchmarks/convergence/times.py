"""The time to an accuracy: measured, or extrapolated from measured epochs.

A training reaches a target at the end of the first evaluated epoch whose accuracy is at or above
it; nothing is interpolated between epochs. A training that was cut short before is extrapolated:

1. Both loaders of a recipe give the same samples, with canvases equal but for Pillow's filter. So
   it needs as many epochs as the training of the same recipe and seed on the other loader, if that
   one reached the target.
2. If neither did, and the accuracy reported for the end of the schedule is at or above the target,
   it needs the whole schedule. If that accuracy is below the target, it does not reach it.

Its time is this number of epochs times the mean time of its own epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.analysis.stats import Estimate, estimate
from pipeline.benchmarks.convergence.outcome import ArmResult, PartResult, Training
from pipeline.benchmarks.harness import Ratio, ratio

State = Literal["measured", "extrapolated", "not reached", "unknown"]


@dataclass(frozen=True)
class Time:
    """The time of a training to a target, in seconds of training, and the images until then.

    They are None where the target is not reached, or where that is unknown.
    """

    seed: int
    state: State
    start_up: float
    seconds: float | None = None
    images: int | None = None

    @property
    def in_all(self) -> float | None:
        """The seconds since the start of the process, without validation."""
        return None if self.seconds is None else self.start_up + self.seconds


@dataclass(frozen=True)
class Reached:
    """The times of an arm to a target, one for each seed. `factor` compares them with ours.

    It is how many times as long as our recipe on our loader the arm takes, seed by seed.
    """

    target: str
    times: tuple[Time, ...]
    factor: Ratio | None

    @property
    def known(self) -> tuple[Time, ...]:
        """The times of the seeds that reach the target."""
        return tuple(time for time in self.times if time.seconds is not None)

    @property
    def extrapolated(self) -> bool:
        """Whether a time is extrapolated."""
        return any(time.state == "extrapolated" for time in self.times)

    def estimate(self, start_up: bool) -> Estimate | None:
        """Return the mean time, with the start-up or without, None if no seed has one."""
        values = [time.in_all if start_up else time.seconds for time in self.known]
        found = [value for value in values if value is not None]
        return estimate(found) if found else None


def epochs_to(training: Training, target: float) -> int | None:
    """Return the number of epochs to the first evaluation at or above a target."""
    reached = (n for n, point in enumerate(training.points, 1) if point.accuracy >= target)
    return next(reached, None)


def time_to(
    training: Training, twin: Training | None, target: float, published: float | None
) -> Time:
    """Return the time of a training to a target.

    `twin` is the training of the same recipe and seed on the other loader; `published` the
    accuracy that was reported for the end of the schedule.
    """

    def time(state: State, seconds: float | None = None, images: int | None = None) -> Time:
        return Time(training.seed, state, training.start_up, seconds, images)

    epochs = epochs_to(training, target)
    if epochs is not None:
        point = training.points[epochs - 1]
        return time("measured", point.seconds, point.images)
    if training.whole:
        return time("not reached")
    if twin is not None:
        epochs = epochs_to(twin, target)
        if epochs is None and twin.whole:
            return time("not reached")
    if epochs is None and published is not None:
        if published < target:
            return time("not reached")
        epochs = training.epochs
    if epochs is None or training.seconds_per_epoch is None:
        return time("unknown")
    seconds = epochs * training.seconds_per_epoch
    return time("extrapolated", seconds, epochs * training.epoch_images)


def targets_of(part: PartResult, seed: int) -> dict[str, float]:
    """Return the targets of a seed by name."""
    targets = {f"{100 * target:.4g} %": target for target in part.targets}
    ceiling = part.find("ceiling", "inkrun")
    if part.below_ceiling is not None and ceiling is not None:
        for training in ceiling.trainings:
            if training.seed == seed and training.whole:
                name = f"{100 * part.below_ceiling:.4g} points below the ceiling"
                targets[name] = training.points[-1].accuracy - part.below_ceiling
    return targets


def reached(part: PartResult, result: ArmResult) -> list[Reached]:
    """Return the times of an arm to all targets."""
    own = _times(part, result)
    ours = part.find("inkrun", "inkrun")
    base = _times(part, ours) if ours else {}
    return [
        Reached(name, times, None if result is ours else _factor(times, base.get(name, ())))
        for name, times in own.items()
    ]


def _times(part: PartResult, result: ArmResult) -> dict[str, tuple[Time, ...]]:
    other = "pillow" if result.arm.loader == "inkrun" else "inkrun"
    twins = part.find(result.arm.recipe, other)
    by_seed = {one.seed: one for one in twins.trainings} if twins else {}
    found: dict[str, tuple[Time, ...]] = {}
    for training in result.trainings:
        for name, target in targets_of(part, training.seed).items():
            one = time_to(training, by_seed.get(training.seed), target, result.published)
            found[name] = (*found.get(name, ()), one)
    return found


def _factor(times: Sequence[Time], base: Sequence[Time]) -> Ratio | None:
    ours = {time.seed: time.seconds for time in base if time.seconds is not None}
    pairs = [
        (time.seconds, ours[time.seed])
        for time in times
        if time.seconds is not None and time.seed in ours
    ]
    return ratio(*zip(*pairs, strict=True)) if pairs else None
