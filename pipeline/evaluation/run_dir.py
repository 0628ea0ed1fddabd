"""Run directories: the files of a training or an experiment.

`result.json` is written last: a run directory without one belongs to a run that can be resumed.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.metrics import EpochMetrics, Scores, score
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_config import RunConfig
from pipeline.evaluation.run_files import check_finite, check_history, predictions_of, read_weights
from pipeline.runtime.files import (
    convert,
    read,
    read_as,
    read_json,
    read_tensors,
    seal,
    write_bytes,
)
from pipeline.runtime.launch import caller_folder
from pipeline.runtime.storage import Folder

R = TypeVar("R")


class RunDir:
    """The run directory `path`. Its files appear whole or not at all.

    Only metrics.jsonl grows, by one line an epoch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, root: Path) -> "RunDir":
        """Create the directory `root`/<time> of a new run.

        Its path is absolute if the user called launch.sh from another folder: it is printed, and
        goes to commands.
        """
        if caller_folder() != Path():
            root = root.absolute()
        root.mkdir(parents=True, exist_ok=True)
        with Folder(root) as folder:
            folder.pointed("latest")
        return cls(_new_folder(root))

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return (self.path / "result.json").exists()

    def write_json(self, name: str, value: object, indent: int | None = 2) -> None:
        """Write a JSON file, on one line if `indent` is None."""
        self._write(name, _json(value, indent))

    def config(self) -> RunConfig:
        """Return config.json. Raises UserError if it is missing or not that of a training."""
        return read_as(self.path / "config.json", RunConfig)

    def write_epochs(self, epochs: Iterable[EpochMetrics]) -> None:
        """Replace metrics.jsonl."""
        self._write("metrics.jsonl", "".join(_line(epoch) for epoch in epochs).encode())

    def add_epoch(self, epoch: EpochMetrics) -> None:
        """Append one line to metrics.jsonl."""
        with Folder(self.path) as folder:
            folder.append("metrics.jsonl", _line(epoch).encode())

    def epochs(self) -> list[EpochMetrics]:
        """Return metrics.jsonl. Raises UserError if it is missing or damaged."""
        return read(
            self.path / "metrics.jsonl",
            lambda text: [convert(json.loads(line), EpochMetrics) for line in text.splitlines()],
        )

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the digests of all files, and last result.json, which marks the run as finished."""
        content = _json(result, indent=2)
        with Folder(self.path) as folder:
            folder.remove("result.json")  # of an experiment that is concluded again
            seal(folder, {"result.json": content})
            folder.write("result.json", content, sync=True)

    def link_latest(self) -> None:
        """Point the link `latest`, beside the run directory, to it."""
        path = self.path.resolve()  # the path given may be the link itself
        with Folder(path.parent) as folder:
            folder.point("latest", path.name)

    def _write(self, name: str, content: bytes) -> None:
        write_bytes(self.path / name, content)


@dataclass(frozen=True)
class TestResult:
    """The main metrics of the test samples, as in `Scores`."""

    __test__ = False  # no class of tests

    samples: int
    accuracy: float
    balanced_accuracy: float
    accuracy_ignoring_case: float | None
    loss: float
    calibration_error: float


DIVERGED = "diverged.json"


@dataclass(frozen=True)
class Divergence:
    """The diverged.json of a training that ended with a loss or weights that are not finite."""

    step: int
    reason: str


@dataclass(frozen=True)
class TrainingResult:
    """The result.json of one training. Fractions are from 0 to 1, losses in nats, times in s.

    Figures of validation are None for a training without validation samples. `images` counts
    training images over all processes and both datasets. `loader_share` is the fraction of
    `seconds_training` that the main process waited for its loaders. With a validation accuracy
    `until` that was to end the training, `reached` says whether it did. `found_learning_rate` is
    the peak learning rate that a range test found, None without one. `test` is measured once, after
    the training, and decides nothing.
    """

    epochs: int
    images: int
    seconds_training: float
    seconds_validating: float
    seconds_saving: float
    images_per_second: float
    loader_share: float
    seconds_in_all: float
    network: str
    provenance: dict[str, Any]
    auxiliary: dict[str, Any] | None = None
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    accuracy_ignoring_case: float | None = None
    loss: float | None = None
    calibration_error: float | None = None
    samples: int | None = None
    until: float | None = None
    reached: bool | None = None
    found_learning_rate: float | None = None
    test: TestResult | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain data; without validation samples, their figures have no keys."""
        values = asdict(self)
        if self.samples is None:
            for name in Scores.HEADLINE:
                del values[name]
        return values


@dataclass(frozen=True)
class FinishedRun:
    """A finished training, read from its run directory.

    `scores` and `predictions` are of the validation samples, None if there are none.
    """

    path: Path
    config: RunConfig
    result: TrainingResult
    history: list[EpochMetrics]
    losses: list[float]
    scores: Scores | None
    predictions: Predictions | None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that were validated."""
        return read_weights(self.path)


def latest_in(path: Path) -> Path:
    """Return a run directory; a folder of run directories stands for its latest."""
    if (path / "config.json").exists():
        return path
    root = path.parent if path.name == "latest" and path.is_file() else path
    if not root.is_dir():
        return path
    with Folder(root) as folder:
        name = folder.pointed("latest")
    return path if name is None else root / name


def check_finished(path: Path) -> None:
    """Raise UserError for an unfinished run, and for a folder of another program."""
    if (path / "config.json").exists():
        check_own(path)
        if not RunDir(path).finished:
            raise UserError(f"{path}: got an unfinished run, expected a finished one: --resume it")


def check_own(path: Path) -> None:
    """Raise UserError for a folder whose config.json is that of another program."""
    if "job" not in read_json(path, "config.json"):
        raise UserError(f"{path}: not a run directory: its config.json is of another program")


def read_result(path: Path, kind: type[R]) -> R:
    """Read the result.json of a run directory. Raises UserError if the run is not finished."""
    check_finished(path)
    return read_as(path / "result.json", kind)


def read_run(path: Path) -> FinishedRun:
    """Read the run directory of a finished training. Raises UserError for any other folder."""
    run = RunDir(path)
    result, config = read_result(path, TrainingResult), run.config()
    predictions = scores = None
    if (path / "answers.safetensors").exists():
        answers = path / "answers.safetensors"
        predictions = predictions_of(read_tensors(answers), answers, config.classes)
        scores = score(predictions.logits, predictions.labels, config.classes)
    losses = read(path / "losses.json", lambda text: convert(json.loads(text), list[float]))
    history = run.epochs()
    check_history(path / "metrics.jsonl", history, len(config.recipe.stages))
    check_finite(path / "losses.json", losses)
    check_finite(path / "result.json", asdict(result))
    return FinishedRun(path, config, result, history, losses, scores, predictions)


def _json(value: object, indent: int | None) -> bytes:
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode()


def _line(epoch: EpochMetrics) -> str:
    return json.dumps(asdict(epoch)) + "\n"


def _new_folder(root: Path) -> Path:
    """Create a folder named after the time; two runs of one second get different names."""
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = root / (now if number == 1 else f"{now}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("a thousand runs in one second")
