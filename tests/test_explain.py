"""Explanations of a run, by the command and its parts."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from raw_data import make_zip, saved
from tiny import page, write_set
from trained_runs import NAMES, WRONG, colour_run, ink_run

from jobs.tools import explain as job
from pipeline.evaluation.evaluate import load_model
from pipeline.evaluation.run_dir import RunDir
from pipeline.inspection.cross_validation import FoldReader
from pipeline.inspection.explain_files import file_name
from pipeline.inspection.neighbours import CACHE, Neighbours, embed
from pipeline.inspection.seen import load_inputs
from pipeline.loading.dataset import open_dataset, split_indices

pytest.importorskip("captum")

JOB = Path(__file__).resolve().parents[1] / "jobs" / "tools" / "explain.py"
CPU = torch.device("cpu")
Explain = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def ink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ink_run(tmp_path_factory.mktemp("ink"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_run(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explain:
    """Run the job in this process; return its status and what it printed."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["explain.py", *map(str, words), "--precision", "no"])
        return (job.main(), *capsys.readouterr())

    return run


def test_the_command_finds_an_incorrect_label(ink: Path, tmp_path: Path) -> None:
    run = forked.run([JOB, ink, "--out", tmp_path / "out"], tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    found = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert found["samples"] == 16
    assert found["errors"] == len(found["misclassified"]) >= 1
    planted = found["suspicious"][0]
    assert (planted["name"], planted["true"], planted["suggested"]) == (
        f"//{WRONG}.png",
        "/",
        "?",
    )
    assert planted["file"].startswith("suspicious/%2F-%3F-0.")
    assert f"classifies {found['errors']} of 16 images" in run.stdout
    html = (tmp_path / "out" / "index.html").read_text()
    assert "synthetic data: tiny" in html
    assert str(tmp_path) not in html
    assert str(ink.parent) not in html
    assert "http://" not in html
    names = {path.name for path in (tmp_path / "out").rglob("*.png")}
    assert {file.split("/")[1] for one in found["misclassified"] if (file := one["file"])} <= names
    for path in (tmp_path / "out").rglob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB"


def test_neighbours_are_the_nearest_training_images(ink: Path) -> None:
    trained = load_model(ink)
    with Neighbours.of(trained, CPU) as neighbours, open_dataset(Path(trained.config.data)) as file:
        ids = split_indices(file, "train")
        inputs = load_inputs(trained, file, ids[[5, 2]], CPU)
        every = load_inputs(trained, file, ids, CPU)
        exact = (embed(trained.network, inputs) @ embed(trained.network, every).T).numpy()
        for row, expected in zip(neighbours.nearest(inputs, 4), exact, strict=True):
            found = [one.similarity for one in row]
            assert found == sorted(found, reverse=True)
            np.testing.assert_allclose(found, np.sort(expected)[::-1][:4], atol=2e-3)
            for one in row:
                assert one.similarity == pytest.approx(
                    expected[list(ids).index(one.index)], abs=2e-3
                )
                assert one.label == NAMES[file.column("label").metadata[one.index]]
                assert one.image.shape == trained.view.shape
        others = neighbours.nearest(inputs, 31, leave_out=ids[[5, 2]])
        assert ids[5] not in [one.index for one in others[0]]
        assert ids[2] not in [one.index for one in others[1]]
        assert len(neighbours.nearest(inputs[:1], 999)[0]) == len(ids)
    assert (ink / CACHE).exists()


def test_a_folder_of_runs_stands_for_its_latest(
    ink: Path, explain: Explain, tmp_path: Path
) -> None:
    shutil.copytree(ink, tmp_path / "runs" / "first")
    (tmp_path / "runs" / "latest").symlink_to("first")
    assert explain(tmp_path / "runs")[0] == 0
    assert (tmp_path / "runs" / "first" / "explain" / "index.html").exists()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"first", "latest"}


def test_a_damaged_cache_is_written_again(ink: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(ink, tmp_path / "run"))
    (run / CACHE).write_bytes(b"damaged")
    with Neighbours.of(load_model(run), CPU):
        pass
    assert (run / CACHE).stat().st_size > 1000


def test_cross_validation_finds_an_incorrect_training_label(
    explain: Explain, tmp_path: Path
) -> None:
    run = ink_run(tmp_path, wrong=3)
    status, _, _ = explain(run, "--folds", 2, "--out", tmp_path / "out")
    assert status == 0
    found = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert found["cross_validated"]
    assert found["samples"] == 16  # the validation images are explained as well
    planted = found["suspicious"][0]
    assert (planted["name"], planted["true"], planted["suggested"]) == ("//3.png", "/", "?")
    status, _, err = explain(run, "--folds", 2, "--source", tmp_path, "--out", tmp_path / "x")
    assert (status, err.count("\n")) == (2, 1)


