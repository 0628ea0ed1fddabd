"""Part 2: measure whether pretraining on the digits of part 1 helps on MNIST.

    ./launch.sh train part2 [--processes N]
    ./launch.sh train part2 --trial                      a minute, on some of the images
    ./launch.sh train part2 --seeds 2                    fewer trainings: faster, less conclusive
    ./launch.sh train part2 --resume runs/part2/TIME     resume an interrupted run
    accelerate launch jobs/part2.py --seeds 2            the same, for one process

Trains a network on the digits of part 1; then, for every seed, one network from its weights and one
from random weights on MNIST. Nothing else differs between the two. Writes runs/part2/<time>, with a
folder for every training, result.json and report.html; runs/part2/latest points to it. Exit status:
0 success, 2 failure, with the reason in one line, 128 + number stopped by a signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro import conf

from pipeline.evaluation.run_config import ExperimentConfig
from pipeline.experiments import command, part2
from pipeline.experiments.default_data import default_dataset, prepare_defaults
from pipeline.experiments.study import Study, jobs_of, seed_range, whole_run
from pipeline.loading.batches import Decode
from pipeline.recipes import presets
from pipeline.recipes.presets import as_trial
from pipeline.runtime.hardware import Precision
from pipeline.training.distributed import Processes, join_processes

SEEDS = 5


@dataclass(frozen=True)
class Config:
    """Part 2: measure whether pretraining on the digits of part 1 helps on MNIST."""

    digits: Path | None = None
    """The digits of part 1: the file that `./launch.sh prep part2` writes.
    None: data/part2.beton, which is prepared first if it is missing."""
    mnist: Path | None = None
    """MNIST: the file that `./launch.sh prep mnist` writes.
    Its test split, or else its validation split, is the one to validate on.
    None: data/mnist.beton, which is prepared first if it is missing."""
    runs: Path = Path("runs")
    """Folder for results: they go to part2/<time> in it."""
    seeds: int | None = None
    """Number of seeds. Each has two trainings on MNIST: pretrained and from random weights.
    None: 5, or 2 in a trial."""
    network: Literal["auto", "small", "plain", "resnet18"] = "auto"
    """Network to train. auto: plain on a CPU, resnet18 on a GPU."""
    epochs: int | None = None
    """Epochs on MNIST. None: those of the network's built-in recipe."""
    trial: bool = False
    """Train on some of the images for few epochs: everything that the job does, in a minute."""
    digits_epochs: int | None = None
    """Epochs on the digits of part 1. None: the recipe's."""
    size: int | None = None
    """Side of the network's input images, in pixels. None: the recipe's."""
    batch_size: int | None = None
    """Images of MNIST per step, over all processes. None: the recipe's."""
    learning_rate: float | None = None
    """Peak learning rate on MNIST. None: the recipe's."""
    seed: int = 0
    """First seed: of weights, order and augmentation. The others follow it."""
    jobs: int | None = None
    """Trainings side by side, each with an equal part of the cores and a GPU of its own.
    None: as many as GPUs, 1 without a GPU or with several processes."""
    resume: Path | None = None
    """Run directory to resume. It goes only with --runs, --jobs, --decode, --precision, --watch,
    and with --digits and --mnist where these files have moved."""
    watch: bool = False
    """Write live.html to the folder of the training that runs, every few seconds. A browser that
    shows it reloads it by itself until the training ends."""
    decode: Decode = "auto"
    """What turns ink into images: the loader or the device. auto: the device if it is a GPU."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""


def train(config: Config) -> None:
    """Pretrain, train both networks of every seed and compare them, or resume that."""
    run = None
    if config.resume is not None:
        run = whole_run(config.resume)
        config = command.resumed(config, run, "part2")
    else:
        command.check_trial(config, "seeds", "epochs", "digits_epochs")
        defaults = {"part2": config.digits, "mnist": config.mnist}
        prepare_defaults([name for name, given in defaults.items() if given is None])
    with (
        command.open_data(config.digits or default_dataset("part2"), "part2") as digits,
        command.open_data(config.mnist or default_dataset("mnist"), "mnist") as mnist,
        join_processes(config.precision) as processes,
    ):
        data = part2.Datasets(digits, mnist)
        jobs = jobs_of(config.jobs, processes)
        study = (
            Study(run, processes, config.decode, jobs, config.watch)
            if run
            else new_study(config, data, processes, jobs)
        )
        with study.exclusive():
            part2.run(study, data)


def new_study(config: Config, data: part2.Datasets, processes: Processes, jobs: int) -> Study:
    """Create the run directory with all its trainings. Raises UserError for impossible options."""
    default = part2.TRIAL_SEEDS if config.trial else SEEDS
    seeds = seed_range(config.seed, default if config.seeds is None else config.seeds)
    network = config.network
    if network == "auto":
        network = "resnet18" if processes.device.type == "cuda" else "plain"
    digits = presets.override(
        presets.PART2_DIGITS[network],
        size=config.size,
        epochs=config.digits_epochs,
        seed=config.seed,
    )
    mnist = presets.override(
        presets.PART2_MNIST[network],
        size=config.size,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
    )
    if config.trial:
        digits, mnist = as_trial(digits, part2.TRIAL_DIGITS), as_trial(mnist, part2.TRIAL_MNIST)
    planned = part2.plan(data, processes, network, digits, mnist, seeds, config.decode)
    info = data.mnist.info
    written = ExperimentConfig(
        job="part2",
        options=command.options_of(config),
        classes=tuple(info["classes"]),
        provenance=info["provenance"],
        seeds=tuple(seeds),
        trainings=tuple(planned),
        datasets={"digits": data.digits.fingerprint(), "mnist": data.mnist.fingerprint()},
    )
    return Study.new(config.runs, processes, config.decode, written, planned, jobs, config.watch)


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("part2", Config, train, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())
