"""Statistics of repeated runs: estimates, paired comparisons, learning curves. Reads no files.

Two arms are compared pair by pair (same seed, same order, same augmentation). A difference is
*shown* if the 95 % paired t interval of its mean excludes zero. The bootstrap interval and the sign
test are reported too, for readers who doubt that differences are normal; neither decides, because
with few pairs the first is too narrow and the second has no power. One pair shows nothing, nor do
pairs with equal differences: their spread cannot be estimated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # imports scipy.stats, which is slow, when it is first used
from numpy.typing import NDArray

CONFIDENCE = 0.95
POWER = 0.8  # the customary probability of detecting a real difference
ROUNDING = 8 * np.finfo(np.float64).eps  # relative; a smaller difference counts as zero


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval from `low` to `high`."""

    low: float
    high: float


UNBOUNDED = Interval(-math.inf, math.inf)
UNIT_INTERVAL = Interval(0, 1)  # of accuracies


@dataclass(frozen=True)
class Estimate:
    """The mean of one arm over `runs` runs.

    `deviation` is the sample standard deviation, None for one run. `interval` is the t interval of
    the mean, None for one run or if all runs agree.
    """

    runs: int
    mean: float
    deviation: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """The difference between the first arm and the second, pair by pair.

    `pairs` counts the pairs with both values; `only_first`, `only_second` and `neither` count the
    pairs in which one arm or both never reached a threshold. `difference` (mean) and `deviation`
    (sample standard deviation) are over `pairs`, None for too few. `interval` (paired t) and
    `bootstrap` (BCa) are None for fewer than two pairs or if all differences are equal. `sign_p` is
    the p-value of the exact two-sided sign test over all pairs; a value never reached counts as
    larger than any number, and ties are omitted. `shown` says whether `interval` excludes zero.
    `needed` is the number of pairs that show a difference of this size and spread with 80 % power,
    None if either is zero or unknown.
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
    """A mean curve with its band: tuples of equal length, one entry per evaluation.

    `low` and `high` are the 95 % t interval of the mean over the runs, `deviation` is the sample
    standard deviation of the runs; all three are None for a single run.
    """

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Metric:
    """How to word a difference: `unit` of a value × `scale`, and words for `more` and `less`."""

    unit: str
    more: str
    less: str
    scale: float = 1


ACCURACY = Metric("points", "better", "worse", scale=100)  # percentage points
LOSS = Metric("nats", "worse", "better")
SECONDS = Metric("s", "slower", "faster")
EPOCHS = Metric("epochs", "later", "earlier")


def estimate(values: Sequence[float], limits: Interval = UNBOUNDED) -> Estimate:
    """Estimate the mean of one arm. Its interval is clipped to `limits`.

    Raises ValueError for no values or a value that is not finite.
    """
    runs = _check_finite("estimate", values)
    rounding = ROUNDING * float(np.abs(runs).max())
    interval = _t_interval(runs, rounding)
    if interval is not None:
        interval = Interval(max(interval.low, limits.low), min(interval.high, limits.high))
    return Estimate(len(runs), float(runs.mean()), _deviation(runs, rounding), interval)


def compare(first: Sequence[float | None], second: Sequence[float | None]) -> Comparison:
    """Compare two arms, pair by pair; None stands for a threshold never reached.

    Raises ValueError for arms of different lengths, no pairs, or values that are not finite.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"compare: got {len(first)} and {len(second)} runs, expected equally many, at least one"
        )
    for arm in (first, second):
        _check_finite("compare", [value for value in arm if value is not None], least=0)
    a, b = (np.array([math.inf if v is None else v for v in arm], float) for arm in (first, second))
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
    less = int((differences < 0).sum()) + only_first
    more = int((differences > 0).sum()) + only_second
    return Comparison(
        pairs=len(differences),
        only_first=only_first,
        only_second=only_second,
        neither=int((~got_a & ~got_b).sum()),
        difference=mean,
        deviation=deviation,
        interval=interval,
        bootstrap=None if interval is None else _bootstrap_interval(differences),
        sign_p=float(scipy.stats.binomtest(less, less + more).pvalue) if less + more else 1.0,
        shown=interval is not None and not interval.low <= 0 <= interval.high,
        needed=pairs_needed(mean, deviation) if interval and mean and deviation else None,
    )


