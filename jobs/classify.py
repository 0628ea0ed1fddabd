"""Train a network on a prepared dataset of your own, handwriting or photos.

    ./launch.sh prep leaves --source leaves.zip          data/leaves.beton
    ./launch.sh train leaves                             this job, with --data data/leaves.beton
    ./launch.sh train leaves --until 0.95 --seed 1
    ./launch.sh train classify --data FILE.beton --recipe photos
    ./launch.sh train classify --resume runs/leaves/TIME resume an interrupted run
    accelerate launch jobs/classify.py --data data/leaves.beton        the same, for one process

The recipe is chosen from the data: colour or grey, size, number of images. Writes
runs/leaves/<time>, with all files that a reported figure comes from; runs/leaves/latest points to
it. Exit status: 0 success, 2 failure, with the reason in one line, 128 + number stopped by a
signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from functools import partial

from tyro import conf

from pipeline.experiments import classify, command
from pipeline.experiments.options import ClassifyOptions as Config


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    train = partial(classify.run, "classify")
    return command.main("classify", Config, train, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())
