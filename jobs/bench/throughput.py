"""Loading speed: inkrun against its peers, each in a process of its own.

    ./launch.sh bench throughput                              all peers, about two hours
    ./launch.sh bench throughput --quick                      few images, under two minutes
    ./launch.sh bench throughput --peers pillow ffcv --sizes 224
    ./launch.sh bench throughput --source hand-sample.zip

Peers that the environment does not have are installed into .bench/<peer>, laid over it. Prints
tables, and writes runs/bench/<time>. Exit status: 0 success, 2 failure, with a one-line error.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro import conf

from pipeline.benchmarks.throughput import command as throughput
from pipeline.experiments import command


@dataclass(frozen=True)
class Config(throughput.Options):
    """Measure the speed of the loader against other loaders."""

    runs: Path = Path("runs")
    """Folder for results: they go to bench/<time> in it."""


def main(config: Config) -> None:
    """Run the benchmark, print its tables and write its results."""
    throughput.run(config, config.runs)


if __name__ == "__main__":
    sys.exit(command.main("bench throughput", Config, main, conf.FlagCreatePairsOff))
