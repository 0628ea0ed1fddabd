"""Two arms compared on made-up trainings: known results, and symmetry under swapped arms."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import GROUPS, course
from scipy import stats

from pipeline.analysis.pretraining import (
    THRESHOLDS,
    Analysis,
    MetricComparison,
    analyse,
    spread_ratio,
)

PRETRAINED = [
    course([0.96, 0.981, 0.991], before=0.9, moved=0.5, norms=0.5),
    course([0.97, 0.985, 0.993], before=0.9, moved=0.6, norms=0.6),
    course([0.95, 0.983, 0.992], before=0.9, moved=0.5, norms=0.4),
]
SCRATCH = [
    course([0.91, 0.965, 0.988], moved=1.5),
    course([0.93, 0.972, 0.989], moved=1.4),
    course([0.90, 0.968, 0.990], moved=1.6),
]
FOUND = analyse((4, 5, 6), PRETRAINED, SCRATCH)


def every(analysis: Analysis) -> dict[str, MetricComparison]:
    parts = (analysis.end, analysis.progress, analysis.times, analysis.stability, analysis.movement)
    return {one.name: one for part in parts for one in part}


def test_every_metric_is_compared_once() -> None:
    marks = [f"{unit} to {100 * t:g} %" for t in THRESHOLDS for unit in ("epochs", "seconds")]
    assert list(every(FOUND)) == [
        "accuracy at the end",
        "balanced accuracy",
        "loss at the end",
        "accuracy before step 1",
        "accuracy after epoch 1",
        "area under accuracy",
        "mean training loss",
        *marks,
        "loss spikes",
        "gradient norm",
        *(f"{group} moved" for group in GROUPS),
    ]
    assert "seconds to 99.4 %" in marks


def test_the_end_answers_the_question() -> None:
    accuracy, balanced, _ = FOUND.end
    assert balanced.pretrained == pytest.approx(0.9 * np.array(accuracy.pretrained))
    assert accuracy.pretrained == (0.991, 0.993, 0.992)
    assert accuracy.scratch == (0.988, 0.989, 0.990)
    assert accuracy.comparison.difference == pytest.approx(0.003)
    half = 4.302653 * 0.001 / math.sqrt(3)  # the table's t for 2 degrees of freedom
    assert accuracy.comparison.interval is not None
    assert accuracy.comparison.interval.low == pytest.approx(0.003 - half, abs=1e-8)
    assert accuracy.comparison.shown
    assert FOUND.answer == (
        "Yes: after 3 epochs, networks that start from the digits' weights have 99.20 % accuracy "
        "and networks trained from scratch 98.90 %; pretrained is 0.30 points better (95 % "
        "interval 0.05 to 0.55, 3 pairs): shown. Before the first step, they have 90.00 % and "
        f"10.00 %; over all epochs (area under the accuracy curve), {FOUND.progress[2].words}."
    )


def test_harm_and_doubt_are_reported_too() -> None:
    assert analyse((4, 5, 6), SCRATCH, PRETRAINED).answer.startswith(
        "No, it harms: after 3 epochs,"
    )
    mixed = [PRETRAINED[0], SCRATCH[1], PRETRAINED[2]]
    others = [SCRATCH[0], PRETRAINED[1], SCRATCH[2]]
    assert analyse((4, 5, 6), mixed, others).answer.startswith("Undecided: after 3 epochs,")


def test_one_pair_shows_nothing() -> None:
    found = analyse((0,), PRETRAINED[:1], SCRATCH[:1])
    assert found.answer.startswith("Undecided: ")
    assert "one pair shows nothing" in found.answer
    assert not any(one.comparison.shown for one in every(found).values())
    assert found.spreads[0].pretrained is None
    assert found.curves["accuracy over epochs"]["pretrained"].low is None


def test_arms_that_are_the_same() -> None:
    found = analyse((4, 5, 6), SCRATCH, SCRATCH)
    for one in every(found).values():
        assert one.comparison.difference in (0, None)
        assert not one.comparison.shown
    assert not any(one.shown for one in found.spreads)


def test_when_thresholds_are_reached() -> None:
    found = every(FOUND)
    assert found["epochs to 95 %"].pretrained == (1, 1, 1)
    assert found["epochs to 95 %"].scratch == (2, 2, 2)
    assert found["seconds to 98 %"].pretrained == (20, 20, 20)
    assert found["seconds to 98 %"].scratch == (30, 30, 30)
    late = found["epochs to 99 %"]
    assert (late.pretrained, late.scratch) == ((3, 3, 3), (None, None, 3))
    assert (late.comparison.pairs, late.comparison.only_first) == (1, 2)
    assert late.scratch_mean is not None
    assert (late.scratch_mean.runs, late.scratch_mean.mean) == (1, 3)
    never = found["seconds to 99.4 %"]
    assert (never.pretrained_mean, never.comparison.neither) == (None, 3)


def test_areas() -> None:
    found = every(FOUND)
    assert found["area under accuracy"].pretrained[0] == pytest.approx(
        (0.96 / 2 + 0.981 + 0.991 / 2) / 2
    )
    assert found["mean training loss"].scratch == (0.9375,) * 3


def test_how_steady_and_how_far() -> None:
    rough = [2.0 - 0.01 * step for step in range(100)]
    rough[50] += 1
    arm = [replace(one, losses=rough) for one in PRETRAINED]
    found = every(analyse((4, 5, 6), arm, SCRATCH))
    assert found["loss spikes"].pretrained == (1, 1, 1)
    assert found["loss spikes"].scratch == (0, 0, 0)
    assert found["gradient norm"].pretrained == pytest.approx((0.5, 0.6, 0.4))
    assert found["whole moved"].comparison.difference == pytest.approx(1.6 / 3 - 1.5)
    assert found["whole moved"].words.startswith(
        "pretrained is 97 % of its first weights' length closer to them"
    )


def test_spreads_are_those_of_each_epoch() -> None:
    assert [one.epoch for one in FOUND.spreads] == [1, 2, 3]
    first = FOUND.spreads[0]
    theirs = np.std([0.91, 0.93, 0.90], ddof=1)
    assert first.pretrained == pytest.approx(0.01)
    assert first.scratch == pytest.approx(theirs)
    assert first.ratio == pytest.approx(0.01 / theirs)


def test_curves_go_over_epochs_and_seconds() -> None:
    accuracy = FOUND.curves["accuracy over epochs"]
    assert accuracy["pretrained"].x == (1, 2, 3)
    assert accuracy["from scratch"].mean[-1] == pytest.approx(0.989)
    assert FOUND.curves["accuracy over seconds"]["pretrained"].x == (10, 20, 30)


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=350), st.integers(1, 4))
def test_the_curve_of_the_training_loss_keeps_its_mean(steps: list[float], epochs: int) -> None:
    one = course([0.5] * epochs, steps=steps)
    drawn = analyse((0,), [one], [one]).curves["training loss"]["pretrained"]
    count = len(drawn.x)
    assert count == min(100, len(steps))
    assert 0 < drawn.x[0] <= drawn.x[-1] < epochs
    if len(steps) % count == 0:
        assert np.mean(drawn.mean) == pytest.approx(np.mean(steps))


shares = st.integers(0, 10_000).map(lambda right: right / 10_000)


@settings(max_examples=25)  # each bootstraps forty times
@given(st.lists(st.tuples(*[st.tuples(shares, shares, shares)] * 2), min_size=1, max_size=5))
def test_swapping_the_arms_turns_every_difference(
    pairs: list[tuple[tuple[float, ...], tuple[float, ...]]],
) -> None:
    first = [course(ours, moved=sum(ours)) for ours, _ in pairs]
    second = [course(theirs, moved=sum(theirs)) for _, theirs in pairs]
    seeds = range(len(pairs))
    there, back = every(analyse(seeds, first, second)), every(analyse(seeds, second, first))
    for name, one in there.items():
        other = back[name]
        assert one.pretrained == other.scratch
        assert one.pretrained_mean == other.scratch_mean
        assert one.comparison.shown == other.comparison.shown
        if one.comparison.difference is None:
            assert other.comparison.difference is None
        else:
            assert other.comparison.difference == pytest.approx(-one.comparison.difference)
    json.dumps(asdict(analyse(seeds, first, second)), allow_nan=False)


def test_arms_that_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="got 2 seeds, 3 pretrained and 3 trainings from scratch"):
        analyse((0, 1), PRETRAINED, SCRATCH)
    with pytest.raises(ValueError, match=r"of \[2, 3\] epochs"):
        analyse((0,), PRETRAINED[:1], [course([0.5, 0.6])])
    epoch = replace(PRETRAINED[0].history[0], accuracy=None, loss=None)
    blind = replace(PRETRAINED[0], history=[epoch])
    with pytest.raises(ValueError, match="not validated"):
        analyse((0,), [blind], [blind])


numbers = st.integers(-1000, 1000).map(float)


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=12))
def test_spreads_differ_where_pitman_and_morgan_s_test_says_so(
    pairs: list[tuple[float, float]],
) -> None:
    first, second = np.array(pairs).T
    found = spread_ratio(first.tolist(), second.tolist())
    sums, differences = first + second, first - second
    if found is None:
        assert (
            not np.ptp(first)
            or not np.ptp(second)
            or not np.ptp(sums)
            or (abs(np.corrcoef(first, second)[0, 1]) == pytest.approx(1))
        )
        return
    ratio, interval = found
    assert interval.low <= ratio <= interval.high
    assert ratio == pytest.approx(np.std(first, ddof=1) / np.std(second, ddof=1))
    turned = spread_ratio(second.tolist(), first.tolist())
    assert turned is not None
    assert turned[1].low == pytest.approx(1 / interval.high)
    p = stats.pearsonr(sums, differences).pvalue
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (not interval.low <= 1 <= interval.high)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_nineteen_of_twenty_intervals_hold_the_ratio(correlation: float) -> None:
    random = np.random.default_rng(0)
    shape = [[4, 2 * correlation], [2 * correlation, 1]]
    tries, held = 2000, 0
    for pairs in random.multivariate_normal([0, 0], shape, (tries, 5)):
        found = spread_ratio(*pairs.T.tolist())
        assert found is not None
        held += found[1].low <= 2 <= found[1].high
    assert abs(held / tries - 0.95) < 3 * math.sqrt(0.95 * 0.05 / tries)


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2], [1, 3]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 4, 6]), ([1, 2, 3], [0, 0, 0])],
)
def test_spreads_that_cannot_be_compared(first: list[float], second: list[float]) -> None:
    assert spread_ratio(first, second) is None
