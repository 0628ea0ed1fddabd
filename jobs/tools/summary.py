"""Print the layers of a network, and the memory of a training step.

    ./launch.sh summary part1                            the network of the default recipe
    ./launch.sh summary part1 --recipe accurate --batch-size 256
    ./launch.sh summary runs/part1/latest                the network of a run
    ./launch.sh summary --network resnet18 --input 3x224x224
    ./launch.sh summary --network conv3-100/2p1,relu,maxpool2 --input 3x200x300 --batch-size 50

The table has each layer's output, parameters and multiply-adds for one image. The memory is that of
parameters, gradients, the optimizer's state and the activations that autograd saves, beside what a
real step used, which is taken in a process of its own. Exit status: 0 success, 2 failure, with the
reason in one line.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich import box
from rich.table import Table

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import RunConfig
from pipeline.evaluation.run_dir import RunDir, check_own, latest_in
from pipeline.evaluation.run_files import read_view
from pipeline.experiments import classify, command
from pipeline.experiments.default_data import default_dataset
from pipeline.experiments.options import OPTIONS, job_of
from pipeline.inspection.step_memory import measure_step
from pipeline.inspection.summary import Memory, Subject, memory_of
from pipeline.loading.dataset import View
from pipeline.models.blocks import Shape
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.recipes.systems import SYSTEMS
from pipeline.reporting.common import counted, layers_table
from pipeline.reporting.console import terminal_table
from pipeline.runtime.files import read_json
from pipeline.runtime.hardware import Precision, free_memory, precision_for
from pipeline.runtime.launch import caller_folder, use_cores
from pipeline.runtime.progress import make_console

CLASSES = 10  # of a network that is named without a dataset
ROWS = 64  # likewise
SPARE = 2.0  # times the estimate: what a real step may take


@dataclass(frozen=True)
class Config:
    """Print the layers of a network, and the memory of a training step."""

    of: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|RUN")] = ""
    """Job or dataset, as for train, or a run directory, such as runs/part1/latest."""
    recipe: str | None = None
    """Recipe of NAME. None: the job's default."""
    stage: int | None = None
    """Stage of the recipe, from 1: its image size, optimizer and frozen layers.
    None: the first one, of a run the last one that was trained."""
    network: str | None = None
    """Network by name, in place of the recipe's; or, with --input, layers as in
    conv5-6,relu,maxpool2. convK-N: a K×K convolution to N channels, /S: its stride, pP: its
    padding."""
    input: str | None = None
    """Channels × height × width of the images, such as 3x200x300, in place of a dataset."""
    classes: int | None = None
    """Number of classes of a network that goes with --input. None: 10."""
    batch_size: int | None = None
    """Images that the network computes at a time. None: the recipe's, or 64 with --input."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""


def summarise(config: Config) -> None:
    """Print both tables. Raises UserError, BetonError or OSError."""
    use_cores()
    title, subject = subject_of(config)
    if not 1 <= subject.rows <= 1_000_000:
        raise UserError(f"batch_size: got {subject.rows}, expected 1 to 1,000,000")
    console = make_console()
    rows = subject.layers()
    table = layers_table(rows, "")
    console.print(terminal_table(table, title, table.headers, box.HEAVY_HEAD))
    memory = memory_of(subject)
    console.print(memory_table(subject, memory))
    free = free_memory(torch.device(subject.device))
    if SPARE * memory.total > free:
        console.print(f"a real step was not taken: {_mb(free)} MB are free, too few for it")
        return
    console.print("a real step is taken …")
    used = measure_step(subject)
    where = "peak resident memory of its process" if subject.device == "cpu" else "peak of the GPU"
    if used is None:
        console.print("a real step was not measured: the system killed it, probably for its memory")
    else:
        console.print(f"a real step used {_mb(used)} MB: {where}, temporary memory included")


def subject_of(config: Config) -> tuple[str, Subject]:
    """Return what to look at, with its title."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = precision_for(torch.device(device), config.precision)
    if config.input is not None:
        if config.of or config.recipe or config.network is None or config.stage is not None:
            raise UserError("input: expected --network with it, and neither NAME nor a recipe")
        subject = Subject(
            config.network,
            config.classes or CLASSES,
            shape_of(config.input),
            ROWS if config.batch_size is None else config.batch_size,
            Stage(28, 1, 1e-3),
            device,
            precision,
        )
        return config.network, subject
    if not config.of:
        raise UserError("name: got none, expected NAME or RUN, or --network with --input")
    if config.classes is not None:
        raise UserError("classes: expected --input with it; a dataset has its own")
    run = run_of(config.of)
    if run is not None:
        if config.recipe or config.network:
            raise UserError(f"{run}: a run has its own recipe and network; leave them out")
        saved = RunDir(run).config()
        network, recipe, classes = saved.network, saved.recipe, len(saved.classes)
        number, view = stage_of_run(run, saved, config.stage)
        title = f"{network}, {run}"
    else:
        number = config.stage or 1
        network, recipe, classes, view = planned(config, number)
        title = f"{network}, {config.of}"
    stage = stage_of(recipe, number)
    rows = recipe.micro_batch or recipe.batch_size
    rows = rows if config.batch_size is None else config.batch_size
    subject = Subject(network, classes, view.input_shape, rows, stage, device, precision)
    return title, subject


