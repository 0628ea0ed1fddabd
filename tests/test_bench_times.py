"""Times to accuracy: how each one is known, and pairs of seeds. All trainings are made up."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.lines import Line2D

from pipeline.benchmarks.convergence.outcome import (
    Arm,
    ArmResult,
    Convergence,
    PartResult,
    Point,
    Reached,
    Training,
)
from pipeline.benchmarks.convergence.page import UNREACHED, plot_part
from pipeline.benchmarks.convergence.tables import notes, time_rows
from pipeline.benchmarks.convergence.times import epochs_to, time_to, with_times
from pipeline.runtime.files import convert


def training(accuracies: list[float], epochs: int, seed: int = 0, pace: float = 2.0) -> Training:
    """Return a training whose epochs take `pace` seconds, cut short after half an epoch more."""
    points = tuple(Point(pace * n, 100 * n, a) for n, a in enumerate(accuracies, 1))
    rest = 0.5 if len(points) < epochs else 0.0
    done = len(points) + rest
    return Training(seed, 3.0, pace * done, 0.1, round(100 * done), 100, epochs, points)


ACCURACIES = st.lists(st.floats(0, 1), max_size=6)


@given(ACCURACIES, st.floats(0.01, 1))
def test_a_target_is_reached_by_the_first_epoch_at_or_above_it(
    accuracies: list[float], target: float
) -> None:
    epochs = epochs_to(training(accuracies, 9), target)
    if epochs is None:
        assert all(accuracy < target for accuracy in accuracies)
    else:
        assert accuracies[epochs - 1] >= target
        assert all(accuracy < target for accuracy in accuracies[: epochs - 1])


@given(ACCURACIES, ACCURACIES, st.floats(0.01, 1), st.none() | st.floats(0, 1))
def test_only_what_was_not_measured_is_extrapolated(
    own: list[float], other: list[float], target: float, published: float | None
) -> None:
    short, twin = training(own, 6), training(other, 6, pace=7)
    found = time_to(short, twin, target, published)
    if any(accuracy >= target for accuracy in own):
        assert found.state == "measured"
        assert found.images in [point.images for point in short.points]
    elif short.whole:
        assert found.state == "not reached"
    elif (epochs := epochs_to(twin, target)) is not None:
        assert found.state == "extrapolated"
        epochs = max(epochs, len(own) + 1)  # its own epochs so far are below the target
        assert found.seconds == pytest.approx(2.0 * epochs)
        assert found.images == 100 * epochs
    elif twin.whole or (published is not None and published < target):
        assert found.state == "inferred not reached"
    else:
        assert found.state == ("unknown" if published is None else "extrapolated")
        assert published is None or found.seconds == pytest.approx(2.0 * 6)
    assert (found.seconds is None) == (found.state not in ("measured", "extrapolated"))
    assert found.seconds is None or found.in_all == found.seconds + 3.0


def arm_of(
    recipe: str, loader: str, *trainings: Training, published: float | None = None
) -> ArmResult:
    return ArmResult(Arm(recipe, loader), "small", 48, published, trainings, ())


def part_of(*arms: ArmResult, below_ceiling: float | None = None) -> PartResult:
    """Return the result of a part with the target 80 %, and the times of its arms."""
    return with_times(
        PartResult("1", "a part", {}, 100, 10, 1.0, 1.0, 0.0, 0.0, (0.8,), below_ceiling, arms)
    )


def test_arms_are_compared_seed_by_seed() -> None:
    ours = arm_of("inkrun", "inkrun", training([0.5, 0.9], 2), training([0.8, 0.9], 2, seed=1))
    slow = [training([], 2, seed=one, pace=20.0) for one in (1, 0)]  # in another order
    own, other = part_of(ours, arm_of("inkrun", "pillow", *slow)).arms
    (mine,), (theirs,) = own.reached, other.reached
    assert [(time.seed, time.seconds) for time in mine.times] == [(0, 4.0), (1, 2.0)]
    assert (mine.factor, mine.extrapolated) == (None, False)
    assert [(time.seed, time.seconds) for time in theirs.times] == [(1, 20.0), (0, 40.0)]
    assert theirs.extrapolated
    assert theirs.factor is not None
    assert theirs.factor.ratio.value == pytest.approx(10)
    assert theirs.factor.state == "extrapolated"
    mean = mine.estimate(start_up=True)
    assert mean is not None
    assert mean.mean == pytest.approx(6.0)


def test_only_seeds_of_both_arms_are_compared() -> None:
    ours = arm_of("inkrun", "inkrun", training([0.9], 1), training([0.9], 1, seed=2))
    slow = training([0.9], 1, pace=6.0), training([0.1], 1, seed=2), training([0.9], 1, seed=3)
    (one,) = part_of(ours, arm_of("published", "inkrun", *slow)).arms[1].reached
    assert one.factor is not None
    assert one.factor.ratio.value == pytest.approx(3)
    assert one.factor.state == "measured"


def test_times_of_some_seeds_are_compared_with_those_of_the_same_seeds() -> None:
    """The mean of the seeds that reach a target says little about the others."""
    names = []
    for last in (0.9, 0.1):
        ours = arm_of("inkrun", "inkrun", training([0.9], 1), training([last], 1, seed=1))
        result = Convergence(2, 1.0, False, (0, 0), (part_of(ours),), ())
        names.append({one.name for one in result.series()})
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]
    assert all(name.endswith(", seeds 0 alone") for name in names[1])


def test_a_factor_is_extrapolated_if_our_own_time_is() -> None:
    ours = arm_of("inkrun", "inkrun", training([], 2))
    pillow = arm_of("inkrun", "pillow", training([0.9, 0.9], 2, pace=20.0))
    own, other = part_of(ours, pillow).arms
    assert own.reached[0].times[0].state == "extrapolated"
    assert other.reached[0].times[0].state == "measured"
    assert other.reached[0].factor is not None
    assert other.reached[0].factor.state == "extrapolated"


def test_the_ceiling_is_that_of_each_seed() -> None:
    ceiling = arm_of("ceiling", "inkrun", training([0.98], 1), training([0.9], 1, seed=1))
    ours = arm_of("inkrun", "inkrun", training([0.96], 1), training([0.89], 1, seed=1))
    top, own = part_of(ceiling, ours, below_ceiling=0.015).arms
    assert top.reached == ()
    one, below = own.reached
    assert one.target == "80 %"
    assert below.target == "1.5 points below the ceiling"
    assert [time.target for time in below.times] == pytest.approx([0.965, 0.885])
    assert [time.state for time in below.times] == ["not reached", "measured"]


# A training of 2 epochs, as trained, and what is known of the target 80 %.
LOW, HIGH, SHORT = [0.1, 0.2], [0.5, 0.9], [0.3]


@pytest.mark.parametrize(
    ("own", "twin", "published", "cell"),
    [
        ([HIGH, HIGH], [], None, "2 of 2"),
        ([LOW, LOW], [], None, "never"),
        ([SHORT, SHORT], [LOW, LOW], None, "≈ never"),
        ([SHORT, SHORT], [], 0.7, "≈ never"),
        ([SHORT, SHORT], [], None, "unknown: cut short"),
        ([SHORT, SHORT], [HIGH, HIGH], None, "2 of 2 (extrapolated)"),
        ([SHORT, HIGH], [HIGH, HIGH], None, "2 of 2 (1 measured, 1 extrapolated)"),
        ([LOW, SHORT], [LOW, LOW], None, "0 of 2 (1 never, 1 ≈ never)"),
        ([HIGH, SHORT], [HIGH, LOW], None, "1 of 2 (1 measured, 1 ≈ never)"),
    ],
)
def test_never_is_for_trainings_that_ran_to_their_end(
    own: list[list[float]], twin: list[list[float]], published: float | None, cell: str
) -> None:
    """The table, its notes, the plot and the JSON file know what was inferred."""
    trainings = [training(accuracies, 2, seed) for seed, accuracies in enumerate(own)]
    twins = [training(accuracies, 2, seed) for seed, accuracies in enumerate(twin)]
    part = part_of(
        arm_of("published", "pillow", *trainings, published=published),
        arm_of("published", "inkrun", *twins, published=published),
    )
    rows = [row for row in time_rows(part) if row[0] == part.arms[0].arm.name]
    assert [row[2] for row in rows] == [cell]
    (found,) = part.arms[0].reached
    assert convert(msgspec.to_builtins(found), Reached) == found
    text = " ".join(notes(Convergence(2, 1.0, False, (0, 0), (part,), ()), part))
    fewer = any(0 < len(one.known) < 2 for arm in part.arms for one in arm.reached)
    assert ("means and ratios are those of the others" in text) == fewer
    no_time = "There was no time for all 2 seeds: published recipe, inkrun's loader: 0."
    assert (no_time in text) == (not twin)
    others = {time.state for one in part.arms[1].reached for time in one.times}
    states = [time.state for time in found.times]
    assert ("≈ never: " in text) == ("inferred not reached" in {*states, *others})
    assert ("never: the training ran to the end" in text) == ("not reached" in {*states, *others})
    axes = plot_part(replace(part, arms=part.arms[:1])).axes[0]
    edges = [line for line in axes.lines if line.get_transform() == axes.get_yaxis_transform()]
    for state, (marker, filled, _) in UNREACHED.items():
        drawn = [line for line in edges if shape(line) == (marker, filled)]
        assert len(drawn) == states.count(state)


def shape(line: Line2D) -> tuple[str, bool]:
    """Return the marker of a line, and whether it is filled."""
    return str(line.get_marker()), line.get_markerfacecolor() != "none"
