"""The job as its users start it: subprocesses, through the real `accelerate launch`."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_together
from job_started import (
    ENVIRONMENT,
    JOB,
    LAUNCH,
    QUICK,
    TWO,
    UNTOLD,
    folder_of_the_run,
    lines_of,
    refusal,
    run_job,
    start,
)
from PIL import Image
from safetensors.torch import load_file
from tiny import CLASSES, write_set

from jobs import part1
from pipeline.data.prepare import prepare
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.experiments.options import Part1Options
from pipeline.recipes import presets
from pipeline.runtime.hardware import precision_for


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 22 to validate: two processes' batches are padded, unequally.
    return write_set(tmp_path_factory.mktemp("set") / "tiny.beton", train=9, validation=5)


AUTO = precision_for(torch.device("cpu"))
OTHER = "no" if AUTO == "bf16" else "bf16"


@pytest.mark.parametrize(
    ("launcher", "precision"),
    [([*LAUNCH, "--mixed_precision", OTHER], OTHER), (TWO, AUTO)],
    ids=["one process", "two processes"],
)
def test_it_trains_and_leaves_a_run(
    launcher: list[str], precision: str, data: Path, tmp_path: Path
) -> None:
    # Threads that wait leave the cores to other tests.
    environment = UNTOLD | {"OMP_WAIT_POLICY": "PASSIVE"}
    words = [JOB, "--data", str(data), *QUICK, "--epochs", "3"]
    done = start([*launcher, *words], tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 3 of 3") == 1
    assert done.stdout.count("loader share") == 1

    latest = tmp_path / "runs" / "part1" / "latest"
    assert latest.is_symlink()
    assert sorted(path.name for path in latest.iterdir()) == [
        "SHA256SUMS",
        "answers.safetensors",
        "batch.png",
        "checkpoints",
        "config.json",
        "confusion.png",
        "curves.png",
        "environment.json",
        "framing.json",
        "losses.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "result.json",
        "scores.json",
        "view.json",
        "worst.png",
    ]
    assert sorted(path.name for path in latest.parent.iterdir()) == [
        latest.readlink().name,
        "latest",
    ]

    result, epochs = json.loads((latest / "result.json").read_text()), lines_of(latest)
    assert [one["epoch"] for one in epochs] == list(range(3))
    assert result["epochs"] == 3
    assert result["images"] == 3 * 32
    assert result["samples"] == 5 * len(CLASSES)  # each once, however many processes
    assert result["accuracy"] == epochs[-1]["accuracy"]
    assert result["loss"] == pytest.approx(epochs[-1]["loss"])
    assert 0 < result["seconds_training"] < result["seconds_in_all"]
    assert 0 <= result["loader_share"] <= 1
    assert result["images_per_second"] > 0
    assert result["provenance"]["kind"] == "synthetic"

    environment = json.loads((latest / "environment.json").read_text())
    assert environment["precision"] == precision  # the launcher's words count
    config = json.loads((latest / "config.json").read_text())
    assert config["network"] == "compact"
    assert config["classes"] == list(CLASSES)
    assert config["recipe"]["batch_size"] == 8
    facts = json.loads((latest / "environment.json").read_text())
    cores = len(os.sched_getaffinity(0))
    processes = 2 if launcher is TWO else 1
    assert (facts["processes"], facts["threads"]) == (processes, max(cores // processes, 1))
    scores = json.loads((latest / "scores.json").read_text())
    assert sum(map(sum, scores["matrix"])) == result["samples"]

    assert load_file(latest / "model.safetensors")
    best = latest / "checkpoints" / "best"
    assert json.loads((best / "score.json").read_text()) == max(one["accuracy"] for one in epochs)
    for figure in ("confusion.png", "curves.png", "worst.png"):
        with Image.open(latest / figure) as image:
            image.verify()


# Trains a network without batch statistics, which alone would tell the number of processes.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from pipeline.loading.augment import Augmentation
from pipeline.training.checkpoint import Checkpoints
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.mixup import Mixing
from pipeline.models.blocks import Network
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.distributed import join_processes
from pipeline.training.trainer import Trainer

torch.manual_seed(0)
stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU())
network = Network(stem, nn.Flatten(), nn.Linear(392, 4))
changes = Augmentation(rotation=5, zoom=0.05, shear=0.1, translation=0.05, elastic=0.02)
stage = Stage(16, 3, 1e-3, augmentation=changes, mixing=Mixing(mixup=0.4, cutmix=0.4), clip=0.5)
recipe = Recipe((stage,), batch_size=16, average=0.9, auxiliary=0.5)
with open_dataset(sys.argv[1]) as file, join_processes("no") as processes:
    checkpoints = Checkpoints(Path(sys.argv[2]), every_steps=3, keep=99)
    if not processes.is_main:
        Checkpoints.late = None  # who saves nothing does not know when it was
    training = Trainer(
        processes, network, recipe, file, auxiliary=file, checkpoints=checkpoints
    )
    training.run()
    if processes.is_main:
        figures = [(e.train_loss, e.train_accuracy, e.loss, e.accuracy) for e in training.history]
        predictions = training.predictions
        print(json.dumps([figures, predictions.ids.tolist(), predictions.logits.tolist()]))
"""


