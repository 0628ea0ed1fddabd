"""Part 1: 62 classes of hand-written characters, a network trained from random weights.

    ./launch.sh train part1 [--processes N]              knows how to start processes
    ./launch.sh train part1 --recipe progressive --scale 0.1
    ./launch.sh train part1 --resume runs/part1/TIME     goes on with a run that was ended
    accelerate launch jobs/part1.py --epochs 30          the same, for one process
    accelerate launch --multi_gpu --num_processes 2 jobs/part1.py      two, on a CPU too

Writes runs/part1/<time>, where all is kept that a figure came from; runs/part1/latest points to it.
Exit status: 0 done, 2 not done, with the reason in a line, 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from beton.reader import Reader
from pipeline.data.catalog import AUXILIARY
from pipeline.data.charset import CHARACTERS
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import open_dataset, source_line, split_indices
from pipeline.models import networks
from pipeline.recipes import presets
from pipeline.reporting.console import result_table
from pipeline.reporting.plots import draw_run
from pipeline.runtime import launch
from pipeline.runtime.files import read_json
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import terminal
from pipeline.training.batch_size_finder import find_micro_batch
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.runner import Tracker, run_training, write_config


@dataclass(frozen=True)
class Config:
    """Part 1: learn to read 62 classes of hand-written characters."""

    data: Path = Path("data/part1.beton")
    """What `./launch.sh prep part1` wrote."""
    auxiliary: Path | None = None
    """Synthetic pages to learn from besides. By default auxiliary.beton, beside the data."""
    auxiliary_share: float | None = None
    """Their share of each batch; 0 does without. By default, the recipe's; 0 for other classes."""
    runs: Path = Path("runs")
    """The folder that results go to, as part1/<time>."""
    recipe: Literal["fast", "accurate", "progressive", "baseline"] = "fast"
    """fast: the least time to a good accuracy; accurate: some minutes to a better one; progressive:
    the published solution, ResNet-18 on ever larger pictures; baseline: the first published
    network, on whole pages."""
    network: Literal["auto", "small", "medium", "resnet18", "baseline"] = "auto"
    """auto: the recipe's."""
    scale: float | None = None
    """Factor of all stages' epochs: 0.1 is a trial."""
    size: int | None = None
    """Side in pixels of what the network sees. By default, the recipe's."""
    epochs: int | None = None
    """Times that every training picture is seen. By default, the recipe's; of a small set, more."""
    batch_size: int | Literal["auto"] | None = None
    """Pictures per step, all processes together. auto: the recipe's, in parts as large as memory
    has room for."""
    learning_rate: float | None = None
    """The highest of the schedule."""
    seed: int = 0
    """Of weights, order and augmentation. Equal seeds give equal weights, on one process."""
    resume: Path | None = None
    """The folder of a run to go on with, with its own settings."""
    checkpoint_steps: int = 0
    """Steps between checkpoints, besides those at the ends of epochs."""
    checkpoint_minutes: float = 5
    """Minutes between checkpoints, besides those."""
    keep: int = 2
    """Checkpoints to keep, besides the best."""
    decode: Decode = "auto"
    """Who makes pictures of runs: the loader's kernels or the device; auto: the device if a GPU."""
    precision: Precision = "auto"
    """auto: bf16 where the hardware computes in it."""
    track: Tracker | None = None
    """Where to show the figures as well; `./launch.sh setup track` installs them."""


OWN = ("runs", "resume", "precision", "track")  # not a run's settings


