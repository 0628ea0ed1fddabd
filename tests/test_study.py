"""Several trainings in one run directory: planned at once or one by one, and resumed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, write_set

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import CheckpointSchedule, ExperimentConfig, TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.experiments import study
from pipeline.experiments.study import Study, seed_range, whole_run
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.files import read_json
from pipeline.training.distributed import Processes, join_processes

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
