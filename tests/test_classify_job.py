"""The jobs that train one network on one dataset: their options, and runs in colour."""

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import forked
import numpy as np
import pytest
import torch
from job_started import ENVIRONMENT, lines_of
from PIL import Image
from safetensors.torch import load_file
from tiny import write_set
from tiny_colours import CLASSES, write_colours

from beton.reader import Reader
from jobs import cifar10
from jobs import classify as job
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.experiments import classify
from pipeline.experiments.options import (
    OPTIONS,
    Cifar10Options,
    ClassifyOptions,
    EmnistOptions,
    FashionOptions,
    Options,
    Part1Options,
    folder_of,
    job_of,
)
from pipeline.loading.dataset import open_dataset, split_indices
from pipeline.models import networks
from pipeline.recipes.auto_preset import ANY_DATASET
from pipeline.recipes.presets import Preset, Trial
from pipeline.recipes.systems import SYSTEMS
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import join_processes

JOB = str(Path(job.__file__))
QUICK = ["--epochs", "4", "--batch-size", "8", "--network", "small", "--size", "16"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("set") / "petals.beton", validation=4)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "leaves.beton", train=12, validation=3)


@pytest.fixture
def petals(colours: Path) -> Iterator[Reader]:
    with open_dataset(colours) as file:
        yield file


@pytest.fixture
def leaves(grey: Path) -> Iterator[Reader]:
    with open_dataset(grey) as file:
        yield file


def planned(job: str, options: Options, file: Reader) -> TrainingConfig:
    with join_processes("no") as processes:
        return classify.plan(job, options, file, processes)


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training in colour that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = forked.run([JOB, "--data", str(colours), *QUICK], folder, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return run_in(folder)


def run_in(folder: Path) -> Path:
    """The only run directory of the dataset in a folder."""
    (run,) = (p for p in (folder / "runs" / "petals").iterdir() if p.name != "latest")
    return run


def test_a_dataset_in_colour_is_trained_on_and_reported(whole: Path) -> None:
    assert (whole.parent / "latest").resolve() == whole
    config = json.loads((whole / "config.json").read_text())
    assert (config["job"], config["classes"]) == ("classify", list(CLASSES))
    assert config["recipe"]["normalize"] == {"mean": [0.4, 0.5, 0.45], "std": [0.25, 0.2, 0.3]}
    result = json.loads((whole / "result.json").read_text())
    assert result["balanced_accuracy"] == pytest.approx(result["accuracy"])
    assert (result["test"], result["until"], result["reached"]) == (None, None, None)
    with Image.open(whole / "batch.png") as batch:
        pixels = np.asarray(batch.convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=2).max() > 100  # in colour
    page = (whole / "report.html").read_text()
    assert "petals: 3 classes" in page
    assert "synthetic data: colours" in page


@pytest.mark.parametrize(
    ("processes", "number"),
    [
        pytest.param(1, signal.SIGKILL, id="1 to 1, SIGKILL"),
        pytest.param(2, signal.SIGINT, id="2 to 2, SIGINT"),
    ],
)
def test_a_run_in_colour_in_two_pieces_is_the_run_in_one(
    processes: int, number: int, whole: Path, colours: Path, tmp_path: Path
) -> None:
    words = [JOB, "--data", str(colours), *QUICK, "--checkpoint-steps", "1"]
    with forked.started(processes, words, tmp_path, ENVIRONMENT) as training:
        training.wait_for("epoch 1 of")
        training.send(number)
        err = "".join(one.stderr for one in training.wait())
    run = run_in(tmp_path)
    if number == signal.SIGINT and not (run / "result.json").exists():
        assert err.count("resume: ./launch.sh train classify --resume runs/petals/") == 1
    for done in forked.run_together(processes, [JOB, "--resume", run], tmp_path, ENVIRONMENT):
        assert done.returncode == 0, done.stderr
    epochs, expected = lines_of(run), lines_of(whole)
    assert [one["epoch"] for one in epochs] == [one["epoch"] for one in expected]
    if processes == 1:
        ours, others = load_file(run / "model.safetensors"), load_file(whole / "model.safetensors")
        assert all(torch.equal(ours[name], others[name]) for name in others)


def test_options_name_the_recipes_of_their_system() -> None:
    for name, options in OPTIONS.items():
        choices = get_args(get_type_hints(options)["recipe"])
        if name == "classify":
            assert choices == ("auto", *ANY_DATASET)
        else:
            assert choices == tuple(SYSTEMS[name].recipes)
            assert options().recipe == SYSTEMS[name].default


def test_names_are_jobs_or_datasets() -> None:
    assert job_of("emnist") == ("emnist", None)
    assert job_of("leaves_2") == ("classify", Path("data/leaves_2.beton"))
    with pytest.raises(UserError, match="part2: got a job of several trainings"):
        job_of("part2")
    assert folder_of("classify", Path("data/leaves.beton")) == "leaves"
    assert folder_of("classify", Path("data/part1.beton")) == "classify-part1"
    assert folder_of("part1", Path("data/leaves.beton")) == "part1"


def test_a_trial_trains_on_some_of_the_images(
    leaves: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = SYSTEMS["part1"].recipes["fast"]
    trial = Preset(preset.network, preset.recipe, trial=Trial(2, 20, 6, batch_size=10))
    monkeypatch.setitem(SYSTEMS["part1"].recipes, "fast", trial)
    recipe = planned("part1", Part1Options(trial=True), leaves).recipe
    assert (recipe.epochs, recipe.batch_size) == (2, 10)
    with join_processes("no") as processes:
        data = DataModule(processes, recipe, leaves)
        assert data.batches_per_epoch == 2
        labels = leaves.column("label").metadata
        with data.validation_loader(recipe.stages[0]) as loader:
            assert loader is not None
            (batch,) = loader.micro_batches()
    ids = batch.ids[batch.valid.numpy()]
    assert len(ids) == 6
    assert {*ids.tolist()} < {*split_indices(leaves, "validation").tolist()}
    assert len({*labels[ids].tolist()}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            Options(optimizer="Adan"),
            r"optimizer: got 'Adan', expected Muon or one of torch\.optim by name",
        ),
        (Options(optimizer="Adam", momentum=0.9), r"optimizer Adam: .*momentum"),
        (Options(network="resnet"), "network: got 'resnet', expected auto or one of small"),
        (Options(until=1.5), "until: got 1.5, expected 1e-06 to 1"),
        (Options(until=0), "until: got 0"),
        (Options(average=1), "average: got 1"),
        (Options(weight_decay=-1), "weight_decay: got -1"),
        (Options(weight_decay=0.1, optimizer="Rprop"), "weight_decay: got 0.1, but the optimizer"),
        (Options(trial=True, epochs=3), "trial: got epochs too, expected one of them"),
        (
            Options(class_weights="balanced", balanced_sampler=True),
            "class_weights: got balanced_sampling too",
        ),
    ],
)
def test_impossible_options_are_refused(options: Options, message: str, petals: Reader) -> None:
    own = replace(ClassifyOptions(), **{n: v for n, v in vars(options).items() if n != "recipe"})
    with pytest.raises(UserError, match=message):
        planned("classify", own, petals)


