"""The app with a model, as a folder that a hosting service for Gradio apps runs."""

from pathlib import Path
from pipeline.evaluation.evaluate import TrainedModel


def write_space(folder: Path, run: Path, trained: TrainedModel) -> list[str]:
    raise NotImplementedError
