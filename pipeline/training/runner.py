"""One training and its folder: begun, gone on with after a crash, or done already.

What is asked for stands in the folder's config.json before the first step, so that nothing but the
folder is needed to go on.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from beton.errors import BetonError
from beton.reader import Reader
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.evaluation.run_dir import FinishedRun, RunDir, TrainingConfig, read_run
from pipeline.loading.dataset import open_dataset
from pipeline.models import networks
from pipeline.recipes.recipe import Recipe
from pipeline.runtime import launch
from pipeline.runtime.files import read_json, read_tensors, write_tensors
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import Stopped
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import Processes
from pipeline.training.trainer import Trainer

Tracker = Literal["tensorboard", "wandb"]


def write_config(
    record: RunDir, job: str, assignment: TrainingConfig, file: Reader, options: Mapping[str, Any]
) -> None:
    """Write config.json: all that is needed to go on."""
    record.path.mkdir(parents=True, exist_ok=True)
    record.write_json(
        "config.json",
        {
            "job": job,
            "options": {key: str(value) for key, value in options.items()},
            "network": assignment.network,
            "recipe": asdict(assignment.recipe),
            "start": assignment.start and str(assignment.start),
            "learn_from": assignment.learn_from,
            "validate_on": assignment.validate_on,
            "auxiliary": assignment.auxiliary and _described(assignment.auxiliary),
            "decode": assignment.decode,
            "checkpoints": dict(assignment.checkpoints),
            "data": str(file.path),
            "fingerprint": file.fingerprint(),
            "classes": file.info["classes"],
            "provenance": file.info["provenance"],
        },
    )


def _described(auxiliary: Path) -> dict[str, Any]:
    with open_dataset(auxiliary) as file:
        return {
            "data": str(file.path),
            "fingerprint": file.fingerprint(),
            "samples": len(file),
            "provenance": file.info["provenance"],
        }


def read_config(run: Path) -> tuple[TrainingConfig, Path]:
    """Return what a folder's run is about, and its data. Raises UserError for another folder."""
    config = read_json(run, "config.json")
    auxiliary = config.get("auxiliary")  # runs of before there was one have none
    assignment = TrainingConfig(
        config["network"],
        Recipe.of(config["recipe"]),
        config["start"] and Path(config["start"]),
        config["learn_from"],
        config["validate_on"],
        auxiliary and Path(auxiliary["data"]),
        config["decode"],
        config["checkpoints"],
    )
    return assignment, Path(config["data"])


def initial_network(assignment: TrainingConfig, classes: int) -> networks.Network:
    """Return the network as it is before the first step."""
    network = networks.build(assignment.network, classes, assignment.recipe.seed)
    if assignment.start is not None:
        networks.transfer(network, read_tensors(assignment.start / "model.safetensors"))
    return network


def run_training(
    processes: Processes,
    record: RunDir,
    assignment: TrainingConfig,
    file: Reader,
    console: Console,
    label: str = "training",
    track: bool = False,
    whole: Path | None = None,
) -> FinishedRun:
    """Train, from the folder's last checkpoint if it has one, and fill the folder.

    A folder that is finished is only read. `track` shows the figures to the launch's tracker;
    `whole` is the folder of the job of which this training is a part. All processes of a launch
    call it alike. Raises what `Training` does, and BetonError if the run began with other data.
    """
    processes.wait()  # for the main one to have begun
    config = record.read_json("config.json")
    _expect(file, config)
    if record.finished:
        return read_run(record.path)
    network = initial_network(assignment, len(file.info["classes"]))
    with ExitStack() as stack:
        auxiliary = None
        if assignment.auxiliary is not None:
            auxiliary = stack.enter_context(open_dataset(assignment.auxiliary))
            _expect(auxiliary, config["auxiliary"])
        training = Trainer(
            processes,
            network,
            assignment.recipe,
            file,
            learn_from=assignment.learn_from,
            validate_on=assignment.validate_on,
            auxiliary=auxiliary,
            decode=assignment.decode,
            checkpoints=Checkpoints(record.path / "checkpoints", **assignment.checkpoints),
        )
        try:
            if not training.is_main:
                training.run()
            else:
                _train(training, record, console, label, processes if track else None)
        except Stopped as stop:
            stop.run = whole or record.path
            raise
    processes.wait()
    if whole is not None and (number := training.late_signal()):  # there is more to come
        raise Stopped(number, training.step, whole)
    return read_run(record.path)


def _expect(file: Reader, described: Mapping[str, Any]) -> None:
    if file.fingerprint() != described["fingerprint"]:
        raise BetonError(
            "not the data that the run began with",
            file=file.path,
            got=file.fingerprint(),
            expected=described["fingerprint"],
        )


def _train(
    training: Trainer, record: RunDir, console: Console, label: str, tracker: Processes | None
) -> None:
    if training.step:
        console.print(f"{label}: goes on after step {training.step}")
    record.write_epochs(training.history)
    record.write_json("environment.json", training.environment())
    config = record.read_json("config.json")
    if tracker is not None:
        tracker.start_tracker(record.path, config)
    with progress(console, label, training.images_to_come) as training.on_step:
        for epoch in training:
            record.add_epoch(epoch)
            if tracker is not None:
                shown = {n: v for n, v in asdict(epoch).items() if v is not None}
                tracker.log(shown, step=training.step)
            console.print(epoch_line(epoch, training.epochs))
    scores, auxiliary = training.scores(config["classes"]), config.get("auxiliary")
    write_tensors(record.path / "model.safetensors", training.eval_model.state_dict())
    record.write_json("view.json", asdict(training.view))
    record.write_json("losses.json", training.losses, indent=None)
    if training.predictions is not None and scores is not None:
        write_tensors(record.path / "answers.safetensors", training.predictions._asdict())
        record.write_json("scores.json", asdict(scores), indent=None)
    record.finish(
        {
            **(scores.headline() if scores else {}),
            **training.figures(),
            "seconds_in_all": launch.seconds_since_start(),
            "network": config["network"],
            "provenance": config["provenance"],
            "auxiliary": auxiliary and auxiliary["provenance"],
        }
    )


def epoch_line(epoch: EpochMetrics, epochs: int) -> str:
    """Return an epoch's figures for a log."""
    validation = (
        ""
        if epoch.accuracy is None
        else f", validation: loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.2%}"
    )
    return (
        f"epoch {epoch.epoch + 1} of {epochs}: loss {epoch.train_loss:.3f}, "
        f"accuracy {epoch.train_accuracy:.2%}{validation} ({epoch.seconds:.1f} s)"
    )
