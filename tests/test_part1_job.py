"""The job as its users start it: subprocesses, through the real `accelerate launch`."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import CLASSES, write_set

from jobs import part1

ROOT = Path(__file__).resolve().parents[1]
JOB = str(ROOT / "jobs" / "part1.py")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
TWO = [*LAUNCH, "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
QUICK = ["--epochs", "6", "--size", "16", "--batch-size", "8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 22 to validate: two processes' batches are padded, unequally.
    return write_set(tmp_path_factory.mktemp("set") / "tiny.beton", train=9, validation=5)


def start(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "OMP_NUM_THREADS")}
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("launcher", [LAUNCH, TWO], ids=["one process", "two processes"])
def test_it_trains_and_leaves_a_run(launcher: list[str], data: Path, tmp_path: Path) -> None:
    done = start([*launcher, JOB, "--data", str(data), *QUICK], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 6 of 6") == 1
    assert done.stdout.count("loader share") == 1

    latest = tmp_path / "runs" / "part1" / "latest"
    assert latest.is_symlink()
    assert sorted(path.name for path in latest.iterdir()) == [
        "config.json",
        "confusion.png",
        "curves.png",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "result.json",
        "scores.json",
        "state.pt",
    ]
    assert sorted(path.name for path in latest.parent.iterdir()) == [
        latest.readlink().name,
        "latest",
    ]

    result, epochs = json.loads((latest / "result.json").read_text()), lines_of(latest)
    assert [one["epoch"] for one in epochs] == list(range(6))
    assert result["epochs"] == 6
    assert result["images"] == 6 * 32
    assert result["samples"] == 5 * len(CLASSES)  # each once, however many processes
    assert result["accuracy"] == epochs[-1]["accuracy"]
    assert result["loss"] == pytest.approx(epochs[-1]["loss"])
    assert 0 < result["seconds_training"] < result["seconds_in_all"]
    assert 0 <= result["loader_share"] <= 1
    assert result["images_per_second"] > 0
    assert result["provenance"]["kind"] == "synthetic"

    config = json.loads((latest / "config.json").read_text())
    assert config["network"] == "small"
    assert config["classes"] == list(CLASSES)
    assert config["recipe"]["batch_size"] == 8
    facts = json.loads((latest / "environment.json").read_text())
    cores = len(os.sched_getaffinity(0))
    processes = 2 if launcher is TWO else 1
    assert (facts["processes"], facts["threads"]) == (processes, max(cores // processes, 1))
    scores = json.loads((latest / "scores.json").read_text())
    assert sum(map(sum, scores["matrix"])) == result["samples"]

    assert load_file(latest / "model.safetensors")
    assert torch.load(latest / "state.pt")["epochs"] == 6
    for figure in ("confusion.png", "curves.png"):
        with Image.open(latest / figure) as image:
            image.verify()


# Trains a network without batch statistics, which alone would tell the number of processes.
SCRIPT = """
import json, sys
import torch
from torch import nn
from pipeline.augment import Augmentation
from pipeline.feed import open_set
from pipeline.recipe import Recipe, Stage
from pipeline.train import Training, processes

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 4))
changes = Augmentation(rotation=5, zoom=0.05, shear=0.1, translation=0.05)
recipe = Recipe((Stage(16, 3, 1e-3, augmentation=changes),), batch_size=8)
with open_set(sys.argv[1]) as file, processes("no") as accelerator:
    training = Training(accelerator, network, recipe, file)
    training.run()
    if accelerator.is_main_process:
        figures = [(e.train_loss, e.train_accuracy, e.loss, e.accuracy) for e in training.history]
        answers = training.answers
        print(json.dumps([figures, answers.ids.tolist(), answers.logits.tolist()]))
"""


def test_two_processes_learn_the_same_as_one(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = []
    for launcher in (LAUNCH, TWO):
        done = start([*launcher, str(script), str(data)], tmp_path)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    (one, one_ids, one_logits), (two, two_ids, two_logits) = found
    torch.testing.assert_close(torch.tensor(two), torch.tensor(one), rtol=1e-4, atol=1e-5)
    assert one_ids == two_ids
    assert len(one_ids) == len(set(one_ids)) == 5 * len(CLASSES)
    torch.testing.assert_close(
        torch.tensor(two_logits), torch.tensor(one_logits), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("launcher", [[sys.executable], TWO], ids=["one process", "two processes"])
def test_without_data_it_says_once_how_to_get_some(launcher: list[str], tmp_path: Path) -> None:
    done = start([*launcher, JOB], tmp_path)
    if launcher is not TWO:  # torch's launcher ends with a status and a page of its own
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
    assert done.returncode != 0
    assert done.stderr.count("data/part1.beton is not there; make it: ./launch.sh prep part1") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_set(data: Path, tmp_path: Path) -> None:
    done = start([sys.executable, JOB, "--data", str(data), "--batch-size", "99"], tmp_path)
    assert done.returncode == 2
    assert done.stderr == "part1: batch_size: got 99, expected at most 36, all there is\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "part1: epochs: got 0, expected 1 to 1000000\n"),
        (["--size", "8"], "part1: size: got 8, expected 16 to 4096\n"),
        (["--seed", "-1"], "part1: seed: got -1, expected 0 to 9223372036854775807\n"),
        (["--data", "."], "Is a directory"),
        (["--data", "other.beton"], "part1: other.beton: "),
    ],
)
def test_options_that_make_no_sense(
    options: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.beton").write_bytes(b"something else")
    monkeypatch.setattr(sys, "argv", [JOB, "--data", str(data), *options])
    assert part1.main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
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
        f.name for f in fields(part1.Config) if f"--{f.name.replace('_', '-')}" not in text
    ] == []
