"""Metrics of predictions and of epochs. Reads no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15  # of confidence, as in Guo et al. 2017


@dataclass(frozen=True)
class ClassScore:
    """The metrics of one class with `samples` samples; fractions from 0 to 1."""

    name: str
    samples: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """The number of samples of class `true` that were predicted as `predicted`."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class TopLoss:
    """One of the predictions with the largest losses: that of row `row`.

    `loss` is in nats; `probability` is that of `predicted`, the most likely class.
    """

    row: int
    true: str
    predicted: str
    probability: float
    loss: float


@dataclass(frozen=True)
class Bin:
    """The number of predictions in a bin of confidence, their mean confidence and accuracy."""

    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Scores:
    """The metrics of predictions; fractions from 0 to 1, the loss in nats.

    `balanced_accuracy` is the mean recall of the classes that occur.
    `accuracy_ignoring_case` is None if no two classes differ in case alone. `calibration_error` is
    the expected calibration error: the mean absolute difference between confidence and accuracy
    over `BINS` bins of confidence (Guo et al. 2017, "On calibration of modern neural networks").
    `confusions` are the pairs of different classes that occurred, most frequent first. `matrix` has
    counts with true classes as rows and predicted classes as columns.
    """

    HEADLINE: ClassVar = (
        "accuracy",
        "balanced_accuracy",
        "accuracy_ignoring_case",
        "loss",
        "calibration_error",
        "samples",
    )

    samples: int
    accuracy: float
    balanced_accuracy: float
    accuracy_ignoring_case: float | None
    loss: float
    calibration_error: float
    per_class: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    matrix: tuple[tuple[int, ...], ...]

    def headline(self) -> dict[str, Any]:
        """Return the main metrics by name."""
        return {name: getattr(self, name) for name in self.HEADLINE}


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Score logits, float (N, C), against labels, int64 (N,) in [0, C), for the C `classes`.

    Raises ValueError for no samples.
    """
    from torchmetrics.functional import classification as metrics  # slow to import

    if not len(labels):
        raise ValueError("score: got no samples, expected at least one")
    count = len(classes)
    predicted = logits.argmax(dim=1)
    matrix = metrics.multiclass_confusion_matrix(predicted, labels, count)
    per_class = [
        metric(predicted, labels, count, average="none").tolist()
        for metric in (
            metrics.multiclass_precision,
            metrics.multiclass_recall,
            metrics.multiclass_f1_score,
        )
    ]
    errors = matrix.clone().fill_diagonal_(0)
    pairs = sorted(errors.nonzero().tolist(), key=lambda pair: -int(errors[pair[0], pair[1]]))
    return Scores(
        samples=len(labels),
        accuracy=_fraction(predicted == labels),
        balanced_accuracy=balanced_accuracy(predicted, labels),
        accuracy_ignoring_case=_ignoring_case(predicted, labels, classes),
        loss=float(F.cross_entropy(logits.float(), labels)),
        calibration_error=float(
            metrics.multiclass_calibration_error(logits.float().softmax(dim=1), labels, count, BINS)
        ),
        per_class=tuple(
            ClassScore(name, int(matrix[i].sum()), *(column[i] for column in per_class))
            for i, name in enumerate(classes)
        ),
        confusions=tuple(Confusion(classes[i], classes[j], int(errors[i, j])) for i, j in pairs),
        matrix=tuple(map(tuple, matrix.tolist())),
    )


def top_losses(
    logits: Tensor, labels: Tensor, classes: Sequence[str], most: int
) -> tuple[TopLoss, ...]:
    """Return the `most` predictions with the largest losses, largest first; see `score`."""
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    rows = losses.argsort(descending=True, stable=True)[:most]
    probabilities, predicted = logits[rows].float().softmax(dim=1).max(dim=1)
    columns = (rows, labels[rows], predicted, probabilities, losses[rows])
    return tuple(
        TopLoss(row, classes[true], classes[guess], probability, loss)
        for row, true, guess, probability, loss in zip(*map(Tensor.tolist, columns), strict=True)
    )


def reliability(logits: Tensor, labels: Tensor) -> tuple[Bin, ...]:
    """Return the bins of confidence that are not empty; logits and labels as in `score`."""
    confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
    number = (confidence * BINS).long().clamp(max=BINS - 1)
    correct = predicted == labels
    return tuple(
        Bin(int(members.sum()), float(confidence[members].mean()), _fraction(correct[members]))
        for members in (number == index for index in sorted({*number.tolist()}))
    )


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Return the mean recall of the classes that occur; both are int64 (N,) in [0, C)."""
    counts = labels.bincount()
    correct = labels[predicted == labels].bincount(minlength=len(counts))
    recalls = correct[counts > 0].double() / counts[counts > 0]
    return float(recalls.mean())


def accuracy_interval(accuracy: float, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of Wilson (1927) for an accuracy on independent samples.

    Several images by one writer are not independent, so the true interval is wider.
    """
    from scipy.stats import binomtest  # slow to import

    low, high = binomtest(round(accuracy * samples), samples).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def _ignoring_case(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> float | None:
    letters = [name.casefold() for name in classes]
    if len(set(letters)) == len(letters):
        return None
    first = torch.tensor([letters.index(letter) for letter in letters])
    return _fraction(first[predicted] == first[labels])


def _fraction(correct: Tensor) -> float:
    return int(correct.sum()) / len(correct)


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch, over all processes; fractions from 0 to 1, losses in nats.

    `train_loss` and `train_accuracy` are of augmented images, during training; `loss`, `accuracy`
    and `balanced_accuracy` are of the validation samples, None if there are none. `learning_rate`
    is that of the first step, `gradient_norm` the mean over the steps. `seconds` counts training
    time from the first epoch, without validation. `train_mode_accuracy` is that of the validation
    samples with batch statistics and dropout, None if it is not measured.
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
    train_mode_accuracy: float | None = None
    balanced_accuracy: float | None = None
