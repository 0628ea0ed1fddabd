"""One network on one dataset: from a job's options to a run directory with its report.

Part 1, the published systems and a dataset of yours differ in their options' defaults alone.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from beton.reader import Reader
from pipeline.data.catalog import AUXILIARY
from pipeline.errors import UserError
from pipeline.evaluation.run_config import CheckpointSchedule, RunConfig, TrainingConfig
from pipeline.evaluation.run_data import moved_run
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.evaluation.shrink import write_shrink_curve
from pipeline.experiments import command, part1
from pipeline.experiments.default_data import default_dataset, prepare_defaults
from pipeline.experiments.options import Options, Part1Options, folder_of
from pipeline.loading.dataset import (
    PixelRules,
    View,
    channel_statistics,
    source_line,
    split_indices,
)
from pipeline.models import networks
from pipeline.models.blocks import Network
from pipeline.recipes.auto_preset import DataFacts, choose_preset
from pipeline.recipes.presets import Preset, as_trial, override
from pipeline.recipes.recipe import GROUPS, Recipe, Stage
from pipeline.recipes.systems import SYSTEMS
from pipeline.reporting.console import result_table
from pipeline.reporting.live import live_page
from pipeline.reporting.lr_range import RANGE_PLOT, write_range_test
from pipeline.reporting.pages.training import page_of
from pipeline.reporting.run_plots import plot_batch, plot_run
from pipeline.runtime.progress import make_console
from pipeline.training import optim
from pipeline.training.batch_size_finder import find_micro_batch
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.lr_range import STEPS, LrRange, find_learning_rate, with_found_rate
from pipeline.training.runner import exclusive, run_training, write_config


def run(job: str, options: Options) -> None:
    """Train in a new run directory, or resume a training, and write its report.

    Raises UserError for impossible options before anything is written, except for a missing default
    dataset.
    """
    folder = saved = None
    is_new = options.resume is None
    if options.resume is not None:
        folder = RunDir(options.resume)
        saved = _saved(job, options, folder)
        data = Path(saved.data)
        precision = command.resumed_precision(options.precision, saved, folder.path)
        options = replace(options, precision=precision)
    else:
        data = dataset_path(job, options)
    with (
        open_dataset(job, data) as file,
        join_processes(options.precision, options.track) as processes,
    ):
        if folder is None or saved is None:
            training, found = plan(job, options, file, processes), None
            if finds_rate(choose(job, options, file), options):
                found = find_rate(training, file, processes)
                training = with_found_rate(training, found)
            folder = _new_run(job, options, training, file, processes)
            if found is not None and processes.is_main:
                write_range_test(folder, title_of(job, folder.config()), found, training, file)
        else:
            training = _resumed(options, saved)
        console = make_console(quiet=not processes.is_main)
        provenance = source_line(file.info["provenance"])
        console.print(f"{job}: {len(file):,} images, {provenance}; {folder.path}")
        if is_new and training.found_rate is not None:
            usual = max(choose(job, options, file).recipe.stages[0].rates)
            console.print(
                f"{job}: learning rate {training.found_rate:.3g}, by a range test; {usual:g} in "
                f"the recipe; {folder.path / RANGE_PLOT}"
            )
        if is_new:
            if job not in SYSTEMS:
                name, _ = choose_preset(facts_of(file), options.recipe)
                console.print(f"{job}: recipe {name}")
            for note in training_notes(training, file):
                console.print(f"{job}: {note}")
        track = options.track is not None
        title = title_of(job, folder.config())
        watch = processes.is_main and (options.watch or bool(saved and saved.options.get("watch")))
        with (
            exclusive(processes, job, folder.path),
            live_page(watch, folder, title, file, console) as on_progress,
        ):
            finished = run_training(
                processes,
                folder,
                training,
                file,
                console,
                track=track,
                test=True,
                on_first_batch=partial(
                    plot_batch, training, file.info["classes"], title, folder.path / "batch.png"
                ),
                on_progress=on_progress,
            )
            if processes.is_main:
                _conclude(finished, title, file)
        if processes.is_main:
            console.print(result_table(finished.result.as_json(), str(folder.path)))
            report = folder.path / "report.html"
            console.print(str(report) if report.exists() else "no report: no validation images")


def dataset_path(job: str, options: Options) -> Path:
    """Return the dataset to train on; prepare the job's default datasets if they are missing.

    All processes of a launch must call it alike. Raises UserError for a job without a default.
    """
    if options.data is not None:
        return options.data
    if job not in SYSTEMS:
        raise UserError(
            "data: got none, expected a prepared dataset: ./launch.sh train NAME, or --data FILE"
        )
    system = SYSTEMS[job]
    names = [system.dataset]
    if part1.wants_auxiliary(options, system.recipes[options.recipe].recipe):
        names.append(AUXILIARY)
    prepare_defaults(names)
    return default_dataset(system.dataset)


def open_dataset(job: str, data: Path) -> Reader:
    """Open the dataset of a job. If it is missing, raise UserError with the command to make it."""
    return command.open_data(data, f"{data.stem if job == 'classify' else job} --source ARCHIVE")


def plan(job: str, options: Options, file: Reader, processes: Processes) -> TrainingConfig:
    """Return what options ask for, at the recipe's learning rate unless they give a number.

    Raises UserError for what cannot be trained.
    """
    preset = choose(job, options, file)
    recipe = recipe_of(preset, options, file)
    network = preset.network if options.network == "auto" else options.network
    training = TrainingConfig(
        network,
        recipe,
        auxiliary=part1.auxiliary_path(options, recipe, Path(file.path)),
        decode=options.decode,
        checkpoints=CheckpointSchedule(
            options.checkpoint_steps, options.checkpoint_minutes, options.keep
        ),
        until=options.until,
    )
    _check(training, file, options.runs, processes)
    if options.batch_size == "auto":
        rows = find_micro_batch(processes, network, recipe, file)
        training = replace(training, recipe=replace(recipe, micro_batch=rows))
    _check_rows(training, file, processes)
    return training


def finds_rate(preset: Preset, options: Options) -> bool:
    """Return whether a learning rate range test sets the learning rate."""
    if options.learning_rate is None:
        return preset.find_rate and not options.trial
    return options.learning_rate == "find"


def find_rate(
    training: TrainingConfig, file: Reader, processes: Processes, steps: int = STEPS
) -> LrRange:
    """Run the range test of a training with one stage, as `find_learning_rate` does."""
    with auxiliary_of(training, file) as auxiliary:
        return find_learning_rate(processes, training, file, auxiliary, steps)


def choose(job: str, options: Options, file: Reader) -> Preset:
    """Return the recipe that options ask for, or that the data suggest."""
    if job in SYSTEMS:
        return SYSTEMS[job].recipes[options.recipe]
    _, preset = choose_preset(facts_of(file), options.recipe)
    return preset


def facts_of(file: Reader) -> DataFacts:
    """Return what decides how to train on a dataset."""
    records = file.column("image").metadata
    height, width = (int(np.median(records[side])) for side in ("height", "width"))
    return DataFacts(
        PixelRules.of(file).colour == "rgb",
        height,
        width,
        len(file.info["classes"]),
        len(split_indices(file, "train")),
        all(len(name) == 1 for name in file.info["classes"]),
    )


def recipe_of(preset: Preset, options: Options, file: Reader) -> Recipe:
    """Return a preset's recipe with the options in place of its own values.

    A dataset smaller than the preset's is trained on for more epochs, unless they are given.
    """
    recipe, scale = preset.recipe, options.scale
    batch_size = None if options.batch_size == "auto" else options.batch_size
    command.check_trial(options, "epochs", "scale", "train_images")
    if options.trial:
        batch_size = batch_size or preset.trial.batch_size
        recipe = as_trial(recipe, preset.trial)
    if options.epochs is None and (more := preset.scale(len(split_indices(file, "train")))) > 1:
        scale = more * (1 if scale is None else scale)
    recipe = override(
        recipe,
        size=options.size,
        epochs=options.epochs,
        learning_rate=None if options.learning_rate == "find" else options.learning_rate,
        batch_size=batch_size,
        scale=scale,
        auxiliary=part1.auxiliary_fraction(options, recipe, file),
        seed=options.seed,
    )
    given: dict[str, Any] = {"stages": tuple(_stage(stage, options) for stage in recipe.stages)}
    images = options.train_images
    if images is not None and images < len(split_indices(file, "train")):
        given["train_images"] = images
    if options.average is not None:
        given["average"] = options.average
    if options.class_weights is not None:
        given["class_weights"] = True
    if options.balanced_sampler:
        given["balanced_sampling"] = True
    if options.mirror == "no":
        given["mirrored"] = False
    if recipe.normalize is None and PixelRules.of(file).colour == "rgb":
        given["normalize"] = channel_statistics(file)
    return replace(recipe, **given)


def _stage(stage: Stage, options: Options) -> Stage:
    """Return a stage with the optimizer that options ask for; another one has its own options."""
    given: dict[str, Any] = {}
    if options.optimizer is not None and options.optimizer != stage.optimizer:
        given |= {"optimizer": options.optimizer, "options": {}}
    if options.momentum is not None:
        given["options"] = {**given.get("options", stage.options), "momentum": options.momentum}
    if options.weight_decay is not None:
        name = given.get("optimizer", stage.optimizer)
        if not optim.takes_weight_decay(name):
            raise UserError(
                f"weight_decay: got {options.weight_decay:g}, but the optimizer {name} has none"
            )
        given["weight_decay"] = options.weight_decay
    if options.mirror is not None and _mirrors(stage) != (options.mirror == "yes"):
        flip = 0.5 if options.mirror == "yes" else 0.0
        augmentation = replace(stage.image_augmentation, flip=flip, alternate_flip=False)
        given["image_augmentation"] = augmentation
    return replace(stage, **given)


def _mirrors(stage: Stage) -> bool:
    return bool(stage.image_augmentation.flip or stage.image_augmentation.alternate_flip)


def _check(training: TrainingConfig, file: Reader, runs: Path, processes: Processes) -> None:
    """Raise UserError for a training that its data, its network or its optimizer rule out."""
    if training.network not in networks.NETWORKS:
        raise UserError(
            f"network: got {training.network!r}, expected auto or one of "
            f"{', '.join(networks.NETWORKS)}"
        )
    with auxiliary_of(training, file) as auxiliary:
        data = DataModule(processes, training.recipe, file, auxiliary=auxiliary)
        data.check_until(training.until)
        for stage in training.recipe.stages:
            steps = stage.epochs * data.batches_per_epoch
            if stage.warm_up_steps >= steps:
                raise UserError(
                    f"warm_up_steps: got {stage.warm_up_steps}, expected fewer than the {steps} "
                    "steps of the training; train for more epochs or on more images"
                )
            networks.check_size(training.network, *data.view(stage).shape)
            optim.build(Network(*(nn.Linear(1, 1) for _ in range(GROUPS))), stage)
    if training.decode != "auto" and PixelRules.of(file).colour == "rgb":
        raise UserError(
            f"decode: got {training.decode}, expected auto: colour images are decoded by the loader"
        )
    Checkpoints(runs, **asdict(training.checkpoints))


def _check_rows(training: TrainingConfig, file: Reader, processes: Processes) -> None:
    """Raise UserError if a process computes a single row that batch normalisation rules out."""
    recipe = training.recipe
    local = recipe.batch_size // processes.count
    rows = recipe.micro_batch or local
    if (local % rows or rows) == 1 and not recipe.auxiliary:
        for stage in recipe.stages:
            view = View.of(file, stage.size, recipe.window, normalize=recipe.normalize)
            networks.check_one_row(training.network, len(file.info["classes"]), view.input_shape)


def training_notes(training: TrainingConfig, file: Reader) -> Iterator[str]:
    """Yield what a user of other data than the recipe's may not expect of a training."""
    recipe = training.recipe
    if any(map(_mirrors, recipe.stages)):
        yield "images are mirrored at random in training; --mirror no leaves them as they are"
    indices = split_indices(file, training.learn_from, recipe.train_images)
    classes = len(file.info["classes"])
    trained = len(np.unique(file.column("label").metadata[indices]))
    if trained < classes:
        yield f"{classes - trained} of {classes} classes have no image to train on"


