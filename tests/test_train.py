import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, page, write_set
from torch import Tensor

from beton import writer
from beton.errors import BetonError
from beton.fields import IntField
from beton.reader import Reader
from pipeline import launch, models
from pipeline.augment import Augmentation
from pipeline.errors import UserError
from pipeline.evaluate import answer
from pipeline.feed import Decode, Feed, View, open_set, samples_of
from pipeline.hardware import precision_for
from pipeline.recipe import PART1, Recipe, Stage, part1
from pipeline.train import Training, processes

CPU = torch.device("cpu")
CHANGES = Augmentation(rotation=5, zoom=0.05, shear=0.1, translation=0.05)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with open_set(write_set(tmp_path_factory.mktemp("set") / "tiny.beton")) as reader:
        yield reader


def recipe(seed: int = 0, **changed: Any) -> Recipe:
    stage = {"size": 16, "epochs": 2, "learning_rate": 5e-3, "augmentation": CHANGES, **changed}
    return Recipe((Stage(**stage),), batch_size=8, seed=seed)


def train(file: Reader, plan: Recipe, **options: Any) -> Training:
    network = models.build("small", len(CLASSES), plan.seed)
    with processes("no") as accelerator:
        training = Training(accelerator, network, plan, file, **options)
        training.run()
    return training


def weights(training: Training) -> Mapping[str, Tensor]:
    return training.network.state_dict()


def test_it_learns(file: Reader) -> None:
    steps: list[int] = []
    network = models.build("small", len(CLASSES), 0)
    with processes("no") as accelerator:
        training = Training(accelerator, network, recipe(epochs=30), file)
        training.on_step = steps.append
        epochs = list(training)
    assert training.history == epochs
    assert [one.epoch for one in epochs] == list(range(30))
    assert epochs[-1].accuracy == 1
    assert epochs[-1].train_accuracy > 0.9
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert sum(steps) == training.images == training.images_to_come == 30 * 32
    scores = training.scores(CLASSES)
    assert scores is not None
    assert (scores.accuracy, scores.samples) == (epochs[-1].accuracy, 3 * len(CLASSES))
    assert scores.loss == pytest.approx(epochs[-1].loss)
    figures = training.figures()
    assert 0 <= figures["loader_share"] <= 1
    assert figures["seconds_training"] == epochs[-1].seconds


def test_the_same_seed_gives_the_same_weights(file: Reader) -> None:
    one, same, other = (weights(train(file, recipe(seed))) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_stages_follow_each_other(file: Reader) -> None:
    first, second = recipe(epochs=2).stages[0], recipe(size=24, epochs=1).stages[0]
    training = train(file, Recipe((first, second), batch_size=8))
    assert [(one.epoch, one.stage) for one in training.history] == [(0, 0), (1, 0), (2, 1)]
    assert training.view.size == 24


def test_learning_rates_go_up_and_down(file: Reader) -> None:
    training = train(file, recipe(epochs=8))
    rates = [one.learning_rate for one in training.history]
    top = rates.index(max(rates))
    assert 0 < top < 4
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)
    decays = [group["weight_decay"] for group in training.state["optimizer"]["param_groups"]]
    assert decays == [0.05, 0.0]


def test_divergence_stops_training(file: Reader) -> None:
    with pytest.raises(FloatingPointError, match="training diverged in epoch 0"):
        train(file, recipe(learning_rate=1e30))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, "size: got 4, expected 16 to 4096"),
        ({"epochs": 0}, "epochs: got 0, expected 1 to"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"label_smoothing": 2}, "label_smoothing: got 2, expected 0 to 1"),
    ],
)
def test_a_stage_that_makes_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(**change)


def test_recipes_that_make_no_sense_here(file: Reader) -> None:
    with pytest.raises(UserError, match="got no stages"):
        Recipe(())
    with pytest.raises(UserError, match="batch_size: got 33, expected at most 32"):
        train(file, Recipe(recipe().stages, batch_size=33))
    with pytest.raises(UserError, match="precision: got 'fp16' on a CPU"):
        precision_for(CPU, "fp16")