def pairs_needed(difference: float, deviation: float, power: float = POWER) -> int:
    """Return the number of pairs whose t interval shows a mean difference with this power.

    Solves the power, by the noncentral t distribution, for the number of pairs and rounds up, as
    R's power.t.test does; a difference shown with the opposite sign does not count.

    Raises ValueError unless the difference is not zero, the deviation positive, 0.05 < power < 1.
    """
    if not difference or not deviation > 0 or not 1 - CONFIDENCE < power < 1:
        raise ValueError(
            f"pairs_needed: got difference {difference}, deviation {deviation} and power {power}, "
            "expected a difference that is not 0, a deviation above 0 and a power from 0.05 to 1"
        )
    effect = abs(difference) / deviation

    def missing_power(pairs: float) -> float:
        shift = effect * math.sqrt(pairs)
        return power - float(scipy.stats.nct.sf(t_quantile(pairs - 1), pairs - 1, shift))

    if missing_power(2) <= 0:
        return 2
    # The number for a known spread; the t interval needs a few more.
    known = (
        (scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) + scipy.stats.norm.ppf(power)) / effect
    ) ** 2
    return math.ceil(float(scipy.optimize.brentq(missing_power, 2, 2 * known + 10)))


def t_quantile(freedom: float) -> float:
    """Return the end of the central 95 % of Student's t with these degrees of freedom."""
    return float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def area_under_curve(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the area under a curve divided by its span; of one point, its height.

    Raises ValueError unless `x` and `y` have equal lengths and finite values, and `x` increases.
    """
    at, height = _check_curve("area_under_curve", x, y)
    if len(at) == 1:
        return float(height[0])
    return float(np.trapezoid(height, at) / (at[-1] - at[0]))


def first_reached(x: Sequence[float], y: Sequence[float], threshold: float) -> float | None:
    """Return the first x whose y is at or above a threshold, None if there is none.

    Nothing is interpolated. Raises ValueError as `area_under_curve` does.
    """
    at, height = _check_curve("first_reached", x, y)
    above = np.flatnonzero(height >= threshold)
    return float(at[above[0]]) if len(above) else None


def count_spikes(losses: Sequence[float], beyond: float = 5) -> int:
    """Count the sudden rises of a training loss.

    A rise counts if it exceeds the median step by `beyond` robust deviations (the median absolute
    deviation, scaled to a normal's standard deviation). Raises ValueError for no losses or a loss
    that is not finite.
    """
    steps = np.diff(_check_finite("count_spikes", losses))
    if not len(steps):
        return 0
    usual = np.median(steps) + beyond * scipy.stats.median_abs_deviation(steps, scale="normal")
    return int(((steps > usual) & (steps > 0)).sum())


def bands(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]]) -> Bands:
    """Return the mean curve of runs (one row each) and its band, evaluation by evaluation.

    `x` is averaged over the runs too. Raises ValueError for no runs, runs of different lengths, or
    as `area_under_curve` does.
    """
    if len({len(row) for row in (*x, *y)}) != 1 or len(x) != len(y):
        lengths = [[len(row) for row in rows] for rows in (x, y)]
        raise ValueError(f"bands: got runs of {lengths[0]} and {lengths[1]} points, expected equal")
    rows = [_check_curve("bands", at, height) for at, height in zip(x, y, strict=True)]
    at, heights = (np.array(part) for part in zip(*rows, strict=True))
    columns = [at.mean(axis=0), mean := heights.mean(axis=0)]
    if len(rows) > 1:
        deviation = heights.std(axis=0, ddof=1)
        half = t_quantile(len(rows) - 1) * deviation / math.sqrt(len(rows))
        columns += [mean - half, mean + half, deviation]
    return Bands(*(tuple(column.tolist()) for column in columns))


def describe_difference(comparison: Comparison, first: str, second: str, measure: Metric) -> str:
    """Describe a comparison of the arms `first` and `second` in a sentence without full stop.

    "pretrained is 0.22 points better (95 % interval 0.10 to 0.34, 5 pairs): shown"
    """
    c = comparison
    total = c.pairs + c.only_first + c.only_second + c.neither
    unreached = (
        f"; both reached it in {c.pairs} of {total} pairs, {first} alone in {c.only_first}, "
        f"{second} alone in {c.only_second}, neither in {c.neither} "
        f"(sign test over all pairs: p = {c.sign_p:.2g})"
        if c.pairs < total
        else ""
    )
    if c.difference is None:
        return f"no difference can be measured{unreached}"
    sign = -1 if c.difference < 0 else 1
    ends = sorted(sign * end for end in (c.interval.low, c.interval.high)) if c.interval else []
    size, *around = _format_interval([v * measure.scale for v in (abs(c.difference), *ends)])
    amount = f"{size} {measure.unit} {measure.more if sign > 0 else measure.less}"
    if c.pairs == 1:
        observed = f"{first} is {amount}" if c.difference else "no difference"
        return f"one pair shows nothing ({observed}){unreached}"
    if not c.interval:
        if not c.difference:
            return f"no difference in any of {c.pairs} pairs{unreached}"
        return (
            f"{first} is {amount} in each of {c.pairs} pairs; equal differences give no "
            f"interval, so nothing is shown{unreached}"
        )
    interval = f"95 % interval {around[0]} to {around[1]}, {c.pairs} pairs"
    if not c.difference:
        return f"no difference on average ({interval}){unreached}"
    if c.shown:
        return f"{first} is {amount} ({interval}): shown{unreached}"
    needed = ""
    if c.needed is not None:
        number = f"about {c.needed:,}" if c.needed <= 1_000_000 else "more than a million"
        needed = f"; {number} pairs are needed to show a difference of this size"
    return f"no difference was shown ({first} is {amount}, {interval}){needed}{unreached}"


def _check_finite(caller: str, values: Sequence[float], least: int = 1) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < least or not np.isfinite(array).all():
        raise ValueError(f"{caller}: got {list(values)}, expected finite numbers, at least {least}")
    return array


def _check_curve(
    caller: str, x: Sequence[float], y: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    at, height = _check_finite(caller, x), _check_finite(caller, y)
    if len(at) != len(height) or (np.diff(at) <= 0).any():
        raise ValueError(
            f"{caller}: got {len(height)} values at {list(x)}, expected one at each of increasing x"
        )
    return at, height


def _deviation(values: NDArray[np.float64], rounding: float) -> float | None:
    if len(values) < 2:
        return None
    return 0.0 if np.ptp(values) <= rounding else float(values.std(ddof=1))


def _t_interval(values: NDArray[np.float64], rounding: float) -> Interval | None:
    if len(values) < 2 or np.ptp(values) <= rounding:
        return None
    return Interval(*map(float, scipy.stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)))


def _bootstrap_interval(values: NDArray[np.float64]) -> Interval:
    found = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0)
    )
    return Interval(*map(float, found.confidence_interval))


def _format_interval(values: Sequence[float]) -> list[str]:
    """Format a difference and the ends of its interval with the same number of decimals.

    Shows two digits of the interval's half width, or of a difference without interval, and one
    digit of the end nearest to zero, so that it does not read as zero.
    """
    size, *ends = values
    width = (ends[1] - ends[0]) / 2 if ends else 0.0
    leading = width or size  # the width can round to zero
    places = [_exponent(leading) - 1 if leading else 0, *(_exponent(end) for end in ends if end)]
    decimals = max(0, -min(places))
    return [f"{value:,.{decimals}f}".replace("-", "−") for value in values]


def _exponent(value: float) -> int:
    """Return the power of ten of the first digit."""
    return math.floor(math.log10(abs(value)))
