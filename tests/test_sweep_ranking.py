"""The ranking of a sweep's settings: what is shown, and what is only the luck of the best."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis import optimizers, stats
from pipeline.analysis.stats import compare
from pipeline.analysis.sweep import Outcome, Ranking, holds_for, rank
from pipeline.evaluation.sweep_config import Setting

SEEDS = (0, 1, 2)
Row = Sequence[float | None]  # accuracies by seed


def ranking(accuracies: Mapping[str, Row], seeds: Sequence[int] = SEEDS) -> Ranking:
    """Rank settings with these accuracies, by name."""
    rows = [
        [
            Outcome(f"{name}-{seed}", reason="not finite")
            if accuracy is None
            else Outcome(f"{name}-{seed}", 100, accuracy, accuracy, 1 - accuracy, 2, 10.0)
            for seed, accuracy in zip(seeds, row, strict=True)
        ]
        for name, row in accuracies.items()
    ]
    return rank([Setting(name, {"name": name}) for name in accuracies], rows, seeds)


def shown(found: Ranking) -> list[bool]:
    return [one.difference.shown for one in found.settings if one.difference is not None]


def test_settings_are_ranked_by_their_mean() -> None:
    found = ranking({"a": (0.5, 0.6, 0.7), "b": (0.8, 0.9, 0.85), "c": (0.1, 0.2, 0.1)})
    assert [one.setting.name for one in found.settings] == ["b", "a", "c"]
    assert found.best.accuracy is not None
    assert found.best.accuracy.mean == pytest.approx(0.85)
    assert found.best.difference is None
    difference = found.settings[1].difference
    assert difference is not None
    assert difference.comparison == compare((0.8, 0.9, 0.85), (0.5, 0.6, 0.7))
    assert found.answer.startswith(
        "Of 3 settings, b has the highest validation accuracy, 85.00 % ("
    )


def test_a_clear_difference_is_shown_and_a_small_one_is_not() -> None:
    found = ranking(
        {
            "good": (0.90, 0.91, 0.92),
            "similar": (0.91, 0.90, 0.915),
            "bad": (0.10, 0.112, 0.121),
        }
    )
    assert [one.setting.name for one in found.settings] == ["good", "similar", "bad"]
    assert shown(found) == [False, True]
    assert (
        "Of the other 2, 1 is shown to be less accurate, 1 is not shown to differ" in found.answer
    )


def test_the_choice_of_the_best_is_corrected_for() -> None:
    # Alone, the paired interval excludes zero; among three settings, it does not.
    first, second = (0.80, 0.82, 0.81), (0.79, 0.813, 0.798)
    pair = compare(first, second)
    assert pair.shown
    assert holds_for(pair, 1)
    assert not holds_for(pair, 3)
    assert shown(ranking({"a": first, "b": second})) == [True]
    three = ranking({"a": first, "b": second, "c": (0.1, 0.12, 0.14)})
    assert shown(three) == [False, True]
    words = three.settings[1].difference
    assert words is not None
    assert words.words.startswith("no difference was shown (a is ")
    assert words.words.endswith("one of 3 pairs, the interval includes zero)")


def test_equal_settings_rarely_show_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_bootstrap_interval", lambda _values: None)  # it decides nothing
    random = np.random.default_rng(0)
    count, corrected, alone = 100, 0, 0
    for _ in range(count):
        values = 0.9 + 0.01 * random.standard_normal((6, 4))
        found = ranking({f"{n}": row for n, row in enumerate(values.tolist())}, range(4))
        comparisons = [one.difference.comparison for one in found.settings if one.difference]
        corrected += any(shown(found))
        alone += any(one is not None and one.shown for one in comparisons)
    assert corrected <= 0.05 * count
    assert alone > 0.2 * count


@settings(derandomize=True, max_examples=10)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=6))
def test_what_is_shown_with_the_correction_is_shown_without(rows: list[list[float]]) -> None:
    found = ranking({f"{n}": row for n, row in enumerate(rows)})
    for one in found.settings[1:]:
        assert one.difference is not None
        assert one.difference.comparison is not None
        assert one.difference.comparison.shown >= one.difference.shown
        assert one.difference.words.endswith(": shown") == one.difference.shown


def test_one_seed_shows_nothing() -> None:
    found = ranking({"a": (0.9,), "b": (0.1,)}, (0,))
    assert shown(found) == [False]
    assert found.answer.endswith("One seed shows no difference between settings.")
    alone = ranking({"a": (0.9,)}, (0,))
    assert alone.answer == "a has a validation accuracy of 90.00 % with one seed."


def test_a_setting_that_diverged_comes_last_and_is_not_compared() -> None:
    found = ranking({"wild": (0.99, None, 0.99), "tame": (0.5, 0.6, 0.55), "wilder": (None,) * 3})
    assert [one.setting.name for one in found.settings] == ["tame", "wild", "wilder"]
    difference = found.settings[1].difference
    assert difference is not None
    assert difference.comparison is None
    assert difference.words == "wild diverged in 1 of 3 trainings, so the two are not compared"
    assert found.settings[2].accuracy is None
    assert found.answer.endswith("Of the other 2, 2 have trainings that diverged.")
    assert ranking({"a": (None,) * 3}).answer == "All trainings of all 1 settings diverged."


PUBLISHED = {"SGD": 0.87, "Adam": 0.9}


def pairs(
    accuracies: Mapping[tuple[str, float], Sequence[float | None]], seeds: Sequence[int]
) -> Ranking:
    """Rank pairs of optimizer and learning rate."""
    own = [
        Setting(f"{optimizer} at {rate:g}", {"optimizer": optimizer, "learning_rate": rate})
        for optimizer, rate in accuracies
    ]
    rows = [
        [Outcome("x", 100, accuracy, accuracy) for _, accuracy in zip(seeds, row, strict=True)]
        for row in accuracies.values()
    ]
    return rank(own, rows, seeds)


def test_the_comparison_of_optimizers_says_what_is_shown() -> None:
    grid = pairs(
        {
            ("SGD", 0.1): (0.88,),
            ("SGD", 0.01): (0.85,),
            ("Adam", 0.1): (None,),
            ("Adam", 0.01): (0.9,),
            ("Adam", 0.001): (0.8,),
            ("Adam", 0.0001): (0.7,),
        },
        (3,),
    )
    best = optimizers.best_rates(grid)
    assert {name: one.setting.options["learning_rate"] for name, one in best.items()} == {
        "Adam": 0.01,
        "SGD": 0.1,
    }
    published = pairs({("SGD", 1e-4): (0.3, 0.32, 0.31), ("Adam", 1e-5): (0.6, 0.61, 0.63)}, SEEDS)
    fair = pairs({("SGD", 0.1): (0.88, 0.9, 0.89), ("Adam", 0.01): (0.89, 0.9, 0.87)}, SEEDS)
    found = optimizers.conclude(PUBLISHED, published, grid, fair, "Each training: 1 epoch.")
    assert found.findings[0] == "The published order of the pairs repeats: Adam > SGD."
    assert "(Adam at 1e-05, SGD at 0.0001), so they do not compare optimizers" in found.findings[1]
    assert "The other one is shown to be less accurate" in found.findings[1]
    assert "The other one is not shown to differ from it" in found.findings[2]
    assert found.findings[3].startswith("The best and the worst mean lie 30.3 points apart as pub")
    assert found.findings[4].startswith("At the edge of its grid: SGD at 0.1.")


def test_another_order_and_missing_optimizers_are_reported() -> None:
    grid = pairs({("SGD", 0.1): (0.8,), ("SGD", 1.0): (None,), ("Adam", 1.0): (None,)}, (3,))
    published = pairs({("SGD", 1e-4): (0.7, 0.72, 0.71), ("Adam", 1e-5): (0.6, 0.61, 0.63)}, SEEDS)
    fair = pairs({("SGD", 0.1): (0.8, 0.81, 0.82)}, SEEDS)
    found = optimizers.conclude(PUBLISHED, published, grid, fair, "")
    assert found.findings[0] == (
        "The published order of the pairs is Adam > SGD; here it is SGD > Adam."
    )
    assert found.findings[-1] == "All learning rates of its grid diverged: Adam."
