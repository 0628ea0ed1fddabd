"""Preparation speed, against the same preparation with Pillow's decoder and against other writers.

    ./launch.sh bench prep                                 generated pages, all writers
    ./launch.sh bench prep --source hand-sample.zip
    ./launch.sh bench prep --peers litdata mosaic          fewer writers

Three datasets are prepared: RGB pages of 1200×900, of the generator or of the source; digits of
28×28; and the pages as JPEG files. FFCV, LitData and MosaicML write the pages too; what the
environment lacks is installed into .bench/<peer>, laid over it. Prints tables, and writes
runs/bench/<time>. Exit status: 0 success, 2 failure, with a one-line error.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmarks.prep import command as prep
from pipeline.experiments import command


@dataclass(frozen=True)
class Config(prep.Options):
    """Measure preparation against Pillow's decoder and other writers."""

    runs: Path = Path("runs")
    """Folder for results: they go to bench/<time> in it."""


def main(config: Config) -> None:
    """Run the benchmark, print its tables and write its results."""
    prep.run(config, config.runs)


if __name__ == "__main__":
    sys.exit(command.main("bench prep", Config, main))
