"""Commands as child processes, side by side: cores, signals, failures."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from pipeline.runtime.children import Child, divide_cores, run_children
from pipeline.runtime.hardware import gpu_environment

CORES = len(os.sched_getaffinity(0))
# Without site-packages, a Python starts in some milliseconds.
PARENT = """
import sys
from pathlib import Path
from pipeline.runtime.children import Child, run_children
folder = Path(sys.argv[1])
child = Child("a", [str(folder / "a.py"), str(folder)], folder / "a.txt")
print(run_children([child], 1, lambda child: None, lambda child, status: print(status)))
"""


def child(folder: Path, name: str, script: str) -> Child:
    path = folder / f"{name}.py"
    path.write_text(script)
    return Child(name, [str(path), str(folder)], folder / f"{name}.txt")


def run(children: Sequence[Child], at_once: int = 1) -> tuple[int, list[tuple[str, int]]]:
    """Return the signal that stopped the children, and the name and status of each in order."""
    ended: list[tuple[str, int]] = []
    number = run_children(
        children, at_once, lambda _: None, lambda one, status: ended.append((one.name, status))
    )
    return number, ended


def wait_for(path: Path) -> None:
    """Wait until a file exists and is not empty."""
    for _ in range(1000):
        if path.exists() and path.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def test_each_runs_once_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    children = [
        child(tmp_path, "good", "print('one')\nprint('two')\nprint()"),
        child(tmp_path, "bad", "import sys\nprint('why', file=sys.stderr)\nsys.exit(2)"),
        child(tmp_path, "killed", "import os\nos.kill(os.getpid(), 9)"),
        child(tmp_path, "last", ""),
    ]
    assert run(children) == (0, [("good", 0), ("bad", 2), ("killed", 137), ("last", 0)])
    assert [one.last_line() for one in children] == ["two", "why", "", ""]


@pytest.mark.skipif(CORES < 2, reason="needs two cores")
def test_two_run_side_by_side_on_cores_of_their_own(tmp_path: Path) -> None:
    # Each waits for the other, so they end only if they run at the same time.
    script = """
import os, sys, time
from pathlib import Path
folder, own = Path(sys.argv[1]), Path(__file__).stem
(folder / f"{own}.here").touch()
while len(list(folder.glob("*.here"))) < 2:
    time.sleep(0.01)
print(sorted(os.sched_getaffinity(0)))
"""
    children = [child(tmp_path, name, script) for name in "ab"]
    number, ended = run(children, 2)
    assert number == 0
    assert sorted(ended) == [("a", 0), ("b", 0)]
    assert [eval(one.last_line()) for one in children] == divide_cores(2)


def test_a_child_has_an_environment_of_its_own(tmp_path: Path) -> None:
    one = child(tmp_path, "a", "import os\nprint(os.environ['PLACE'], 'HOME' in os.environ)")
    environment = {"PLACE": "0"}
    run_children([one], 1, lambda _: None, lambda *_: None, environment=lambda _: environment)
    assert one.last_line() == f"0 {'HOME' in os.environ}"


def test_paths_of_a_child_start_at_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INKRUN_CALLER", "/elsewhere")
    one = child(tmp_path, "a", "import os\nprint('INKRUN_CALLER' in os.environ)")
    run_children([one], 1, lambda _: None, lambda *_: None)
    assert one.last_line() == "False"


def test_processes_share_several_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert gpu_environment(1) == {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    seen = [gpu_environment(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert seen == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert gpu_environment(1) == {"CUDA_VISIBLE_DEVICES": "7"}


def test_cores_are_divided_equally() -> None:
    groups = divide_cores(CORES)
    assert sorted(core for group in groups for core in group) == sorted(os.sched_getaffinity(0))
    assert len(divide_cores(1)[0]) == CORES
    for count in (0, CORES + 1):
        with pytest.raises(UserError, match=f"jobs: got {count}, expected 1 to {CORES}"):
            divide_cores(count)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_children_and_starts_no_others(
    number: signal.Signals, tmp_path: Path
) -> None:
    script = """
import signal, sys, time
def stop(*_):
    print("stops cleanly")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("waits", flush=True)
time.sleep(60)
"""
    children = [child(tmp_path, "a", script), child(tmp_path, "b", "print('never')")]

    def send() -> None:
        wait_for(tmp_path / "a.txt")
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert run(children) == (number, [("a", 143)])
    sender.join()
    assert children[0].last_line() == "stops cleanly"
    assert not children[1].log.exists()


def test_a_killed_parent_takes_its_children_along(tmp_path: Path) -> None:
    child(
        tmp_path,
        "a",
        "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment)
    wait_for(tmp_path / "a.txt")
    pid = int((tmp_path / "a.txt").read_text())
    parent.kill()
    parent.wait()
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # dead, though its new parent has not noticed
            return
        time.sleep(0.01)
    raise AssertionError("the child survived")
