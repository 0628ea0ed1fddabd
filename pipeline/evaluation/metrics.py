"""Conclusions from a network's answers: numbers in, numbers out, no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15  # of confidence, as Guo et al. 2017 take them


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
class TopLoss:
    """One of the answers with the largest losses: that to the sample in row `row`.

    `loss` in nats is that of the class `true`; `probability` is what the network gave to
    `predicted`, the class that it found most likely.
    """

    row: int
    true: str
    predicted: str
    probability: float
    loss: float


@dataclass(frozen=True)
class Bin:
    """`samples` answers that were equally confident: on average so, and right so often."""

    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Scores:
    """What a network's answers were worth; shares from 0 to 1, the loss in nats.

    `accuracy_ignoring_case` is None where no two classes differ in case alone. `calibration_error`
    is the expected one: by how much the most likely class's probability and the share of right
    answers differ on average, over `BINS` bins of that probability (Guo et al. 2017, "On
    calibration of modern neural networks"). `confusions` are the pairs of different classes that
    occurred, most frequent first. `matrix` counts, a row for each true class and a column for each
    predicted one.
    """

    HEADLINE: ClassVar = (
        "accuracy",
        "accuracy_ignoring_case",
        "loss",
        "calibration_error",
        "samples",
    )

    samples: int
    accuracy: float
    accuracy_ignoring_case: float | None
    loss: float
    calibration_error: float
    per_class: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    matrix: tuple[tuple[int, ...], ...]

    def headline(self) -> dict[str, Any]:
        """Return the main figures by name."""
        return {name: getattr(self, name) for name in self.HEADLINE}


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Score logits, float (N, C), against labels, int64 (N,) in [0, C), for the C `classes`.

    Raises ValueError for no samples.
    """
    from torchmetrics.functional.classification import (  # seconds, which a start can do without
        multiclass_calibration_error,
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
        calibration_error=float(
            multiclass_calibration_error(logits.float().softmax(dim=1), labels, count, BINS)
        ),
        per_class=tuple(
            ClassScore(name, int(matrix[i].sum()), *(column[i] for column in figures))
            for i, name in enumerate(classes)
        ),
        confusions=tuple(Confusion(classes[i], classes[j], int(wrong[i, j])) for i, j in pairs),
        matrix=tuple(map(tuple, matrix.tolist())),
    )


def top_losses(
    logits: Tensor, labels: Tensor, classes: Sequence[str], most: int
) -> tuple[TopLoss, ...]:
    """Return the answers with the largest losses, the largest first, `most` at most.

    Logits are float (N, C), labels int64 (N,).
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    rows = losses.argsort(descending=True, stable=True)[:most]
    chances, predicted = logits[rows].float().softmax(dim=1).max(dim=1)
    return tuple(
        TopLoss(row, classes[true], classes[taken], chance, loss)
        for row, true, taken, chance, loss in zip(
            *(column.tolist() for column in (rows, labels[rows], predicted, chances, losses[rows])),
            strict=True,
        )
    )


def reliability(logits: Tensor, labels: Tensor) -> tuple[Bin, ...]:
    """Return how often answers are right that are so confident, by `BINS` even bins; not the empty.

    Logits are float (N, C), labels int64 (N,).
    """
    confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
    number = (confidence * BINS).long().clamp(max=BINS - 1)
    right = predicted == labels
    members = [here for which in range(BINS) if (here := number == which).any()]
    return tuple(
        Bin(int(here.sum()), float(confidence[here].mean()), _share(right[here]))
        for here in members
    )


def accuracy_interval(accuracy: float, samples: int) -> tuple[float, float]:
    """Return between which accuracies the true one lies, going by so many pictures.

    The 95 % interval of Wilson (1927), for pictures that are independent of each other: several by
    one writer are worth less than that.
    """
    from scipy.stats import binomtest  # likewise

    ends = binomtest(round(accuracy * samples), samples).proportion_ci(0.95, method="wilson")
    return float(ends.low), float(ends.high)


def _ignoring_case(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> float | None:
    letters = [name.casefold() for name in classes]
    if len(set(letters)) == len(letters):
        return None
    first = torch.tensor([letters.index(letter) for letter in letters])
    return _share(first[predicted] == first[labels])


def _share(right: Tensor) -> float:
    return int(right.sum()) / len(right)


@dataclass(frozen=True)
class EpochMetrics:
    """An epoch's figures, over all processes; shares from 0 to 1, losses in nats.

    `train_loss` and `train_accuracy` are of changed pictures, while learning; `loss` and `accuracy`
    of the validation samples, None if there are none. `learning_rate` is the first step's,
    `gradient_norm` the mean over the steps. `seconds` add up from the beginning, without
    validation.
    """

    epoch: int
    stage: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    gradient_norm: float
    loss: float | None
    accuracy: float | None
    seconds: float
