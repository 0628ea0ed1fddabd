"""Statistics of repeated runs: textbook results, simulated coverage, sentences."""

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.analysis.stats import (
    ACCURACY,
    EPOCHS,
    LOSS,
    SECONDS,
    UNIT_INTERVAL,
    Interval,
    area_under_curve,
    bands,
    compare,
    count_spikes,
    describe_difference,
    estimate,
    first_reached,
    pairs_needed,
)

# Student's sleep data (Biometrika 1908), hours gained by ten patients under two drugs; R's `sleep`.
ONE = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
TWO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

SIMULATED = 1500

finite = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))
arms = st.lists(st.tuples(finite, finite), min_size=1, max_size=8)


def test_student_s_own_pairs() -> None:
    result = compare(ONE, TWO)
    assert result.pairs == 10
    assert result.difference == pytest.approx(-1.58)
    assert result.deviation == pytest.approx(1.229995, abs=1e-6)
    assert result.interval is not None
    assert result.interval.low == pytest.approx(-2.4598858, abs=1e-7)  # R: t.test(paired = TRUE)
    assert result.interval.high == pytest.approx(-0.7001142, abs=1e-7)
    assert result.sign_p == pytest.approx(2 * 0.5**9)  # nine of one sign and a tie
    assert result.shown


def test_the_mean_of_one_arm() -> None:
    one = estimate([1, 2, 3, 4])
    half = 3.182446 * math.sqrt(5 / 3) / 2  # the table's t for 3 degrees of freedom
    assert (one.runs, one.mean) == (4, 2.5)
    assert one.deviation == pytest.approx(math.sqrt(5 / 3))
    assert one.interval is not None
    assert one.interval.low == pytest.approx(2.5 - half, abs=1e-6)
    assert one.interval.high == pytest.approx(2.5 + half, abs=1e-6)
    assert asdict(estimate([3])) == {"runs": 1, "mean": 3, "deviation": None, "interval": None}
    assert estimate([0, 0, 0]).interval is None
    rounded = estimate([0.1 + 0.2, 0.3, 0.3])
    assert (rounded.deviation, rounded.interval) == (0, None)


def test_intervals_are_clipped_to_their_limits() -> None:
    values = [0.6, 0.99, 0.97]
    free, clipped = estimate(values).interval, estimate(values, UNIT_INTERVAL).interval
    assert free is not None
    assert free.high > 1
    assert clipped == Interval(free.low, 1)
    values = [0.0, 0.0, 0.1]
    free, clipped = estimate(values).interval, estimate(values, UNIT_INTERVAL).interval
    assert free is not None
    assert free.low < 0
    assert clipped == Interval(0, free.high)
    close = [0.5, 0.51, 0.52]
    assert estimate(close, UNIT_INTERVAL) == estimate(close)


@pytest.mark.parametrize(
    ("effect", "power", "pairs"),
    [  # R's power.t.test(type = "paired"), which agrees with G*Power's tables
        (0.2, 0.8, 199),
        (0.5, 0.8, 34),
        (0.8, 0.8, 15),
        (1.0, 0.8, 10),
        (0.5, 0.9, 44),
        (1000.0, 0.8, 2),
    ],
)
def test_how_many_pairs_are_needed(effect: float, power: float, pairs: int) -> None:
    assert pairs_needed(effect, 1, power) == pairs
    assert pairs_needed(-3 * effect, 3, power) == pairs


@given(st.floats(-7, 5))
def test_the_number_of_pairs_is_the_least(exponent: float) -> None:
    effect = 10**exponent
    pairs = pairs_needed(effect, 1)
    low, high = (
        stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect * math.sqrt(n))
        for n in (max(pairs - 1, 2), pairs)
    )
    assert high >= 0.8 - 1e-9
    assert pairs == 2 or low < 0.8 + 1e-9


def test_simulated_pairs_are_shown_as_often_as_the_power_says() -> None:
    rng = np.random.default_rng(1)
    for effect in (1.0, 1.5):
        samples = rng.normal(effect, 1, (SIMULATED, pairs_needed(effect, 1)))
        shown = [i.low > 0 for i in (estimate(row).interval for row in samples.tolist()) if i]
        assert len(shown) == SIMULATED
        assert 0.77 < np.mean(shown) < 0.87  # rounding up gives up to 5 points more here


