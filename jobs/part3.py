"""Part 3: diagnose a dataset's labels, and train accurate networks even if they are wrong.

    ./launch.sh train part3 [--processes N]              after train part2, for all --arms
    ./launch.sh train part3 --trial                      a minute, on some of the images
    ./launch.sh train part3 --arms simple --seeds 1      the fastest
    ./launch.sh train part3 --data data/fashion-wrong.beton --test data/fashion-mnist.beton
    ./launch.sh train part3 --resume runs/part3/TIME     resume an interrupted run
    accelerate launch jobs/part3.py --seeds 1            the same, for one process

Repeats the published trainings, at learning rates of its own, diagnoses the labels without a
correct one, and trains again by methods that suit the diagnosis. Writes runs/part3/<time>, with a
folder for every training, result.json and report.html; runs/part3/latest points to it. Exit status:
0 success, 2 failure, with the reason in one line, 128 + number stopped by a signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tyro import conf

from pipeline.evaluation.run_config import CheckpointSchedule, ExperimentConfig, TrainingConfig
from pipeline.experiments import command, part3
from pipeline.experiments.default_data import default_dataset, prepare_defaults
from pipeline.experiments.study import Study, jobs_of, seed_range
from pipeline.loading.batches import Decode
from pipeline.recipes.arms import PART3_ARMS
from pipeline.recipes.presets import Preset, as_trial, override
from pipeline.runtime.hardware import Precision
from pipeline.training.distributed import join_processes

SEEDS = 3


@dataclass(frozen=True)
class Config:
    """Part 3: diagnose a dataset's labels, and train accurate networks even if they are wrong."""

    data: Path | None = None
    """The dataset in question: the file that `./launch.sh prep part3` writes.
    None: data/part3.beton, which is prepared first if it is missing."""
    test: Path | None = None
    """Dataset with correct labels to test on: its test split, or else its validation split.
    None: data/mnist.beton, which is prepared first if it is missing."""
    clean: Path | None = None
    """Dataset with correct labels to train on, which shows the highest accuracy to expect.
    None: the file of --test."""
    part2: Path = Path("runs/part2/latest")
    """Run directory of part 2, whose weights some of --arms start from.
    Without it, these arms are left out."""
    witness: Path | None = None
    """Run directory of a reference model: a network trained on correct labels of the same classes.
    The diagnosis uses its predictions too. None: a network of --part2, if there is one."""
    runs: Path = Path("runs")
    """Folder for results: they go to part3/<time> in it."""
    arms: tuple[str, ...] | None = None
    """Published trainings to repeat, at learning rates of our own. The diagnosis uses the
    predictions of the first one.
    None: all, or the first one in a trial."""
    seeds: int | None = None
    """Number of trainings by each method that suits the diagnosis, each with its own seed.
    None: 3, or 1 in a trial."""
    trial: bool = False
    """Train on some of the images for few epochs: everything that the job does, in a minute."""
    epochs: int | None = None
    """Epochs of every training. None: those of each training's built-in recipe."""
    size: int | None = None
    """Side of the networks' input images, in pixels. None: the recipes'."""
    batch_size: int | None = None
    """Images per step, over all processes. None: the recipes'."""
    network: Literal["auto", "plain", "small", "resnet18"] = "auto"
    """Network of trainings from random weights, except the arm resnet18. auto: the recipe's."""
    seed: int = 0
    """First seed: of weights, order and augmentation. The others follow it."""
    jobs: int | None = None
    """Trainings side by side, each with an equal part of the cores and a GPU of its own.
    None: as many as GPUs, 1 without a GPU or with several processes."""
    resume: Path | None = None
    """Run directory to resume. It goes only with --runs, --jobs, --decode, --precision, --watch,
    and with --data, --test and --clean where these files have moved."""
    watch: bool = False
    """Write live.html to the folder of the training that runs, every few seconds. A browser that
    shows it reloads it by itself until the training ends."""
    decode: Decode = "auto"
    """What turns ink into images: the loader or the device. auto: the device if it is a GPU."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""


def train(config: Config) -> None:
    """Repeat the published trainings, diagnose and recover, or resume that."""
    run = None
    part3.check_arms(config.arms)
    if config.resume is not None:
        run = config.resume.resolve()  # the link `latest` changes
        config = command.resumed(config, run, "part3")
    else:
        command.check_trial(config, "arms", "seeds", "epochs")
        defaults = {"part3": config.data, "mnist": config.test}
        prepare_defaults([name for name, given in defaults.items() if given is None])
    if config.part2.exists():
        config = replace(config, part2=config.part2.resolve())  # likewise
    names, count = (
        (part3.TRIAL_ARMS, part3.TRIAL_SEEDS) if config.trial else (tuple(PART3_ARMS), SEEDS)
    )
    seeds = seed_range(config.seed, count if config.seeds is None else config.seeds)
    test_data = config.test or default_dataset("mnist")

    def training(preset: Preset, seed: int) -> TrainingConfig:
        own = config.network == "auto" or preset.network == "resnet18"
        recipe = override(
            preset.recipe,
            size=config.size,
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=seed,
        )
        recipe = as_trial(recipe, part3.TRIAL) if config.trial else recipe
        network = preset.network if own else config.network
        return TrainingConfig(
            network, recipe, decode=config.decode, checkpoints=CheckpointSchedule(keep=1)
        )

    with (
        command.open_data(config.data or default_dataset("part3")) as file,
        command.open_data(test_data) as test,
        command.open_data(config.clean or test_data) as correct,
        join_processes(config.precision) as processes,
    ):
        data = part3.Datasets(file, test, correct)
        jobs = jobs_of(config.jobs, processes)
        models = part3.find_models(config.part2, config.witness, data.classes)
        arms = models.arms(config.arms or names)
        part3.check(processes, data, arms, training, config.seed)
        if run is None:
            options, provenance = command.options_of(config), file.info["provenance"]
            files = {"data": file, "test": test, "clean": correct}
            datasets = {name: each.fingerprint() for name, each in files.items()}
            written = ExperimentConfig(
                "part3", options, tuple(data.classes), provenance, datasets=datasets
            )
            study = Study.new(
                config.runs, processes, config.decode, written, jobs=jobs, watch=config.watch
            )
        else:
            study = Study(run, processes, config.decode, jobs, config.watch)
        with study.exclusive():
            part3.Experiment(study, data, models, training).run(arms, seeds)


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("part3", Config, train, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())
