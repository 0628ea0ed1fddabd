"""Score a trained network on labelled images.

    ./launch.sh evaluate runs/part1/latest --source test.zip
    ./launch.sh evaluate runs/part1/latest --source data/part1.beton --split validation --json

The source is anything that prep reads (a zip, a folder per class, IDX files), or a .beton file. Its
classes are some or all of the network's. Its pixels become ink by the rules of the training
dataset: scale, polarity, fit. --equal-counts is for pages of which each writer wrote each class
equally often: it adds the accuracy that the network has with this knowledge. Exit status: 0
success, 2 failure, with the reason in one line, 141 if the reader of the output went away.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from pipeline.data.base import is_dataset_file
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import evaluate, load_model
from pipeline.experiments import command
from pipeline.experiments.data_options import DataOptions
from pipeline.reporting.console import evaluation_table, scores_table
from pipeline.runtime import launch
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import make_console


@dataclass(frozen=True)
class Config:
    """Score a trained network on labelled images."""

    run: tyro.conf.Positional[Path]
    """Run directory of the network, such as runs/part1/latest; runs/part1 is the latest in it."""
    source: Path
    """Images to score: a zip, a folder with a folder per class, IDX files, or a .beton file."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """Split of the source to score."""
    equal_counts: bool = False
    """Also score under the assumption that each writer wrote each class of the source equally
    often, as on a form."""
    json: bool = False
    """Print everything as JSON, for other programs."""
    skip_bad: bool = False
    """Leave out images that cannot be decoded. By default, they are an error."""
    data: tyro.conf.OmitArgPrefixes[DataOptions] = field(default_factory=DataOptions)
    """How to understand raw images."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""


def score(config: Config) -> None:
    """Print the scores. Raises UserError, SourceError, BetonError or OSError."""
    if is_dataset_file(config.source) and config.data != DataOptions():
        raise UserError(
            f"{config.source}: is prepared already; leave out the options of raw images"
        )
    launch.use_cores()
    evaluation = evaluate(
        load_model(config.run),
        config.source,
        split=config.split,
        precision=config.precision,
        skip_bad=config.skip_bad,
        layout=config.data.layout(),
        pixels=config.data.pixels(),
        equal_counts=config.equal_counts,
    )
    if config.json:
        print(json.dumps({**asdict(evaluation), "seen": evaluation.seen}))
        return
    console = make_console()
    console.print(scores_table(evaluation.scores))
    console.print(evaluation_table(evaluation))


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("evaluate", Config, score)


if __name__ == "__main__":
    sys.exit(main())
