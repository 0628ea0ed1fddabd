"""CIFAR-10: train a network on ten classes of small photos.

    ./launch.sh train cifar10                            the published small ResNet
    ./launch.sh train cifar10 --until 0.905              stop at this validation accuracy
    ./launch.sh train cifar10 --recipe speed             94 % in seconds, on a GPU
    ./launch.sh train cifar10 --trial                    a minute, on some of the images
    ./launch.sh train cifar10 --resume runs/cifar10/TIME resume an interrupted run
    accelerate launch jobs/cifar10.py                    the same, for one process

Prepares data/cifar10.beton first if it is missing. Writes runs/cifar10/<time>, with all files that
a reported figure comes from; runs/cifar10/latest points to it. Exit status: 0 success, 2 failure,
with the reason in one line, 128 + number stopped by a signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from functools import partial

from tyro import conf

from pipeline.experiments import classify, command
from pipeline.experiments.options import Cifar10Options as Config


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    train = partial(classify.run, "cifar10")
    return command.main("cifar10", Config, train, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())
