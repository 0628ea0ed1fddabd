"""Part 3 as its users start it: on rectangles whose labels are all wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from test_html import Parsed
from tiny import CLASSES, page, write_set

from jobs import part3 as job
from pipeline.data.base import TRAIN, VALIDATION, Annotations, Ints, Pixels, Source
from pipeline.data.prepare import prepare
from pipeline.data.synth.mislabel import LabelNoise, MislabelledSource
from pipeline.evaluation.run_dir import RunDir
from pipeline.recipes.arms import PART3_ARMS, ArmSpec
from pipeline.recipes.presets import PART3_RECOVERY

JOB = Path(job.__file__)
QUICK = ["--epochs", "6", "--size", "16", "--batch-size", "16"]
WAYS = ("naive", "forward", "complementary", "ceiling")


class Rectangles(Source):
    """Those of the tiny set, so many of each class; `first` tells one set from another."""

    kind = looks_for = "rectangles"
    origin = "synthetic"
    path = Path("rectangles")

    def __init__(self, first: int, train: int, validation: int) -> None:
        self._first, count = first, len(CLASSES)
        self.annotations = Annotations.of(
            CLASSES,
            np.tile(np.arange(count), train + validation),
            splits=np.repeat([TRAIN, VALIDATION], [train * count, validation * count]),
        )

    def name(self, index: int) -> str:
        return f"{index}.png"

    def image(self, index: int) -> Pixels:
        number, label = divmod(index, len(CLASSES))
        return page(CLASSES[label], self._first + number)

    def size(self, rows: Ints) -> int:
        return len(rows)

    def digest(self) -> str:
        return f"sha256:{self._first}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files that the job looks for."""
    folder = tmp_path_factory.mktemp("part3")
    wrong = MislabelledSource(Rectangles(0, 44, 40), LabelNoise("wrong"))
    prepare(wrong, folder / "data" / "part3.beton")
    prepare(Rectangles(1000, 44, 20), folder / "data" / "mnist.beton")
    return folder


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """The job on these files, without part 2."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "COLUMNS")}
    arguments = ["--arms", "simple", "digits", "--seeds", "2"]
    return subprocess.run(
        [sys.executable, str(JOB), *QUICK, *arguments],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def run(folder: Path, done: subprocess.CompletedProcess[str]) -> Path:
    """The folder that it left."""
    assert done.returncode == 0, done.stderr
    return (folder / "runs" / "part3" / "latest").resolve()


def start(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    """Run the job in this process, which is quicker to start."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["part3", *arguments])
    return job.main()


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def test_it_diagnoses_and_recovers(run: Path) -> None:
    result = result_of(run)
    assert result["diagnosis"]["kind"] == "wrong"
    assert result["diagnosis"]["verdict"].startswith("Every label is incorrect")
    accuracies = result["recovery"]["accuracies"]
    assert list(accuracies) == ["naive", "backwards", "forward", "complementary", "ceiling"]
    assert all(len(of_seeds) == 2 for of_seeds in accuracies.values())
    assert max(accuracies["naive"]) < 0.1
    assert min(accuracies["forward"]) > 0.9
    assert min(accuracies["ceiling"]) > 0.9
    assert result["arms"]["simple"]["accuracy"] < 0.1
    assert result["pictures"] == 44 * 4
    assert result["held_out"] == 40 * 4
    assert (result["test"]["split"], result["test"]["pictures"]) == ("validation", 20 * 4)


def test_every_training_has_its_folder(run: Path) -> None:
    trainings = ["simple", *(f"{way}-{seed}" for way in WAYS for seed in (0, 1))]
    files = ["SHA256SUMS", "config.json", "folders.png", "report.html", "result.json"]
    assert sorted(path.name for path in run.iterdir()) == sorted([*files, *trainings])
    for name in trainings:
        config = json.loads((run / name / "config.json").read_text())
        (stage,) = config["recipe"]["stages"]
        own = Path(config["data"]).name
        assert own == ("mnist.beton" if name.startswith("ceiling") else "part3.beton")
        assert config["recipe"]["seed"] == (1 if name.endswith("-1") else 0)
        kind = {"forward": "forward", "complementary": "complementary"}
        assert stage["loss"]["kind"] == kind.get(name[:-2], "cross-entropy")
    with Image.open(run / "folders.png") as image:
        image.verify()


