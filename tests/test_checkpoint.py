"""Checkpoints: complete or absent, the last few and the best, due by steps and by minutes."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
STATE = {"optimizer": {"state": {0: {"m": torch.arange(3.0)}}}, "batch": 5, "losses": [0.5, 0.25]}


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2, 3), value), "b": torch.tensor([value])}


def save(checkpoints: Checkpoints, step: int, score: float | None = None) -> Path:
    return checkpoints.save(step, weights(step), {**STATE, "batch": step}, score)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints.all()]


def test_a_saved_checkpoint_can_be_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "not there yet" / "checkpoints")
    assert checkpoints.last(CPU) is None
    assert checkpoints.all() == []
    path = checkpoints.save(7, weights(1.5), STATE)
    assert path == checkpoints.root / "step-00000007"
    found = Checkpoints(checkpoints.root).last(CPU)
    assert found is not None
    assert torch.equal(found[0]["w"], weights(1.5)["w"])
    assert torch.equal(found[1]["optimizer"]["state"][0]["m"], torch.arange(3.0))
    assert (found[1]["batch"], found[1]["losses"]) == (5, [0.5, 0.25])


@settings(max_examples=40)
@given(
    st.lists(st.none() | st.integers(0, 4).map(float), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_the_last_few_and_the_best_are_kept(scores: list[float | None], keep: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_sync", lambda _: None)  # to save time
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder), keep=keep)
            for step, score in enumerate(scores, start=1):
                save(checkpoints, step, score)
                done = dict(enumerate(scores[:step], start=1))
                scored = [(s, n) for n, s in done.items() if s is not None]
                best = max(scored)[1] if scored else None  # of equals, the later
                assert set(steps(checkpoints)) == {*list(done)[-keep:], best} - {None}
                link = Path(folder) / "best"
                assert (link.readlink().name[5:] if scored else None) == (best and f"{best:08d}")
            assert {p.name[:4] for p in Path(folder).iterdir()} <= {"step", "best"}


# A process that is killed after it writes a checkpoint and before it renames it.
CRASH = """
import os, sys
from pathlib import Path
import torch
from pipeline.training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=1)
checkpoints.save(1, {"w": torch.ones(1)}, {"batch": 1}, 0.5)
Path.rename = lambda *_: os._exit(9)
checkpoints.save(2, {"w": torch.ones(1)}, {"batch": 2}, 0.6)
"""


def test_a_crash_before_the_rename_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == 9
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert steps(checkpoints) == [1]
    found = checkpoints.last(CPU)
    assert found is not None
    assert found[1]["batch"] == 1
    assert (tmp_path / "best").readlink().name == "step-00000001"
    save(checkpoints, 3, 0.7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-00000003"]


@pytest.mark.parametrize("function", ["torch.save", "pathlib.Path.write_text", "os.fsync"])
def test_a_failed_write_leaves_no_checkpoint(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    with monkeypatch.context() as patch:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(function, full)
        with pytest.raises(OSError, match="No space left"):
            save(checkpoints, 2)
    assert steps(checkpoints) == [1]
    save(checkpoints, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 2)
    checkpoints.save(2, weights(9), {"batch": 9})
    found = checkpoints.last(CPU)
    assert found is not None
    assert (found[0]["b"].item(), found[1]["batch"], steps(checkpoints)) == (9, 9, [2])


def test_a_copy_without_links_can_be_resumed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1, 0.5)
    (tmp_path / "best").unlink()
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "best")
    (tmp_path / "step-copy.zip").touch()
    save(checkpoints, 2, 0.4)
    assert json.loads((tmp_path / "best" / "score.json").read_text()) == 0.5  # still the best
    save(checkpoints, 3, 0.6)
    assert (tmp_path / "best").readlink().name == "step-00000003"
    assert steps(checkpoints) == [3]


@pytest.mark.parametrize("text", [None, "", "no pickle"])
def test_a_damaged_state_is_one_line(text: str | None, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    state = tmp_path / "step-00000001" / "state.pt"
    state.unlink() if text is None else state.write_text(text)
    with pytest.raises(UserError, match=r"state\.pt: damaged; delete .*step-00000001 to resume"):
        checkpoints.last(CPU)


def test_due_by_steps(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every_steps=4, every_minutes=0)
    assert [step for step in range(1, 13) if checkpoints.due(step)] == [4, 8, 12]


def test_due_by_minutes_since_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, every_minutes=2)
    save(checkpoints, 1)
    for now[0], due in ((1000.0, False), (1120.0, False), (1120.1, True)):
        assert checkpoints.late() == due
    save(checkpoints, 2)
    assert not checkpoints.late()
    now[0] = 1240.2
    assert checkpoints.late()


def test_never_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, every_steps=0, every_minutes=0)
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    assert not any(map(checkpoints.due, range(1, 100)))
    assert not checkpoints.late()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_steps": -1}, "every_steps: got -1, expected at least 0"),
        ({"every_minutes": -0.5}, "every_minutes: got -0.5"),
        ({"every_minutes": float("nan")}, "every_minutes: got nan"),
        ({"keep": 0}, "keep: got 0, expected at least 1"),
    ],
)
def test_numbers_out_of_range_are_rejected(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"checkpoints, {message}"):
        Checkpoints(tmp_path, **arguments)
