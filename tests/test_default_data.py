"""Default datasets: prepared where they are missing, by one process of a launch."""

import fcntl
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from forked import run_together
from job_started import ENVIRONMENT, JOB, TWO, run_job, start
from raw_data import make_zip, midas

from beton.reader import Reader
from pipeline.data.catalog import SyntheticData
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.errors import UserError
from pipeline.experiments import default_data
from pipeline.runtime import launch

FEW = ["--epochs", "1", "--size", "16", "--batch-size", "4", "--recipe", "fast"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zip(tmp_path_factory.mktemp("raw") / "trainPart1.zip", midas((1, 11, 37), 5))


def place(archive: Path, folder: Path) -> None:
    (folder / "data" / "raw").mkdir(parents=True)
    shutil.copy(archive, folder / "data" / "raw")


def test_two_processes_of_accelerate_prepare_once(archive: Path, tmp_path: Path) -> None:
    place(archive, tmp_path)
    done = start([*TWO, JOB, *FEW, "--auxiliary-share", "0"], tmp_path)
    assert done.returncode == 0, done.stderr
    missing = "part1: data/part1.beton is missing; it is prepared first\n"
    assert done.stdout.count(f"{missing}part1: data/raw data/raw/trainPart1.zip, ") == 1
    assert done.stdout.count("split   not given") == 1  # what is understood of the files
    result = json.loads((tmp_path / "runs" / "part1" / "latest" / "result.json").read_text())
    assert result["provenance"]["kind"] == "real"
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {"raw", "part1.beton", "part1.html"}


def test_a_failing_preparation_ends_all_processes_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "trainPart1.zip").write_bytes(b"no archive")
    done = run_together(2, [JOB, *FEW], tmp_path, ENVIRONMENT)
    assert [one.returncode for one in done] == [2, 2]
    errors = "".join(one.stderr for one in done)
    assert errors.count("\n") == 1
    assert "trainPart1.zip" in errors
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "data" / "part1.beton").exists()


def test_a_dataset_that_was_named_is_not_prepared(tmp_path: Path) -> None:
    done = run_job(["--data", "data/mine.beton"], tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "part1: data/mine.beton is not there; make it: ./launch.sh prep part1 --source ARCHIVE\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the datasets that were generated, of one page of each class."""
    names: list[str] = []

    def source(_: SyntheticData, name: str) -> SyntheticPages:
        names.append(name)
        time.sleep(0.2)
        return SyntheticPages(1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SyntheticData, "source", source)
    return names


def test_missing_datasets_are_generated_and_existing_ones_are_kept(
    generated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    default_data.prepare_defaults(["part1", "auxiliary"])
    default_data.prepare_defaults(["auxiliary", "part1"])
    assert generated == ["part1", "auxiliary"]
    missing = "part1: data/part1.beton is missing; it is prepared first\n"
    assert f"{missing}part1: embedded default" in capsys.readouterr().out
    with Reader(default_data.default_dataset("auxiliary")) as file:
        assert not file.column("split").metadata.any()  # all of it is for training


def test_launches_at_the_same_time_prepare_once(generated: list[str]) -> None:
    threads = [
        threading.Thread(target=default_data.prepare_defaults, args=(["part1"],)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert generated == ["part1"]


def test_a_process_waits_for_the_main_one(
    generated: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "is_local_main", lambda: False)
    waiting = threading.Thread(target=default_data.prepare_defaults, args=(["part1"],))
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive()
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / ".part1.beton.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("an earlier launch")
        lock.flush()
        time.sleep(0.3)
        assert waiting.is_alive()
        (tmp_path / "data" / "part1.beton").touch()
    waiting.join(5)
    assert not waiting.is_alive()
    assert generated == []

    (tmp_path / "data" / "part1.beton").unlink()
    (tmp_path / "data" / ".part1.beton.lock").write_text(launch.launch_name())
    with pytest.raises(UserError, match="its preparation failed in the main process"):
        default_data.prepare_defaults(["part1"])