def test_several_processes_train_like_one(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found: list[Any] = []
    for count in (1, 2, 4):
        kept = tmp_path / str(count)
        done = run_together(count, [script, data, kept], tmp_path, ENVIRONMENT)
        assert [one.returncode for one in done] == [0] * count, done[0].stderr
        found.append(json.loads(done[0].stdout))
        steps = sorted(int(path.name[5:]) for path in kept.glob("step-*"))
        assert steps == [3, 4, 6, 8, 9, 12]
    one, ids, logits = found[0]
    assert len(ids) == len(set(ids)) == 5 * len(CLASSES)
    for several, several_ids, several_logits in found[1:]:
        torch.testing.assert_close(torch.tensor(several), torch.tensor(one), rtol=1e-4, atol=1e-5)
        assert several_ids == ids
        torch.testing.assert_close(
            torch.tensor(several_logits), torch.tensor(logits), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", presets.PART1)
def test_every_recipe_runs(name: str, tmp_path: Path) -> None:
    few = CLASSES[:2]  # a step an epoch, of two pictures
    data = write_set(tmp_path / "few.beton", train=1, validation=1, classes=few)
    # What makes a recipe long, besides its epochs.
    small = {"progressive": ["--network", "small"], "baseline": ["--size", "400"]}.get(name, [])
    small += ["--scale", "0.0001", "--batch-size", "2"]
    done = run_job(["--data", str(data), "--recipe", name, *small], tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = presets.PART1[name].recipe
    run = folder_of_the_run(tmp_path)
    assert len(lines_of(run)) == len(recipe.stages)


def test_the_batch_can_be_fitted_to_the_memory(data: Path, tmp_path: Path) -> None:
    options = ["--epochs", "1", "--size", "16", "--batch-size", "auto", "--data", str(data)]
    write_set(tmp_path / "more.beton", train=20)
    options[-1] = "more.beton"
    done = run_job(options, tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((folder_of_the_run(tmp_path) / "config.json").read_text())
    assert (config["recipe"]["batch_size"], config["recipe"]["micro_batch"]) == (64, 64)


def test_an_error_of_the_main_process_is_one_line_of_all(data: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()  # only the main process creates folders
    done = run_together(2, [JOB, "--data", str(data), *QUICK], tmp_path, ENVIRONMENT)
    assert [one.returncode for one in done] == [2, 2]
    assert sorted(one.stderr for one in done) == ["", "part1: runs/part1: Not a directory\n"]
    assert all("Traceback" not in one.stderr for one in done)


@pytest.mark.parametrize("processes", [1, 2])
def test_without_the_given_data_it_prints_once_how_to_make_some(
    processes: int, tmp_path: Path
) -> None:
    done = run_together(processes, [JOB, "--data", "data/part1.beton"], tmp_path, ENVIRONMENT)
    assert [one.returncode for one in done] == [2] * processes
    (line,) = "".join(one.stderr for one in done).splitlines()
    assert "data/part1.beton is not there; make it: ./launch.sh prep part1" in line
    assert [one.stdout for one in done] == [""] * processes
    assert list(tmp_path.iterdir()) == []


def test_part_1_trains_on_synthetic_pages_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        quick = ("--epochs", "2", "--size", "16", "--batch-size", "32")
        return run_job(["--data", "main.beton", *quick, *options], tmp_path)

    for name, writers, seed in (("main", 2, 0), ("other", 3, 1), ("another", 3, 2)):
        prepare(SyntheticPages(writers, seed), tmp_path / f"{name}.beton")
    done = run()
    assert done.returncode == 2
    assert done.stderr == (
        "part1: auxiliary.beton is not there; make it: ./launch.sh prep auxiliary\n"
    )
    assert not (tmp_path / "runs").exists()

    latest, weights = tmp_path / "runs" / "part1" / "latest", []
    # 62 pages to learn from: as many batches of 32, of 16 and again of 16 rows as they fill.
    for name, share, batches in (("other", 0, 1), ("other", 0.5, 3), ("another", 0.5, 3)):
        done = run("--auxiliary", f"{name}.beton", "--auxiliary-share", str(share))
        assert done.returncode == 0, done.stderr
        assert ("auxiliary data" in done.stdout) == (share != 0)
        result = json.loads((latest / "result.json").read_text())
        assert result["images"] == 2 * batches * 32
        assert (result["auxiliary"] is None) == (share == 0)
        weights.append(load_file(latest / "model.safetensors")["head.2.weight"])
    assert not torch.equal(*weights[1:])

    monkeypatch.chdir(tmp_path)
    same = ["--data", "main.beton", "--auxiliary", "main.beton"]
    message = "main.beton has the same images as main.beton"
    assert message in refusal(same, monkeypatch, capsys)
    # The pages of another number of writers have other digests, and the writers of the same seed.
    prepare(SyntheticPages(4, 0), tmp_path / "more.beton")
    message = "more.beton has the synthetic writers of main.beton, those of its validation"
    same[-1] = "more.beton"
    assert message in refusal(same, monkeypatch, capsys)
    # Whoever goes on with a run gets the set that it began with, or hears of it.
    (latest / "result.json").unlink()
    for harm, message in (
        (
            lambda path: shutil.copy(tmp_path / "main.beton", path),
            "the run started with other data",
        ),
        (
            Path.unlink,
            "another.beton is not there, the dataset of runs/part1/latest; if it has moved:",
        ),
    ):
        harm(tmp_path / "another.beton")
        line = refusal(["--resume", "runs/part1/latest"], monkeypatch, capsys)
        assert message in line
        assert "another.beton" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "part1: epochs: got 0, expected 1 to 1000000\n"),
        (["--size", "8"], "part1: size: got 8, expected 16 to 4096\n"),
        (["--seed", "-1"], "part1: seed: got -1, expected 0 to 9223372036854775807\n"),
        (
            ["--batch-size", "99"],
            "part1: batch_size: got 99, expected at most 36 samples\n",
        ),
        (
            ["--auxiliary", "other.beton"],
            "part1: auxiliary: got other.beton, but its default fraction of a batch is 0 for",
        ),
        (
            ["--batch-size", "8", "--keep", "0"],
            "part1: checkpoints, keep: got 0, expected at least 1\n",
        ),
        (
            ["--recipe", "baseline", "--size", "32", "--batch-size", "8"],
            "part1: size: got images of 32×43 pixels, expected at least 281 either way",
        ),
        (["--data", "."], "Is a directory"),
        (["--data", "other.beton"], "part1: other.beton: "),
    ],
)
def test_invalid_options_are_one_line(
    options: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.beton").write_bytes(b"something else")
    assert message in refusal(["--data", str(data), *options], monkeypatch, capsys)
    assert not Path("runs").exists()


def test_help_names_every_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [JOB, "--help"])
    with pytest.raises(SystemExit) as done:
        part1.main()
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert [
        f.name for f in fields(Part1Options) if f"--{f.name.replace('_', '-')}" not in text
    ] == []
