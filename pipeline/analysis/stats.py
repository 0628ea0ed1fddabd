"""Conclusions from several runs: numbers in, numbers and sentences out, no files.

Two arms are compared pair by pair (same seed, same order, same augmentation). One rule says what
counts: a difference is *shown* when the 95 % paired t interval of its mean excludes zero. The
bootstrap interval and the sign test stand beside it, for readers who doubt that differences are
normal; with few pairs the first is too narrow and the second cannot speak, so neither decides.
One pair shows nothing, nor do pairs whose differences are all equal: spread that was not seen
cannot be told from none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.8  # the customary chance of seeing what is there
ROUNDING = 8 * np.finfo(np.float64).eps  # relative; what is smaller is no difference


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, at 95 % confidence."""

    low: float
    high: float


UNBOUNDED = Interval(-math.inf, math.inf)
UNIT_INTERVAL = Interval(0, 1)  # where accuracies are


@dataclass(frozen=True)
class Estimate:
    """The mean of one arm over `runs` runs.

    `deviation` is the sample standard deviation, None for one run; `interval` the mean's t
    interval, None for one run or where all runs agree.
    """

    runs: int
    mean: float
    deviation: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """The first arm minus the second, pair by pair.

    `pairs` have both values; `only_first`, `only_second` and `neither` count those that lack one or
    both, because a threshold was never reached. `difference` (a mean) and `deviation` (a sample
    standard deviation) are over `pairs`, None for too few. `interval` (paired t) and `bootstrap`
    (BCa) are None for fewer than two pairs or differences that are all equal. `sign_p` is the exact
    two-sided sign test's, over all pairs: never is later than any number, and ties are left out.
    `shown`: `interval` excludes zero. `needed` is how many pairs would show, with 80 % power, a
    difference of this size and spread; None where there is none or no spread to reckon with.
    """

    pairs: int
    only_first: int
    only_second: int
    neither: int
    difference: float | None
    deviation: float | None
    interval: Interval | None
    bootstrap: Interval | None
    sign_p: float
    shown: bool
    needed: int | None


@dataclass(frozen=True)
class Bands:
    """A mean curve with its band: equally long tuples, an entry for each evaluation.

    `low` and `high` are the 95 % t interval of the mean over the runs, `deviation` their sample
    standard deviation (the spread); all three are None for a single run.
    """

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    deviation: tuple[float, ...] | None


@dataclass(frozen=True)
class Metric:
    """How a difference is said: its unit, values × `scale` of it, and what more and less mean."""

    unit: str
    more: str
    less: str
    scale: float = 1


ACCURACY = Metric("points", "better", "worse", scale=100)  # of shares from 0 to 1
LOSS = Metric("nats", "worse", "better")
SECONDS = Metric("s", "slower", "faster")
EPOCHS = Metric("epochs", "later", "earlier")


def estimate(values: Sequence[float], limits: Interval = UNBOUNDED) -> Estimate:
    """Return the mean of one arm, whose interval ends where `within` does: no share is above 1.

    Raises ValueError for no value or one that is not finite.
    """
    runs = _check_finite("estimate", values)
    rounding = ROUNDING * float(np.abs(runs).max())
    interval = _t_interval(runs, rounding)
    if interval is not None:
        interval = Interval(max(interval.low, limits.low), min(interval.high, limits.high))
    return Estimate(
        runs=len(runs),
        mean=float(runs.mean()),
        deviation=_deviation(runs, rounding),
        interval=interval,
    )


