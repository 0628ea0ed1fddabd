"""Datasets that have moved since their run began."""

import os
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import forked
import pytest
from tiny import write_set

from jobs import part1 as job
from pipeline.errors import UserError
from pipeline.evaluation.run_data import find_data, moved_paths
from pipeline.loading.dataset import open_dataset

JOB = str(Path(job.__file__))
QUICK = [
    "--epochs",
    "2",
    "--size",
    "16",
    "--batch-size",
    "8",
    "--network",
    "small",
    "--precision",
    "no",
]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("RANK", "COLUMNS")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    write_set(tmp_path / "data" / "other.beton", train=10, validation=5, digest="sha256:other")
    return write_set(tmp_path / "data" / "tiny.beton", train=9, validation=5)


def fingerprint(path: Path) -> str:
    with open_dataset(path) as file:
        return file.fingerprint()


def test_a_given_dataset_must_have_the_same_content(tmp_path: Path, data: Path) -> None:
    expected, run = fingerprint(data), tmp_path / "runs" / "one"
    moved = data.rename(tmp_path / "moved.beton")
    assert find_data(run, "data", str(data), expected, moved) == moved
    other = data.with_name("other.beton")
    with pytest.raises(UserError, match=f"data: got other data .*{expected}") as caught:
        find_data(run, "data", str(data), expected, other)
    assert fingerprint(other) in str(caught.value)
    with pytest.raises(UserError, match=r"mnist: .*nowhere is not there"):
        find_data(run, "mnist", str(data), expected, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"mnist: .* is not there, .*moved: --mnist FILE"):
        find_data(run, "mnist", str(data), expected, None)


def test_a_relative_path_may_start_above_the_run(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, run = fingerprint(data), tmp_path / "runs" / "part1" / "one"
    run.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert find_data(run, "data", "data/tiny.beton", expected, None) == data
    # Another file of this name in the current folder is not the run's.
    shutil.copy(data.with_name("other.beton"), elsewhere / "data" / "tiny.beton")
    assert find_data(run, "data", "data/tiny.beton", expected, None) == data
    data.unlink()
    found = find_data(run, "data", "data/tiny.beton", expected, None)
    assert found == Path("data/tiny.beton")  # the training reports its other content


def test_the_datasets_of_an_experiment(tmp_path: Path, data: Path) -> None:
    datasets = {"digits": fingerprint(data), "mnist": fingerprint(data)}
    options = {"digits": str(data), "mnist": None, "seeds": 2}
    assert moved_paths(tmp_path, options, datasets, {}) == {"digits": str(data)}
    copy = Path(shutil.copy(data, tmp_path / "copy.beton"))
    assert moved_paths(tmp_path, options, datasets, {"mnist": copy}) == {
        "digits": str(data),
        "mnist": str(copy),
    }
    with pytest.raises(UserError, match=r"clean: .* has no fingerprint"):
        moved_paths(tmp_path, options, datasets, {"clean": copy})


def test_a_run_is_resumed_where_its_data_have_moved(tmp_path: Path, data: Path) -> None:
    options = ["--data", "data/tiny.beton", "--network", "small", *QUICK]
    started = forked.run([JOB, *options], tmp_path, ENVIRONMENT)
    assert started.returncode == 0, started.stderr
    (run,) = (path for path in (tmp_path / "runs" / "part1").iterdir() if not path.is_symlink())
    finished = (run / "model.safetensors").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def resume(*options: str) -> "CompletedProcess[str]":
        (run / "result.json").unlink(missing_ok=True)
        (run / "model.safetensors").unlink(missing_ok=True)
        return forked.run([JOB, "--resume", str(run), *options], elsewhere, ENVIRONMENT)

    done = resume()  # from another folder
    assert done.returncode == 0, done.stderr
    assert (run / "model.safetensors").read_bytes() == finished
    data.rename(tmp_path / "moved.beton")
    done = resume()
    assert done.returncode == 2
    assert re.fullmatch(
        r"part1: data: .* is not there, .*; if it has moved: --data FILE\n", done.stderr
    )
    done = resume("--data", str(data.with_name("other.beton")))
    assert done.returncode == 2
    assert "got other data than" in done.stderr
    assert done.stderr.count("\n") == 1
    done = resume("--data", str(tmp_path / "moved.beton"))
    assert done.returncode == 0, done.stderr
    assert (run / "model.safetensors").read_bytes() == finished
