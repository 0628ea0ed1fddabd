"""Conclusions from a network's answers: numbers in, numbers out, no files."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ClassScore:
    """How well one class was recognised, out of `samples` of it; shares from 0 to 1."""

    name: str
    samples: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """`count` samples of class `true` were taken for class `predicted`."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Scores:
    """What a network's answers were worth; shares from 0 to 1, the loss in nats.

    `accuracy_ignoring_case` is None where no two classes differ in case alone. `confusions` are the
    pairs of different classes that occurred, most frequent first. `matrix` counts, a row for each
    true class and a column for each predicted one.
    """

    samples: int
    accuracy: float
    accuracy_ignoring_case: float | None
    loss: float
    per_class: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    matrix: tuple[tuple[int, ...], ...]

    def headline(self) -> dict[str, float | None]:
        """Return the figures that stand for all."""
        return {
            "accuracy": self.accuracy,
            "accuracy_ignoring_case": self.accuracy_ignoring_case,
            "loss": self.loss,
            "samples": self.samples,
        }


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Score logits, float (N, C), against labels, int64 (N,) in [0, C), for the C `classes`.

    Raises ValueError for no samples.
    """
    from torchmetrics.functional.classification import (  # seconds, which a start can do without
        multiclass_confusion_matrix,
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    if not len(labels):
        raise ValueError("score: got no samples, expected at least one")
    count = len(classes)
    predicted = logits.argmax(dim=1)
    matrix = multiclass_confusion_matrix(predicted, labels, count)
    figures = [
        metric(predicted, labels, count, average="none").tolist()
        for metric in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    ]
    wrong = matrix.clone().fill_diagonal_(0)
    pairs = sorted(wrong.nonzero().tolist(), key=lambda pair: -int(wrong[pair[0], pair[1]]))
    return Scores(
        samples=len(labels),
        accuracy=_share(predicted == labels),
        accuracy_ignoring_case=_ignoring_case(predicted, labels, classes),
        loss=float(F.cross_entropy(logits.float(), labels)),
        per_class=tuple(
            ClassScore(name, int(matrix[i].sum()), *(column[i] for column in figures))
            for i, name in enumerate(classes)
        ),
        confusions=tuple(Confusion(classes[i], classes[j], int(wrong[i, j])) for i, j in pairs),
        matrix=tuple(map(tuple, matrix.tolist())),
    )


def _ignoring_case(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> float | None:
    letters = [name.casefold() for name in classes]
    if len(set(letters)) == len(letters):
        return None
    first = torch.tensor([letters.index(letter) for letter in letters])
    return _share(first[predicted] == first[labels])


def _share(right: Tensor) -> float:
    return int(right.sum()) / len(right)
