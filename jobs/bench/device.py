"""Decode, resize and augmentation on the device, and training with each decode.

    ./launch.sh bench device                           on a GPU, or the same code on the CPU
    ./launch.sh bench device --quick                   under a minute
    ./launch.sh bench device --data data/part1.beton --recipes fast baseline

Compares the loader's kernels on the host, torch on the device, and JPEGs (nvJPEG on a GPU); then
trains recipes with each decode, and by a loop without the training engine. Prints tables, and
writes runs/bench/<time>. Exit status: 0 success, 2 failure, with a one-line error.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro import conf

from pipeline.benchmarks.device import command as device
from pipeline.experiments import command


@dataclass(frozen=True)
class Config(device.Options):
    """Measure decoding and training on the device."""

    runs: Path = Path("runs")
    """Folder for results: they go to bench/<time> in it."""


def main(config: Config) -> None:
    """Run the benchmark, print its tables and write its results."""
    device.run(config, config.runs)


if __name__ == "__main__":
    sys.exit(command.main("bench device", Config, main, conf.FlagCreatePairsOff))
