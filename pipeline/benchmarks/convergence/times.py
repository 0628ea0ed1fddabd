"""The time to an accuracy: measured, or extrapolated from measured epochs.

A training reaches a target at the end of the first evaluated epoch whose accuracy is at or above
it; nothing is interpolated between epochs. A training that was cut short before is extrapolated:

1. Both loaders of a recipe give the same samples, with canvases equal but for Pillow's filter. So
   it needs as many epochs as the training of the same recipe and seed on the other loader, if that
   one reached the target.
2. If neither did, and the accuracy reported for the end of the schedule is at or above the target,
   it needs the whole schedule. If that accuracy is below the target, it does not reach it.

Its time is this number of epochs, at least one more than it has trained for, times the mean time of
its own epochs. A target counts as "not reached" only for a training that has run to the end of its
schedule, and as "inferred not reached" for one that was cut short: by 1, if the other training ran
to its end below the target, or by 2.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.benchmarks.convergence.outcome import (
    ArmResult,
    Factor,
    PartResult,
    Reached,
    State,
    Time,
    Training,
)
from pipeline.benchmarks.harness import ratio


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
        return Time(training.seed, target, state, training.start_up, seconds, images)

    epochs = epochs_to(training, target)
    if epochs is not None:
        point = training.points[epochs - 1]
        return time("measured", point.seconds, point.images)
    if training.whole:
        return time("not reached")
    if twin is not None:
        epochs = epochs_to(twin, target)
        if epochs is None and twin.whole:
            return time("inferred not reached")
    if epochs is None and published is not None:
        if published < target:
            return time("inferred not reached")
        epochs = training.epochs
    if epochs is not None:
        epochs = max(epochs, len(training.points) + 1)  # its own epochs so far are below the target
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


def with_times(part: PartResult) -> PartResult:
    """Return a part's result with the times of all arms to all targets."""
    return replace(part, arms=tuple(replace(arm, reached=_reached(part, arm)) for arm in part.arms))


def _reached(part: PartResult, result: ArmResult) -> tuple[Reached, ...]:
    if result.arm.recipe == "ceiling":  # it trains on other labels
        return ()
    ours = part.find("inkrun", "inkrun")
    base = _times(part, ours) if ours else {}
    return tuple(
        Reached(name, times, None if result is ours else _factor(times, base.get(name, ())))
        for name, times in _times(part, result).items()
    )


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


def _factor(times: Sequence[Time], base: Sequence[Time]) -> Factor | None:
    ours = {time.seed: time for time in base}
    pairs = [
        (time, other)
        for time in times
        if (other := ours.get(time.seed)) and time.seconds is not None and other.seconds is not None
    ]
    if not pairs:
        return None
    measured = all(one.state == "measured" for pair in pairs for one in pair)
    own, others = ([time.seconds or 0.0 for time in column] for column in zip(*pairs, strict=True))
    return Factor(ratio(own, others), "measured" if measured else "extrapolated")
