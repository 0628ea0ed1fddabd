"""Runs one training in its run directory: starts it, resumes it, or returns the finished result.

config.json is written before the first step, so that the run directory alone is enough to resume.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from beton.errors import BetonError
from beton.reader import Reader
from pipeline.errors import DivergedError
from pipeline.evaluation.framing import Framing
from pipeline.evaluation.metrics import EpochMetrics, score
from pipeline.evaluation.run_config import RunConfig, TrainingConfig
from pipeline.evaluation.run_dir import (
    DIVERGED,
    Divergence,
    FinishedRun,
    RunDir,
    TestResult,
    TrainingResult,
    read_run,
)
from pipeline.evaluation.run_files import read_weights
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, open_dataset, split_indices
from pipeline.models import networks
from pipeline.models.blocks import Network
from pipeline.recipes.mixup import Mixed
from pipeline.runtime import launch
from pipeline.runtime.files import write_tensors
from pipeline.runtime.hardware import environment
from pipeline.runtime.lock import run_lock
from pipeline.runtime.progress import progress
from pipeline.runtime.signals import Stopped, resumable
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import Processes
from pipeline.training.trainer import Trainer

Tracker = Literal["tensorboard", "wandb"]
MAX_WAIT = 25.0  # seconds for a checkpoint; a launcher kills processes 30 s after a signal


def write_config(
    run: RunDir, job: str, training: TrainingConfig, file: Reader, options: Mapping[str, Any]
) -> None:
    """Create a run directory with its config.json; `options` are those of the command."""
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_json("config.json", RunConfig.of(job, training, file, options).as_json())


@contextmanager
def exclusive(processes: Processes, job: str, run: Path) -> Iterator[tuple[int, ...]]:
    """Hold the lock of a job's run directory for these processes; all must call this alike.

    Yields the lock's descriptor in the main process, by which children hold it too. Raises
    UserError in all of them if other processes use the run. The exception of a stop signal
    gets a note that says how to resume the run.
    """
    with ExitStack() as stack:
        held: list[int] = []

        def acquire() -> None:
            held.append(stack.enter_context(run_lock(run)))

        processes.from_main(acquire)
        stack.enter_context(resumable(f"train {job}", run))
        yield tuple(held)


def initial_network(training: TrainingConfig, file: Reader) -> Network:
    """Return the network as it is before its first step of training on a dataset.

    It is equal in all processes.
    """
    recipe = training.recipe
    view = View.of(file, recipe.stages[-1].size, recipe.window, normalize=recipe.normalize)
    classes = len(file.info["classes"])
    network = networks.build(training.network, classes, recipe.seed, view.input_shape)

    def images(count: int) -> Tensor:
        indices = split_indices(file, training.learn_from, count)
        with DeviceLoader(file, indices, view, len(indices), device=torch.device("cpu")) as loader:
            (inputs,) = loader.micro_batches()
        return inputs.images

    networks.prepare_network(network, images)
    if training.start is not None:
        networks.transfer(network, read_weights(training.start))
    return network


def run_training(
    processes: Processes,
    run: RunDir,
    training: TrainingConfig,
    file: Reader,
    console: Console,
    label: str = "training",
    track: bool = False,
    whole: Path | None = None,
    test: bool = False,
    on_first_batch: Callable[[Mixed], None] | None = None,
    on_progress: Callable[[Trainer], None] | None = None,
) -> FinishedRun:
    """Train in a run directory, from its last checkpoint if there is one; read a finished run.

    `track` logs metrics to the tracker. `whole` is the run directory of the experiment to which
    this training belongs. With `test`, the trained network is evaluated on the dataset's test
    samples. `on_first_batch` is the main process's, as in `Trainer`; `on_progress` is called there
    after each step and each epoch. All processes must call it
    alike. Raises what `Trainer` raises, and BetonError if the run started with other data.
    """
    processes.wait()  # for the main process to write config.json
    config = run.config()
    _check_data(file, config.fingerprint)
    if run.finished:
        return read_run(run.path)
    network = initial_network(training, file)
    with ExitStack() as stack:
        auxiliary = None
        if training.auxiliary is not None:
            auxiliary = stack.enter_context(open_dataset(training.auxiliary))
            assert config.auxiliary is not None
            _check_data(auxiliary, config.auxiliary.fingerprint)
        trainer = Trainer(
            processes,
            network,
            training.recipe,
            file,
            learn_from=training.learn_from,
            validate_on=training.validate_on,
            auxiliary=auxiliary,
            decode=training.decode,
            checkpoints=Checkpoints(run.path / "checkpoints", **asdict(training.checkpoints)),
            until=training.until,
        )
        try:
            if processes.is_main:
                hardware = environment(processes.device, processes.precision, processes.count)
                run.write_json("environment.json", hardware)
                if (framing := Framing.of(file, training.learn_from)) is not None:
                    run.write_json("framing.json", asdict(framing))
                (run.path / DIVERGED).unlink(missing_ok=True)
                if on_first_batch is not None:
                    trainer.on_first_batch = on_first_batch
                tracker = processes if track else None
                _train(trainer, run, config, console, label, tracker, test, on_progress)
            else:
                trainer.run()
                if test:
                    trainer.predict_test()
        except Stopped as stop:
            stop.run = whole or run.path
            _wait_for_save()
            raise
        except DivergedError as error:
            if processes.is_main:
                run.write_json(DIVERGED, asdict(Divergence(error.step, str(error))))
            raise
    processes.wait()
    if whole is not None and (number := trainer.late_signal()):  # other trainings would follow
        raise Stopped(number, f"step {trainer.step}", whole)
    return read_run(run.path)


def _wait_for_save() -> None:
    """Wait until the main process has saved too: a launcher kills all processes when one exits."""
    if torch.distributed.is_initialized():
        with suppress(RuntimeError):  # it takes longer, or it is dead: nothing is left to wait for
            work = torch.distributed.barrier(async_op=True)
            work.wait(timedelta(seconds=MAX_WAIT))


def _check_data(file: Reader, fingerprint: str) -> None:
    if file.fingerprint() != fingerprint:
        raise BetonError(
            "the run started with other data",
            file=file.path,
            got=file.fingerprint(),
            expected=fingerprint,
        )


def _train(
    trainer: Trainer,
    run: RunDir,
    config: RunConfig,
    console: Console,
    label: str,
    tracker: Processes | None,
    test: bool,
    on_progress: Callable[[Trainer], None] | None,
) -> None:
    if trainer.step:
        console.print(f"{label}: resumes after step {trainer.step}")
    run.write_epochs(trainer.history)
    if tracker is not None:
        tracker.start_tracker(run.path, config.as_json())
    with progress(console, label, trainer.images_left) as advance:

        def on_step(images: int) -> None:
            advance(images)
            if on_progress is not None:
                on_progress(trainer)

        trainer.on_step = on_step
        for epoch in trainer:
            run.add_epoch(epoch)
            if on_progress is not None:
                on_progress(trainer)
            if tracker is not None:
                metrics = {n: v for n, v in asdict(epoch).items() if v is not None}
                tracker.log(metrics, step=trainer.step)
            console.print(epoch_line(epoch, trainer.recipe.epochs))
    if trainer.until is not None and not trainer.reached:
        console.print(
            f"{label}: the validation accuracy never reached {trainer.until:.2%}; trained for all "
            f"{len(trainer.history)} epochs"
        )
    scores = trainer.scores(config.classes)
    write_tensors(run.path / "model.safetensors", trainer.eval_model.state_dict())
    run.write_json("view.json", asdict(trainer.view))
    run.write_json("losses.json", trainer.losses, indent=None)
    if trainer.predictions is not None and scores is not None:
        write_tensors(run.path / "answers.safetensors", trainer.predictions._asdict())
        run.write_json("scores.json", asdict(scores), indent=None)
    tested = _test(trainer, run, config) if test else None
    result = TrainingResult(
        **trainer.performance(),
        seconds_in_all=launch.seconds_since_start(),
        network=config.network,
        provenance=config.provenance,
        auxiliary=None if config.auxiliary is None else config.auxiliary.provenance,
        **(scores.headline() if scores else {}),
        until=trainer.until,
        reached=None if trainer.until is None else trainer.reached,
        found_learning_rate=config.found_rate,
        test=tested,
    )
    run.finish(result.as_json())


def _test(trainer: Trainer, run: RunDir, config: RunConfig) -> TestResult | None:
    """Write test.json, the scores of the test samples, and return the main ones."""
    predictions = trainer.predict_test()
    if predictions is None:
        return None
    scores = score(predictions.logits, predictions.labels, config.classes)
    run.write_json("test.json", asdict(scores), indent=None)
    return TestResult(**scores.headline())


def epoch_line(epoch: EpochMetrics, epochs: int) -> str:
    """Format the metrics of one epoch as a line of a log."""
    validation = (
        ""
        if epoch.accuracy is None
        else f", validation: loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.2%}"
    )
    return (
        f"epoch {epoch.epoch + 1} of {epochs}: loss {epoch.train_loss:.3f}, "
        f"accuracy {epoch.train_accuracy:.2%}{validation} ({epoch.seconds:.1f} s)"
    )
