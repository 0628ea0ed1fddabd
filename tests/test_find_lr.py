"""find-lr: the range test on its own, and train --learning-rate find."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from job_started import ENVIRONMENT
from PIL import Image
from safetensors.torch import load_file
from tiny import write_set

from beton.reader import Reader
from jobs import classify as train_job
from jobs.tools import find_lr as job
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.experiments import classify, find_lr
from pipeline.experiments.find_lr import WITHOUT_EFFECT, RangeTest
from pipeline.experiments.options import Options, Part1Options
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.presets import Preset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.recipes.systems import SYSTEMS
from pipeline.reporting.lr_range import COLUMNS, range_chart
from pipeline.training.lr_range import LrRange, _smoothed, suggest, with_found_rate

JOB, TRAIN = str(Path(job.__file__)), str(Path(train_job.__file__))
NETWORK = ["--network", "small", "--size", "16", "--batch-size", "8", "--precision", "no"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/leaves.beton, and the run of a training with `find`."""
    folder = tmp_path_factory.mktemp("find")
    (folder / "data").mkdir()
    write_set(folder / "data" / "leaves.beton", train=12, validation=3)
    words = [TRAIN, "--data", "data/leaves.beton", *NETWORK, "--epochs", "1"]
    done = forked.run([*words, "--learning-rate", "find"], folder, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "by a range test; 0.005 in the recipe" in done.stdout
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_train_finds_the_rate_that_find_lr_does_and_stores_it(folder: Path) -> None:
    trained = folder / "runs" / "leaves"
    before, latest = files_of(trained), (trained / "latest").readlink()
    done = forked.run([JOB, "leaves", *NETWORK], folder, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert files_of(trained) == before
    assert (trained / "latest").readlink() == latest
    found = json.loads((folder / "runs/find-lr/leaves/latest/result.json").read_text())
    config = json.loads((trained / "latest" / "config.json").read_text())
    result = json.loads((trained / "latest" / "result.json").read_text())
    rate = config["recipe"]["stages"][0]["learning_rate"]
    assert rate == config["found_rate"] == result["found_learning_rate"] == found["steepest"]
    kept = json.loads((trained / "latest" / "lr_range.json").read_text())
    assert kept["losses"] == found["losses"]
    assert RunDir(trained / "latest").config().training.found_rate == rate
    for place in (trained / "latest", folder / "runs/find-lr/leaves/latest"):
        with Image.open(place / "lr_range.png") as image:
            assert np.asarray(image.convert("L")).std() > 5
    assert f"--learning-rate {found['steepest']:.3g}" in done.stdout
    assert {"▲ steepest", "▲ valley"} <= {
        line.strip().rsplit(" ", 1)[0] for line in done.stdout.splitlines() if "▲" in line
    }


def test_a_training_with_find_is_that_with_the_number(folder: Path, tmp_path: Path) -> None:
    found = RunDir(folder / "runs" / "leaves" / "latest")
    rate = found.config().found_rate
    words = [TRAIN, "--data", str(folder / "data" / "leaves.beton"), *NETWORK, "--epochs", "1"]
    done = forked.run([*words, "--learning-rate", repr(rate)], tmp_path, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    ours, others = (
        load_file(path / "runs" / "leaves" / "latest" / "model.safetensors")
        for path in (folder, tmp_path)
    )
    assert all(torch.equal(ours[name], others[name]) for name in others)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name: got none, expected a job or a dataset"),
        (["part2"], "part2: got a job of several trainings"),
        (["leaves", "--epochs", "3"], "epochs: has no effect on a learning rate range test"),
        (["leaves", "--watch"], "watch: has no effect"),
        (["leaves", "--stage", "2"], "stage: got 2, expected 1: the recipe has one stage"),
        (["leaves", "--steps", "1"], "steps: got 1, expected at least 20"),
        (["leaves", "--start", "nowhere"], "nowhere: not a run directory"),
        (["runs/part1/latest"], "name: got 'runs/part1/latest', expected part1, emnist"),
        (["leaves.beton"], "name: got 'leaves.beton', expected part1"),
        (["roots"], "data/roots.beton is not there; make it: ./launch.sh prep roots"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    words: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = {*folder.rglob("*")}
    monkeypatch.setattr(sys, "argv", [JOB, *words, *(["--precision", "no"] if words else [])])
    assert job.main() == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {*folder.rglob("*")} == before


def test_options_without_effect_exist() -> None:
    assert {*WITHOUT_EFFECT} <= set(vars(Options()))


@pytest.fixture
def leaves(folder: Path) -> Iterator[Reader]:
    with open_dataset(folder / "data" / "leaves.beton") as file:
        yield file


def test_a_stage_is_tested_alone_from_given_weights(
    leaves: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (Stage(16, 1, 1e-2), Stage(24, 1, (1e-4, 1e-3), frozen=1))
    preset = Preset("small", Recipe(stages, batch_size=8))
    monkeypatch.setitem(SYSTEMS["part1"].recipes, "fast", preset)
    tested: list[TrainingConfig] = []

    def test(training: TrainingConfig, *_: object) -> LrRange:
        tested.append(training)
        return suggest([1e-3, 1e-2, 1e-1, 1.0], [2.0, 1.5, 1.0, 3.0])

    monkeypatch.setattr(classify, "find_rate", test)
    options = Part1Options(data=Path(leaves.path), precision="no")
    start = Path(leaves.path).parents[1] / "runs" / "leaves"
    find_lr.run("part1", options, RangeTest(2, 50, start), tmp_path)
    (training,) = tested
    assert training.recipe.stages == stages[1:]
    assert training.start == (start / "latest").resolve()
    config = json.loads((tmp_path / "find-lr/part1/latest/config.json").read_text())
    assert (config["stage"], config["steps"]) == (2, 50)


def test_the_found_rate_keeps_the_ratios_of_layer_rates() -> None:
    found = LrRange((), (), steepest=0.6, valley=0.1)
    stage = Stage(16, 1, (0.1, 0.2, 0.4))
    training = TrainingConfig("small", Recipe((stage,)))
    several = with_found_rate(training, found)
    assert several.recipe.stages[0].rates == pytest.approx((0.15, 0.3, 0.6))
    recipe = Recipe((replace(stage, learning_rate=0.1),))
    one = with_found_rate(replace(training, recipe=recipe), found)
    assert one.recipe.stages[0].learning_rate == 0.6
    assert one.found_rate == several.found_rate == 0.6


def test_smoothing_does_not_lag_and_huge_last_losses_do_not_reach_back() -> None:
    steps = np.arange(100)
    falls = 3 - 2 / (1 + np.exp(-(steps - 50) / 4))  # steepest at 50
    smoothed = _smoothed(falls.tolist(), 5)
    assert len(smoothed) == 100
    assert int(np.argmin(np.gradient(smoothed))) == pytest.approx(50, abs=1)
    falls[-3:] = 1e9
    assert int(np.argmin(_smoothed(falls.tolist(), 5))) > 85
    assert _smoothed([], 5) == []
    assert _smoothed([1.0, 1.0], 5) == pytest.approx([1.0, 1.0])


def test_the_chart_has_the_shape_of_the_losses() -> None:
    rates = np.geomspace(1e-6, 10, 150).tolist()
    losses = [*np.linspace(2, 1, 100), *np.linspace(1, 9, 50)]
    found = suggest(rates, losses)
    lines = range_chart(found).splitlines()
    assert lines[0].startswith("   2.1 │")
    bars = [line.split("│")[1] for line in lines if "│" in line]
    assert {len(bar) for bar in bars} == {COLUMNS}
    heights = [sum(bar[place] != " " for bar in bars) for place in range(COLUMNS)]
    assert heights[0] > heights[20] > heights[37] == 1
    assert heights[-1] == len(bars)
