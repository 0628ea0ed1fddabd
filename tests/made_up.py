"""Made-up trainings whose comparison is known."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hypothesis import settings

from pipeline.analysis.pretraining import Start, TrainingCurve
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.evaluation.run_config import CheckpointSchedule, RunConfig
from pipeline.evaluation.run_dir import TrainingResult
from pipeline.loading.dataset import Provenance
from pipeline.recipes.recipe import Recipe, Stage

# For what holds of nearly all samples, as statistics do: the same examples in every run.
STATISTICAL = settings(derandomize=True)
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
        EpochMetrics(
            *(number, 0, 0.01, loss, accuracy, norms, loss, accuracy, speed * (number + 1)),
            balanced_accuracy=0.9 * accuracy,
        )
        for number, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
    ]
    return TrainingCurve(history, steps, Start(before, dict.fromkeys(GROUPS, moved)))


ORIGIN: Provenance = {"kind": "synthetic", "source": "made up", "digest": "sha256:0"}


def config(**changed: Any) -> dict[str, Any]:
    """The config.json of a training, as plain data."""
    values: dict[str, Any] = {
        "job": "part1",
        "options": {},
        "network": "small",
        "recipe": Recipe((Stage(16, 2, 1e-3),)),
        "start": None,
        "learn_from": "train",
        "validate_on": "validation",
        "decode": "auto",
        "checkpoints": CheckpointSchedule(),
        "data": "data/part1.beton",
        "fingerprint": "f00",
        "classes": ("1", "A", "a", "m"),
        "provenance": ORIGIN,
    }
    return asdict(RunConfig(**{**values, **changed}))


def result(**changed: Any) -> TrainingResult:
    """The result of a training."""
    values: dict[str, Any] = {
        "epochs": 2,
        "images": 1280,
        "seconds_training": 20.0,
        "seconds_validating": 1.0,
        "seconds_saving": 1.0,
        "images_per_second": 64.0,
        "loader_share": 0.01,
        "seconds_in_all": 30.0,
        "network": "small",
        "provenance": ORIGIN,
    }
    return TrainingResult(**{**values, **changed})