def auxiliary_of(
    training: TrainingConfig, file: Reader
) -> AbstractContextManager[Reader] | nullcontext[None]:
    """Open the auxiliary dataset of a training, if it uses one."""
    path = training.auxiliary
    return nullcontext() if path is None else part1.open_auxiliary(path, file)


def _new_run(
    job: str, options: Options, training: TrainingConfig, file: Reader, processes: Processes
) -> RunDir:
    def create() -> RunDir:
        folder = RunDir.new(options.runs / folder_of(job, Path(file.path)))
        write_config(folder, job, training, file, command.options_of(options))
        return folder

    return processes.from_main(create)


def _saved(job: str, options: Options, folder: RunDir) -> RunConfig:
    """Return the config.json of a run to resume, with the present paths of its datasets.

    Raises UserError for options that it excludes.
    """
    data, auxiliary = options.data, None
    options = replace(options, data=None)
    if isinstance(options, Part1Options):
        auxiliary, options = options.auxiliary, replace(options, auxiliary=None)
    saved = command.saved_config(options, folder.path, job, RunConfig)
    return moved_run(folder.path, saved, data, auxiliary)


def _resumed(options: Options, saved: RunConfig) -> TrainingConfig:
    training = saved.training
    return training if options.decode == "auto" else replace(training, decode=options.decode)


def title_of(job: str, config: RunConfig) -> str:
    """Return the title of a training's plots."""
    name = folder_of(job, Path(config.data))
    title = "part 1" if name == "part1" else name
    return f"{title} (trial)" if config.options.get("trial") else title


def _conclude(finished: FinishedRun, title: str, file: Reader) -> None:
    """Write a run's plots and report; point `latest` to it unless it is one of an experiment."""
    plot_run(finished, title, file)
    if finished.config.job == "emnist":
        write_shrink_curve(finished.path, file)
    if finished.predictions is not None:
        page_of([finished.path]).write(finished.path / "report.html")
    if not (finished.path.resolve().parent / "config.json").exists():
        RunDir(finished.path).link_latest()
