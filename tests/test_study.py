"""Several trainings in one run directory: planned at once or one by one, and resumed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import CLASSES, write_set

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import CheckpointSchedule, ExperimentConfig, TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.experiments import study
from pipeline.experiments.study import Planned, Study, jobs_of, seed_range, whole_run
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.files import read_json
from pipeline.runtime.signals import Stopped
from pipeline.training.distributed import Processes, join_processes

needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
STAGE = Stage(16, 1, 1e-3)
TRAINING = TrainingConfig(
    "small", Recipe((STAGE,), batch_size=8), checkpoints=CheckpointSchedule(keep=1)
)
CONFIG = ExperimentConfig("part9", {"seeds": 2}, CLASSES, {"kind": "synthetic"})


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with join_processes("no") as processes:
        yield processes


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = write_set(tmp_path_factory.mktemp("study") / "tiny.beton", train=4, validation=2)
    with open_dataset(path) as file:
        yield file


def test_planned_trainings_are_all_written_before_the_study(
    processes: Processes, file: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = {
        "first": (TRAINING, file),
        "second": (replace(TRAINING, start=Path("first")), file),
    }
    config = replace(CONFIG, seeds=(3,), trainings=("first", "second"))
    made = Study.new(tmp_path, processes, "auto", config, planned)
    assert made.path.parent == tmp_path / "part9"
    assert Study(made.path, processes, "auto").config == config
    assert RunDir(made.path / "second").config().training.start == made.path / "first"

    moved = made.path.rename(tmp_path / "moved")
    starts = []
    monkeypatch.setattr(study, "run_training", lambda *given, **_: starts.append(given[2].start))
    Study(moved, processes, "auto").train("second", file)
    assert starts == [moved / "first"]  # not that of another copy

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "_configure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Study.new(tmp_path / "other", processes, "auto", config, planned)
    (run,) = (tmp_path / "other" / "part9").iterdir()
    with pytest.raises(UserError, match=r"not a run directory: it has no config.json"):
        Study(run, processes, "auto")


def test_a_training_keeps_the_plan_that_it_began_with(
    processes: Processes, file: Reader, tmp_path: Path
) -> None:
    made = Study.new(tmp_path, processes, "auto", CONFIG)
    assert set(made.config.trainings) == set()
    assert "trainings" not in read_json(made.path, "config.json")
    first = made.train("one", file, TRAINING)
    assert first.config.options == CONFIG.options
    other = replace(TRAINING, recipe=replace(TRAINING.recipe, seed=5))
    (first.path / "result.json").unlink()  # as if it were interrupted
    again = Study(made.path, processes, "loader").train("one", file, other)
    assert again.config.recipe.seed == 0
    assert all(torch.equal(again.weights[name], value) for name, value in first.weights.items())
    written = (first.path / "model.safetensors").stat().st_mtime_ns
    made.train("one", file)
    assert (first.path / "model.safetensors").stat().st_mtime_ns == written


@needs_two_cores
def test_trainings_side_by_side_are_those_in_turn(
    processes: Processes,
    file: Reader,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    long = replace(TRAINING, recipe=replace(TRAINING.recipe, stages=(replace(STAGE, epochs=9),)))
    other = replace(long, recipe=replace(long.recipe, seed=5))
    planned = [Planned("one", file, long), Planned("two", file, other)]
    in_turn = Study.new(tmp_path / "in-turn", processes, "auto", CONFIG)
    expected = [run.weights for run in in_turn.train_all(planned)]

    made = Study.new(tmp_path, processes, "auto", CONFIG, jobs=2)

    def stop_when_both_train() -> None:
        while len(list(made.path.glob("*/framing.json"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_both_train)
    stopper.start()
    stopped = pytest.raises(Stopped, match=r"stopped by SIGTERM after \d of 2 trainings")
    with made.exclusive(), stopped:
        list(made.train_all(planned))
    stopper.join()
    # A child that had finished before the signal reached it is only read.
    resumed = Study(made.path, processes, "auto", jobs=2)
    with resumed.exclusive():
        weights = [run.weights for run in resumed.train_all(planned)]
    for ours, theirs in zip(weights, expected, strict=True):
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    lines = capfd.readouterr().out.splitlines()
    assert lines.count(f"two: starts; output: {made.path / 'two' / 'output.txt'}") == 2
    assert lines[-2:] in (["one: done", "two: done"], ["two: done", "one: done"])
    assert "epoch 9 of 9" in (made.path / "two" / "output.txt").read_text()


@needs_two_cores
def test_a_failed_training_does_not_stop_the_one_beside_it(
    processes: Processes, file: Reader, tmp_path: Path
) -> None:
    gone = write_set(tmp_path / "gone.beton", train=4, validation=2, classes=("A", "m"))
    made = Study.new(tmp_path, processes, "auto", CONFIG, jobs=2)
    with open_dataset(gone) as other:
        planned = [Planned("bad", other, TRAINING), Planned("good", file, TRAINING)]
        gone.unlink()
        with made.exclusive(), pytest.raises(UserError) as caught:
            list(made.train_all(planned))
    assert str(caught.value) == (
        f"1 of 2 trainings failed, the last one: bad: failed: part9: {gone} is not there; make "
        f"it: ./launch.sh prep gone; resume: ./launch.sh train part9 --resume {made.path}"
    )
    assert RunDir(made.path / "good").finished


def test_by_default_each_gpu_has_a_training(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Simulated: the GPUs and the cores.
    assert jobs_of(None, processes) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    gpu: Any = SimpleNamespace(count=1, device=torch.device("cuda:0"))
    assert jobs_of(None, gpu) == 4
    assert jobs_of(2, gpu) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    assert jobs_of(None, gpu) == 3
    with pytest.raises(UserError, match="jobs: got 4, expected 1 to 3, the number of cores"):
        jobs_of(4, gpu)
    several: Any = SimpleNamespace(count=2, device=torch.device("cuda:0"))
    assert jobs_of(None, several) == 1
    with pytest.raises(UserError, match="jobs: got 3 and 2 processes, expected one of them"):
        jobs_of(3, several)


def test_a_link_and_a_training_lead_to_the_whole_run(tmp_path: Path) -> None:
    run = tmp_path / "part9" / "then"
    (run / "one").mkdir(parents=True)
    RunDir(run).write_json("config.json", {})
    RunDir(run).link_latest()
    for path in (run, run / "one", run.parent / "latest", run.parent / "latest" / "one"):
        assert whole_run(path) == run


def test_seeds_follow_the_first() -> None:
    assert [*seed_range(3, 2)] == [3, 4]
    with pytest.raises(UserError, match="seeds: got 0, expected at least 1"):
        seed_range(3, 0)
