"""Checkpoints: complete or absent, the last few and the best, due by steps and by minutes."""

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.runtime.files import DIGESTS, seal, write_tensors
from pipeline.runtime.storage import Folder
from pipeline.runtime.trees import pack
from pipeline.training.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
STATE: dict[str, Any] = {
    "averaged": 0,
    "optimizer": {"state": {0: {"m": torch.arange(3.0)}}, "param_groups": [{"lr": 0.1}]},
    "history": [asdict(EpochMetrics(0, 0, 1e-3, 1.5, 0.5, 2.0, None, None, 3.0))],
    "batch": 5,
    "batches": 9,
    "local": torch.ones(1, 4),
    "losses": [0.5, 0.25],
    "seconds": {"seconds": 3.0},
}


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2, 3), value), "b": torch.tensor([value])}


def save(checkpoints: Checkpoints, step: int, score: float | None = None) -> Path:
    return checkpoints.save(step, weights(step), {**STATE, "batch": step}, score)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints.all()]


def test_a_saved_checkpoint_can_be_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
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
        patch.setattr(os, "fsync", lambda _: None)  # to save time
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
from test_checkpoint import STATE
from pipeline.training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=1)
checkpoints.save(1, {"w": torch.ones(1)}, {**STATE, "batch": 1}, 0.5)
os.replace = lambda *_, **__: os._exit(9)
checkpoints.save(2, {"w": torch.ones(1)}, {**STATE, "batch": 2}, 0.6)
"""


def run_script(text: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process of its own, which can import this module."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(text)
        return forked.run([script, *map(str, arguments)], ROOT)


def test_a_crash_before_the_rename_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    assert run_script(CRASH, tmp_path).returncode == 9
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert steps(checkpoints) == [1]
    found = checkpoints.last(CPU)
    assert found is not None
    assert found[1]["batch"] == 1
    assert (tmp_path / "best").readlink().name == "step-00000001"
    save(checkpoints, 3, 0.7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-00000003"]


@pytest.mark.parametrize("function", ["safetensors.torch.save", "os.replace", "os.fsync"])
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
    checkpoints.save(2, weights(9), {**STATE, "batch": 9})
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


FILES = ["model.safetensors", "score.json", "state.json", "state.safetensors", DIGESTS]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["a bit", "cut", "empty", "missing", "a folder"])
def test_damage_gives_way_to_the_checkpoint_before(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated: a flipped bit in the middle, a file cut short, emptied, deleted or replaced."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save(checkpoints, 1, 0.5)
    path = save(checkpoints, 2, 0.6) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        middle = len(content) // 2
        damaged = {"a bit": content, "cut": content[:middle], "empty": bytearray()}
        path.write_bytes(damaged[damage])
    found = checkpoints.last(CPU)
    printed = capsys.readouterr().err
    assert found is not None
    if (name, damage) == (DIGESTS, "missing"):
        assert found[1]["batch"] == 2
        assert printed.count("\n") == 1
        assert f"step-00000002: has no {DIGESTS}" in printed
        return
    assert found[1]["batch"] == 1
    assert printed.count("\n") == 1
    assert "step-00000002" in printed
    assert "resumes from step-00000001 instead" in printed
    # Training takes step 2 again, or fewer: the damaged one is gone at the next save.
    checkpoints.save(2, weights(9), {**STATE, "batch": 9})
    again = checkpoints.last(CPU)
    assert again is not None
    assert (again[1]["batch"], steps(checkpoints)) == (9, [1, 2])


def test_a_damaged_step_does_not_outlive_the_steps_before_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 4, 0.5)
    path = save(checkpoints, 8, 0.4)
    (path / "model.safetensors").write_bytes(b"damaged")
    save(checkpoints, 6)
    assert steps(checkpoints) == [4, 6]
    assert (tmp_path / "best").readlink().name == "step-00000004"
    found = checkpoints.last(CPU)
    assert found is not None
    assert found[1]["batch"] == 6


def test_a_checkpoint_that_cannot_be_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Simulated: NFS, where another program reads the checkpoint, for example to copy the run."""
    busy, rmdir = [True], os.rmdir

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if busy and path.startswith("step-"):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", refuse)
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2):
        save(checkpoints, step)
    assert steps(checkpoints) == [1, 2]
    warning = f"warning: {tmp_path}/step-00000001: cannot be removed: Directory not empty\n"
    assert capfd.readouterr().err == warning
    busy.clear()
    save(checkpoints, 3)
    assert steps(checkpoints) == [3]


def test_a_run_that_was_renamed_gets_no_second_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoints = Checkpoints(run / "checkpoints")
    run.mkdir()
    save(checkpoints, 1)
    run.rename(tmp_path / "renamed")
    with pytest.raises(FileNotFoundError, match=str(run)):
        save(checkpoints, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["renamed"]


def test_no_whole_checkpoint_is_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        (save(checkpoints, step) / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"step-00000002/state\.json: damaged.*no checkpoint") as e:
        checkpoints.last(CPU)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "state",
    [
        [],
        "text",
        {},
        {"batch": 5},
        {**STATE, "batch": "5"},
        {**STATE, "batch": -1},
        {**STATE, "losses": [[]]},
        {**STATE, "local": [1, 2, 3]},
        {**STATE, "history": [{"epoch": 1}]},
        {**STATE, "optimizer": []},
        {**STATE, "seconds": {"seconds": "long"}},
    ],
)
@pytest.mark.parametrize("pickled", [False, True])
def test_a_state_of_other_types_is_damaged(state: Any, pickled: bool, tmp_path: Path) -> None:
    """Simulated: someone wrote the files and their digests, or an earlier version's state.pt."""
    path = save(Checkpoints(tmp_path), 1)
    if pickled:
        for name in ("state.json", "state.safetensors", DIGESTS):
            (path / name).unlink()
        torch.save(state, path / "state.pt")
    else:
        plain, tensors = pack(state)
        (path / "state.json").write_text(json.dumps(plain))
        write_tensors(path / "state.safetensors", tensors)
        with Folder(path) as folder:
            seal(folder)
    with pytest.raises(UserError, match="damaged"):
        Checkpoints(tmp_path).last(CPU)


