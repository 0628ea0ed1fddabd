"""launch.sh: a copy of it runs against an environment that only pretends to install anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from raw_data import make_tree

ROOT = Path(__file__).resolve().parents[1]

# Stands in for a Python: writes down which module or empty job it is told to run and ends with the
# status in the file of that name; makes an environment of itself. All else is the real Python's.
PYTHON = r"""#!/usr/bin/env bash
here=$(dirname "${{BASH_SOURCE[0]}}")
[[ -s $1 ]] && exec {python} "$@"
case "$*" in
  "-m venv"*)
    mkdir -p "${{@: -1}}/bin" && cp "${{BASH_SOURCE[0]}}" "${{@: -1}}/bin/python" ;;
  *overlay.py\ *)
    mkdir -p "${{@: -1}}/bin" && cp "${{BASH_SOURCE[0]}}" "${{@: -1}}/bin/python" ;;
  "-m "*|jobs/*.py*)
    echo "$*" >>"$here/calls"
    nproc >"$here/cores"
    echo "${{INKRUN_CALLER:-}}" >"$here/caller"
    name=$(basename "${{1/-m/$2}}" .py)
    exit "$(cat "$here/$name.status" 2>/dev/null || echo 0)" ;;
  *) exec {python} "$@" ;;
esac
"""


def fake_python(path: Path, python: str = sys.executable) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(python=python))
    path.chmod(0o755)
    return path


class Checkout:
    """A checkout with launch.sh and jobs, and a pretended environment, active or its own."""

    def __init__(self, root: Path) -> None:
        self.root = root / "a check out"
        self.bin = fake_python(root / "environment" / "bin" / "python").parent
        for folder in ("bench", "tools"):
            (self.root / "jobs" / folder).mkdir(parents=True)
        for name in ("launch.sh", "pyproject.toml", "jobs/accelerate.yaml"):
            shutil.copy(ROOT / name, self.root / name)
        jobs = ("prep", "synth", "part1", "emnist", "classify", "sweep", "evaluate", "report")
        for job in (*jobs, "tools/app", "bench/all", "bench/train"):
            (self.root / "jobs" / f"{job}.py").touch()

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.root / "launch.sh"), *arguments],
            cwd=self.root,
            env={**os.environ, "VIRTUAL_ENV": str(self.bin.parent), **env},
            check=False,
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        """What was run since the last look."""
        log = self.bin / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def names(self) -> list[str]:
        """The modules and jobs that were run since the last look."""
        return [call.removeprefix("-m ").split()[0] for call in self.calls()]

    def fail(self, name: str, status: int) -> None:
        (self.bin / f"{name}.status").write_text(str(status))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    assert checkout("setup", "test").returncode == 0
    checkout.calls()
    return checkout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["help"], ["train"], ["train", "--help"]]
)
def test_help_needs_no_environment(checkout: Checkout, arguments: list[str]) -> None:
    run = checkout(*arguments, VIRTUAL_ENV="")
    assert run.returncode == 0
    assert "Usage: ./launch.sh" in run.stdout
    assert run.stderr == ""
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "unknown command 'trian'"),
        (["setup", "tests"], "setup: got 'tests', expected one of test, track, ffcv, bench, heic,"),
        (["train", "part9"], "data/part9.beton is not there; make it: ./launch.sh prep part9 --s"),
        (["train", "../part1"], "train: got '../part1', expected part1, part2, part3, emnist, fas"),
        (["train", "evaluate"], "data/evaluate.beton is not there"),
        (["train", "--seed", "1"], "train: got '--seed', expected part1"),
        (["train", "part1", "--processes", "0"], "--processes: expected a number, got 0"),
        (["train", "part1", "--processes"], "--processes needs a value"),
        (["train", "part1", "--cpus=two"], "--cpus: expected a number, got two"),
    ],
)
def test_a_wrong_command_says_so(checkout: Checkout, arguments: list[str], says: str) -> None:
    run = checkout(*arguments)
    assert run.returncode == 2
    assert says in run.stderr
    assert checkout.calls() == []


def test_set_up_installs_once(checkout: Checkout) -> None:
    assert checkout("setup").returncode == 0
    (install,) = checkout.calls()
    assert install.endswith(" -e .")
    assert checkout("setup").returncode == 0
    assert checkout.calls() == []

    assert checkout("setup", "test").returncode == 0
    (install,) = checkout.calls()
    assert install.endswith(" -e .[test]")
    assert checkout("setup", "test").returncode == 0
    assert checkout.calls() == []


def test_changed_dependencies_are_installed(ready: Checkout) -> None:
    with (ready.root / "pyproject.toml").open("a") as file:
        file.write("\n# another dependency\n")
    ready("prep")
    assert ready.names() == ["pip", "jobs/prep.py"]


def test_another_checkout_is_installed(ready: Checkout, tmp_path: Path) -> None:
    ready.root = ready.root.rename(tmp_path / "moved")
    assert ready("setup").returncode == 0
    assert len(ready.calls()) == 1


def test_a_failed_set_up_is_not_taken_for_done(checkout: Checkout) -> None:
    checkout.fail("pip", 1)
    for _ in range(2):
        run = checkout("prep")
        assert run.returncode == 1
        assert "installation failed" in run.stderr
        assert checkout.names() == ["pip"]
    checkout.fail("pip", 0)
    assert checkout("prep").returncode == 0


def test_the_original_package_is_built_with_what_is_there(ready: Checkout) -> None:
    assert ready("setup", "ffcv").returncode == 0
    first, second = ready.calls()
    assert "setuptools" in first
    assert second.endswith("--no-build-isolation -e .[ffcv]")


def test_the_whole_road(ready: Checkout) -> None:
    assert ready().returncode == 0
    assert ready.calls() == ["jobs/prep.py part1", "jobs/part1.py"]


def test_a_failed_preparation_no_training(ready: Checkout) -> None:
    ready.fail("prep", 2)
    assert ready().returncode == 2
    assert ready.calls() == ["jobs/prep.py part1"]


def test_without_data_it_draws_some(ready: Checkout) -> None:
    """And then trains, as the whole road does, here without the time that 40 writers take."""
    shutil.copy(ROOT / "jobs" / "prep.py", ready.root / "jobs")
    few = ("--writers", "1", "--auxiliary-writers", "1")
    run = ready("prep", "part1", *few, PYTHONPATH=str(ROOT))
    assert (run.returncode, run.stderr) == (0, "")
    assert "part1: embedded default" in run.stdout
    assert (ready.root / "data" / "part1.beton").exists()


def test_without_data_of_another_set_it_says_how_to_get_some(ready: Checkout) -> None:
    shutil.copy(ROOT / "jobs" / "prep.py", ready.root / "jobs")
    run = ready("prep", "emnist-letters", PYTHONPATH=str(ROOT))
    assert run.returncode == 2
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert "or give the path by ./launch.sh prep emnist-letters" in line
    assert "data/raw" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["prep", "--source", "a b.zip", "part1"], "jobs/prep.py --source a b.zip part1"),
        (["prep", "part1", "--synthetic"], "jobs/prep.py part1 --synthetic"),
        (["synth", "--out", "a b", "--seed", "1"], "jobs/synth.py --out a b --seed 1"),
        (["train", "part1", "--epochs", "3"], "jobs/part1.py --epochs 3"),
        (["train", "part1", "--processes=1", "--seed", "1"], "jobs/part1.py --seed 1"),
        (["train", "part1", "--help"], "jobs/part1.py --help"),
        (["train", "emnist", "--trial"], "jobs/emnist.py --trial"),
        (["train", "classify", "--data", "a b"], "jobs/classify.py --data a b"),
        (["train", "new", "--help"], "jobs/classify.py --data data/new.beton --help"),
        (
            ["train", "my_leaves-2.1", "--processes", "1", "--seed", "1"],
            "jobs/classify.py --data data/my_leaves-2.1.beton --seed 1",
        ),
        (["train", "gone", "--resume", "run"], "jobs/classify.py --resume run"),
        (
            ["train", "gone", "--resume=run", "--data", "new"],
            "jobs/classify.py --resume=run --data new",
        ),
        (["sweep", "leaves", "--over", "seed=0,1"], "jobs/sweep.py leaves --over seed=0,1"),
        (["evaluate", "runs/x", "--json"], "jobs/evaluate.py runs/x --json"),
        (["report", "runs/x"], "jobs/report.py runs/x"),
        (["bench"], "jobs/bench/all.py"),
        (["bench", "--rounds", "1"], "jobs/bench/all.py --rounds 1"),
        (["bench", "train", "--rounds", "1"], "jobs/bench/train.py --rounds 1"),
        (["test", "-k", "ink"], "-m pytest -k ink"),
    ],
)
def test_commands_reach_their_jobs(ready: Checkout, arguments: list[str], call: str) -> None:
    (ready.root / "data").mkdir()
    (ready.root / "data" / "my_leaves-2.1.beton").touch()
    assert ready(*arguments).returncode == 0
    assert ready.calls() == [call]


@pytest.mark.parametrize("extra", ["heic", "parquet"])
def test_optional_formats_can_be_installed(checkout: Checkout, extra: str) -> None:
    assert extra in checkout("--help").stdout
    assert checkout("setup", extra).returncode == 0
    assert checkout.calls()[-1].endswith(f" -e .[{extra}]")


def test_the_app_has_an_environment_laid_over_the_main_one(ready: Checkout) -> None:
    overlay = ready.bin.parent / "app"
    first, second = ready("app", "--port", "8000"), ready("app")
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")
    assert f"Installing inkrun[app] into {overlay} " in first.stderr
    install, *jobs = (overlay / "bin" / "calls").read_text().splitlines()
    assert install.endswith(" -e .[app]")
    assert jobs == ["jobs/tools/app.py --port 8000", "jobs/tools/app.py"]
    assert ready.calls() == []  # the main environment is as it was


def test_an_environment_of_another_python_is_laid_anew(ready: Checkout) -> None:
    overlay = ready.bin.parent / "app"
    assert ready("setup", "app").returncode == 0
    (overlay / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    assert ready("app").returncode == 0
    assert (overlay / "bin" / "calls").read_text().splitlines()[-1] == "jobs/tools/app.py"


@pytest.mark.parametrize("status", [1, 2, 130])
def test_a_job_s_status_is_passed_on(ready: Checkout, status: int) -> None:
    ready.fail("part1", status)
    assert ready("train", "part1").returncode == status


def test_checks_stop_at_the_first_that_fails(ready: Checkout) -> None:
    assert ready("test").returncode == 0
    assert ready.names() == ["ruff", "ruff", "mypy", "pytest"]
    ready.fail("mypy", 1)
    assert ready("test").returncode == 1
    assert ready.names() == ["ruff", "ruff", "mypy"]


def test_from_another_folder(ready: Checkout, tmp_path: Path) -> None:
    """Jobs run in the checkout and know the caller's folder; arguments pass unchanged."""
    link = tmp_path / "launch"
    link.symlink_to(ready.root / "launch.sh")
    environment = {**os.environ, "VIRTUAL_ENV": str(ready.bin.parent), "INKRUN_CALLER": "stale"}
    (ready.root / "data").mkdir()
    mine = ready.root / "data" / "mine.beton"
    mine.touch()
    for folder, caller, data in (
        (tmp_path, str(tmp_path), str(mine)),
        (ready.root, "", "data/mine.beton"),
    ):
        for arguments, call in (
            ([], "prep.py part1"),
            (["prep", "part1", "--source", "a.zip"], "prep.py part1 --source a.zip"),
            (["evaluate", "a run", "--source=b"], "evaluate.py a run --source=b"),
            (["train", "part1", "--runs", "kept"], "part1.py --runs kept"),
            (["train", "mine"], f"classify.py --data {data}"),
        ):
            run = subprocess.run([str(link), *arguments], cwd=folder, env=environment, check=False)
            assert run.returncode == 0
            assert ready.calls()[0] == f"jobs/{call}"
            if arguments:
                assert (ready.bin / "caller").read_text() == f"{caller}\n"


def test_makes_an_environment_of_its_own(checkout: Checkout, tmp_path: Path) -> None:
    python = str(fake_python(tmp_path / "python3"))
    checkout.bin = checkout.root / ".venv" / "bin"
    for _ in range(2):
        assert checkout("setup", VIRTUAL_ENV="", PYTHON=python).returncode == 0
    assert len(checkout.calls()) == 1

    # What a killed set-up or an upgraded system may leave is made anew.
    (checkout.bin / "python").unlink()
    assert checkout("prep", VIRTUAL_ENV="", PYTHON=python).returncode == 0
    assert checkout.names() == ["pip", "jobs/prep.py"]


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ("3.11", "no Python 3.11 or newer found"),
        ("ensurepip", "apt install python3-venv"),
    ],
)
def test_says_which_python_is_missing(
    checkout: Checkout, tmp_path: Path, lacks: str, says: str
) -> None:
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\ncase "$2" in *"{lacks.replace(".", ", ")}"*) exit 1; esac\n')
    python.chmod(0o755)
    run = checkout("setup", VIRTUAL_ENV="", PYTHON=str(python))
    assert run.returncode == 1
    assert says in run.stderr
    assert not (checkout.root / ".venv").exists()


def test_an_active_environment_too_old(checkout: Checkout) -> None:
    (checkout.bin / "python").write_text("#!/bin/sh\nexit 1\n")
    run = checkout("setup")
    assert run.returncode == 1
    assert "deactivate" in run.stderr


def test_cpus(ready: Checkout) -> None:
    assert ready("train", "part1", "--cpus", "1", "--epochs", "2").returncode == 0
    assert ready.calls() == ["jobs/part1.py --epochs 2"]
    assert (ready.bin / "cores").read_text() == "1\n"


TWO = """
import os, signal, sys
os.write(2, f"{sys.argv[1:]} {os.environ['WORLD_SIZE']}\\n".encode())
status = int(sys.argv[1])
if status >= 0:
    sys.exit(status)
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), -status)
signal.pause()
"""


def test_two_processes_end_with_the_job_s_status_and_words(ready: Checkout) -> None:
    (ready.root / "jobs" / "part1.py").write_text(TWO)
    users = make_tree(ready.root / "home", {"accelerate/default_config.yaml": b"{broken: [\n"})
    run = ready("train", "part1", "0", "--processes", "2", HF_HOME=str(users))
    assert (run.returncode, run.stderr) == (0, "['0'] 2\n" * 2)
    run = ready("train", "part1", "3", "--processes", "2")
    assert run.returncode == 3
    assert set(run.stderr.splitlines()) == {"['3'] 2"}
    run = ready("train", "part1", "-9", "--processes", "2")
    assert run.returncode == 128 + 9
    assert run.stderr.splitlines()[-1] == "launch.sh: process 1 was killed by SIGKILL"
