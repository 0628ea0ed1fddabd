"""Files of a run directory are complete and readable, or reported as damaged in one line."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from made_up import config, result

from pipeline.errors import UserError
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.evaluation.run_dir import RunDir, read_run
from pipeline.runtime.files import DIGESTS, read_json, read_tensors, write_tensors
from pipeline.runtime.storage import Folder

EPOCH = EpochMetrics(0, 0, 1e-3, 1.5, 0.5, 2.0, loss=None, accuracy=None, seconds=3.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run directory of a finished training without validation."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.write_json("config.json", config())
    run.write_json("losses.json", [1.5, 0.5])
    run.write_epochs([EPOCH])
    run.finish(result().as_json())
    return run.path


def test_tensors_are_written_whole_in_any_layout(tmp_path: Path) -> None:
    path, plain = tmp_path / "model.safetensors", tmp_path / "plain"
    image = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    write_tensors(path, {"image": image})
    assert torch.equal(read_tensors(path)["image"], image)
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [path, plain]


def test_a_finished_run_is_read(run: Path) -> None:
    found = read_run(run)
    assert found.losses == [1.5, 0.5]
    assert list(map(asdict, found.history)) == [asdict(EPOCH)]
    assert found.predictions is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"job'),
        ("result.json", ""),
        ("losses.json", "[1.5, "),
        ("losses.json", "3"),
        ("losses.json", '["high"]'),
        ("metrics.jsonl", '{"epoch": 1'),
        ("metrics.jsonl", '{"epoch": 1, "of": 2}'),
        ("config.json", '{"job": "part1"}'),
        ("result.json", '{"accuracy": 0.5}'),
        ("metrics.jsonl", "[]"),
        ("answers.safetensors", "something else"),
    ],
)
def test_damage_is_reported_in_a_line(name: str, text: str, run: Path) -> None:
    (run / name).write_text(text)
    with pytest.raises(UserError, match=f"^{run / name}: damaged: ") as error:
        read_run(run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "result.json", "losses.json", "metrics.jsonl"])
def test_missing_files_are_named(name: str, run: Path) -> None:
    (run / name).unlink()
    says = "an unfinished run" if name == "result.json" else f"it has no {name}"
    with pytest.raises(UserError, match=f"^{run}: .*{says}"):
        read_run(run)


@pytest.mark.parametrize("place", [(), ("recipe",), ("recipe", "stages", 0), ("checkpoints",)])
def test_a_misspelt_field_is_refused(place: tuple[str | int, ...], run: Path) -> None:
    written = json.loads((run / "config.json").read_text())
    inner = written
    for key in place:
        inner = inner[key]
    inner["epohcs"] = 3
    (run / "config.json").write_text(json.dumps(written))
    (run / DIGESTS).unlink()
    with pytest.raises(
        UserError, match=r"json: damaged: .*unknown field `epohcs` .* newer version"
    ):
        RunDir(run).config()


def test_a_folder_in_the_place_of_the_latest_link_is_named_before_training(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(UserError, match="latest: got a folder, expected a link"):
        RunDir.new(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


@pytest.mark.parametrize("full", [DIGESTS, "result.json"])
@pytest.mark.parametrize("again", [False, True])
def test_a_run_is_finished_only_with_its_digests(
    full: str, again: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: a disk that is full at one of the last two files of a run, at first or `again`."""
    write, finished = Folder.write, RunDir(run)

    def refuse(self: Folder, name: str, content: bytes, sync: bool = False) -> None:
        if name == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        write(self, name, content, sync)

    if not again:
        for name in (DIGESTS, "result.json"):
            (run / name).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", refuse)
        with pytest.raises(OSError, match="No space left"):
            finished.finish(result().as_json())
    assert not finished.finished
    finished.write_json("losses.json", [1.5, 0.25])  # by a training that is resumed
    finished.finish(result().as_json())
    assert read_run(run).losses == [1.5, 0.25]
    listed = {line.split("  ")[1] for line in (run / DIGESTS).read_text().splitlines()}
    assert listed == {"config.json", "losses.json", "metrics.jsonl", "result.json"}


@pytest.mark.parametrize(("value", "kind"), [([1], "list"), (None, "NoneType"), ("text", "str")])
def test_a_json_file_holds_an_object(value: object, kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=f"got a {kind}, expected an object"):
        read_json(tmp_path, "config.json")


def test_a_new_run_has_a_path_that_its_user_can_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunDir.new(Path("runs")).path.parent == Path("runs")
    monkeypatch.setenv("INKRUN_CALLER", "/elsewhere")
    assert RunDir.new(Path("runs")).path.parent == tmp_path / "runs"
