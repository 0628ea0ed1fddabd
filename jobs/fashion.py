"""Fashion-MNIST: train a network on ten kinds of clothing.

    ./launch.sh train fashion                            the published LeNet
    ./launch.sh train fashion --recipe fast              better, in some minutes on two cores
    ./launch.sh train fashion --trial                    a minute, on some of the images
    ./launch.sh train fashion --resume runs/fashion/TIME resume an interrupted run
    accelerate launch jobs/fashion.py                    the same, for one process

Prepares data/fashion.beton first if it is missing. Writes runs/fashion/<time>, with all files that
a reported figure comes from; runs/fashion/latest points to it. Exit status: 0 success, 2 failure,
with the reason in one line, 128 + number stopped by a signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from functools import partial

from tyro import conf

from pipeline.experiments import classify, command
from pipeline.experiments.options import FashionOptions as Config


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    train = partial(classify.run, "fashion")
    return command.main("fashion", Config, train, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())
