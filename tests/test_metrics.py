"""Metrics of predictions: known values, and their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.evaluation.metrics import (
    BINS,
    Confusion,
    Scores,
    accuracy_interval,
    reliability,
    score,
    top_losses,
)

CLASSES = ("0", "O", "o", "s")


def logits_of(probabilities: list[list[float]]) -> Tensor:
    return torch.tensor(probabilities).log()


def sure(predicted: list[int], classes: int = 4) -> Tensor:
    return 10 * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits (N, 4), no two of a row equal, and labels (N,)."""
    count, seed = draw(st.integers(1, 60)), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    logits = torch.from_numpy(random.normal(0, scale, (count, 4)).astype(np.float32))
    return logits, torch.from_numpy(random.integers(0, 4, count))


def test_known_scores() -> None:
    # o for O twice, 0 for O once, the rest correct
    labels = torch.tensor([0, 1, 1, 1, 2, 3])
    scores = score(sure([0, 2, 2, 0, 2, 3]), labels, CLASSES)
    assert scores.samples == 6
    assert scores.accuracy == 3 / 6
    assert scores.accuracy_ignoring_case == 5 / 6
    assert scores.confusions == (Confusion("O", "o", 2), Confusion("O", "0", 1))
    assert scores.matrix == ((1, 0, 0, 0), (1, 0, 2, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    zero, big, little, s = scores.per_class
    assert (zero.name, zero.samples, zero.precision, zero.recall) == ("0", 1, 0.5, 1)
    assert zero.f1 == pytest.approx(2 / 3)
    assert (big.samples, big.precision, big.recall, big.f1) == (3, 0, 0, 0)
    assert (little.precision, little.recall) == pytest.approx((1 / 3, 1))
    assert (s.precision, s.recall, s.f1) == (1, 1, 1)


def test_classes_without_case_have_no_accuracy_without_it() -> None:
    assert score(sure([0, 1]), torch.tensor([0, 1]), "0123").accuracy_ignoring_case is None


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="score: got no samples"):
        score(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CLASSES)


def test_every_headline_is_of_the_scores() -> None:
    scores = score(sure([0, 1]), torch.tensor([0, 3]), CLASSES)
    assert scores.headline() == {name: getattr(scores, name) for name in scores.headline()}
    assert {"accuracy", "loss", "calibration_error", "samples"} <= scores.headline().keys()


@given(predictions())
def test_scores_are_what_they_are_defined_to_be(given: tuple[Tensor, Tensor]) -> None:
    logits, labels = given
    scores: Scores = score(logits, labels, CLASSES)
    matrix = np.array(scores.matrix)
    assert matrix.sum() == len(labels)
    assert scores.accuracy == np.trace(matrix) / len(labels)
    probabilities = torch.softmax(logits.double(), dim=1)[torch.arange(len(labels)), labels]
    assert scores.loss == pytest.approx(-probabilities.log().mean().item(), rel=1e-4, abs=1e-6)
    errors = {(c.true, c.predicted): c.count for c in scores.confusions}
    assert [c.count for c in scores.confusions] == sorted(errors.values(), reverse=True)
    for i, true in enumerate(CLASSES):
        for j, predicted in enumerate(CLASSES):
            assert matrix[i, j] == (matrix[i, i] if i == j else errors.get((true, predicted), 0))
        one = scores.per_class[i]
        assert one.samples == matrix[i].sum()
        assert one.recall == pytest.approx(matrix[i, i] / max(1, matrix[i].sum()))
        assert one.precision == pytest.approx(matrix[i, i] / max(1, matrix[:, i].sum()))


def test_calibration_of_known_predictions() -> None:
    # Four predictions at 0.9, two of them correct; one at 0.5, correct.
    probabilities = [[0.9, 0.1]] * 4 + [[0.5, 0.5 - 1e-6]]
    logits, labels = logits_of(probabilities), torch.tensor([0, 0, 1, 1, 0])
    scores = score(logits, labels, "ab")
    assert scores.calibration_error == pytest.approx((4 * 0.4 + 0.5) / 5, abs=1e-5)
    unsure, sure_ones = reliability(logits, labels)
    assert (unsure.samples, unsure.accuracy) == (1, 1)
    assert (sure_ones.samples, sure_ones.accuracy) == (4, 0.5)
    assert sure_ones.confidence == pytest.approx(0.9)


@given(predictions())
def test_the_expected_calibration_error_is_that_of_the_bins(given: tuple[Tensor, Tensor]) -> None:
    logits, labels = given
    bins = reliability(logits, labels)
    assert len(bins) <= BINS
    assert all(one.samples > 0 for one in bins)
    assert sum(one.samples for one in bins) == len(labels)
    error = sum(one.samples * abs(one.confidence - one.accuracy) for one in bins) / len(labels)
    assert score(logits, labels, CLASSES).calibration_error == pytest.approx(error, abs=1e-5)


def test_the_top_losses() -> None:
    logits = logits_of([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.05, 0.9, 0.05], [0.3, 0.4, 0.3]])
    labels = torch.tensor([0, 0, 2, 1])
    first, second = top_losses(logits, labels, "abc", 2)
    assert (first.row, first.true, first.predicted) == (2, "c", "b")
    assert first.probability == pytest.approx(0.9)
    assert first.loss == pytest.approx(-math.log(0.05), rel=1e-5)
    assert (second.row, second.true, second.predicted) == (1, "a", "c")
    assert second.loss == pytest.approx(-math.log(0.1), rel=1e-5)


@given(predictions(), st.integers(1, 80))
def test_top_losses_are_the_largest_of_all(given: tuple[Tensor, Tensor], most: int) -> None:
    logits, labels = given
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
    found = top_losses(logits, labels, CLASSES, most)
    assert [one.loss for one in found] == sorted(losses, reverse=True)[:most]
    for one in found:
        assert one.loss == losses[one.row]
        assert one.true == CLASSES[labels[one.row]]
        assert one.predicted == CLASSES[logits[one.row].argmax()]
    assert len({one.row for one in found}) == len(found)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_an_accuracys_interval_is_wilsons(samples: int, fraction: float) -> None:
    accuracy = round(fraction * samples) / samples
    low, high = accuracy_interval(accuracy, samples)
    z = 1.959963984540054
    middle = (accuracy + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z * math.sqrt(accuracy * (1 - accuracy) / samples + (z / (2 * samples)) ** 2)
    half /= 1 + z * z / samples
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert 0 <= low <= high <= 1


def test_balanced_accuracy_counts_each_class_equally() -> None:
    labels = torch.tensor([0] * 8 + [1, 1])  # no sample is of the third class
    logits = torch.eye(3)[[0] * 8 + [1, 2]]
    scores = score(logits, labels, ["a", "b", "c"])
    assert scores.accuracy == pytest.approx(0.9)
    assert scores.balanced_accuracy == pytest.approx(0.75)
