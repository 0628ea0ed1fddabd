"""Find a learning rate for a training with a range test (Smith 2017), before or without it.

    ./launch.sh find-lr part1                            the recipe that train part1 has
    ./launch.sh find-lr leaves --optimizer SGD --momentum 0.9
    ./launch.sh find-lr part1 --recipe progressive --stage 3 --start runs/part1/latest

NAME is a job that trains one network, or a dataset, as for train. Options that find-lr does not
have are those of the job. A network that is thrown away takes --steps steps, each at a higher
learning rate, until its loss diverges. Prints the curve and two suggestions: the rate at which the
loss falls fastest, which train NAME --learning-rate find takes, and the middle of the longest fall.
Writes runs/find-lr/NAME/<time>, with the curve as lr_range.png and all numbers in result.json. Exit
status: 0 success, 2 failure, with the reason in one line.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro import conf

from pipeline.experiments import command, find_lr
from pipeline.experiments.find_lr import RangeTest
from pipeline.training.lr_range import STEPS


@dataclass(frozen=True)
class Config:
    """Find a learning rate for a training with a range test, before or without it.

    The first word is NAME, a job or a dataset, as for train. Other options are those of the job:
    ./launch.sh train NAME --help.
    """

    stage: int = 1
    """Stage of the recipe to test, from 1."""
    steps: int = STEPS
    """Steps, each at a higher learning rate, from 1e-6 to 10. The test ends where the loss
    diverges."""
    start: Path | None = None
    """Run directory of a finished run, of the same network, whose weights to start from.
    None: random weights."""
    runs: Path = Path("runs")
    """Folder for results: they go to find-lr/NAME/<time> in it."""


def find() -> None:
    """Run the range test of the command line."""
    config, job, options = command.parse_named(Config, conf.FlagCreatePairsOff)
    find_lr.run(job, options, RangeTest(config.stage, config.steps, config.start), config.runs)


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.call("find-lr", find)


if __name__ == "__main__":
    sys.exit(main())
