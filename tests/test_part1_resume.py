"""Part 1's job, interrupted in several ways and resumed, in processes of its own."""

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from job_started import (
    ENVIRONMENT,
    JOB,
    QUICK,
    folder_of_the_run,
    lines_of,
    refusal,
    run_job,
)
from safetensors.torch import load_file
from tiny import write_set

from jobs import part1
from pipeline.experiments import classify
from pipeline.training.trainer import Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "tiny.beton", train=9, validation=5)


@pytest.mark.parametrize(
    ("processes", "number", "resumers"),
    [
        pytest.param(1, signal.SIGINT, 2, id="1 to 2, SIGINT"),
        pytest.param(2, signal.SIGTERM, 1, id="2 to 1, SIGTERM"),
    ],
)
def test_a_signal_stops_it_and_any_number_of_processes_resumes_it(
    processes: int, number: int, resumers: int, data: Path, tmp_path: Path
) -> None:
    words = [JOB, "--data", str(data), *QUICK, "--epochs", "400"]
    with forked.started(processes, words, tmp_path, ENVIRONMENT) as training:
        training.wait_for("epoch 3 of 400")
        training.send(number)
        stopped = training.wait()
    err = "".join(one.stderr for one in stopped)
    run = folder_of_the_run(tmp_path)
    relative = run.relative_to(tmp_path)
    assert f"stopped by {signal.Signals(number).name} after step" in err
    assert f"resume: ./launch.sh train part1 --resume {relative}" in err
    assert err.count("\n") == 1
    assert [one.returncode for one in stopped] == [128 + number] * processes
    assert not (run / "result.json").exists()
    assert not (run.parent / "latest").exists()

    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"epochs": 400', '"epochs": 20'))
    resumed = forked.run_together(resumers, [JOB, "--resume", relative], tmp_path, ENVIRONMENT)
    assert [one.returncode for one in resumed] == [0] * resumers, resumed[0].stderr
    assert "".join(one.stdout for one in resumed).count("training: resumes after step") == 1
    assert [one["epoch"] for one in lines_of(run)] == list(range(20))
    assert json.loads((run / "result.json").read_text())["images"] == 20 * 32


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the job ran, and was not ended before its end."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_job(["--data", str(data), *QUICK], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("owner", "call", "number", "words"),
    [
        (Trainer, "_restore", signal.SIGTERM, "stopped by SIGTERM"),
        (Trainer, "predict_test", signal.SIGUSR1, "stopped by SIGUSR1"),
        (classify, "plot_run", signal.SIGINT, "interrupted"),
    ],
)
def test_a_signal_before_or_after_the_steps_says_how_to_resume(
    owner: Any,
    call: str,
    number: signal.Signals,
    words: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """While the last checkpoint is loaded, test samples are predicted, or plots are written."""
    original = getattr(owner, call)

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(number)
        return original(*arguments)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(owner, call, interrupted)
    monkeypatch.setattr(sys, "argv", [JOB, "--data", str(data), *QUICK, "--epochs", "1"])
    assert part1.main() == 128 + number
    run = folder_of_the_run(tmp_path).relative_to(tmp_path)
    hint = f"resume: ./launch.sh train part1 --resume {run}"
    assert capfd.readouterr().err == f"part1: {words}; {hint}\n"


def test_a_run_in_two_pieces_is_the_run_in_one(whole: Path, data: Path, tmp_path: Path) -> None:
    words = [JOB, "--data", str(data), *QUICK, "--checkpoint-steps", "1"]
    with forked.started(1, words, tmp_path, ENVIRONMENT) as training:
        training.wait_for("epoch 2 of")
        training.send(signal.SIGKILL)
        training.wait()
    done = run_job(["--resume", str(folder_of_the_run(tmp_path))], tmp_path)
    assert done.returncode == 0, done.stderr
    (weights, epochs), (others, other_epochs) = (
        (
            load_file(folder_of_the_run(folder) / "model.safetensors"),
            [{**one, "seconds": 0} for one in lines_of(folder_of_the_run(folder))],
        )
        for folder in (whole, tmp_path)
    )
    assert epochs == other_epochs
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_finished_run_is_only_read(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, symlinks=True, dirs_exist_ok=True)
    again = run_job(["--resume", "runs/part1/latest"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("loader share") == 1
    assert "epoch 1 of" not in again.stdout
    run = folder_of_the_run(tmp_path)
    assert (run.parent / "latest").readlink() == Path(run.name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--resume", "runs/part1/latest", "--epochs", "3"],
            "epochs: a resumed run has its own options",
        ),
        (
            ["--resume", "other"],
            "other: got a run directory of part3, expected part1",
        ),
        (["--resume", "cut"], "cut/config.json: damaged: "),
        (["--resume", "list"], "list/config.json: got a list, expected an object"),
        (["--resume", "nowhere"], "nowhere: not a run directory: there is no such folder"),
    ],
)
def test_a_resumed_run_has_its_own_options(
    options: list[str],
    message: str,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(whole)
    for name, text in (("other", '{"job": "part3"}'), ("cut", '{"job'), ("list", "[]")):
        Path(name).mkdir(exist_ok=True)
        (Path(name) / "config.json").write_text(text)
    assert message in refusal(options, monkeypatch, capsys)


def test_runs_from_before_auxiliary_datasets_are_resumed(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, symlinks=True, dirs_exist_ok=True)
    run = folder_of_the_run(tmp_path)
    for name in ("result.json", "SHA256SUMS"):
        (run / name).unlink()
    config = json.loads((run / "config.json").read_text())
    del config["auxiliary"], config["recipe"]["auxiliary"]
    (run / "config.json").write_text(json.dumps(config))
    done = run_job(["--resume", str(run)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "result.json").read_text())["auxiliary"] is None
