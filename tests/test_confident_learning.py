import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.confident_learning import find_label_issues


def predictions(labels: np.ndarray, classes: int, seed: int = 0) -> np.ndarray:
    """Probabilities of a good network for images of the classes `labels`."""
    logits = np.random.default_rng(seed).normal(0, 1, (len(labels), classes))
    logits[np.arange(len(labels)), labels] += 7
    weights = np.exp(logits)
    return np.asarray(weights / weights.sum(1, keepdims=True))


@given(st.integers(2, 8), st.integers(0, 99), st.floats(0, 0.3))
def test_planted_errors_are_found(classes: int, seed: int, rate: float) -> None:
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, 60 * classes)
    labels, wrong = true.copy(), random.random(len(true)) < rate
    labels[wrong] = (true[wrong] + random.integers(1, classes, wrong.sum())) % classes
    found = find_label_issues(predictions(true, classes, seed), labels)
    rows = {one.row for one in found.suspicious}
    planted = {*np.flatnonzero(wrong).tolist()}
    assert len(rows & planted) >= 0.8 * len(planted) - 2
    assert len(rows - planted) <= 0.06 * len(true)
    assert found.rate == pytest.approx(wrong.mean(), abs=0.05)
    first = [one.row for one in found.suspicious[: len(planted) // 2]]
    assert sum(row in planted for row in first) >= 0.8 * len(first) - 2
    assert all(one.suggested != one.label == labels[one.row] for one in found.suspicious)


def test_thresholds_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.95, 0.05]])
    labels = np.array([0, 0, 1, 1, 1])  # the mean of 0 is 0.8; that of 1 is 0.4833
    found = find_label_issues(probabilities, labels)
    assert [(one.row, one.label, one.suggested) for one in found.suspicious] == [(4, 1, 0)]
    assert found.suspicious[0].probability == 0.95
    assert found.suspicious[0].own_probability == 0.05
    assert found.rate == pytest.approx(1 / 3 * 3 / 5)


def test_a_class_without_images_is_never_suggested() -> None:
    probabilities = np.array([[0.1, 0.2, 0.7]] * 4)
    found = find_label_issues(probabilities, np.array([0, 0, 1, 1]))
    assert {one.suggested for one in found.suspicious} == {1}


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="labels: got shape"):
        find_label_issues(np.ones((3, 2)) / 2, np.array([0, 1]))
    with pytest.raises(ValueError, match="at least one"):
        find_label_issues(np.ones((0, 2)), np.zeros(0, np.int64))


def test_a_network_that_is_sure_of_all_images_finds_an_error() -> None:
    right = np.linspace(0.94, 0.96, 12)
    probabilities = np.stack([right, 1 - right], axis=1)
    probabilities[6:] = probabilities[6:, ::-1]
    labels = np.repeat([0, 1], 6)
    labels[0] = 1  # its probability, 0.94, is below the mean of its class
    assert [one.row for one in find_label_issues(probabilities, labels).suspicious] == [0]
