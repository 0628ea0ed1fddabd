"""The app: which runs it offers, what it refuses, and its results as HTML."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import made_up
import numpy as np
import pytest
from app_started import app, app_python, free_port

from pipeline.app import cards, runs
from pipeline.app.explainer import Explanation
from pipeline.errors import UserError
from pipeline.inspection.neighbours import Neighbour
from pipeline.pictures.predictor import Prediction

SEEN = np.full((8, 8), 255, np.uint8)


def make_run(path: Path, accuracy: float | None = 0.875, kind: str = "synthetic") -> Path:
    """Write what the list of runs reads."""
    path.mkdir(parents=True)
    (path / "model.safetensors").touch()
    origin = {"kind": kind, "source": "<pages>"}
    config = made_up.config(classes=("a", "b"), provenance=origin)
    result = made_up.result(accuracy=accuracy, samples=16, provenance=origin)
    (path / "config.json").write_text(json.dumps(config))
    (path / "result.json").write_text(json.dumps(result.as_json()))
    return path


def test_finished_trainings_are_found_once_the_latest_first(tmp_path: Path) -> None:
    first = make_run(tmp_path / "part1" / "1")
    second = make_run(tmp_path / "part2" / "1" / "digits")
    (tmp_path / "part1" / "latest").symlink_to("1")
    (make_run(tmp_path / "part1" / "2") / "result.json").unlink()  # unfinished
    (make_run(tmp_path / "part3" / "1") / "model.safetensors").unlink()  # an experiment
    os.utime(first / "result.json", (1, 1))
    os.utime(second / "result.json", (2, 2))
    assert runs.find_runs(tmp_path) == [second, first]


def test_labels_tell_runs_apart_and_name_synthetic_data(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "part1" / "1"), make_run(tmp_path / "leaves" / "1", None, "real")
    assert runs.choices([one, two]) == [
        ("part1/1: 87.5 %, synthetic data", str(one)),
        ("leaves/1", str(two)),
    ]
    assert runs.choices([one])[0][0] == "part1/1: 87.5 %, synthetic data"
    (one / "result.json").write_text("{")
    assert runs.choices([one, two])[0][0] == "part1/1 (damaged)"


def test_a_run_is_described_with_its_data(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert runs.about(run) == (
        "Network small for 2 classes, trained on synthetic data: <pages>. "
        "Accuracy on 16 validation images: 87.5 %."
    )
    (run / "config.json").unlink()
    with pytest.raises(UserError, match="not a run directory"):
        runs.about(run)


def test_names_of_files_and_classes_are_escaped() -> None:
    prediction = Prediction("x", (("<b>", 0.75), ("&", 0.25)), SEEN)
    neighbour = Neighbour(3, "<i>", 0.5, SEEN)
    one = Explanation("<u>.png", "", prediction, np.zeros((8, 8, 3), np.uint8), "", [neighbour])
    html = cards.cards([one, Explanation("<s>.txt", "not <an> image")])
    for tag in ("<i>&", "<u>.", "<s>", "<an>"):
        assert tag not in html
    for text in ("&lt;b&gt;", "75.0 %", "width: 25.00%", "&lt;s&gt;.txt: not &lt;an&gt; image"):
        assert text in html
    assert html.count("data:image/png;base64,") == 3


def test_what_is_missing_is_replaced_by_the_reason() -> None:
    prediction = Prediction("", (("a", 1.0),), SEEN)
    one = Explanation("", "", prediction, None, "no convolution", None, "its dataset is gone")
    html = cards.cards([one])
    assert "No Grad-CAM: no convolution" in html
    assert "its dataset is gone" in html
    assert cards.cards([]) == cards.EMPTY


def test_help_and_a_missing_run_need_no_gradio(tmp_path: Path) -> None:
    assert "--port" in app(tmp_path, "--help").stdout
    done = app(tmp_path)
    reason = "it has no finished run; train one first: ./launch.sh train part1"
    assert (done.returncode, done.stderr) == (2, f"app: runs: {reason}\n")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield int(one.getsockname()[1])


def test_a_port_in_use_is_an_error_in_one_line(tmp_path: Path, taken: int) -> None:
    make_run(tmp_path / "runs" / "part1" / "1")
    for port, reason in (
        (taken, f"got {taken} on 127.0.0.1: Address already in use; --port takes another one"),
        (70000, "got 70000, expected 1 to 65535"),
    ):
        done = app(tmp_path, "--port", str(port))
        assert (done.returncode, done.stderr) == (2, f"app: port: {reason}\n")


def unfinished(run: Path) -> str:
    (run / "result.json").unlink()
    return "got an unfinished run"


def strangers(run: Path) -> str:
    for path in run.iterdir():
        path.unlink()
    return "not a run directory"


@pytest.mark.parametrize("spoil", [unfinished, strangers])
def test_a_run_that_is_none_is_an_error_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    run = make_run(tmp_path / "one")
    reason = spoil(run)
    done = app(tmp_path, str(run), "--port", str(free_port()))
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(app_python() is None, reason="needs Gradio (./launch.sh setup app)")
def test_gradio_has_a_pillow_that_it_works_with() -> None:
    script = "import PIL, importlib.metadata as m; print(PIL.__version__, m.version('pillow'))"
    command = [str(app_python()), "-c", script]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    imported, installed = run.stdout.split()
    assert imported == installed
    assert int(imported.split(".")[0]) < 13
