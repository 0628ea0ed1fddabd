"""Part 2: whether pretraining on the digits of part 1 helps on MNIST; trainings paired by seed."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from beton.reader import Reader
from pipeline.analysis.pretraining import (
    ARMS,
    DatasetUse,
    PretrainingResult,
    TrainingCurve,
    analyse,
)
from pipeline.evaluation.run_config import CheckpointSchedule, TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun
from pipeline.experiments.command import check_classes, evaluation_split
from pipeline.experiments.study import Planned, Study
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import source_line, split_indices
from pipeline.recipes.presets import Trial
from pipeline.recipes.recipe import Recipe
from pipeline.reporting.pages.part2 import closing_table, page_of
from pipeline.runtime import launch
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes
from pipeline.training.warm_start import measure_start

TRIAL_SEEDS = 2
TRIAL_DIGITS = Trial(epochs=15)
TRIAL_MNIST = Trial(epochs=1, train_images=6_000, validation_images=2_000)


@dataclass(frozen=True)
class Datasets:
    """The digits of part 1, and MNIST.

    Raises UserError if their classes differ, and if MNIST has no samples to validate on.
    """

    digits: Reader
    mnist: Reader

    def __post_init__(self) -> None:
        check_classes("digits", self.digits, self.mnist)
        evaluation_split("mnist", self.mnist)

    @cached_property
    def validate_on(self) -> str:
        """The split of MNIST to validate on."""
        return evaluation_split("mnist", self.mnist)

    @property
    def learn_from(self) -> str:
        """The splits of MNIST to train on."""
        return "train+validation" if self.validate_on == "test" else "train"

    def of(self, training: str) -> Reader:
        """Return the dataset of a training, given its name."""
        return self.digits if training == "digits" else self.mnist


def plan(
    data: Datasets,
    processes: Processes,
    network: str,
    digits: Recipe,
    mnist: Recipe,
    seeds: Sequence[int],
    decode: Decode,
) -> dict[str, tuple[TrainingConfig, Reader]]:
    """Return the trainings by name, in order, each with its dataset.

    The two trainings of a seed differ in `start` alone, which names an earlier training. Raises
    UserError for a recipe that does not suit its dataset or the number of processes.
    """
    training = TrainingConfig(
        network, digits, decode=decode, checkpoints=CheckpointSchedule(keep=1)
    )
    trainings = {"digits": training}
    for seed in seeds:
        for arm in ARMS:
            trainings[f"{arm}-{seed}"] = replace(
                training,
                recipe=replace(mnist, seed=seed),
                start=Path("digits") if arm == "pretrained" else None,
                learn_from=data.learn_from,
                validate_on=data.validate_on,
            )
    for name, one in trainings.items():
        DataModule(processes, one.recipe, data.of(name), one.learn_from, one.validate_on)
    return {name: (one, data.of(name)) for name, one in trainings.items()}


def run(study: Study, data: Datasets) -> None:
    """Do all trainings, compare those of each seed, and write and print the result."""
    for name, file in (("digits", data.digits), ("MNIST", data.mnist)):
        provenance = source_line(file.info["provenance"])
        study.console.print(f"part2: {name}: {len(file):,} images, {provenance}")
    study.console.print(
        f"part2: MNIST: trained on {data.learn_from}, validated on {data.validate_on}; {study.path}"
    )
    digits, *others = [Planned(name, data.of(name)) for name in study.config.trainings]
    runs = {}
    # The others may start from the weights of the first.
    for run in chain(study.train_all([digits]), study.train_all(others)):
        runs[run.path.name] = run
        if study.processes.is_main:  # a finished training is not resumed
            shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    if study.processes.is_main:
        result = _compare(study, data, runs)
        study.conclude(
            result, page_of, lambda run: [closing_table(run)], answer=result.analysis.answer
        )


def _compare(study: Study, data: Datasets, runs: Mapping[str, FinishedRun]) -> PretrainingResult:
    processes, seeds = study.processes, study.config.seeds
    curves = {
        name: TrainingCurve(
            run.history,
            run.losses,
            measure_start(
                run, study.training(name), data.mnist, processes.device, processes.precision
            ),
        )
        for name, run in runs.items()
        if name != "digits"
    }
    return PretrainingResult(
        provenance=data.mnist.info["provenance"],
        digits=_use(data.digits, study.training("digits")),
        mnist=_use(data.mnist, study.training(f"{ARMS[0]}-{seeds[0]}")),
        analysis=analyse(seeds, *([curves[f"{arm}-{seed}"] for seed in seeds] for arm in ARMS)),
        trainings={name: run.result for name, run in runs.items()},
        seconds_in_all=launch.seconds_since_start(),
    )


def _use(file: Reader, training: TrainingConfig) -> DatasetUse:
    learn_from, validate_on, recipe = training.learn_from, training.validate_on, training.recipe
    return DatasetUse(
        file=str(file.path),
        provenance=file.info["provenance"],
        learn_from=learn_from,
        learned=len(split_indices(file, learn_from, recipe.train_images)),
        validate_on=validate_on,
        validated=len(split_indices(file, validate_on, recipe.validation_images)),
    )