@pytest.mark.parametrize("network", models.NETWORKS)
def test_every_network_has_a_recipe_whose_parts_can_be_replaced(network: str) -> None:
    assert part1(network) == PART1[network]
    changed = part1(network, size=32, epochs=7, learning_rate=0.5, batch_size=10, seed=9)
    (stage,) = changed.stages
    assert (stage.size, stage.epochs, stage.learning_rate) == (32, 7, 0.5)
    assert (changed.batch_size, changed.seed) == (10, 9)
    assert stage.augmentation == PART1[network].stages[0].augmentation


def feed(file: Reader, decode: Decode, batch: int = 4, **options: Any) -> Feed:
    view = View.of(file, 48, window=0.8)
    return Feed(file, samples_of(file, "all"), view, batch, device=CPU, decode=decode, **options)


def test_both_decodes_show_the_network_the_same_within_a_grey_level(file: Reader) -> None:
    for changes in (None, CHANGES):
        with (
            feed(file, "loader", augmentation=changes) as one,
            feed(file, "device", augmentation=changes) as two,
        ):
            for left, right in zip(one.batches(1), two.batches(1), strict=True):
                assert (left.ids == right.ids).all()
                assert torch.equal(left.labels, right.labels)
                torch.testing.assert_close(left.pictures, right.pictures, atol=1 / 255, rtol=0)


def test_ink_is_one_and_paper_none_with_the_scale_of_the_page(file: Reader) -> None:
    with feed(file, "loader") as batches:
        inputs = next(iter(batches.batches()))
    assert inputs.pictures.shape == (4, 1, 48, 48)
    scale = 48 / (0.8 * page("A", 0).shape[0])
    for picture, label in zip(inputs.pictures, inputs.labels.tolist(), strict=True):
        ink = (page(CLASSES[label], 0) == 0).sum() * scale**2
        assert picture.amin() >= 0
        assert picture.amax() <= 1 + 1e-6
        assert float(picture.sum()) == pytest.approx(ink, rel=0.02)


def test_training_shuffles_and_leaves_no_batch_unfilled(file: Reader) -> None:
    with feed(file, "loader", batch=10, augmentation=CHANGES) as batches:
        epochs = [np.concatenate([b.ids for b in batches.batches(epoch)]) for epoch in (0, 0, 1)]
    assert len(epochs[0]) == 40
    assert len(set(epochs[0])) == 40
    assert (epochs[0] == epochs[1]).all()
    assert (epochs[0] != epochs[2]).any()


@pytest.mark.parametrize("batch", [1, 7, 44, 100])
def test_answers_are_exact_whatever_the_batch(file: Reader, batch: int) -> None:
    network = models.build("small", len(CLASSES), 0).eval()
    with feed(file, "loader", batch=batch) as batches:
        answers = answer(network, batches)
    assert answers.ids.tolist() == list(range(len(file)))
    assert answers.labels.tolist() == file.column("label").metadata.tolist()
    with feed(file, "loader", batch=len(file)) as batches, torch.no_grad():
        expected = network(next(iter(batches.batches())).pictures)
    torch.testing.assert_close(answers.logits, expected, atol=1e-4, rtol=1e-4)


def test_a_file_that_prep_did_not_write(tmp_path: Path) -> None:
    path = tmp_path / "other.beton"
    writer.write(path, {"label": IntField()}, [(1,)])
    with pytest.raises(BetonError, match=r"other\.beton: not a file that prep writes"):
        open_set(path)


CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("arguments", "told", "processes_here", "expected"),
    [
        ([], None, "1", CORES),
        ([], None, str(10**6), 1),
        ([], "1", "1", 1),
        ([], "2", str(10**6), 2),
        (["--num_cpu_threads_per_process=1"], None, "1", 1),
    ],
)
def test_cores_are_shared_out_unless_the_user_said_otherwise(
    arguments: list[str],
    told: str | None,
    processes_here: str,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    environment = {"OMP_NUM_THREADS": told} if told else {}
    command = [sys.executable, "-c", "print(flush=True); input()", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        monkeypatch.setattr(os, "getppid", lambda: launcher.pid)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes_here)
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        monkeypatch.setenv("OMP_NUM_THREADS", told or "1")  # as accelerate's launcher does
        torch.set_num_threads(int(told or "1"))  # as torch does on import
        try:
            assert launch.use_cores() == expected
        finally:
            torch.set_num_threads(before)
            launcher.communicate(b"\n")


def test_without_a_launcher_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    assert launch.use_cores() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert launch.use_cores() == CORES
    torch.set_num_threads(before)