def test_the_corrected_loss_has_the_verdict_s_matrix(run: Path) -> None:
    config = json.loads((run / "forward-1" / "config.json").read_text())
    matrix = config["recipe"]["stages"][0]["loss"]["transition"]
    assert matrix == result_of(run)["diagnosis"]["forward"]
    assert [row[place] for place, row in enumerate(matrix)] == [0] * 4


def test_accuracies_are_those_of_the_saved_predictions(run: Path) -> None:
    for way in WAYS:
        for seed in (0, 1):
            kept = load_file(run / f"{way}-{seed}" / "test.safetensors")
            share = float((kept["logits"].argmax(1) == kept["labels"]).float().mean())
            accuracies = result_of(run)["recovery"]["accuracies"]
            assert accuracies[way][seed] == pytest.approx(share)


def test_the_terminal_shows_the_diagnosis(
    done: subprocess.CompletedProcess[str], run: Path
) -> None:
    missing = "left out: runs/part2/latest/digits is no finished run (./launch.sh train part2)"
    assert missing in done.stdout.splitlines()
    last, page_at = done.stdout.splitlines()[-2:]
    diagnosis = result_of(run)["diagnosis"]
    assert last == f"{diagnosis['verdict']} {diagnosis['assumption']}"
    assert page_at == f"runs/part3/{run.name}/report.html"
    assert "forward-corrected" in done.stdout
    assert done.stdout.count("epoch 6 of 6") == 9


def test_the_page_shows_the_result(run: Path) -> None:
    text = (run / "report.html").read_text()
    words = " ".join(" ".join(some) for some in Parsed(text).words.values())
    result = result_of(run)
    assert result["diagnosis"]["verdict"] in words
    assert f"{100 * result['recovery']['estimates']['forward']['mean']:.2f} %" in words


