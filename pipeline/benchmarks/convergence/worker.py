"""One training of the benchmark, in a process of its own."""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tyro import conf

from pipeline.benchmarks.convergence.data import CLEAN, DATA, PAGES
from pipeline.benchmarks.convergence.outcome import RESULT, Arm, Point, Training
from pipeline.benchmarks.convergence.parts import PARTS
from pipeline.benchmarks.convergence.pillow import PillowLoader
from pipeline.data.catalog import AUXILIARY
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.experiments import command
from pipeline.loading.dataset import open_dataset, split_indices
from pipeline.runtime.cgroup import usable_cores
from pipeline.runtime.launch import seconds_since_start
from pipeline.training.distributed import join_processes
from pipeline.training.runner import initial_network
from pipeline.training.trainer import Trainer

STEPS = 3  # that are measured in any case: without a speed, nothing can be extrapolated


@dataclass(frozen=True)
class Config:
    """One training of the benchmark."""

    part: str
    """Its part."""
    recipe: str
    """Its arm's recipe."""
    loader: str
    """Its arm's loader."""
    seed: int
    """Its seed."""
    folder: Path
    """The folder of the part's data. It gets the result."""
    limit: float
    """Seconds from the start of the process after which it ends."""
    quick: bool = False
    """Train for few epochs."""


class _OutOfTimeError(Exception):
    """The time limit has passed."""


def train(config: Config) -> Training:
    """Train to the end, or to the time limit."""
    part, arm = PARTS[config.part], Arm(config.recipe, config.loader)
    name = CLEAN if arm.recipe == "ceiling" else DATA
    with ExitStack() as stack:
        file = stack.enter_context(open_dataset(config.folder / f"{name}.beton"))
        processes = stack.enter_context(join_processes())
        pages = len(split_indices(file, part.learn_from))
        recipe = part.recipe(arm, pages, config.seed, config.quick)
        auxiliary = None
        if recipe.auxiliary:
            path = config.folder / f"{AUXILIARY}.beton"
            auxiliary = stack.enter_context(open_dataset(path))
        training = TrainingConfig(
            part.preset(arm).network,
            recipe,
            learn_from=part.learn_from,
            validate_on=part.validate_on,
        )
        pillow = partial(PillowLoader, config.folder / PAGES, usable_cores())
        trainer = Trainer(
            processes,
            initial_network(training, file),
            recipe,
            file,
            learn_from=part.learn_from,
            validate_on=part.validate_on,
            auxiliary=auxiliary,
            make_loader=pillow if arm.loader == "pillow" else None,
        )
        return _measure(trainer, config)


def _measure(trainer: Trainer, config: Config) -> Training:
    points: list[Point] = []
    start_up: float | None = None
    stepped = 0.0

    def check(_images: int) -> None:
        nonlocal start_up, stepped
        now = seconds_since_start()
        if trainer.step == STEPS and start_up is None:
            start_up = others() - (now - stepped)  # this step is not on the clock yet
        stepped = now
        if trainer.step > STEPS and now > config.limit:
            raise _OutOfTimeError

    def others() -> float:
        """Return the time since the start that is neither training nor validation."""
        used = trainer.performance()
        busy: float = used["seconds_training"] + used["seconds_validating"]
        return seconds_since_start() - busy

    trainer.on_step = check
    images = 0
    try:
        for epoch in trainer:
            if start_up is None:
                start_up = others()
            images = trainer.images
            assert epoch.accuracy is not None
            points.append(Point(epoch.seconds, images, epoch.accuracy))
    except _OutOfTimeError:
        images = trainer.images - trainer.recipe.batch_size  # the last step is not on the clock
    assert start_up is not None  # an epoch has ended, or the limit came after some steps
    performance = trainer.performance()
    return Training(
        config.seed,
        start_up,
        performance["seconds_training"],
        performance["loader_share"],
        images,
        trainer.batches_per_epoch * trainer.recipe.batch_size,
        trainer.recipe.epochs,
        tuple(points),
    )


def run(config: Config) -> None:
    """Train, and write the result."""
    RunDir(config.folder).write_json(RESULT, asdict(train(config)))


if __name__ == "__main__":
    sys.exit(command.main("bench convergence", Config, run, conf.FlagCreatePairsOff))
