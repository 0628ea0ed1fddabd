"""Part 2 as its users start it, on rectangles."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from test_html import Parsed
from tiny import CLASSES, write_set

from jobs import part2 as job
from pipeline.analysis.pretraining import ARMS
from pipeline.data.prepare import prepare
from pipeline.data.synth.handwriting import DigitCounts, SyntheticDigits
from pipeline.models import networks
from pipeline.runtime.progress import progress
from pipeline.training import runner as training_run
from pipeline.training.warm_start import weight_distances

JOB = str(Path(job.__file__))
QUICK = ["--epochs", "2", "--digits-epochs", "4", "--size", "16", "--batch-size", "16"]
SMALL = ["--seed", "3", "--network", "small"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("RANK", "COLUMNS")}
TRAININGS = ["digits", "pretrained-3", "scratch-3", "pretrained-4", "scratch-4"]
TWO = [sys.executable, "-m", "accelerate.commands.launch"]
TWO += ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files that the job looks for."""
    folder = tmp_path_factory.mktemp("part2")
    (folder / "data").mkdir()
    write_set(folder / "data" / "part2.beton", train=9, validation=3, digest="sha256:digits")
    write_set(folder / "data" / "mnist.beton", train=16, validation=5, digest="sha256:mnist")
    return folder


def launched(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TWO, JOB, *QUICK, *SMALL, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """The job on these files, in a process of its own."""
    return forked.run([JOB, *QUICK, *SMALL, "--seeds", "2"], folder, ENVIRONMENT)


@pytest.fixture
def run(folder: Path, done: subprocess.CompletedProcess[str]) -> Path:
    """The folder that it left."""
    assert done.returncode == 0, done.stderr
    return (folder / "runs" / "part2" / "latest").resolve()


@pytest.fixture
def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the job in this process, which is quicker to start; return its exit status."""
    monkeypatch.chdir(folder)

    def start(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["part2", *arguments])
        return job.main()

    return start


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def test_every_training_has_its_folder(run: Path) -> None:
    assert sorted(path.name for path in run.iterdir()) == sorted(
        [*TRAININGS, "SHA256SUMS", "config.json", "report.html", "result.json"]
    )
    for name in TRAININGS:
        config = read(run / name / "config.json")
        first = name == "digits"
        assert Path(config["data"]).name == ("part2.beton" if first else "mnist.beton")
        assert config["recipe"]["seed"] == (4 if name.endswith("-4") else 3)
        assert config["recipe"]["stages"][0]["epochs"] == (4 if first else 2)
        starts = name.startswith("pretrained")
        assert config["start"] == (f"runs/part2/{run.name}/digits" if starts else None)
        assert (config["learn_from"], config["validate_on"]) == ("train", "validation")
        assert not (run / name / "checkpoints").exists()


def test_both_arms_of_a_seed_differ_in_their_first_weights_alone(run: Path) -> None:
    ours, theirs = (read(run / f"{arm}-4" / "config.json") for arm in ARMS)
    assert ours.pop("start") != theirs.pop("start")
    assert ours == theirs


def test_starts_are_measured_on_the_first_weights(run: Path) -> None:
    figures = {
        one["name"]: one
        for kind in ("progress", "movement")
        for one in read(run / "result.json")["analysis"][kind]
    }
    digits = networks.build("small", len(CLASSES), 0)
    digits.load_state_dict(load_file(run / "digits" / "model.safetensors"))
    for place, seed in enumerate((3, 4)):
        for arm, first in (
            ("pretrained", digits),
            ("scratch", networks.build("small", len(CLASSES), seed)),
        ):
            last = load_file(run / f"{arm}-{seed}" / "model.safetensors")
            assert figures["whole moved"][arm][place] == weight_distances(first, last)["whole"]
            assert figures["head moved"][arm][place] > 0
    before = figures["accuracy before step 1"]
    assert before["pretrained"][0] == before["pretrained"][1]  # one network on one set


def test_the_result_has_the_accuracies_of_the_trainings(run: Path) -> None:
    result = read(run / "result.json")
    analysis = result["analysis"]
    assert (analysis["seeds"], analysis["epochs"]) == ([3, 4], 2)
    assert list(result["trainings"]) == TRAININGS
    for arm in ARMS:
        assert analysis["end"][0][arm] == [
            read(run / f"{arm}-{seed}" / "result.json")["accuracy"] for seed in (3, 4)
        ]
    assert result["mnist"]["learned"] == 16 * len(CLASSES)
    assert result["mnist"]["validated"] == 5 * len(CLASSES)
    assert result["provenance"]["digest"] == "sha256:mnist"
    assert result["digits"]["provenance"]["digest"] == "sha256:digits"


def test_terminal_and_page_show_the_answer(
    done: subprocess.CompletedProcess[str], run: Path
) -> None:
    answer = read(run / "result.json")["analysis"]["answer"]
    assert done.stdout.splitlines()[-2:] == [answer, f"runs/part2/{run.name}/report.html"]
    splits = "part2: MNIST: trained on train, validated on validation; runs/part2/"
    assert done.stdout.count(splits) == 1
    assert done.stdout.count("epoch 2 of 2") == 4
    assert "accuracy at the end (%)" in done.stdout
    words = Parsed((run / "report.html").read_text()).words
    assert answer in words["p"]


def stop_in(
    monkeypatch: pytest.MonkeyPatch, training: str, steps: int, number: signal.Signals
) -> None:
    """Let a signal arrive after so many steps of a training."""

    @contextmanager
    def signalling(console: Console, label: str, total: int) -> Iterator[Callable[[int], None]]:
        seen = []

        def on_step(images: int) -> None:
            seen.append(images)
            if label == training and len(seen) == steps:
                os.kill(os.getpid(), number)

        with progress(console, label, total):
            yield on_step

    monkeypatch.setattr(training_run, "progress", signalling)


def assert_equal_results(run: Path, other: Path) -> None:
    """Hold two runs' weights, and the figures that no clock decides, against each other."""
    for name in TRAININGS:
        ours, theirs = (load_file(one / name / "model.safetensors") for one in (run, other))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    ours, theirs = (read(one / "result.json")["analysis"] for one in (run, other))
    for kind in ("end", "progress", "movement"):
        assert ours[kind] == theirs[kind]


@pytest.mark.parametrize(
    ("training", "number"), [("digits", signal.SIGINT), ("scratch-3", signal.SIGTERM)]
)
def test_a_run_that_a_signal_stopped_is_resumed(
    training: str,
    number: signal.Signals,
    run: Path,
    start: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = (*QUICK, *SMALL, "--seeds", "2")
    with pytest.MonkeyPatch.context() as patch:
        stop_in(patch, training, 1, number)
        assert start(*settings, "--runs", str(tmp_path)) == 128 + number
    (stopped,) = (tmp_path / "part2").iterdir()
    error = capsys.readouterr().err
    assert error == (
        f"part2: stopped by {number.name} after step 1; resume: ./launch.sh train part2 --resume "
        f"{stopped}\n"
    )
    assert start("--resume", str(stopped)) == 0
    assert f"{training}: resumes after step 1" in capsys.readouterr().out
    assert (tmp_path / "part2" / "latest").readlink() == Path(stopped.name)
    assert_equal_results(stopped, run)


def killed(folder: Path, training: str, steps: int, *arguments: str) -> None:
    """Run the job until it is killed, after so many steps of a training."""
    os.chdir(folder)
    stop_in(pytest.MonkeyPatch(), training, steps, signal.SIGKILL)
    sys.argv = ["part2", *arguments]
    job.main()


def test_a_run_that_was_killed_is_resumed(
    run: Path,
    folder: Path,
    start: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = (*QUICK, *SMALL, "--seeds", "2")
    process = forked.CONTEXT.Process(
        target=killed, args=(folder, "scratch-3", 6, *settings, "--runs", str(tmp_path))
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = (tmp_path / "part2").iterdir()
    assert not (left / "result.json").exists()
    assert start("--resume", str(left)) == 0
    out = capsys.readouterr().out
    assert "scratch-3: resumes after step 4" in out  # that of its first epoch's end
    assert "pretrained-3:" not in out
    assert "pretrained-4:" in out
    assert_equal_results(left, run)


def test_a_finished_run_is_only_read(
    run: Path,
    folder: Path,
    tmp_path: Path,
    start: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    copied = shutil.copytree(run, tmp_path / "part2" / "copied")
    for config in copied.glob("pretrained-*/config.json"):  # the original is gone
        config.write_text(config.read_text().replace(str(run.resolve()), str(tmp_path / "gone")))
        config.write_text(config.read_text().replace(run.resolve().name, "gone"))
        config.with_name("SHA256SUMS").unlink()
    (copied.parent / "latest").symlink_to("copied")
    (copied / "report.html").unlink()
    (copied / "result.json").unlink()
    moved = shutil.copy(folder / "data" / "mnist.beton", tmp_path / "moved.beton")
    resume = ["--resume", str(copied.parent / "latest" / "scratch-4")]
    assert start(*resume, "--digits", str(moved)) == 2
    assert "part2: digits: got other data than" in capsys.readouterr().err
    assert start(*resume, "--mnist", str(moved)) == 0
    assert (copied / "report.html").exists()
    assert (copied.parent / "latest").readlink() == Path("copied")
    out = capsys.readouterr().out
    assert "epoch" not in out.partition("Part 2:")[0]
    assert read(copied / "result.json")["analysis"] == read(run / "result.json")["analysis"]


def test_two_processes_do_the_same(folder: Path, tmp_path: Path) -> None:
    done = launched(folder, "--seeds", "1", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "part2" / "latest"
    assert list(read(run / "result.json")["trainings"]) == TRAININGS[:3]
    assert read(run / "scratch-3" / "environment.json")["processes"] == 2
    assert done.stdout.count("epoch 2 of 2") == 2


def test_a_test_split_is_validated_on(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standard = tmp_path / "standard.beton"
    prepare(SyntheticDigits(DigitCounts(60, 20, 0)), standard)
    arguments = ["--digits", str(standard), "--mnist", str(standard), "--seeds", "1"]
    assert start(*QUICK, *arguments, "--runs", str(tmp_path)) == 0
    assert "trained on train+validation, validated on test" in capsys.readouterr().out
    run = tmp_path / "part2" / "latest"
    mnist = read(run / "result.json")["mnist"]
    assert (mnist["learned"], mnist["validated"]) == (60, 20)
    config = read(run / "scratch-0" / "config.json")
    assert config["network"] == ("resnet18" if torch.cuda.is_available() else "plain")
    assert (config["learn_from"], config["validate_on"]) == ("train+validation", "test")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--digits", "no.beton"], "no.beton is not there; make it: ./launch.sh prep part2"),
        (["--mnist", "no.beton"], "no.beton is not there; make it: ./launch.sh prep mnist"),
        (["--digits", "other.beton"], "digits: other.beton has the classes A, m; expected those"),
        (["--mnist", "all.beton"], "mnist: all.beton has neither a test nor a validation split"),
        ([], "batch_size: got 128, expected at most 64"),
        (["--seeds", "0"], "seeds: got 0, expected at least 1"),
        (["--epochs", "0"], "epochs: got 0, expected 1"),
        (["--size", "8"], "size: got 8, expected 16"),
        (["--resume", "nowhere"], "nowhere: not a run directory: there is no such folder"),
        (["--resume", "nowhere", "--seeds", "3"], "seeds: a resumed run has its own options"),
    ],
)
def test_invalid_options_are_one_line(
    folder: Path,
    start: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    write_set(folder / "other.beton", classes=("A", "m"))
    write_set(folder / "all.beton", validation=0)
    before = sorted(folder.rglob("*"))
    assert start(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("part2: ")
    assert reason in line
    assert sorted(folder.rglob("*")) == before


def test_help_names_every_option(
    start: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        start("--help")
    assert done.value.code == 0
    text = capsys.readouterr().out
    names = [field.name.replace("_", "-") for field in fields(job.Config)]
    assert [name for name in names if f"--{name}" not in text] == []