def run_of(given: str) -> Path | None:
    """Return the run directory that a word names, None for another word."""
    for path in (caller_folder() / Path(given).expanduser(), Path(given)):
        if ((found := latest_in(path)) / "config.json").exists():
            check_own(found)
            if "recipe" not in read_json(found, "config.json"):
                raise UserError(f"{found}: got several trainings, expected the folder of one")
            return found
        if len(path.parts) > 1 and path.is_dir():
            raise UserError(f"{path}: not a run directory: it has no config.json")
    return None


def stage_of_run(run: Path, config: RunConfig, number: int | None) -> tuple[int, View]:
    """Return a stage of a run, from 1, by default the last one trained, and what its network sees.

    That is known without the dataset for images as large as those of the last stage trained.
    """
    path, stages = run / "view.json", config.recipe.stages
    view = read_view(run) if path.exists() else None
    if number is None:
        sizes = [stage.size for stage in stages]
        last = view.size if view is not None and view.size in sizes else sizes[0]
        number = len(sizes) - sizes[::-1].index(last)
    size = stage_of(config.recipe, number).size
    if view is not None and view.size == size:
        return number, view
    with open_run_dataset(run, config) as file:
        window, normalize = config.recipe.window, config.recipe.normalize
        return number, View.of(file, size, window, normalize=normalize)


def open_run_dataset(run: Path, config: RunConfig) -> Reader:
    """Open the dataset of a run. Raises UserError if it is gone."""
    if not Path(config.data).exists():
        raise UserError(
            f"{run}: its dataset {config.data} is gone, and it has no view.json of this stage: "
            "the size of its images is unknown"
        )
    return command.open_data(Path(config.data), Path(config.data).stem)


def planned(config: Config, number: int) -> tuple[str, Recipe, int, View]:
    """Return the network, recipe, classes and view with which train would train NAME."""
    job, data = job_of(config.of)
    options = OPTIONS[job]()
    if config.recipe is not None:
        names = [*SYSTEMS[job].recipes] if job in SYSTEMS else None
        if names and config.recipe not in names:
            raise UserError(f"recipe: got {config.recipe!r}, expected one of {', '.join(names)}")
        options = replace(options, recipe=config.recipe)
    data = data or (default_dataset(SYSTEMS[job].dataset) if job in SYSTEMS else None)
    if data is None:
        raise UserError("name: got classify, expected the name of a dataset")
    with classify.open_dataset(job, data) as file:
        preset = classify.choose(job, options, file)
        recipe = classify.recipe_of(preset, options, file)
        stage = stage_of(recipe, number)
        view = View.of(file, stage.size, recipe.window, normalize=recipe.normalize)
        return config.network or preset.network, recipe, len(file.info["classes"]), view


def stage_of(recipe: Recipe, number: int) -> Stage:
    """Return a stage of a recipe, from 1. Raises UserError if it has none of this number."""
    if not 1 <= number <= len(recipe.stages):
        raise UserError(f"stage: got {number}, expected 1 to {len(recipe.stages)}")
    return recipe.stages[number - 1]


def shape_of(text: str) -> Shape:
    """Parse channels × height × width."""
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise UserError(f"input: got {text!r}, expected channels x height x width: 3x200x300")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def memory_table(subject: Subject, memory: Memory) -> Table:
    """Return a table of the memory of a step."""
    stage, size = subject.stage, " × ".join(map(str, subject.shape))
    title = f"memory of a training step, {counted(subject.rows, 'image')} at a time"
    table = Table(title=title, title_justify="left", box=box.HEAVY_HEAD)
    table.add_column("what")
    table.add_column("MB", justify="right")
    table.add_column("")
    computes = subject.precision if stage.mixed_precision else "no"
    precision = "float32" if computes == "no" else f"in {computes}"
    frozen = f"{stage.frozen} of 3 groups of layers are frozen" if stage.frozen else ""
    for what, size_in_bytes, note in (
        ("parameters", memory.parameters, f"{memory.parameters // 4:,} values, float32"),
        ("buffers", memory.buffers, "not trained: statistics of batch normalisation, for example"),
        ("gradients", memory.gradients, frozen),
        ("optimizer state", memory.optimizer, stage.optimizer),
        ("images", memory.images, f"each {size}, float32"),
        (
            "activations",
            memory.activations,
            f"saved for the backward pass, {precision}: {_mb(memory.activations_of_one)} MB for "
            "each image",
        ),
        ("sum", memory.total, ""),
    ):
        if size_in_bytes or what == "activations":
            table.add_row(what, _mb(size_in_bytes), note)
    return table


def _mb(size: int) -> str:
    decimals = 4 if size < 1e5 else 2 if size < 1e8 else 1
    return f"{size / 1e6:,.{decimals}f}"


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("summary", Config, summarise)


if __name__ == "__main__":
    sys.exit(main())
