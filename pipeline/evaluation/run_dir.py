"""A run's folder: all that a figure in a report came from. Knows files, concludes nothing.

`result.json` is written last: a folder without one is of a run that can be gone on with.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.evaluation.metrics import EpochMetrics, Scores, score
from pipeline.evaluation.predict import Predictions
from pipeline.loading.batches import Decode
from pipeline.recipes.recipe import Recipe
from pipeline.runtime.files import read, read_json, read_tensors


class RunDir:
    """The folder `path` of a run. Files appear in it whole or not at all.

    metrics.jsonl alone grows, by a line an epoch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, root: Path) -> "RunDir":
        """Make the folder `root`/<time> of a new run."""
        root.mkdir(parents=True, exist_ok=True)
        return cls(_new_folder(root))

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "result.json").exists()

    def write_json(self, name: str, value: object, indent: int | None = 2) -> None:
        """Write a JSON file; without `indent`, for programs alone."""
        text = json.dumps(value, indent=indent, ensure_ascii=False)
        self._write(name, f"{text}\n".encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Return what a JSON file holds. Raises UserError if it is not there."""
        return read_json(self.path, name)

    def write_epochs(self, epochs: Iterable[EpochMetrics]) -> None:
        """Write metrics.jsonl anew."""
        self._write("metrics.jsonl", "".join(_line(epoch) for epoch in epochs).encode())

    def add_epoch(self, epoch: EpochMetrics) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(_line(epoch))

    def epochs(self) -> list[EpochMetrics]:
        """Return what metrics.jsonl holds. Raises UserError if it is damaged."""
        return read(
            self.path / "metrics.jsonl",
            lambda text: [EpochMetrics(**json.loads(line)) for line in text.splitlines()],
        )

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json: the run is over."""
        self.write_json("result.json", result)

    def link_latest(self) -> None:
        """Let `latest` beside the folder point to it."""
        path = self.path.resolve()  # which may be called `latest` already
        link = path.parent / f".latest-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        link.replace(path.parent / "latest")

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.path / f".{name}"
        temporary.write_bytes(content)
        temporary.replace(self.path / name)


@dataclass(frozen=True)
class FinishedRun:
    """A finished training, as its folder tells it; `answers` are to the validation samples."""

    path: Path
    result: dict[str, Any]
    history: list[EpochMetrics]
    losses: list[float]
    scores: Scores | None
    predictions: Predictions | None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights, as they were judged."""
        return read_tensors(self.path / "model.safetensors")


def read_run(path: Path) -> FinishedRun:
    """Return what the folder of a finished run holds. Raises UserError for another folder."""
    record = RunDir(path)
    result, config = record.read_json("result.json"), record.read_json("config.json")
    predictions = scores = None
    if (path / "answers.safetensors").exists():
        predictions = Predictions(**read_tensors(path / "answers.safetensors"))
        scores = score(predictions.logits, predictions.labels, config["classes"])
    losses = read(path / "losses.json", lambda text: list(map(float, json.loads(text))))
    return FinishedRun(path, result, record.epochs(), losses, scores, predictions)


def _line(epoch: EpochMetrics) -> str:
    return json.dumps(asdict(epoch)) + "\n"


def _new_folder(root: Path) -> Path:
    """Make a folder named after the time; two runs of one second get different ones."""
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = root / (now if number == 1 else f"{now}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("a thousand runs in one second")


@dataclass(frozen=True)
class TrainingConfig:
    """What to train: a network of `networks.NETWORKS`, by a recipe, from random weights or `start`.

    `start` is the folder of a finished run, whose weights are taken, but for a head that does not
    fit. It learns from the samples of the splits `learn_from` ("train+validation" are both) and is
    validated on those of `validate_on`; `auxiliary` is the file of the second set of a recipe that
    learns from two. `checkpoints` are those of `Checkpoints`, by name.
    """

    network: str
    recipe: Recipe
    start: Path | None = None
    learn_from: str = "train"
    validate_on: str = "validation"
    auxiliary: Path | None = None
    decode: Decode = "auto"
    checkpoints: Mapping[str, Any] = field(default_factory=dict)
