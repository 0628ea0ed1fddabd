"""Methods of training on incorrect labels: their choice, their losses, their comparison."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.noise_models import KINDS, transition
from pipeline.analysis.noise_robust import (
    METHODS,
    Score,
    loss_of,
    methods_for,
    probabilities_of,
    recovery,
    score_of,
)
from pipeline.evaluation.predict import Predictions
from pipeline.recipes.losses import Loss

FORWARD = transition("wrong", 1, 3).tolist()


def scores(accuracies: dict[str, list[float]]) -> dict[str, list[Score]]:
    return {way: [Score(a, a / 2) for a in by_seed] for way, by_seed in accuracies.items()}


def predictions(logits: list[list[float]], labels: list[int]) -> Predictions:
    return Predictions(torch.arange(len(labels)), torch.tensor(labels), torch.tensor(logits))


@pytest.mark.parametrize("kind", KINDS)
def test_every_verdict_has_the_naive_method_and_the_ceiling(kind: str) -> None:
    methods = methods_for(kind)
    assert methods[0] == "naive"
    assert methods[-1] == "ceiling"
    assert set(methods) <= set(METHODS)
    assert ("forward" in methods) == (kind not in ("clean", "random"))
    # Argmin suits only labels that are never correct.
    assert ("backwards" in methods) == ("complementary" in methods) == (kind == "wrong")


def test_a_method_has_its_loss() -> None:
    assert loss_of("naive", FORWARD) == loss_of("ceiling", FORWARD) == Loss()
    assert loss_of("backwards", FORWARD) is None  # the naive networks, with argmin
    assert loss_of("forward", FORWARD) == Loss("forward", transition=FORWARD)
    assert loss_of("complementary", FORWARD) == Loss("complementary")


def test_accuracy_of_argmax_and_argmin() -> None:
    three = predictions([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]], [0, 0, 0])
    assert score_of(three).accuracy == pytest.approx(1 / 3)
    assert score_of(three, backwards=True).accuracy == pytest.approx(1 / 3)
    assert score_of(predictions([[3.0, 2.0, 1.0]], [2]), backwards=True).accuracy == 1
    assert score_of(predictions([[3.0, 2.0, 1.0]], [2])).accuracy == 0


def test_balanced_accuracy_counts_each_class_equally() -> None:
    four = predictions([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 2.0]], [0, 0, 0, 0])
    mixed = four._replace(labels=torch.tensor([0, 0, 0, 1]))
    assert score_of(four).balanced_accuracy == pytest.approx(3 / 4)  # class 1 does not occur
    assert score_of(mixed).balanced_accuracy == 1
    missed = mixed._replace(logits=torch.tensor([[2.0, 1.0]] * 4))
    assert score_of(missed) == Score(3 / 4, 1 / 2)
    assert score_of(missed, backwards=True) == Score(1 / 4, 1 / 2)


def test_probabilities_sum_to_one() -> None:
    found = probabilities_of(predictions([[0.0, 0.0, 0.0], [100.0, 0.0, -100.0]], [0, 1]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.array([[1 / 3] * 3, [1.0, 0.0, 0.0]]), atol=1e-12)


def test_the_corrected_loss_is_compared_with_every_other_method() -> None:
    outcome = recovery(
        scores(
            {
                "ceiling": [0.93, 0.92, 0.94],
                "naive": [0.0, 0.01, 0.0],
                "forward": [0.86, 0.87, 0.88],
                "backwards": [0.74, 0.73, 0.75],
            }
        )
    )
    assert list(outcome.accuracies) == ["naive", "backwards", "forward", "ceiling"]
    assert outcome.estimates["forward"].mean == pytest.approx(0.87)
    assert outcome.balanced["forward"].mean == pytest.approx(0.435)
    assert [(pair.first, pair.second) for pair in outcome.pairs] == [
        ("forward", "naive"),
        ("forward", "backwards"),
        ("forward", "ceiling"),
    ]
    better, _, worse = outcome.pairs
    assert better.comparison.difference == pytest.approx(0.87 - 0.01 / 3)
    assert better.comparison.shown
    assert better.words.startswith("forward-corrected is 86.7 points better")
    assert worse.comparison.difference == pytest.approx(-0.06)
    assert worse.words.startswith("forward-corrected is 6.0 points worse")


def test_without_a_correction_the_ceiling_is_compared() -> None:
    (pair,) = recovery(scores({"naive": [0.9], "ceiling": [0.92]})).pairs
    assert (pair.first, pair.second) == ("ceiling", "naive")
    assert pair.words.startswith("one pair shows nothing")


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=1, max_size=5))
def test_pairs_are_of_equal_seeds(accuracies: list[tuple[float, float]]) -> None:
    naive, forward = map(list, zip(*accuracies, strict=True))
    (pair,) = recovery(scores({"naive": naive, "forward": forward})).pairs
    assert pair.comparison.pairs == len(accuracies)
    expected = float(np.mean(np.subtract(forward, naive)))
    assert pair.comparison.difference == pytest.approx(expected, abs=1e-12)


def test_methods_with_different_seeds_are_rejected() -> None:
    with pytest.raises(ValueError, match="compare: got 1 and 2 runs"):
        recovery(scores({"forward": [0.5], "naive": [0.5, 0.6]}))
