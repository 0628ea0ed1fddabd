"""One training of a study, in a process of its own: what `Study` runs side by side."""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro import conf

from pipeline.experiments import command
from pipeline.experiments.study import Study
from pipeline.loading.batches import Decode
from pipeline.runtime.hardware import Precision
from pipeline.training.distributed import join_processes


@dataclass(frozen=True)
class Config:
    """One training of a study, whose config.json is written."""

    job: str
    """The study's job."""
    study: Path
    """Run directory of the study."""
    training: str
    """The training's folder in it."""
    data: Path
    """Dataset to train on."""
    watch: bool = False
    """Write live.html to the training's folder."""
    decode: Decode = "auto"
    """What turns ink into images."""
    precision: Precision = "auto"
    """Precision to compute in."""


def train(config: Config) -> None:
    """Train, or resume the training. The process that started this one holds the study's lock."""
    with command.open_data(config.data) as file, join_processes(config.precision) as processes:
        study = Study(config.study, processes, config.decode, watch=config.watch)
        study.train(config.training, file)


def main() -> int:
    """Train; print a failure as one line. Returns the exit status."""
    config = command.parse(Config, conf.FlagCreatePairsOff)
    return command.call(config.job, lambda: train(config))


if __name__ == "__main__":
    sys.exit(main())