def compare(first: Sequence[float | None], second: Sequence[float | None]) -> Comparison:
    """Compare two arms, pair by pair; None is a threshold never reached, later than any number.

    Raises ValueError for arms of different lengths, no pairs, or values that are not finite.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"compare: got {len(first)} and {len(second)} runs, expected equally many, at least one"
        )
    a, b = (np.array([math.inf if v is None else v for v in arm], float) for arm in (first, second))
    for arm, times in ((first, a), (second, b)):
        _check_finite("compare", times[[v is not None for v in arm]], least=0)
    got_a, got_b = np.isfinite(a), np.isfinite(b)
    both = got_a & got_b
    scale = np.maximum(np.abs(a), np.abs(b))[both]
    differences = a[both] - b[both]
    differences[np.abs(differences) <= ROUNDING * scale] = 0
    rounding = ROUNDING * float(scale.max(initial=0))
    mean = float(differences.mean()) if len(differences) else None
    if mean is not None and abs(mean) <= rounding:
        mean = 0.0
    deviation = _deviation(differences, rounding)
    interval = _t_interval(differences, rounding)
    only_first, only_second = int((got_a & ~got_b).sum()), int((got_b & ~got_a).sum())
    return Comparison(
        pairs=len(differences),
        only_first=only_first,
        only_second=only_second,
        neither=int((~got_a & ~got_b).sum()),
        difference=mean,
        deviation=deviation,
        interval=interval,
        bootstrap=None if interval is None else _bootstrap_interval(differences),
        sign_p=_sign_test(
            less=int((differences < 0).sum()) + only_first,
            more=int((differences > 0).sum()) + only_second,
        ),
        shown=interval is not None and not interval.low <= 0 <= interval.high,
        needed=pairs_needed(mean, deviation) if interval and mean and deviation else None,
    )


def pairs_needed(difference: float, deviation: float, power: float = POWER) -> int:
    """Return how many pairs show a mean difference with this chance, by the paired t interval.

    Solves the power, by the noncentral t distribution, for the number of pairs; a difference shown
    with the wrong sign does not count. As R's power.t.test, and rounded up.

    Raises ValueError unless the difference is not zero, the deviation positive, 0.05 < power < 1.
    """
    if not difference or not deviation > 0 or not 1 - CONFIDENCE < power < 1:
        raise ValueError(
            f"pairs_needed: got difference {difference}, deviation {deviation} and power {power}, "
            "expected one that is not zero, one above zero and one between 0.05 and 1"
        )
    effect = abs(difference) / deviation

    def lack(pairs: float) -> float:
        shift = effect * math.sqrt(pairs)
        return power - float(stats.nct.sf(_t_quantile(pairs), pairs - 1, shift))

    if lack(2) <= 0:
        return 2
    # With a known spread this many would do; t asks for a few more.
    known = ((stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(power)) / effect) ** 2
    return math.ceil(float(optimize.brentq(lack, 2, 2 * known + 10)))


def area_under_curve(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the area under a curve over its span: the mean height; of one point, its height.

    Raises ValueError unless `x` and `y` are equally long and finite, and `x` increases.
    """
    at, height = _check_curve("area_under_curve", x, y)
    if len(at) == 1:
        return float(height[0])
    return float(np.trapezoid(height, at) / (at[-1] - at[0]))


def first_reached(x: Sequence[float], y: Sequence[float], threshold: float) -> float | None:
    """Return where a curve was first evaluated at or above a threshold, None if it never was.

    Nothing is interpolated. Raises ValueError as `area_under_curve` does.
    """
    at, height = _check_curve("first_reached", x, y)
    above = np.flatnonzero(height >= threshold)
    return float(at[above[0]]) if len(above) else None


def count_spikes(losses: Sequence[float], beyond: float = 5) -> int:
    """Count the rises of a training loss that stand out from its usual steps.

    A rise is one if it exceeds the median step by `beyond` robust deviations (the median absolute
    deviation, scaled to a normal's standard deviation). Raises ValueError for no loss or one that
    is not finite.
    """
    steps = np.diff(_check_finite("count_spikes", losses))
    if not len(steps):
        return 0
    usual = np.median(steps) + beyond * stats.median_abs_deviation(steps, scale="normal")
    return int(((steps > usual) & (steps > 0)).sum())


def bands(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]]) -> Bands:
    """Return the mean curve of runs (a row each) and its band, evaluation by evaluation.

    `x` is averaged over the runs as well: epochs are equal, and seconds are when the mean run got
    there. Raises ValueError for no runs, or as `area_under_curve` does, for any of them.
    """
    if len({len(row) for row in (*x, *y)}) != 1 or len(x) != len(y):
        lengths = [[len(row) for row in rows] for rows in (x, y)]
        raise ValueError(f"bands: got runs of {lengths[0]} and {lengths[1]} points, expected equal")
    rows = [_check_curve("bands", at, height) for at, height in zip(x, y, strict=True)]
    at = np.mean([row[0] for row in rows], axis=0)
    heights = np.array([row[1] for row in rows])
    mean = heights.mean(axis=0)
    if len(rows) == 1:
        return Bands(tuple(at.tolist()), tuple(mean.tolist()), None, None, None)
    deviation = heights.std(axis=0, ddof=1)
    half = _t_quantile(len(rows)) * deviation / math.sqrt(len(rows))
    columns = (at, mean, mean - half, mean + half, deviation)
    return Bands(*(tuple(column.tolist()) for column in columns))


