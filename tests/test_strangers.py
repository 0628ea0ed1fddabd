"""A run directory from a stranger: commands write nothing outside it and end in one line.

Real: the commands, in processes of their own, and links, pipes and sockets. Simulated: file systems
without links, and the stranger.
"""

import errno
import json
import math
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from rich.console import Console
from tiny import write_set

from pipeline.errors import UserError
from pipeline.evaluation.evaluate import load_model
from pipeline.evaluation.run_config import CheckpointSchedule, TrainingConfig
from pipeline.evaluation.run_dir import RunDir, latest_in, read_run
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.files import DIGESTS, read_tensors, seal, write_tensors
from pipeline.runtime.storage import Folder
from pipeline.training.distributed import join_processes
from pipeline.training.runner import run_training, write_config

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "evaluate": "evaluate.py RUN --source DATA",
    "predict": "tools/predict.py RUN DATA",
    "summary": "tools/summary.py RUN",
    "report": "report.py RUN --out pages",
    "resume": "classify.py --resume RUN",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run and its dataset."""
    folder = tmp_path_factory.mktemp("made")
    data = write_set(folder / "tiny.beton")
    recipe = Recipe((Stage(16, 2, 5e-3),), batch_size=8)
    planned = TrainingConfig("plain", recipe, checkpoints=CheckpointSchedule(every_steps=3))
    run = RunDir(folder / "run")
    with open_dataset(data) as file, join_processes("no") as processes:
        write_config(run, "classify", planned, file, {"precision": "no"})
        run_training(processes, run, planned, file, Console(quiet=True))
    return run.path, data


@pytest.fixture
def run(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "run", symlinks=True))


def start(name: str, run: Path, data: Path) -> tuple[int, str]:
    """Run a command; return its status and what it printed on stderr."""
    words = {"RUN": str(run), "DATA": str(data)}
    script, *options = (words.get(word, word) for word in COMMANDS[name].split())
    done = forked.run([ROOT / "jobs" / script, *options], run.parent)
    return done.returncode, done.stderr


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "name", [".metrics.jsonl", "report.html", "checkpoints", "checkpoints/best"]
)
def test_resume_writes_through_no_link(name: str, made: tuple[Path, Path], run: Path) -> None:
    mine = run.parent / "mine"
    (mine / "step-00000001").mkdir(parents=True)
    (mine / "step-00000001" / "thesis").write_text("mine")
    (run / "result.json").unlink()
    place = run / name
    place.parent.mkdir(exist_ok=True)
    target = mine if "." not in name else mine / "step-00000001" / "thesis"
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(target)
    before = contents(mine)
    status, err = start("resume", run, made[1])
    assert (status, err.count("\n")) == (2, 1), err
    assert f"{place}: got a link, expected a file" in err
    assert contents(mine) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_pipes_and_links_are_refused_by_every_command(
    command: str, made: tuple[Path, Path], run: Path
) -> None:
    for kind in ("pipe", "link"):
        place = run / "config.json"
        place.unlink()
        os.mkfifo(place) if kind == "pipe" else place.symlink_to(made[0] / "config.json")
        status, err = start(command, run, made[1])
        assert (status, err.count("\n")) == (2, 1), err
        assert f"{place}: got a {'special file' if kind == 'pipe' else 'link'}" in err


def test_a_socket_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "view.json").unlink()
    monkeypatch.chdir(run)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("view.json")
        with pytest.raises(UserError, match=r"view\.json: got a special file"):
            load_model(run)


def test_links_within_the_run_stay(made: tuple[Path, Path], run: Path) -> None:
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    assert start("evaluate", run, made[1])[0] == 0


@pytest.mark.parametrize(("value", "name"), [(math.nan, "stem"), (math.inf, "head")])
def test_weights_that_are_not_finite_are_refused(
    value: float, name: str, made: tuple[Path, Path], run: Path
) -> None:
    weights = read_tensors(run / "model.safetensors")
    changed = next(key for key in weights if key.startswith(name) and weights[key].dim() > 1)
    weights[changed].view(-1)[-1] = value
    write_tensors(run / "model.safetensors", weights)
    for command in ("evaluate", "predict"):
        status, err = start(command, run, made[1])
        assert (status, err.count("\n")) == (2, 1), err
        assert f"model.safetensors: got weights that are not finite, in {changed}" in err


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "view.json", "result.json", "framing.json"],
)
def test_a_flipped_bit_under_a_digest_is_one_line(
    name: str, made: tuple[Path, Path], run: Path
) -> None:
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    status, err = start("evaluate", run, made[1])
    assert (status, err) == (
        2,
        f"evaluate: {run / name}: damaged: its SHA-256 is not that in {DIGESTS}\n",
    )


def test_a_flipped_bit_in_a_checkpoint_resumes_from_the_one_before(
    made: tuple[Path, Path], run: Path
) -> None:
    """The resumed training ends with the weights of the undisturbed one."""
    for name in ("result.json", DIGESTS, "model.safetensors"):
        (run / name).unlink()
    last = sorted((run / "checkpoints").glob("step-*"))[-1] / "state.safetensors"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    status, err = start("resume", run, made[1])
    assert status == 0, err
    assert err.count("\n") == 1
    assert "resumes from step-00000006 instead" in err
    whole = read_tensors(made[0] / "model.safetensors")
    again = read_tensors(run / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


SHAPES: dict[tuple[Any, ...], list[Any]] = {
    ("config.json", "network"): [[], 5, None, "none", "../small"],
    ("config.json", "classes"): [5, "ab", [], [1, 2], ["a", "a"], ["\ud800", "b", "c", "d"]],
    ("config.json", "recipe"): [None, [], {}, 5, "fast"],
    ("config.json", "recipe", "views"): [1_000_000],
    ("config.json", "recipe", "stages"): [[], {}, [None], 5],
    ("config.json", "recipe", "stages", 0, "size"): [10**400],
    ("config.json", "data"): [5, None, []],
    ("view.json", "size"): [-1, 0, 1, 1e9, 10**30, "16", None],
    ("view.json", "canvas"): [[], [0, 0], [16], 16, [10**9, 10**9]],
    ("view.json", "channels"): [0, 2, 7, -1],
    ("view.json", "normalize"): [{"mean": [], "std": []}, 3],
    ("framing.json", "size"): [[0, 0, 0]],
    ("result.json",): [[], None, 5, "text", {}],
    ("losses.json",): [{}, None, [[]], ["x"], [math.nan]],
}


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path, values in SHAPES.items() for value in values]
)
def test_valid_json_of_other_shapes_is_one_line(
    path: tuple[Any, ...], value: Any, run: Path
) -> None:
    name, *place = path
    whole = json.loads((run / name).read_text())
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    if place:
        inner[place[-1]] = value
    (run / name).write_text(json.dumps(whole if place else value))
    with Folder(run) as folder:
        seal(folder)  # as who writes a run directory can
    with pytest.raises(UserError) as error:
        load_model(run) and read_run(run)
    assert "\n" not in str(error.value)
    str(error.value).encode()


LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_a_limit_on_file_sizes_is_one_line_and_the_run_resumes(
    made: tuple[Path, Path], run: Path
) -> None:
    """Real: a limit as by `ulimit -f`, below the size of the optimizer's state."""
    shutil.rmtree(run / "checkpoints")
    for name in ("result.json", DIGESTS, "model.safetensors"):
        (run / name).unlink()
    script = run.parent / "limited.py"
    script.write_text(LIMITED)
    job = ROOT / "jobs" / "classify.py"
    done = forked.run([script, "400000", job, "--resume", str(run)], run.parent)
    path = run / "checkpoints" / ".unfinished" / "state.safetensors"
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"classify: {path}: File too large (writing " in done.stderr
    assert list((run / "checkpoints").iterdir()) == []
    status, err = start("resume", run, made[1])
    assert (status, err) == (0, "")
    assert read_run(run).result.epochs == 2


