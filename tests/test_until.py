"""Trainings that end when they reach an accuracy, and accuracies in train mode."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_together
from job_started import ENVIRONMENT, JOB, lines_of
from rich.console import Console
from tiny import CLASSES, write_set

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.loading.augment import Augmentation
from pipeline.loading.dataset import open_dataset
from pipeline.models import networks
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import join_processes
from pipeline.training.runner import run_training, write_config
from pipeline.training.trainer import Trainer

STAGE = Stage(16, 6, 5e-3, augmentation=Augmentation())
RECIPE = Recipe((STAGE, replace(STAGE, size=24, epochs=2)), batch_size=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "tiny.beton", train=8, validation=3)


@pytest.fixture
def file(data: Path) -> Iterator[Reader]:
    with open_dataset(data) as file:
        yield file


def train(file: Reader, recipe: Recipe = RECIPE, **options: Any) -> Trainer:
    network = networks.build("small", len(CLASSES), recipe.seed)
    with join_processes("no") as processes:
        training = Trainer(processes, network, recipe, file, **options)
        training.run()
    return training


def test_training_ends_after_the_epoch_that_reaches_the_accuracy(file: Reader) -> None:
    whole = train(file)
    accuracies = [epoch.accuracy or 0.0 for epoch in whole.history]
    until = max(accuracies[:4])
    first = next(number for number, one in enumerate(accuracies) if one >= until)
    short = train(file, until=until)
    assert short.reached
    assert [epoch.accuracy for epoch in short.history] == accuracies[: first + 1]
    assert short.performance()["epochs"] == first + 1
    assert short.view.size == 16
    assert not whole.reached
    assert whole.view.size == 24


def test_a_training_that_has_reached_it_is_not_trained_further(
    file: Reader, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=9)
    first = train(file, until=0.3, checkpoints=checkpoints)
    again = train(file, until=0.3, checkpoints=Checkpoints(tmp_path / "checkpoints", keep=9))
    assert again.history == first.history
    assert again.predictions is not None
    assert first.predictions is not None
    assert torch.equal(again.predictions.logits, first.predictions.logits)
    ours, theirs = first.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_must_be_a_fraction_of_validation_images(file: Reader, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="until: got 2, expected"):
        train(file, until=2)
    path = write_set(tmp_path / "set.beton", validation=0)
    with (
        open_dataset(path) as without,
        pytest.raises(UserError, match="has no images in its split 'validation'"),
    ):
        train(without, until=0.5)


def run(file: Reader, path: Path, until: float) -> tuple[FinishedRun, str]:
    """Train one epoch in a run directory; return it and what was printed."""
    recipe = replace(RECIPE, stages=(replace(STAGE, epochs=2),))
    training, console = TrainingConfig("small", recipe, until=until), Console(record=True)
    with join_processes("no") as processes:
        write_config(RunDir(path), "classify", training, file, {"recipe": "auto"})
        done = run_training(processes, RunDir(path), training, file, console)
    return done, " ".join(console.export_text().split())


def test_a_finished_run_says_whether_it_was_reached(file: Reader, tmp_path: Path) -> None:
    reached, _ = run(file, tmp_path / "a", 0.01)
    assert (reached.result.until, reached.result.reached, reached.result.epochs) == (0.01, True, 1)
    assert reached.config.until == 0.01
    never, said = run(file, tmp_path / "b", 1.0)
    assert (never.result.until, never.result.reached, never.result.epochs) == (1.0, False, 2)
    assert "the validation accuracy never reached 100.00%; trained for all 2 epochs" in said


def test_two_processes_stop_together(data: Path, tmp_path: Path) -> None:
    options = ["--epochs", "40", "--size", "16", "--batch-size", "8", "--until", "0.3"]
    done = run_together(2, [JOB, "--data", str(data), *options], tmp_path, ENVIRONMENT)
    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    latest = tmp_path / "runs" / "part1" / "latest"
    epochs, result = lines_of(latest), json.loads((latest / "result.json").read_text())
    assert epochs[-1]["accuracy"] >= 0.3
    assert all(epoch["accuracy"] < 0.3 for epoch in epochs[:-1])
    assert (result["reached"], result["epochs"]) == (True, len(epochs))


def test_the_accuracy_in_train_mode_changes_nothing_else(file: Reader) -> None:
    recipe = replace(RECIPE, stages=(replace(STAGE, epochs=3),), average=0.5)
    plain = train(file, recipe)
    both = train(file, replace(recipe, train_mode_accuracy=True))
    assert [epoch.train_mode_accuracy for epoch in plain.history] == [None] * 3
    measured = [epoch.train_mode_accuracy for epoch in both.history]
    assert all(value is not None and 0 <= value <= 1 for value in measured)
    assert [epoch.accuracy for epoch in both.history] == [epoch.accuracy for epoch in plain.history]
    ours, theirs = plain.eval_model.state_dict(), both.eval_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_first_batch_is_shown_as_the_network_sees_it(file: Reader) -> None:
    network = networks.build("small", len(CLASSES), 0)
    seen: list[Any] = []
    with join_processes("no") as processes:
        training = Trainer(processes, network, replace(RECIPE, stages=(STAGE,)), file)
        training.on_first_batch = seen.append
        training.run()
    (batch,) = seen
    assert batch.images.shape == (8, 1, 16, 16)
    assert torch.equal(batch.labels, batch.partners)