def test_a_checkpoint_of_an_earlier_version_resumes_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(Checkpoints(tmp_path), 3)
    for name in ("state.json", "state.safetensors", DIGESTS):
        (path / name).unlink()
    torch.save({**STATE, "batch": 3}, path / "state.pt")
    found = Checkpoints(tmp_path).last(CPU)
    assert found is not None
    assert torch.equal(found[1]["optimizer"]["state"][0]["m"], torch.arange(3.0))
    assert capsys.readouterr().err == (
        f"warning: {path}: has no {DIGESTS}: damage to its weights cannot be seen\n"
    )


REPLACING = """
import os, sys
from pathlib import Path
from test_checkpoint import STATE, Checkpoints, save
checkpoints = Checkpoints(Path(sys.argv[1]), keep=1)
save(checkpoints, 1)
done, replace = 0, os.replace
def killed(old, new, **folders):
    global done
    if str(new).startswith("step-"):
        done += 1
        if done == int(sys.argv[2]):
            os._exit(9)
    replace(old, new, **folders)
os.replace = killed
checkpoints.save(1, {"w": STATE["local"]}, {**STATE, "batch": 8})
"""


@pytest.mark.parametrize(("rename", "batch"), [(1, 1), (2, 1), (3, 8)])
def test_a_kill_while_a_step_is_replaced_leaves_one_of_both(
    rename: int, batch: int, tmp_path: Path
) -> None:
    """Simulated: the process ends before the first, the second or no rename of two."""
    assert run_script(REPLACING, tmp_path, rename).returncode == (9 if rename < 3 else 0)
    checkpoints = Checkpoints(tmp_path, keep=1)
    found = checkpoints.last(CPU)
    assert found is not None
    assert found[1]["batch"] == batch
    save(checkpoints, 1)
    save(checkpoints, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def without_links(patch: pytest.MonkeyPatch) -> None:
    """Simulate a file system without symbolic links, such as exFAT."""

    def symlink(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    patch.setattr(os, "symlink", symlink)


def test_without_links_a_file_names_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, score in ((1, 0.5), (2, 0.4), (3, None)):
        save(checkpoints, step, score)
    assert (tmp_path / "best").read_text() == "step-00000001\n"
    assert steps(checkpoints) == [1, 3]
    save(checkpoints, 4, 0.9)
    assert (tmp_path / "best").read_text() == "step-00000004\n"
    assert steps(checkpoints) == [4]


def test_without_fsync_of_folders_checkpoints_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: fsync of a folder as on CIFS, FUSE and 9p."""
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    save(Checkpoints(tmp_path), 1, 0.5)
    assert Checkpoints(tmp_path).last(CPU) is not None


@pytest.mark.parametrize("place", ["checkpoints", "step-00000001", "best", "model.safetensors"])
def test_links_lead_nowhere(place: str, tmp_path: Path) -> None:
    """Simulated: the folder of a stranger, with a link to a folder or file of the user's."""
    outside = tmp_path / "outside"
    save(Checkpoints(outside), 1)
    before = contents(outside)
    root = tmp_path / "run" / "checkpoints"
    root.parent.mkdir()
    if place == "checkpoints":
        root.symlink_to(outside)
    else:
        path = save(Checkpoints(root), 1)
        if place == "step-00000001":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(outside / place)
        elif place == "best":
            (root / "best").symlink_to(outside / "step-00000001")
        else:
            (path / place).unlink()
            (path / place).symlink_to(outside / "step-00000001" / place)
    checkpoints = Checkpoints(root, keep=1)
    if place != "best":
        with pytest.raises(UserError, match="got a link, expected"):
            checkpoints.last(CPU)
    if place != "model.safetensors":
        with pytest.raises(UserError, match="got a link"):
            save(checkpoints, 2, 0.5)
    assert contents(outside) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


FULL = """
import resource, signal, sys
from pathlib import Path
from test_checkpoint import Checkpoints, STATE
import torch
from pipeline.runtime.launch import run_job
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {"w": torch.ones(1000)}, STATE, 0.5)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
big = {"w": torch.ones(50_000)}
sys.exit(run_job("part1", lambda: checkpoints.save(2, *{
    "model": (big, STATE),
    "state": ({"w": torch.ones(1)}, {**STATE, "network": big}),
}[sys.argv[3]], 0.6)))
"""


@pytest.mark.parametrize(("what", "file"), [("model", "model"), ("state", "state")])
def test_a_limit_on_file_sizes_is_one_line_and_leaves_the_checkpoint_before(
    what: str, file: str, tmp_path: Path
) -> None:
    """Real: `ulimit -f`, here 100 kB."""
    done = run_script(FULL, tmp_path, 100_000, what)
    assert done.returncode == 2, done.stderr
    pattern = rf"part1: .*/{file}\.safetensors: File too large \(writing 200,\d+ bytes\)\n"
    assert re.fullmatch(pattern, done.stderr), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-00000001"]
    assert Checkpoints(tmp_path).last(CPU) is not None


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