def test_a_recipe_and_a_dataset_of_other_colours_are_refused(
    petals: Reader, leaves: Reader
) -> None:
    cases: list[tuple[str, Options, Reader, str]] = [
        ("part1", Part1Options(), petals, "got images in colour, expected handwriting"),
        ("emnist", EmnistOptions(batch_size=4), petals, "got images of 3 channels, expected 1"),
        ("cifar10", Cifar10Options(batch_size=4), leaves, "got images of 1 channel, expected 3"),
    ]
    for name, options, file, message in cases:
        with pytest.raises(UserError, match=message):
            planned(name, options, file)


def test_images_in_colour_are_decoded_by_the_loader_alone(petals: Reader) -> None:
    with pytest.raises(UserError, match="decode: got device, expected auto"):
        planned("classify", ClassifyOptions(decode="device", network="small"), petals)


def test_a_training_of_warm_up_steps_alone_is_refused(leaves: Reader) -> None:
    options = EmnistOptions(recipe="first-xavier", batch_size=4, epochs=1)
    with pytest.raises(UserError, match="warm_up_steps: got 200, expected fewer than the"):
        planned("emnist", options, leaves)


def test_a_training_without_validation_images_ends_well(tmp_path: Path) -> None:
    data = write_colours(tmp_path / "petals.beton")
    done = forked.run([JOB, "--data", str(data), *QUICK], tmp_path, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "no report: no validation images" in done.stdout
    assert (tmp_path / "runs" / "petals" / "latest" / "model.safetensors").exists()


def test_an_accuracy_to_reach_needs_validation_images(tmp_path: Path) -> None:
    path = write_colours(tmp_path / "all.beton")
    with (
        open_dataset(path) as file,
        pytest.raises(UserError, match=r"until: .*no images in its split 'validation'"),
    ):
        planned("classify", ClassifyOptions(until=0.9, network="small"), file)


def test_images_are_mirrored_as_the_user_says(petals: Reader, tmp_path: Path) -> None:
    def flips(options: Options, job: str = "classify", file: Reader = petals) -> tuple[Any, ...]:
        recipe = planned(job, options, file).recipe
        augmentation = recipe.stages[0].image_augmentation
        return augmentation.flip, augmentation.alternate_flip, recipe.mirrored

    assert flips(ClassifyOptions()) == flips(ClassifyOptions(mirror="yes")) == (0.5, False, False)
    assert flips(ClassifyOptions(mirror="no")) == (0, False, False)
    speed = Cifar10Options(recipe="speed", batch_size=4)
    assert flips(speed, "cifar10") == flips(replace(speed, mirror="yes"), "cifar10")
    assert flips(speed, "cifar10") == (0, True, True)
    assert flips(replace(speed, mirror="no"), "cifar10") == (0, False, False)
    path = write_colours(tmp_path / "letters.beton", classes=("b", "d", "p"))
    with open_dataset(path) as letters:
        assert flips(ClassifyOptions(), file=letters) == (0, False, False)
        assert flips(ClassifyOptions(mirror="yes"), file=letters) == (0.5, False, False)


def test_one_image_at_a_time_is_refused_where_batch_normalisation_needs_more(
    leaves: Reader,
) -> None:
    one = ClassifyOptions(recipe="small-images", size=28, network="lenet", batch_size=1)
    with pytest.raises(UserError, match=r"batch_size: got one image at a time, .*network lenet"):
        planned("classify", one, leaves)
    planned("classify", replace(one, batch_size=2), leaves)
    planned("classify", replace(one, network="plain"), leaves)


def test_more_images_than_there_are_change_nothing(leaves: Reader) -> None:
    options = ClassifyOptions(batch_size=8)
    for images, limit in ((47, 47), (48, None), (100, None)):
        training = planned("classify", replace(options, train_images=images), leaves)
        assert training.recipe.train_images == limit
    assert training == planned("classify", options, leaves)
    with pytest.raises(UserError, match="train_images: got 0"):
        planned("classify", replace(options, train_images=0), leaves)


def test_classes_without_training_images_are_named_in_a_line(leaves: Reader) -> None:
    training = planned("classify", ClassifyOptions(train_images=3, batch_size=2), leaves)
    assert [*classify.training_notes(training, leaves)] == [
        "1 of 4 classes have no image to train on"
    ]


def test_the_optimizer_and_its_options_are_the_users(leaves: Reader) -> None:
    options = FashionOptions(
        batch_size=4, optimizer="SGD", momentum=0.9, weight_decay=0.1, average=0.9
    )
    recipe = planned("fashion", options, leaves).recipe
    (stage,) = recipe.stages
    assert (stage.optimizer, stage.options, stage.weight_decay) == ("SGD", {"momentum": 0.9}, 0.1)
    assert recipe.average == 0.9


def test_nothing_is_written_for_options_that_are_refused(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for module, words, message in (
        (job, ["--data", str(grey), "--optimizer", "adam"], "classify: optimizer: got 'adam'"),
        (job, [], "classify: data: got none, expected a prepared dataset"),
        (
            job,
            ["--data", "roots.beton"],
            "classify: roots.beton is not there; make it: ./launch.sh prep roots --source ARCHIVE",
        ),
        (cifar10, ["--data", str(grey), "--batch-size", "4"], "got images of 1 channel"),
    ):
        monkeypatch.setattr(sys, "argv", ["job", *words, "--precision", "no"])
        assert module.main() == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_resumed_with_its_own_dataset(whole: Path, grey: Path, colours: Path) -> None:
    options = ClassifyOptions(resume=whole, data=grey, precision="no")
    with pytest.raises(UserError, match=r"data: got other data than .*petals"):
        classify.run("classify", options)
    classify.run("classify", replace(options, data=colours))  # finished: only read


def test_every_network_can_be_chosen(leaves: Reader) -> None:
    for name in networks.NETWORKS:
        options = ClassifyOptions(network=name, size=320)
        assert planned("classify", options, leaves).network == name