@pytest.mark.parametrize("runs", [2, 5])
def test_simulated_intervals_cover_the_truth_as_often_as_they_say(runs: int) -> None:
    samples = np.random.default_rng(runs).normal(0.3, 2, (SIMULATED, runs))
    intervals = [i for i in (estimate(row).interval for row in samples.tolist()) if i]
    covered = np.mean([i.low <= 0.3 <= i.high for i in intervals])
    assert len(intervals) == SIMULATED
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / SIMULATED)


def test_without_a_difference_one_in_twenty_is_shown() -> None:
    samples = np.random.default_rng(3).normal(size=(300, 2, 5))
    shown = [compare(first, second).shown for first, second in samples.tolist()]
    assert 0.02 < np.mean(shown) < 0.09


def test_bootstrap_intervals_of_many_pairs_cover_the_truth_and_repeat_themselves() -> None:
    samples = np.random.default_rng(4).normal(0.5, 1, (100, 40))
    results = [compare(row, [0] * 40) for row in samples.tolist()]
    covered = [r.bootstrap.low <= 0.5 <= r.bootstrap.high for r in results if r.bootstrap]
    assert len(covered) == 100
    assert 0.9 < np.mean(covered) < 0.99
    assert results[0] == compare(samples[0].tolist(), [0] * 40)


