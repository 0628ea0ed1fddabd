"""Part 1: train a network on 62 classes of handwritten characters, from random weights.

    ./launch.sh train part1 [--processes N]              chooses how to start processes
    ./launch.sh train part1 --recipe progressive --scale 0.1
    ./launch.sh train part1 --resume runs/part1/TIME     resume an interrupted run
    accelerate launch jobs/part1.py --epochs 30          the same, for one process
    accelerate launch --multi_gpu --num_processes 2 jobs/part1.py      two, on a CPU too

Writes runs/part1/<time>, with all files that a reported figure comes from; runs/part1/latest points
to it. Exit status: 0 success, 2 failure, with the reason in one line, 130 or 143 stopped by Ctrl-C
or SIGTERM.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from beton.reader import Reader
from pipeline.data.catalog import AUXILIARY
from pipeline.evaluation.run_config import CheckpointSchedule, RunConfig, TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.experiments import command, part1
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import source_line
from pipeline.recipes import presets
from pipeline.reporting.console import result_table
from pipeline.reporting.run_plots import plot_run
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import make_console
from pipeline.training.batch_size_finder import find_micro_batch
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.runner import Tracker, run_training, write_config


@dataclass(frozen=True)
class Config:
    """Part 1: train a network on 62 classes of handwritten characters."""

    data: Path = Path("data/part1.beton")
    """The dataset: the file that `./launch.sh prep part1` writes."""
    auxiliary: Path | None = None
    """Additional dataset to train on, of synthetic pages.
    None: auxiliary.beton in the folder of --data."""
    auxiliary_share: float | None = None
    """Fraction of each batch that comes from the additional dataset, from 0 to less than 1.
    None: the recipe's, or 0 if --data has other classes than the 62."""
    runs: Path = Path("runs")
    """Folder for results: they go to part1/<time> in it."""
    recipe: Literal["fast", "accurate", "progressive", "baseline"] = "fast"
    """How to train. fast: a good accuracy in the shortest time.
    accurate: a better accuracy, in some minutes.
    progressive: the published solution, ResNet-18 on images of increasing size.
    baseline: the first published network, on whole pages."""
    network: Literal["auto", "small", "medium", "resnet18", "baseline"] = "auto"
    """Network to train. auto: the recipe's."""
    scale: float | None = None
    """Factor for the epochs of all stages of the recipe; 0.1 is a quick trial. None: 1."""
    size: int | None = None
    """Side of the network's input images, in pixels. None: the recipe's."""
    epochs: int | None = None
    """Epochs. None: the recipe's, and more on a small dataset."""
    batch_size: int | Literal["auto"] | None = None
    """Images per step, over all processes. None: the recipe's.
    auto: the recipe's, computed in parts as large as memory allows."""
    learning_rate: float | None = None
    """Peak learning rate. None: the recipe's."""
    seed: int = 0
    """Seed of weights, order and augmentation. Equal seeds give equal weights, on one process."""
    resume: Path | None = None
    """Run directory to resume. It goes only with --runs, --decode, --precision and --track."""
    checkpoint_steps: int = 0
    """Steps between checkpoints, in addition to one after every epoch. 0: no additional ones."""
    checkpoint_minutes: float = 5
    """Minutes between checkpoints, in addition to those of epochs and steps. 0: no additional
    ones."""
    keep: int = 2
    """Number of checkpoints to keep: the last ones, in addition to the best one."""
    decode: Decode = "auto"
    """What turns ink into images: the loader or the device. auto: the device if it is a GPU."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""
    track: Tracker | None = None
    """Tracker to show every epoch's metrics in. To install one: ./launch.sh setup track."""


def train(config: Config) -> None:
    """Train, or resume a training, in its run directory."""
    run = training = None
    if config.resume is not None:
        run = RunDir(config.resume)
        saved = command.saved_config(config, run.path, "part1", RunConfig)
        training = saved.training
        if config.decode != "auto":
            training = replace(training, decode=config.decode)
        config = replace(config, data=Path(saved.data))
        if training.auxiliary is not None:
            command.open_data(training.auxiliary, AUXILIARY).close()
    with (
        command.open_data(config.data, "part1 --source ARCHIVE") as file,
        join_processes(config.precision, config.track) as processes,
    ):
        if run is None or training is None:
            run, training = new_run(config, processes, file)
        console = make_console(quiet=not processes.is_main)
        provenance = source_line(file.info["provenance"])
        console.print(f"part1: {len(file):,} images, {provenance}; {run.path}")
        track = config.track is not None
        finished = run_training(processes, run, training, file, console, track=track)
        if processes.is_main:
            plot_run(finished, "part 1", file)
            run.link_latest()
            console.print(result_table(finished.result.as_json(), str(run.path)))


def new_run(config: Config, processes: Processes, file: Reader) -> tuple[RunDir, TrainingConfig]:
    """Create a run directory. Raises UserError for impossible options, before it does."""
    preset = presets.PART1[config.recipe]
    recipe = part1.choose_recipe(
        preset,
        file,
        config.auxiliary,
        config.auxiliary_share,
        config.epochs,
        config.scale,
        size=config.size,
        batch_size=None if config.batch_size == "auto" else config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    network = preset.network if config.network == "auto" else config.network
    if config.batch_size == "auto":
        rows = find_micro_batch(processes, network, recipe, file)
        recipe = replace(recipe, micro_batch=rows)
    auxiliary = config.auxiliary or config.data.with_name(f"{AUXILIARY}.beton")
    training = TrainingConfig(
        network,
        recipe,
        auxiliary=auxiliary if recipe.auxiliary else None,
        decode=config.decode,
        checkpoints=CheckpointSchedule(
            config.checkpoint_steps, config.checkpoint_minutes, config.keep
        ),
    )
    part1.check(processes, training, file, config.runs)
    run = processes.from_main(lambda: RunDir.new(config.runs / "part1"))
    if processes.is_main:
        write_config(run, "part1", training, file, command.options_of(config))
    return run, training


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("part1", Config, train)


if __name__ == "__main__":
    sys.exit(main())
