"""The live page of a training: train --watch."""

import re
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import forked
import pytest
from job_started import ENVIRONMENT
from rich.console import Console
from tiny import write_set

from jobs import classify as job
from pipeline.errors import DivergedError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.reporting.live import LivePage, live_page
from pipeline.training.runner import write_config
from pipeline.training.trainer import Trainer

JOB = str(Path(job.__file__))
QUICK = ["--network", "small", "--size", "16", "--batch-size", "8", "--watch"]
REFRESH = '<meta http-equiv="refresh" content="3">'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "leaves.beton", train=12, validation=3)


def answer_of(page: str) -> str:
    match = re.search(r'<p class="answer">(.*)</p>', page)
    assert match is not None
    return match[1]


def run_in(folder: Path) -> Path:
    (run,) = (p for p in (folder / "runs" / "leaves").iterdir() if p.name != "latest")
    return run


def test_the_page_ends_without_refresh_when_the_training_is_finished(
    data: Path, tmp_path: Path
) -> None:
    done = forked.run([JOB, "--data", str(data), *QUICK, "--epochs", "2"], tmp_path, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    run = run_in(tmp_path)
    assert f"live page: runs/leaves/{run.name}/live.html" in done.stdout
    page = (run / "live.html").read_text()
    assert "refresh" not in page
    assert "<script" not in page
    assert "synthetic data: tiny" in page
    assert answer_of(page).startswith("The training is finished. Its last validation accuracy is")
    assert "Its report is report.html" in page
    assert page.count("<svg") == 2
    assert page.count('class="strip"') == 12  # of 12 validation images
    assert [path.name for path in run.glob(".live*")] == []


@pytest.mark.parametrize("processes", [1, 2])
def test_the_page_of_a_stopped_training_says_so_and_goes_on_when_it_is_resumed(
    processes: int, data: Path, tmp_path: Path
) -> None:
    words = [JOB, "--data", str(data), *QUICK, "--epochs", "300"]
    with forked.started(processes, words, tmp_path, ENVIRONMENT) as training:
        training.wait_for("epoch 1 of")
        page = (run_in(tmp_path) / "live.html").read_text()
        assert REFRESH in page
        training.send(signal.SIGTERM)
        training.wait()
    run = run_in(tmp_path)
    page = (run / "live.html").read_text()
    assert "refresh" not in page
    assert answer_of(page).startswith("The training was stopped by SIGTERM after step")
    if processes == 2:
        return
    resumed = [JOB, "--resume", str(run)]  # --watch is the run's own
    with forked.started(1, resumed, tmp_path, ENVIRONMENT):
        for _ in range(600):
            if "of 300, step" in answer_of(page := (run / "live.html").read_text()):
                break
            time.sleep(0.05)
        assert REFRESH in page


def stub(tmp_path: Path, data: Path) -> tuple[RunDir, Any]:
    """A run directory, and a trainer that is in the middle of it."""
    run = RunDir(tmp_path / "run")
    recipe = Recipe((Stage(16, 4, 1e-3),), batch_size=8)
    with open_dataset(data) as file:
        write_config(run, "classify", TrainingConfig("small", recipe), file, {})
    trainer = SimpleNamespace(
        recipe=recipe,
        batches_per_epoch=6,
        history=[],
        losses=[1.5, 1.2, 1.0] * 4,
        predictions=None,
        step=3,
        images=24,
        images_left=168,
        until=None,
        performance=lambda: {"seconds_validating": 0.0},
    )
    return run, trainer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DivergedError(3, 0, [1], [], None), "The training failed: "),
        (OSError("disk\nfull"), "The training failed: disk Last written"),
        (KeyboardInterrupt(), "The training was interrupted; --resume"),
        (None, "The training is finished. Last written"),
    ],
)
def test_the_page_says_how_a_training_ended(
    error: BaseException | None, expected: str, data: Path, tmp_path: Path
) -> None:
    run, trainer = stub(tmp_path, data)
    with open_dataset(data) as file:
        ending = nullcontext() if error is None else pytest.raises(type(error))
        with ending, live_page(True, run, "leaves", file, Console(quiet=True)) as update:
            assert update is not None
            update(cast(Trainer, trainer))
            page = (run.path / "live.html").read_text()
            assert "Epoch 1 of 4, step 3 of 24." in answer_of(page)
            assert REFRESH in page
            if error is not None:
                raise error
    page = (run.path / "live.html").read_text()
    assert expected in answer_of(page)
    assert "refresh" not in page


def test_the_page_takes_a_small_fraction_of_the_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, trainer = stub(tmp_path, data)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    spent = {"draw": 0, "write": 0}
    with open_dataset(data) as file, LivePage(run, "leaves", file, Console(quiet=True)) as page:

        def draw(_: object) -> None:
            spent["draw"] += 1
            now[0] += 0.4

        def write(*_: object, **__: object) -> None:
            spent["write"] += 1
            now[0] += 0.01

        monkeypatch.setattr(page, "_draw", draw)
        monkeypatch.setattr(page, "_write", write)
        while now[0] < 1000:
            now[0] += 0.05
            page.update(trainer)
        assert 0.4 * spent["draw"] + 0.01 * spent["write"] < 0.025 * now[0]
        assert spent["draw"] > 10
        assert spent["write"] > 250


def test_a_page_that_cannot_be_written_does_not_stop_the_training(
    data: Path, tmp_path: Path
) -> None:
    run, trainer = stub(tmp_path, data)
    console = Console(record=True, width=200)
    with open_dataset(data) as file, LivePage(run, "leaves", file, console) as page:
        (run.path / "live.html").unlink()
        (run.path / "live.html").mkdir()
        page.update(trainer)
        page._next_text = 0
        page.update(trainer)
    assert console.export_text().count("live page: not written any more") == 1


def test_no_page_unless_wanted_and_none_of_a_finished_run(data: Path, tmp_path: Path) -> None:
    run, _ = stub(tmp_path, data)
    with open_dataset(data) as file:
        with live_page(False, run, "leaves", file, Console(quiet=True)) as update:
            assert update is None
        run.finish({})
        with live_page(True, run, "leaves", file, Console(quiet=True)) as update:
            assert update is None
    assert not (run.path / "live.html").exists()
