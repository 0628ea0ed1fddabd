"""Part 1: train a network on 62 classes of handwritten characters, from random weights.

    ./launch.sh train part1 [--processes N]              chooses how to start processes
    ./launch.sh train part1 --recipe progressive --scale 0.1
    ./launch.sh train part1 --resume runs/part1/TIME     resume an interrupted run
    accelerate launch jobs/part1.py --epochs 30          the same, for one process
    accelerate launch --multi_gpu --num_processes 2 jobs/part1.py      two, on a CPU too

Writes runs/part1/<time>, with all files that a reported figure comes from; runs/part1/latest points
to it. Exit status: 0 success, 2 failure, with the reason in one line, 128 + number stopped by a
signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from functools import partial

from tyro import conf

from pipeline.experiments import classify, command
from pipeline.experiments.options import Part1Options as Config


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    train = partial(classify.run, "part1")
    return command.main("part1", Config, train, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())