def describe_difference(comparison: Comparison, first: str, second: str, measure: Metric) -> str:
    """Say in a sentence, without full stop, what a comparison of arms `first` and `second` shows.

    "pretrained is 0.22 points better (95 % interval 0.10 to 0.34, 5 pairs): shown"
    """
    c = comparison
    total = c.pairs + c.only_first + c.only_second + c.neither
    absent = (
        f"; both got there in {c.pairs} of {total} pairs, {first} alone in {c.only_first}, "
        f"{second} alone in {c.only_second}, neither in {c.neither} "
        f"(sign test over all: p = {c.sign_p:.2g})"
        if c.pairs < total
        else ""
    )
    if c.difference is None:
        return f"there is no difference to measure{absent}"
    sign = -1 if c.difference < 0 else 1
    ends = sorted(sign * end for end in (c.interval.low, c.interval.high)) if c.interval else []
    size, *around = _format_interval([v * measure.scale for v in (abs(c.difference), *ends)])
    amount = f"{size} {measure.unit} {measure.more if sign > 0 else measure.less}"
    if c.pairs == 1:
        seen = f"{first} is {amount}" if c.difference else "no difference"
        return f"one pair shows nothing ({seen}){absent}"
    if not c.interval:
        if not c.difference:
            return f"no difference in any of {c.pairs} pairs{absent}"
        return (
            f"{first} is {amount} in each of {c.pairs} pairs; differences that are all equal give "
            f"no interval, so nothing is shown{absent}"
        )
    interval = f"95 % interval {around[0]} to {around[1]}, {c.pairs} pairs"
    if not c.difference:
        return f"no difference on average ({interval}){absent}"
    if c.shown:
        return f"{first} is {amount} ({interval}): shown{absent}"
    needed = ""
    if c.needed is not None:
        number = f"about {c.needed:,}" if c.needed <= 1_000_000 else "more than a million"
        needed = f"; {number} pairs would be needed to show one this size"
    return f"no difference was shown ({first} is {amount}, {interval}){needed}{absent}"


def _check_finite(
    who: str, values: Sequence[float] | NDArray[np.float64], least: int = 1
) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < least or not np.isfinite(array).all():
        raise ValueError(f"{who}: got {list(values)}, expected finite numbers, at least {least}")
    return array


def _check_curve(
    who: str, x: Sequence[float], y: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    at, height = _check_finite(who, x), _check_finite(who, y)
    if len(at) != len(height) or (np.diff(at) <= 0).any():
        raise ValueError(
            f"{who}: got {len(height)} values at {list(x)}, expected one at each of increasing x"
        )
    return at, height


def _t_quantile(runs: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, runs - 1))


def _deviation(values: NDArray[np.float64], rounding: float) -> float | None:
    if len(values) < 2:
        return None
    return 0.0 if np.ptp(values) <= rounding else float(values.std(ddof=1))


def _t_interval(values: NDArray[np.float64], rounding: float) -> Interval | None:
    if len(values) < 2 or np.ptp(values) <= rounding:
        return None
    interval = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return Interval(float(interval.low), float(interval.high))


def _bootstrap_interval(values: NDArray[np.float64]) -> Interval:
    interval = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))


def _sign_test(less: int, more: int) -> float:
    return float(stats.binomtest(less, less + more).pvalue) if less + more else 1.0


def _format_interval(values: Sequence[float]) -> list[str]:
    """Write a difference and the ends of its interval with equally many decimals.

    Two digits of the interval's half width, or of the difference if it stands alone, and one of the
    end nearest to zero, lest it read as zero.
    """
    size, *ends = values
    width = (ends[1] - ends[0]) / 2 if ends else 0.0
    leading = width or size  # an interval can be narrower than numbers are apart
    places = [_exponent(leading) - 1 if leading else 0, *(_exponent(end) for end in ends if end)]
    decimals = max(0, -min(places))
    return [f"{value:,.{decimals}f}".replace("-", "−") for value in values]


def _exponent(value: float) -> int:
    """Return the power of ten of the first digit."""
    return math.floor(math.log10(abs(value)))