def without_links(patch: pytest.MonkeyPatch) -> None:
    def symlink(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    patch.setattr(os, "symlink", symlink)


def test_without_links_a_file_names_the_latest_run(
    made: tuple[Path, Path], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    RunDir(run).link_latest()
    latest = run.parent / "latest"
    assert latest.read_text() == "run\n"
    for given in (latest, run.parent):
        assert latest_in(given) == run
        assert start("evaluate", given, made[1])[0] == 0
    RunDir.new(run.parent)
    RunDir(run).link_latest()


@pytest.mark.parametrize("target", ["/etc", "../other", "a/b", "..", ".", ".hidden", "a\nb", ""])
def test_the_latest_run_is_beside_its_link(target: str, tmp_path: Path) -> None:
    (tmp_path / "latest").write_text(f"{target}\n")
    with pytest.raises(UserError, match="expected one to a folder beside it"):
        latest_in(tmp_path)
    if target:
        (tmp_path / "latest").unlink()
        (tmp_path / "latest").symlink_to(target)
        with pytest.raises(UserError, match="expected one to a folder beside it"):
            latest_in(tmp_path)


def test_deep_and_huge_files_are_refused(run: Path) -> None:
    (run / DIGESTS).unlink()
    (run / "view.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"view\.json: damaged"):
        load_model(run)
    os.truncate(run / "view.json", 1 << 40)  # a hole, no bytes on the disk
    with pytest.raises(UserError, match=r"got a file of 1,099,511,627,776 bytes, expected at most"):
        load_model(run)


def test_changed_run_directories(tmp_path: Path) -> None:
    """A short run of the mutator; run it longer: python tests/mutator.py --cases 20000."""
    script = Path(__file__).with_name("mutator.py")
    done = forked.run([script, "--cases", "100", "--folder", str(tmp_path)], ROOT)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == 100
    assert sum(count for name, count in outcomes.items() if name.endswith("refused")) > 15
