"""Predict images of any kind with a trained network.

    ./launch.sh predict runs/part1/latest photo.jpg scans/ more.zip
    ./launch.sh predict runs/part1/latest photo.jpg --show seen     # what the network saw
    ./launch.sh predict runs/part1/latest word.png --separate       # each character, with its box
    cat a.png | ./launch.sh predict runs/part1/latest - --json

The paths are image files, folders, zip and tar archives, .beton files, or - for one image on the
standard input. Photographs and scans are brought into the form of the training images. Exit status:
0 success, 1 if an image cannot be predicted, which has a line of its own, 2 failure, with the
reason in one line, 141 if the reader of the output went away.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import tyro

from beton.errors import printable
from pipeline.data.sources import SourceError
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import load_model
from pipeline.experiments import command
from pipeline.pictures.files import find_pictures
from pipeline.pictures.output import (
    CsvLines,
    JsonLines,
    Lines,
    SeenFolder,
    TableLines,
)
from pipeline.pictures.predictor import Predictor
from pipeline.pictures.stream import predict_all
from pipeline.runtime import launch
from pipeline.runtime.folders import output_folder
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import make_console


@dataclass(frozen=True)
class Config:
    """Predict images of any kind with a trained network."""

    run: tyro.conf.Positional[Path]
    """Run directory of the network, such as runs/part1/latest; runs/part1 is the latest in it."""
    paths: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders, zip and tar archives, .beton files; - is the standard input."""
    top: int = 3
    """Number of classes to print for each image."""
    json: bool = False
    """Print one line of JSON for each image."""
    csv: bool = False
    """Print comma-separated values, with a header."""
    show: Path | None = None
    """Folder to write, with PNG files of what the network saw."""
    separate: bool = False
    """Predict each of several characters on an image, with its box."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""


def predict(config: Config) -> Iterator[bool]:
    """Print the predictions; yield whether each image was predicted.

    Raises UserError, SourceError, BetonError or OSError.
    """
    if config.json and config.csv:
        raise UserError("json: got csv too, expected one of them")
    launch.use_cores()
    predictor = Predictor(load_model(config.run), config.top, precision=config.precision)
    if config.separate and predictor.trained.view.channels == 3:
        raise UserError("separate: got a network of images in colour, expected one of characters")
    lines: Lines
    if config.json:
        lines = JsonLines(separate=config.separate)
    elif config.csv:
        lines = CsvLines(predictor.top, separate=config.separate)
    else:
        lines = TableLines(make_console(), predictor.top, separate=config.separate)
    found = find_pictures(config.paths, launch.caller_folder())
    with ExitStack() as stack:
        shown = None
        if config.show is not None:
            shown = SeenFolder(stack.enter_context(output_folder(config.show, "predict --show")))
        stack.enter_context(lines)
        for outcome in predict_all(predictor, found, config.separate):
            lines.add(outcome)
            if shown is not None:
                shown.add(outcome)
            yield outcome.error is None


def run(config: Config) -> None:
    """Predict and exit with 1 after errors of single images.

    Raises as `predict` does.
    """
    try:
        succeeded = all(list(predict(config)))
    except (UserError, SourceError) as error:
        raise UserError(printable(str(error))) from error
    if not succeeded:
        sys.exit(1)


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("predict", Config, run)


if __name__ == "__main__":
    sys.exit(main())
