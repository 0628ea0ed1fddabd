"""All benchmarks with a table of results, or what changed between two of them.

    ./launch.sh bench                                     throughput, of all peers
    ./launch.sh bench --quick                             under two minutes
    ./launch.sh bench --compare runs/bench/A runs/bench/B     what changed beyond noise

Exit status: 0 success, 2 failure, with a one-line error.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from tyro import conf

from pipeline.benchmarks import changes
from pipeline.benchmarks.throughput import command as throughput
from pipeline.errors import UserError
from pipeline.experiments import command


@dataclass(frozen=True)
class Config(throughput.Options):
    """Run the benchmarks, or compare two of their results."""

    runs: Path = Path("runs")
    """Folder for results: they go to bench/<time> in it."""
    compare: tuple[Path, ...] = ()
    """Two results of benchmarks: print what changed from the first to the second. It goes with no
    other option."""


def main(config: Config) -> None:
    """Run all subjects, or compare. Raises UserError for --compare with other options."""
    if not config.compare:
        throughput.run(config, config.runs)
        return
    if len(config.compare) != 2:
        raise UserError(f"compare: got {len(config.compare)} folders, expected two")
    if replace(config, compare=()) != Config():
        raise UserError("compare: got other options too, expected two folders alone")
    changes.compare(*config.compare, Console(width=150, highlight=False))


if __name__ == "__main__":
    sys.exit(command.main("bench", Config, main, conf.FlagCreatePairsOff))
