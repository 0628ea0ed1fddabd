"""Save an image of a training batch: stored images, and beside each the augmented one.

    ./launch.sh show leaves --augmented photos
    ./launch.sh show part1 --augmented fast --count 24 --seed 1
    ./launch.sh show data/leaves.beton --augmented auto --out batch.png

NAME is a job or a dataset, as for train; FILE is a .beton file. The batch is the first one of the
training that train NAME --recipe RECIPE starts with this seed. `python -m beton show FILE` shows
stored images alone. Exit status: 0 success, 2 failure, with the reason in one line.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from pipeline.errors import UserError
from pipeline.experiments import classify, command
from pipeline.experiments.options import OPTIONS, Options, folder_of, job_of
from pipeline.loading.augment import Augmentation
from pipeline.loading.dataset import source_line
from pipeline.recipes.recipe import Stage
from pipeline.recipes.systems import SYSTEMS
from pipeline.reporting.run_plots import Pair, display_images, plot_pairs
from pipeline.runtime.launch import caller_folder
from pipeline.runtime.progress import make_console
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import join_processes


@dataclass(frozen=True)
class Config:
    """Save an image of a training batch: stored images, and beside each the augmented one."""

    of: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE")]
    """Job or dataset, as for train, or a .beton file."""
    augmented: str
    """Recipe whose augmentations to show: one of those of train NAME, such as fast or photos."""
    out: Path | None = None
    """PNG file to write. None: NAME-RECIPE.png in the folder that launch.sh is called from."""
    count: int = 16
    """Number of pairs, evenly spaced in the batch; at most the whole batch."""
    stage: int = 1
    """Stage of the recipe, from 1."""
    seed: int = 0
    """Seed of the order and of the augmentation."""


def show(config: Config) -> None:
    """Write the image. Raises UserError, BetonError or OSError."""
    if config.count < 1:
        raise UserError(f"count: got {config.count}, expected at least 1")
    job, options = options_of(config)
    with (
        classify.open_dataset(job, classify.dataset_path(job, options)) as file,
        join_processes("no") as processes,
    ):
        training = classify.plan(job, options, file, processes)
        stages = training.recipe.stages
        if not 1 <= config.stage <= len(stages):
            raise UserError(f"stage: got {config.stage}, expected 1 to {len(stages)}")
        stage = stages[config.stage - 1]
        name = folder_of(job, Path(file.path))
        out = config.out or caller_folder() / f"{name}-{config.augmented}.png"
        if out.suffix.lower() != ".png":
            raise UserError(f"out: got {out.name!r}, expected a PNG file, such as batch.png")
        with classify.auxiliary_of(training, file) as auxiliary:
            data = DataModule(processes, training.recipe, file, auxiliary=auxiliary)
            pairs = pairs_of(data, stage, config.count)
            title = (
                f"{name}, recipe {config.augmented}: stored images, and beside each what the "
                f"network sees of it in training\n{source_line(file.info['provenance'])}"
            )
            if auxiliary is not None:
                title += f"; auxiliary: {source_line(auxiliary.info['provenance'])}"
        plot_pairs(pairs, title, out)
    console = make_console()
    plain = stage.augmentation == Augmentation() and not stage.image_augmentation
    if plain and not stage.mixing:
        console.print(f"show: the recipe {config.augmented} augments nothing")
    batch_size = training.recipe.batch_size
    console.print(f"{out}: {len(pairs)} pairs of the first batch of {batch_size} images")


def pairs_of(data: DataModule, stage: Stage, count: int) -> list[Pair]:
    """Return images of the first batch of a stage, evenly spaced in it, with the stored ones."""
    recipe, file, classes = data.recipe, data.file, data.file.info["classes"]
    with data.train_loader(stage) as loader:
        parts = list(next(loader.batches(0)))
        mixed = [
            stage.mixing.mix(part.images, part.labels, part.ids, recipe.seed, 0) for part in parts
        ]
    ids = np.concatenate([part.ids for part in parts])
    images = np.concatenate([display_images(one.images.cpu(), recipe.normalize) for one in mixed])
    labels, partners, weights = (
        torch.cat([getattr(one, name) for one in mixed]).tolist()
        for name in ("labels", "partners", "weights")
    )
    pairs = []
    for row in np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)):
        source, sample, label = file, int(ids[row]), classes[labels[row]]
        seen = "augmented"
        if (weight := weights[row]) != 1:
            seen = f"{label} {weight:.2f}, {classes[partners[row]]} {1 - weight:.2f}"
        if data.auxiliary is not None and sample >= len(file):
            source, sample, label = data.auxiliary, sample - len(file), f"{label} (auxiliary)"
        pairs.append(Pair(source.column("image").decode(sample), label, images[row], seen))
    return pairs


def options_of(config: Config) -> tuple[str, Options]:
    """Return the job of NAME or FILE, and its options. Raises UserError for an unknown recipe."""
    data: Path | None
    if config.of.endswith(".beton"):
        job, data = "classify", caller_folder() / Path(config.of).expanduser()
    else:
        job, data = job_of(config.of)
    if job in SYSTEMS and config.augmented not in SYSTEMS[job].recipes:
        raise UserError(
            f"augmented: got {config.augmented!r}, expected one of "
            f"{', '.join(SYSTEMS[job].recipes)}"
        )
    options = replace(OPTIONS[job](), recipe=config.augmented, data=data, seed=config.seed)
    return job, options


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("show", Config, show)


if __name__ == "__main__":
    sys.exit(main())
