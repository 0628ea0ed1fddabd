"""The command predict, on files as users have them."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from raw_data import make_zip
from rich.console import Console
from tiny import page, write_set

from jobs.tools import predict as job
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.distributed import join_processes
from pipeline.training.runner import run_training, write_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe((Stage(16, 25, 5e-3),), batch_size=8)
    run = RunDir(folder / "run")
    with open_dataset(write_set(folder / "tiny.beton")) as file, join_processes("no") as processes:
        write_config(run, "test", TrainingConfig("small", recipe), file, {})
        run_training(processes, run, TrainingConfig("small", recipe), file, Console(quiet=True))
    assert (run.path / "framing.json").exists()
    return run.path


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def predict(
    run: Path, *words: object, folder: Path | None = None, given: bytes = b""
) -> tuple[int, str, str]:
    """The exit status, output and errors of the command, called from a folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if folder is not None:
        environment["INKRUN_CALLER"] = str(folder)
    command = [sys.executable, str(ROOT / "jobs/tools/predict.py"), str(run), *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=given, check=False, capture_output=True
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def call(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call the command in this process, from the test's folder."""
    monkeypatch.setenv("INKRUN_CALLER", str(tmp_path))

    def called(*words: str, network: Path = run) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["predict", str(network), *words])
        try:
            status = job.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return (status, *capfd.readouterr())

    return called


Call = Callable[..., tuple[int, str, str]]


def test_files_folders_zips_and_standard_input(run: Path, tmp_path: Path) -> None:
    """A broken file is a line, and the others are predicted."""
    (tmp_path / "a.png").write_bytes(png(page("A", 100)))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/1.png").write_bytes(png(255 - page("1", 100)))
    (tmp_path / "more/broken.png").write_bytes(png(page("1", 100))[:60])
    make_zip(tmp_path / "x.zip", {"in/m.png": png(page("m", 100)), "in/read.txt": b"no image"})
    write_set(tmp_path / "y.beton", 1, 0, ("a",))
    words = ("a.png", "more", "x.zip", "y.beton", "-", "--json", "--top", 2, "--show", "seen/all")
    status, out, err = predict(run, *words, folder=tmp_path, given=png(page("a", 101)))
    assert (status, err) == (1, "")
    lines = [json.loads(line) for line in out.splitlines()]
    names = ["a.png", "more/1.png", "more/broken.png", "x.zip/in/m.png", "y.beton/a/0.png", "-"]
    assert [line["file"] for line in lines] == names
    labels = [line.get("label") for line in lines]
    assert labels == ["A", "1", None, "m", "a", "a"]
    assert set(lines[2]) == {"file", "error"}
    for line in lines[:2] + lines[3:]:
        assert list(line) == ["file", "label", "probability", "top"]
        assert line["top"][0] == [line["label"], line["probability"]]
        assert len(line["top"]) == 2
    images = sorted((tmp_path / "seen/all").glob("*.png"))
    assert [path.name[:5] for path in images] == [f"000{n}-" for n in range(1, 6)]
    assert {Image.open(path).size for path in images} == {(16, 16)}


def test_names_that_a_terminal_would_obey_and_names_that_collide(
    call: Call, tmp_path: Path
) -> None:
    evil = "\x1b[31mred\n.png"
    (tmp_path / evil).write_bytes(png(page("A", 100)))
    (tmp_path / "bad\x07.png").write_bytes(b"hello")
    for kind in ((), ("--json",), ("--csv",)):
        status, out, err = call(".", "--show", "seen", *kind)
        assert status == 1
        assert not {"\x1b", "\x07"} & set(out + err)
        assert "A" in out
    (tmp_path / "b").mkdir()
    for name in ("b/x.png", "b/x.jpg"):
        Image.fromarray(page("a", 100)).save(tmp_path / name)
    status, out, _ = call("b", "--csv", "--show", "b/../seen")
    assert status == 0
    header, *rows = csv.reader(io.StringIO(out))
    assert header[:3] == ["file", "label", "probability"]
    assert [row[:2] for row in rows] == [["x.jpg", "a"], ["x.png", "a"]]
    assert {path.parent for path in tmp_path.rglob("000*.png")} == {tmp_path / "seen"}
    assert len(list((tmp_path / "seen").glob("*-x.png"))) == 2


def test_several_characters_are_an_error_or_separate(call: Call, tmp_path: Path) -> None:
    (tmp_path / "two.png").write_bytes(png(np.hstack([page("A", 100), page("1", 100)])))
    status, out, err = call("two.png")
    assert (status, out) == (1, "")
    assert err == "two.png: 2 separate characters: one is expected\n"
    status, out, err = call("two.png", "--separate", "--json")
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["label"] for line in lines] == ["A", "1"]
    assert [line["box"][2:] for line in lines] == [[40, 50], [6, 50]]


def test_a_closed_output_ends_quietly(run: Path, tmp_path: Path) -> None:
    files = {f"{number}.png": png(page("A", number)) for number in range(100, 140)}
    archive = make_zip(tmp_path / "x.zip", files)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        str(ROOT / "jobs/tools/predict.py"),
        str(run),
        str(archive),
        "--json",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")


def test_bad_input_gets_one_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make_zip(tmp_path / "texts.zip", {"a.txt": b"a", "b.csv": b"b"})
    (tmp_path / "a.png").write_bytes(png(page("A", 100)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").touch()
    for words, reason in {
        ("missing.png",): "no such file",
        ("empty",): "expected images",
        ("texts.zip",): "got 2 other files, expected images",
        ("a.png", "--json", "--csv"): "json: got csv too",
        ("a.png", "--top", "0"): "top: got 0, expected at least 1",
        ("a.png", "--show", "a.png"): "a.png: got a file, expected a new folder",
        ("a.png", "--show", "mine"): "mine: got a folder that it did not write",
        ("missing.png", "--csv"): "no such file",
        ("-", "a.png", "-"): "-: got it 2 times, expected once",
    }.items():
        status, out, err = call(*words)
        assert (status, out) == (2, ""), words
        assert err.startswith("predict: ")
        assert reason in err
        assert err.count("\n") == 1
    assert not list(tmp_path.glob(".mine*"))
    status, _, err = call("a.png", network=tmp_path)
    assert status == 2
    assert "not a run directory" in err


def test_a_broken_link_is_a_line_and_the_others_are_predicted(call: Call, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/lost.png").symlink_to("nowhere.png")
    (tmp_path / "set/there.png").write_bytes(png(page("A", 100)))
    status, out, err = call("set")
    assert status == 1
    assert "there.png" in out
    assert err == "lost.png: No such file or directory\n"


def test_damaged_and_foreign_runs_are_refused(call: Call, run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(page("A", 100)))
    for name, content, reason in (
        ("result.json", "[]", "damaged"),
        ("result.json", "{}", "damaged"),
        ("config.json", '{"architectures": ["ViT"]}', "its config.json is of another program"),
    ):
        copied = tmp_path / "copied"
        shutil.copytree(run, copied)
        (copied / "SHA256SUMS").unlink()  # which would tell of any change
        (copied / name).write_text(content)
        status, out, err = call("a.png", network=copied)
        assert (status, out) == (2, "")
        assert reason in err
        assert err.count("\n") == 1
        shutil.rmtree(copied)
