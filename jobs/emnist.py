"""EMNIST: train a network on handwritten digits and letters, 36 classes.

    ./launch.sh train emnist                             the first published network
    ./launch.sh train emnist --recipe deeper --epochs 30
    ./launch.sh train emnist --trial                     a minute, on some of the images
    ./launch.sh train emnist --resume runs/emnist/TIME   resume an interrupted run
    accelerate launch jobs/emnist.py                     the same, for one process

Prepares data/emnist.beton first if it is missing. Writes runs/emnist/<time>, with all files that a
reported figure comes from; runs/emnist/latest points to it. Exit status: 0 success, 2 failure, with
the reason in one line, 128 + number stopped by a signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from functools import partial

from tyro import conf

from pipeline.experiments import classify, command
from pipeline.experiments.options import EmnistOptions as Config


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    train = partial(classify.run, "emnist")
    return command.main("emnist", Config, train, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())