@given(st.integers(1, 60), st.integers(2, 7))
def test_folds_cover_each_training_image_once(
    tmp_path_factory: pytest.TempPathFactory, images: int, folds: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "folds.beton"
    if not path.exists():
        write_set(path, 20, 4)
    with open_dataset(path) as file:
        ids, labels = split_indices(file, "train", images), file.column("label").metadata.copy()
    validated = []
    for fold in range(folds):
        with FoldReader(path, ids, folds, fold) as part:
            train, held = split_indices(part, "train"), split_indices(part, "validation")
        assert sorted([*train, *held]) == sorted(ids)
        counts = np.bincount(labels[held], minlength=4), np.bincount(labels[ids], minlength=4)
        assert (np.abs(counts[0] - counts[1] / folds) <= 1).all()
        validated += held.tolist()
    assert sorted(validated) == sorted(ids)


def test_a_colour_run_and_its_training_images(
    colours: Path, explain: Explain, tmp_path: Path
) -> None:
    status, out, _ = explain(colours, "--out", tmp_path / "out", "--most", 3)
    assert status == 0
    assert "of 12 images of the split validation" in out
    status, _, _ = explain(colours, "--out", tmp_path / "out", "--split", "train")
    assert status == 0
    found = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert (found["samples"], found["suspicious_labels"]) == (36, None)
    html = (tmp_path / "out" / "index.html").read_text()
    assert "trained on 36 of these images" in html
    assert "They are not estimated" in html
    for one in found["largest_losses"]:
        name, number = one["name"].removesuffix(".png").split("/")
        own = 16 * ("red", "green", "blue").index(name) + int(number)  # no image is its neighbour
        assert own not in [near["index"] for near in one["neighbours"]]


def test_given_images_without_labels(ink: Path, explain: Explain, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(page("A", 200 + number)).save(folder / f"x-{number}.png")
    status, out, err = explain(ink, "--source", folder, "--out", tmp_path / "out")
    assert status == 0
    assert "predicts 3 images of photos, which have no labels" in out
    assert err.startswith("explain: no labels: ")
    found = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert [one["true"] for one in found["given"]] == [None] * 3
    assert len([*(tmp_path / "out" / "given").iterdir()]) == 3
    (folder / "broken.png").write_bytes(b"no image")
    status, _, err = explain(ink, "--source", folder, "--out", tmp_path / "out")
    assert status == 1
    assert "broken.png: " in err
    assert explain(ink, "--source", folder / "x-1.png", "--out", tmp_path / "one")[0] == 0


def test_labelled_images_and_a_run_whose_dataset_is_gone(
    ink: Path, explain: Explain, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(ink, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    RunDir(run).write_json("config.json", {**config, "data": "data/nowhere.beton"})
    files = {f"set/{name}/{i}.png": page(shape, 300 + i) for name, shape in
             (("?", "A"), ("-", "m")) for i in range(3)}  # fmt: skip
    pngs = {name: saved(Image.fromarray(pixels)) for name, pixels in files.items()}
    source = make_zip(tmp_path / "test.zip", pngs)
    status, out, err = explain(run, "--source", source, "--out", tmp_path / "out")
    assert status == 0
    assert "of 6 images of test.zip" in out
    assert "no nearest training images" in err
    assert "nearest training images are left out" in (
        tmp_path / "out" / "index.html"
    ).read_text().replace("Nearest", "nearest")
    assert explain(run, "--out", tmp_path / "x") == (
        2,
        "",
        "explain: the run's dataset data/nowhere.beton is gone; prepare it again\n",
    )


def test_what_cannot_be_explained_is_refused_in_one_line(
    ink: Path, explain: Explain, tmp_path: Path
) -> None:
    several = tmp_path / "part2"
    several.mkdir()
    shutil.copytree(ink, several / "digits")
    (several / "config.json").write_text('{"job": "part2"}')
    (several / "result.json").write_text("{}")
    exported = Path(shutil.copytree(ink, tmp_path / "exported"))
    config = json.loads((exported / "config.json").read_text())
    config["data"] = Path(config["data"]).name
    RunDir(exported).write_json("config.json", config)
    unfinished = Path(shutil.copytree(ink, tmp_path / "unfinished"))
    (unfinished / "result.json").unlink()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    cases: dict[str, list[Any]] = {
        "a run of 1 trainings, expected one of its folders: digits": [several],
        "an unfinished run": [unfinished],
        "has no path in an export: give the run itself": [exported],
        "not a run directory": [tmp_path / "nothing"],
        "no such file or folder": [ink, "--source", tmp_path / "nothing"],
        "no images in its split 'test'": [ink, "--split", "test"],
        "got a folder that it did not write": [ink, "--out", mine],
        "most: got 0": [ink, "--most", 0],
    }
    for message, words in cases.items():
        extra = () if "--out" in words else ("--out", tmp_path / "out")
        status, out, err = explain(*words, *extra)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert message in err
        assert not (tmp_path / "out").exists()
    assert {path.name for path in mine.iterdir()} == {"thesis.txt"}


@given(st.text(), st.text(), st.text())
def test_file_names_are_safe(true: str, predicted: str, name: str) -> None:
    made = file_name(true, predicted, "0.97", name)
    assert len(f"{made}-1234.png".encode()) <= 255
    assert not set(made) & set("/\\?*:|<>\"'\n\r\t\0 ")
    assert made[0] not in ".-"
    assert "-0.97-" in made


def test_file_names_distinguish_classes() -> None:
    names = {file_name(name, "x", "1.00", "1") for name in (*NAMES, "", ".", "..", "é", "%2F")}
    assert len(names) == len(NAMES) + 4 + 1
    assert file_name("A", "4", "0.98", "img011-003") == "A-4-0.98-img011-003"


def test_images_with_equal_names_do_not_collide(tmp_path: Path) -> None:
    from pipeline.inspection.explain import ExplainedImage
    from pipeline.inspection.explain_files import write_images

    seen, heat = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.float32)
    image = ExplainedImage("1.png", "a", "b", 0.5, 1.0, seen, heat, heat, ())
    files = write_images(tmp_path / "x", ["a-B-1", "A-b-1", "a-B-1", "a-b-1-2"], [image] * 4)
    assert len({name.casefold() for name in files}) == 4
    assert len([*(tmp_path / "x").iterdir()]) == 4
