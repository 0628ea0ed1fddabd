"""Time to accuracy: inkrun's recipes and published ones, on inkrun's loader and on Pillow's.

    ./launch.sh bench convergence                         all parts, at most three hours
    ./launch.sh bench convergence --quick                 part 1 on few images, under two minutes
    ./launch.sh bench convergence --part 1 --seeds 5 --limit 7200
    ./launch.sh bench convergence --part 1 --source hand-sample.zip --held-out 3

Prints tables, and writes runs/bench/<time>. Exit status: 0 success, 2 failure, with a one-line
error.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro import conf

from pipeline.benchmarks.convergence import command as convergence
from pipeline.experiments import command


@dataclass(frozen=True)
class Config(convergence.Options):
    """Measure the time of trainings to an accuracy."""

    runs: Path = Path("runs")
    """Folder for results: they go to bench/<time> in it."""


def main(config: Config) -> None:
    """Run the benchmark, print its tables and write its results."""
    convergence.run(config, config.runs)


if __name__ == "__main__":
    sys.exit(command.main("bench convergence", Config, main, conf.FlagCreatePairsOff))