def plan(config: Config, file: Reader) -> TrainingConfig:
    """Return what to train. Raises UserError for settings that make no sense."""
    known = presets.PART1[config.recipe]
    scale = config.scale
    if config.epochs is None and (more := known.scale(len(split_indices(file, "train")))) > 1:
        scale = more * (1 if scale is None else scale)
    auxiliary = config.auxiliary or config.data.with_name(f"{AUXILIARY}.beton")
    share = config.auxiliary_share
    if share is None and tuple(file.info["classes"]) != tuple(CHARACTERS):
        share = 0
    recipe = presets.override(
        known.recipe,
        size=config.size,
        epochs=config.epochs,
        batch_size=None if config.batch_size == "auto" else config.batch_size,
        learning_rate=config.learning_rate,
        scale=scale,
        auxiliary=share,
        seed=config.seed,
    )
    if config.auxiliary is not None and config.auxiliary_share is None and not recipe.auxiliary:
        why = f"of {config.recipe}" if share is None else "for other classes than the 62"
        raise UserError(
            f"auxiliary: got {config.auxiliary}, but the share {why} is 0; --auxiliary-share says "
            "how much is to be learned from it"
        )
    return TrainingConfig(
        known.network if config.network == "auto" else config.network,
        recipe,
        auxiliary=auxiliary if recipe.auxiliary else None,
        decode=config.decode,
        checkpoints={
            "every_steps": config.checkpoint_steps,
            "every_minutes": config.checkpoint_minutes,
            "keep": config.keep,
        },
    )


def prepared(
    config: Config, processes: Processes, assignment: TrainingConfig, file: Reader
) -> tuple[RunDir, TrainingConfig]:
    """Make the folder of a new run, once it is clear that it can be run, and how."""
    if config.batch_size == "auto":
        rows = find_micro_batch(processes, assignment.network, assignment.recipe, file)
        assignment = replace(assignment, recipe=replace(assignment.recipe, micro_batch=rows))
    with ExitStack() as stack:
        auxiliary = None
        if assignment.auxiliary is not None:
            auxiliary = stack.enter_context(open_data(assignment.auxiliary, AUXILIARY))
            if auxiliary.info["provenance"]["digest"] == file.info["provenance"]["digest"]:
                raise UserError(
                    f"auxiliary: {auxiliary.path} is of the same pictures as {file.path}, among "
                    "them those to validate on; expected others"
                )
        # Before there is a folder: this says what is wrong.
        supply = DataModule(processes, assignment.recipe, file, auxiliary=auxiliary)
        for stage in assignment.recipe.stages:
            networks.check_size(assignment.network, *supply.view(stage).shape)
        Checkpoints(config.runs, **assignment.checkpoints)
    record = processes.from_main(lambda: RunDir.new(config.runs / "part1"))
    if processes.is_main:
        write_config(record, "part1", assignment, file, asdict(config))
    return record, assignment


def train(config: Config) -> None:
    """Train, and leave a run's folder."""
    data = config.data
    if config.resume is not None:
        defaults = asdict(Config())
        for name, value in asdict(config).items():
            if name not in OWN and value != defaults[name]:
                raise UserError(f"{name}: a resumed run has its own settings; leave it out")
        if read_json(config.resume, "config.json").get("job") != "part1":
            raise UserError(
                f"{config.resume}: got a folder of another kind, expected that of a run of part 1"
            )
        written = RunDir(config.resume).config()
        assignment, data = written.training, Path(written.data)
        if assignment.auxiliary is not None:
            open_data(assignment.auxiliary, AUXILIARY).close()
    with open_data(data, "part1 --source ARCHIVE") as file:
        if config.resume is None:
            assignment = plan(config, file)
        with join_processes(config.precision, config.track) as processes:
            if config.resume is None:
                record, assignment = prepared(config, processes, assignment, file)
            else:
                record = RunDir(config.resume)
            console = terminal(quiet=not processes.is_main)
            provenance = source_line(file.info["provenance"])
            console.print(f"part1: {len(file):,} pictures, {provenance}; {record.path}")
            run = run_training(
                processes, record, assignment, file, console, track=bool(config.track)
            )
            if processes.is_main:
                draw_run(run, "part 1", file)
                record.link_latest()
                console.print(result_table(run.result.as_json(), str(record.path)))


def open_data(path: Path, name: str) -> Reader:
    """Open what to train on, or say how to get it."""
    if not path.exists():
        raise UserError(f"{path} is not there; make it: ./launch.sh prep {name}")
    return open_dataset(path)


def main() -> int:
    """Run the job; a failure is said in a line, once. Returns the exit status."""
    return launch.run_job(
        "part1", lambda: train(tyro.cli(Config, console_outputs=launch.is_main()))
    )


if __name__ == "__main__":
    sys.exit(main())
