"""What more processes and more data cost.

    ./launch.sh bench scaling                        about fifteen minutes on two cores
    ./launch.sh bench scaling --quick                under two minutes
    ./launch.sh bench scaling --only processes       one and two processes alone

Trains on one and two processes with the same cores, predicts more of them, and loads files of 1, 10
and 100 times the pages and of a million small samples (less than 1 GB of disk). Prints tables, and
writes runs/bench/<time>. Exit status: 0 success, 2 failure, with a one-line error.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmarks.scaling import command as scaling
from pipeline.experiments import command


@dataclass(frozen=True)
class Config(scaling.Options):
    """Measure the cost of more processes and more data."""

    runs: Path = Path("runs")
    """Folder for results: they go to bench/<time> in it."""


def main(config: Config) -> None:
    """Run the benchmark, print its tables and write its results."""
    scaling.run(config, config.runs)


if __name__ == "__main__":
    sys.exit(command.main("bench scaling", Config, main))