def test_an_interrupted_run_is_resumed(
    run: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = tmp_path / "ended"
    shutil.copytree(run, ended)
    (ended / "result.json").unlink()
    (ended / "report.html").unlink()
    shutil.rmtree(ended / "ceiling-1")  # not yet begun
    (ended / "naive-1" / "result.json").unlink()  # begun
    kept = (ended / "forward-0" / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "latest").symlink_to("ended")
    moved = shutil.copy(folder / "data" / "part3.beton", tmp_path / "moved.beton")
    resume = ["--resume", str(tmp_path / "latest"), "--data", str(moved)]
    assert start(monkeypatch, folder, *resume, "--test", str(moved)) == 2
    assert "part3: test: got other data than" in capsys.readouterr().err
    jobs = min(2, len(os.sched_getaffinity(0)))
    assert start(monkeypatch, folder, *resume, "--jobs", str(jobs)) == 0
    assert (ended / "ceiling-1" / "output.txt").exists() == (jobs > 1)
    assert (tmp_path / "latest").readlink() == Path("ended")
    assert (ended / "report.html").exists()
    assert (ended / "forward-0" / "model.safetensors").stat().st_mtime_ns == kept
    before, after = result_of(run), result_of(ended)
    for name in ("diagnosis", "recovery", "look", "arms"):
        assert after[name] == before[name], name


def test_part_2_gives_weights_and_the_reference_model(
    run: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    part2 = tmp_path / "part2"
    for name in ("digits", "pretrained-0"):
        shutil.copytree(run / "ceiling-0", part2 / name)
    arguments = ["--arms", "digits", "pretrained", "--seeds", "1", "--part2", str(part2)]
    arguments += ["--runs", str(tmp_path), "--epochs", "2"]
    assert start(monkeypatch, folder, *QUICK[2:], *arguments) == 0
    assert "left out" not in capsys.readouterr().out
    new = tmp_path / "part3" / "latest"
    result = result_of(new)
    assert sorted(result["arms"]) == ["digits", "pretrained"]
    for arm in ("digits", "pretrained"):
        config = json.loads((new / arm / "config.json").read_text())
        assert config["start"] == str(part2 / str(PART3_ARMS[arm].start))
    witness = result["diagnosis"]["witness"]
    assert witness["heard"]
    assert witness["kind"] == "wrong"
    assert witness["agreement"] > 0.8
    assert result["witness"] == str(part2 / "pretrained-0")


def test_an_arm_is_added_by_an_entry_of_the_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = ArmSpec(
        "another", "another training", PART3_RECOVERY, published=0.1234, published_rate=0.5
    )
    monkeypatch.setitem(PART3_ARMS, arm.key, arm)
    arguments = ["--arms", "another", "--seeds", "1", "--runs", str(tmp_path), "--epochs", "2"]
    assert start(monkeypatch, folder, *QUICK[2:], *arguments) == 0
    new = tmp_path / "part3" / "latest"
    assert list(result_of(new)["arms"]) == ["another"]
    words = Parsed((new / "report.html").read_text()).words
    assert "another training" in words["th"]
    assert "12.34 %" in words["td"]


def test_models_of_other_classes_are_left_out(
    run: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("digits", "pretrained-0"):
        shutil.copytree(run / "ceiling-0", tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        RunDir(tmp_path / name).write_json("config.json", config | {"classes": ["x", "y"]})
    arguments = ("--part2", str(tmp_path), "--arms", "digits")
    assert start(monkeypatch, folder, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"part3: arms: cannot train digits: {tmp_path}/digits has other classes"
    witness = ("--arms", "simple", "--witness", str(tmp_path / "digits"))
    assert start(monkeypatch, folder, *witness) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"part3: witness: {tmp_path}/digits does not know 1, A, a, m"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data", "none.beton"], "none.beton is not there; make it: ./launch.sh prep none"),
        (["--test", "no/mnist.beton"], "no/mnist.beton is not there; make it: ./launch.sh prep mn"),
        (["--clean", "x.beton"], "x.beton is not there"),
        (["--test", "other.beton"], "test: other.beton has the classes A, m; expected those of"),
        (
            ["--data", "all.beton", "--test", "all.beton"],
            "has 0 validation images of 4 classes; the diagnosis needs 10",
        ),
        (["--test", "all.beton"], "test: all.beton has neither a test nor a validation split"),
        (["--batch-size", "9999"], "batch_size: got 9999, expected at most "),
        (["--seeds", "0"], "seeds: got 0, expected at least 1"),
        (["--arms", "simple", "other"], "arms: got other, expected some of simple, constant, res"),
        (["--arms"], "arms: got none, expected some of simple, constant, resnet18, digits, pret"),
        (
            ["--arms", "digits"],
            "arms: cannot train digits: runs/part2/latest/digits is no fini",
        ),
        (["--size", "8"], "size: got 8, expected 16"),
        (["--witness", "nowhere"], "nowhere: not a run directory: there is no such folder"),
        (["--resume", "nowhere"], "nowhere: not a run directory: there is no such folder"),
        (["--resume", "nowhere", "--seeds", "5"], "seeds: a resumed run has its own options"),
    ],
)
def test_invalid_options_are_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    write_set(folder / "other.beton", classes=("A", "m"))
    write_set(folder / "all.beton", validation=0)
    before = sorted(folder.rglob("config.json"))
    assert start(monkeypatch, folder, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("part3: ")
    assert reason in line
    assert sorted(folder.rglob("config.json")) == before


def test_only_a_whole_run_of_part_3_can_be_resumed(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, folder, "--resume", str(run / "simple")) == 2
    assert "got one training of part3, expected the whole run directory" in capsys.readouterr().err
