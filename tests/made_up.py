"""Trainings that never were, with figures whose comparison is known."""

from collections.abc import Sequence

from pipeline.analysis.pretraining import Start, TrainingCurve
from pipeline.evaluation.metrics import EpochMetrics

GROUPS = ("stem", "body", "head", "whole")


def course(
    accuracies: Sequence[float],
    *,
    losses: Sequence[float] | None = None,
    steps: Sequence[float] = (2.0, 1.0, 0.5, 0.25),
    norms: float = 1.0,
    speed: float = 10.0,
    before: float = 0.1,
    moved: float = 1.0,
) -> TrainingCurve:
    """A training with these accuracies after its epochs, each of which took `speed` seconds."""
    losses = losses or [1 - accuracy for accuracy in accuracies]
    history = [
        EpochMetrics(number, 0, 0.01, loss, accuracy, norms, loss, accuracy, speed * (number + 1))
        for number, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
    ]
    return TrainingCurve(history, steps, Start(before, dict.fromkeys(GROUPS, moved)))