@given(arms)
def test_swapped_arms_swap_the_conclusion(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    one, other = compare(first, second), compare(second, first)
    assert one.difference is not None
    assert other.difference == -one.difference
    assert (one.shown, one.sign_p) == (other.shown, other.sign_p)
    assert (one.needed is None) == (other.needed is None)
    if one.interval and other.interval:
        ends = (-other.interval.high, -other.interval.low)
        assert (one.interval.low, one.interval.high) == pytest.approx(ends)
        assert one.shown == (one.interval.low > 0 or one.interval.high < 0)
        assert one.shown or one.needed is None or one.needed > one.pairs
    else:
        assert not one.shown
        assert one.needed is None
    json.dumps(asdict(one), allow_nan=False)


def test_one_pair_shows_nothing() -> None:
    result = compare([0.9], [0.1])
    assert (result.interval, result.bootstrap, result.needed, result.shown) == (
        None,
        None,
        None,
        False,
    )
    assert (
        describe_difference(result, "a", "b", ACCURACY)
        == "one pair shows nothing (a is 80 points better)"
    )
    none = compare([0.9], [0.9])
    assert describe_difference(none, "a", "b", ACCURACY) == "one pair shows nothing (no difference)"


def test_differences_that_are_all_equal_show_nothing() -> None:
    # 0.95 - 0.85, 0.9 - 0.8 and 0.4 - 0.3 differ in their last bits alone.
    result = compare([0.95, 0.9, 0.4], [0.85, 0.8, 0.3])
    assert result.difference == pytest.approx(0.1)
    assert (result.deviation, result.interval, result.shown, result.needed) == (
        0,
        None,
        False,
        None,
    )
    assert describe_difference(result, "a", "b", ACCURACY) == (
        "a is 10 points better in each of 3 pairs; equal differences give no interval, so nothing "
        "is shown"
    )


def test_equal_arms_do_not_differ() -> None:
    result = compare([0.1 + 0.2, 0.5], [0.3, 0.5])  # the first two differ by rounding
    assert (result.difference, result.deviation, result.sign_p, result.shown) == (0, 0, 1, False)
    assert describe_difference(result, "a", "b", LOSS) == "no difference in any of 2 pairs"
    assert compare([0.1 + 0.2] * 6, [0.3] * 6).sign_p == 1


def test_a_mean_difference_of_rounding_alone_is_none() -> None:
    result = compare([0.1, 0.2, -0.3], [0, 0, 0])
    assert (result.difference, result.needed) == (0, None)
    assert result.deviation == pytest.approx(math.sqrt(0.07))
    assert describe_difference(result, "a", "b", LOSS) == (
        "no difference on average (95 % interval −0.66 to 0.66, 3 pairs)"
    )


def test_pairs_that_never_reach_a_threshold_are_counted_and_signed() -> None:
    first = [3.0, None, 2.0, 4.0, None, 5.0]
    second = [5.0, 6.0, None, 8.0, None, None]
    result = compare(first, second)
    assert (result.pairs, result.only_first, result.only_second, result.neither) == (2, 2, 1, 1)
    assert result.difference == -3
    assert result.deviation == pytest.approx(math.sqrt(2))
    # The first is sooner in four of the five pairs that can be ordered: p = 2 · (5 + 1) / 2⁵.
    assert result.sign_p == pytest.approx(0.375)
    assert describe_difference(result, "a", "b", SECONDS).endswith(
        "; both reached it in 2 of 6 pairs, a alone in 2, b alone in 1, neither in 1 "
        "(sign test over all pairs: p = 0.38)"
    )


def test_arms_that_never_reach_a_threshold_together_have_no_difference() -> None:
    result = compare([3, 2, 4, 3, 2, 3], [None] * 6)
    assert (result.pairs, result.only_first, result.difference) == (0, 6, None)
    assert (result.shown, result.sign_p) == (False, 2 * 0.5**6)
    assert describe_difference(result, "a", "b", EPOCHS) == (
        "no difference can be measured; both reached it in 0 of 6 pairs, a alone in 6, "
        "b alone in 0, neither in 0 (sign test over all pairs: p = 0.031)"
    )


def test_sentences_say_what_was_shown() -> None:
    shown = replace(
        compare([0.9, 0.8], [0.7, 0.5]),
        pairs=5,
        difference=0.0022,
        interval=Interval(0.001, 0.0034),
        shown=True,
    )
    assert describe_difference(shown, "pretrained", "scratch", ACCURACY) == (
        "pretrained is 0.22 points better (95 % interval 0.10 to 0.34, 5 pairs): shown"
    )
    worse = replace(shown, difference=-0.0022, interval=Interval(-0.0034, -0.001))
    assert describe_difference(worse, "pretrained", "scratch", ACCURACY) == (
        "pretrained is 0.22 points worse (95 % interval 0.10 to 0.34, 5 pairs): shown"
    )
    unseen = replace(shown, interval=Interval(-0.0012, 0.0056), shown=False, needed=34)
    assert describe_difference(unseen, "pretrained", "scratch", ACCURACY) == (
        "no difference was shown (pretrained is 0.22 points better, 95 % interval −0.12 to 0.56, "
        "5 pairs); about 34 pairs are needed to show a difference of this size"
    )
    faster = replace(shown, difference=-1733.3, interval=Interval(-3325.8, -140.8))
    assert describe_difference(faster, "a", "b", SECONDS) == (
        "a is 1,733 s faster (95 % interval 141 to 3,326, 5 pairs): shown"
    )
    hopeless = replace(unseen, needed=10**9)
    assert "; more than a million pairs are needed" in describe_difference(hopeless, "a", "b", LOSS)


def test_an_end_near_zero_is_not_written_as_zero() -> None:
    barely = replace(
        compare([1, 2], [0, 0]), difference=0.5, interval=Interval(0.003, 0.997), shown=True
    )
    assert "0.500 nats worse (95 % interval 0.003 to 0.997" in describe_difference(
        barely, "a", "b", LOSS
    )


def test_the_area_is_the_mean_height() -> None:
    assert area_under_curve([1, 2, 3], [0.5, 0.5, 0.5]) == pytest.approx(0.5)
    assert area_under_curve([0, 1, 3], [0, 1, 1]) == pytest.approx((0.5 + 2) / 3)
    assert area_under_curve([7], [0.25]) == 0.25


@given(st.lists(finite, min_size=1, max_size=20), finite)
def test_a_threshold_is_reached_at_the_first_evaluation_above(
    heights: list[float], threshold: float
) -> None:
    at = first_reached(range(len(heights)), heights, threshold)
    before = heights if at is None else heights[: int(at)]
    assert all(height < threshold for height in before)
    assert at is None or heights[int(at)] >= threshold


def test_a_threshold_is_reached_when_it_is_met_and_not_between_evaluations() -> None:
    assert first_reached([10, 20, 30], [0.90, 0.95, 0.93], 0.95) == 20
    assert first_reached([10, 20, 30], [0.90, 0.96, 0.93], 0.95) == 20
    assert first_reached([10, 20, 30], [0.90, 0.94, 0.93], 0.95) is None


def test_spikes_stand_out_and_noise_does_not() -> None:
    rng = np.random.default_rng(5)
    losses = 2 * np.exp(-np.arange(300) / 80) + rng.normal(0, 0.02, 300)
    assert count_spikes(losses.tolist()) == 0
    losses[100] += 0.5
    losses[200:203] += 1  # once up, though high for three steps
    assert count_spikes(losses.tolist()) == 2
    losses[250] -= 1  # a fall is no spike, but the way back is
    assert count_spikes(losses.tolist()) == 3
    assert count_spikes(losses.tolist(), beyond=1e6) == 0
    assert count_spikes([1.0]) == count_spikes([9, 8, 7, 6, 5.9]) == 0  # a smaller fall is no rise


def test_bands_agree_with_the_interval_at_each_evaluation() -> None:
    rng = np.random.default_rng(6)
    heights = rng.random((5, 4)).tolist()
    seconds = np.cumsum(rng.random((5, 4)) + 0.1, axis=1).tolist()
    result = bands(seconds, heights)
    assert result.low is not None
    assert result.high is not None
    assert result.deviation is not None
    assert result.x == pytest.approx(np.mean(seconds, axis=0).tolist())
    assert all(b > a for a, b in pairwise(result.x))
    for i, column in enumerate(zip(*heights, strict=True)):
        one = estimate(column)
        assert one.interval is not None
        assert (result.mean[i], result.deviation[i]) == pytest.approx((one.mean, one.deviation))
        ends = (one.interval.low, one.interval.high)
        assert (result.low[i], result.high[i]) == pytest.approx(ends)
    json.dumps(asdict(result), allow_nan=False)


def test_one_run_has_a_curve_without_a_band() -> None:
    result = bands([[1, 2]], [[0.5, 0.6]])
    assert (result.x, result.mean) == ((1, 2), (0.5, 0.6))
    assert (result.low, result.high, result.deviation) == (None, None, None)


def test_invalid_input_is_rejected() -> None:
    with pytest.raises(ValueError, match="got 2 and 1 runs, expected equally many"):
        compare([1, 2], [1])
    with pytest.raises(ValueError, match="at least one"):
        compare([], [])
    with pytest.raises(ValueError, match=r"compare: got .*nan"):
        compare([math.nan], [1])
    with pytest.raises(ValueError, match=r"compare: got .*inf"):
        compare([1], [math.inf])
    with pytest.raises(ValueError, match="estimate: got"):
        estimate([])
    with pytest.raises(ValueError, match="increasing"):
        area_under_curve([1, 1], [0, 0])
    with pytest.raises(ValueError, match="increasing"):
        first_reached([1, 2], [0.5], 0.5)
    with pytest.raises(ValueError, match=r"bands: got runs of \[2, 1\]"):
        bands([[1, 2], [1]], [[1, 2], [1]])
    with pytest.raises(ValueError, match="bands"):
        bands([], [])
    with pytest.raises(ValueError, match="count_spikes"):
        count_spikes([1, math.nan])
    for wrong in ((0, 1, 0.8), (1, 0, 0.8), (1, 1, 0.01), (1, 1, 1)):
        with pytest.raises(ValueError, match="pairs_needed"):
            pairs_needed(*wrong)


def test_an_interval_that_rounds_to_one_number_is_formatted() -> None:
    comparison = replace(compare((1.0, 1.5), (0.5, 0.2)), interval=Interval(0.5, 0.5))
    assert "0.50 to 0.50" in describe_difference(comparison, "one", "other", LOSS)
