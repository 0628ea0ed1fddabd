"""Turns, ratios pair by pair, and changes between two benchmarks."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.benchmarks.changes import change, verdict
from pipeline.benchmarks.harness import ratio, take_turns

rates = st.lists(st.floats(0.1, 1e6), min_size=2, max_size=8)


def test_tasks_take_turns() -> None:
    calls: list[str] = []

    def task(name: str) -> int:
        calls.append(name)
        return len(calls)

    tasks = {name: partial(task, name) for name in "ab"}
    assert take_turns(tasks, 3) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert calls == [*"ababab"]


@given(rates, st.floats(0.01, 100), st.data())
def test_a_ratio_ignores_the_drift_that_both_share(
    own: list[float], factor: float, data: st.DataObject
) -> None:
    base = [rate / factor for rate in own]
    assert ratio(own, base).value == pytest.approx(factor)
    drift = data.draw(st.lists(st.floats(0.1, 10), min_size=len(own), max_size=len(own)))
    other = data.draw(st.lists(st.floats(0.1, 1e6), min_size=len(own), max_size=len(own)))
    still = ratio(own, other)
    drifted = ratio(*([r * d for r, d in zip(rates, drift, strict=True)] for rates in (own, other)))
    assert drifted.value == pytest.approx(still.value)
    if still.interval is not None and drifted.interval is not None:
        assert drifted.interval.low == pytest.approx(still.interval.low, rel=1e-3)
        assert still.interval.low <= still.value * (1 + 1e-9) <= still.interval.high * (1 + 1e-6)


def test_a_ratio_of_one_round_has_no_interval() -> None:
    assert ratio([4.0], [2.0]).interval is None
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_changes_are_told_from_noise() -> None:
    generator = np.random.default_rng(0)
    noisy = [[*np.exp(generator.normal(0, 0.05, 5))] for _ in range(400)]
    verdicts = [verdict(change(a, b)) for a, b in zip(noisy[::2], noisy[1::2], strict=True)]
    assert 0.9 < verdicts.count("within noise") / len(verdicts) < 0.99  # 95 %
    assert verdict(change(noisy[0], [2 * rate for rate in noisy[1]])) == "more"
    assert verdict(change(noisy[0], [rate / 2 for rate in noisy[1]])) == "less"
    assert verdict(change([1.0], [2.0])) == "one round: unknown"
    assert math.isclose(change([1.0, 4.0], [2.0, 8.0]).value, 2)
