"""The sweep's job: what it rejects, runs, leaves and resumes. Most trainings only pretend."""

import json
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file
from tiny import write_set

from jobs import sweep
from pipeline.experiments import classify
from pipeline.runtime import children

ROOT = Path(__file__).resolve().parents[1]
JOB = str(ROOT / "jobs" / "sweep.py")
FAKE = Path(__file__).with_name("fake_job.py")
QUICK = ["--epochs", "2", "--size", "16", "--batch-size", "8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "tiny.beton", train=9, validation=5)


class Job:
    """The job in this process, in a folder of its own, with trainings that only pretend."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, data: Path) -> None:
        self.folder, self.patch, self.data = folder, patch, data
        self.script = FAKE
        patch.chdir(folder)
        patch.setattr(sweep, "script_of", lambda _job: self.script)

    def __call__(self, *words: str) -> int:
        self.patch.setattr(sys, "argv", [JOB, *words])
        return sweep.main()

    def part1(self, *words: str) -> int:
        return self("part1", "--data", str(self.data), *QUICK, *words)

    @property
    def run(self) -> Path:
        (run,) = (p for p in (self.folder / "runs" / "sweep").iterdir() if p.name != "latest")
        return run

    def started(self) -> dict[str, int]:
        """How often each training was started."""
        return {
            path.parent.name: len(path.read_text().splitlines())
            for path in sorted(self.run.glob("*/started"))
        }


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path) -> Job:
    return Job(tmp_path, monkeypatch, data)


def test_it_trains_every_setting_with_every_seed(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.part1("--over", "learning-rate=0.001,0.01", "--seeds", "2", "--seed", "5") == 0
    assert job.started() == {
        f"{number}_learning-rate-{rate}-{seed}": 1
        for number, rate in ((1, "0.001"), (2, "0.01"))
        for seed in (5, 6)
    }
    out = capsys.readouterr().out
    assert "sweep of part1: 4 trainings, 1 at a time" in out
    assert "learning-rate 0.01, seed 6: accuracy 90.60%, 10 s of training (4 of 4)" in out
    assert "Of 2 settings, learning-rate 0.01 has the highest validation accuracy, 90.55 %" in out

    assert (job.run.parent / "latest").readlink() == Path(job.run.name)
    assert "Sweep of part1: 2 settings" in (job.run / "report.html").read_text()
    result = json.loads((job.run / "result.json").read_text())
    best, other = result["ranking"]["settings"]
    assert best["setting"] == {"name": "learning-rate 0.01", "options": {"learning_rate": 0.01}}
    assert other["difference"]["comparison"]["difference"] == pytest.approx(0.09)
    config = json.loads((job.run / "2_learning-rate-0.01-6" / "config.json").read_text())
    assert config["job"] == "part1"
    assert (config["options"]["learning_rate"], config["options"]["seed"]) == (0.01, 6)
    assert (config["recipe"]["stages"][0]["learning_rate"], config["recipe"]["seed"]) == (0.01, 6)


def test_a_training_that_diverged_is_a_result(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.part1("--over", "learning-rate=0.01,1") == 0
    assert "learning-rate 1, seed 0: diverged: not finite (2 of 2)" in capsys.readouterr().out
    assert "1_learning-rate-0.01-0" in (job.run / "report.html").read_text()


def test_one_that_fails_stops_no_other_and_runs_again(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--over", "learning-rate=0.5,0.01", "--jobs", "1"]
    assert job.part1(*words) == 2
    out, err = capsys.readouterr()
    assert "learning-rate 0.5, seed 0: failed: part1: the disk is full" in out
    assert "learning-rate 0.01, seed 0: accuracy 90.00%" in out
    assert err == (
        "sweep: 1 of 2 trainings failed, the last one: learning-rate 0.5, seed 0: failed: part1: "
        "the disk is full; run them again: ./launch.sh sweep --resume "
        f"{job.run.relative_to(job.folder)}\n"
    )
    assert not (job.run / "result.json").exists()
    assert not (job.run.parent / "latest").exists()

    path = job.run / "1_learning-rate-0.5-0" / "config.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.5', '"learning_rate": 0.02'))
    assert job("--resume", str(job.run)) == 0
    assert job.started() == {"1_learning-rate-0.5-0": 2, "2_learning-rate-0.01-0": 1}
    assert "1 of 2 trainings are finished already" in capsys.readouterr().out

    assert job("--resume", "runs/sweep/latest") == 0  # reads everything, trains nothing
    assert sum(job.started().values()) == 3


def test_a_signal_stops_all_and_resume_finishes(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        while not list(job.folder.glob("runs/sweep/*/*/started")):
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert job.part1("--over", "learning-rate=0.25,0.01") == 128 + signal.SIGINT
    thread.join()
    out, err = capsys.readouterr()
    assert "learning-rate 0.25, seed 0: stopped" in out
    assert err == (
        "sweep: stopped by SIGINT after 0 of 2 trainings; resume: "
        f"./launch.sh sweep --resume {job.run.relative_to(job.folder)}\n"
    )
    (job.run / "go").touch()
    assert job("--resume", str(job.run), "--precision", "no") == 0
    assert job.started() == {"1_learning-rate-0.25-0": 2, "2_learning-rate-0.01-0": 1}
    assert "'--precision', 'no'" in (job.run / "2_learning-rate-0.01-0" / "started").read_text()


def run_sweep(folder: Path, words: Sequence[str]) -> None:
    """Run the job in this process, a forked one, with trainings that only pretend."""
    os.chdir(folder)
    sys.argv = [JOB, *words]
    sweep.script_of = lambda job: FAKE  # noqa: ARG005
    sys.exit(sweep.main())


def test_a_killed_sweep_is_resumed(job: Job) -> None:
    words = ["part1", "--data", str(job.data), *QUICK, "--over", "learning-rate=0.01,0.25"]
    process = forked.CONTEXT.Process(target=run_sweep, args=(job.folder, words))
    process.start()
    while not list(job.folder.glob("runs/sweep/*/2_*/started")):
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    (job.run / "go").touch()
    for _ in range(100):  # until the child that the parent left has stopped
        if job("--resume", str(job.run)) == 0:
            break
        time.sleep(0.1)
    assert (job.run / "result.json").exists()
    assert job.started()["1_learning-rate-0.01-0"] == 1


def run_training(command: Sequence[str], log: Path, cores: Sequence[int]) -> None:
    """Run a job's script in this process, a forked one, without plots, which take the time."""
    os.sched_setaffinity(0, cores)
    vars(classify).update(plot_batch=lambda *_: None, _conclude=lambda *_: None)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = [*command]
    runpy.run_path(command[0], run_name="__main__")


class Forked:
    """A training in a forked process, which need not import torch; it is used as a Popen is."""

    def __init__(self, child: children.Child, cores: Sequence[int]) -> None:
        arguments = ([*child.command], child.log.absolute(), [*cores])
        self.process = forked.CONTEXT.Process(target=run_training, args=arguments)
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> None:
        self.process.join()

    def kill(self) -> None:
        self.process.kill()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_side_by_side_killed_and_resumed_gives_what_one_by_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    started: list[Forked] = []

    def start(child: children.Child, cores: Sequence[int], *_: object) -> Forked:
        started.append(Forked(child, cores))
        return started[-1]

    def kill_first() -> None:
        while not any(
            path.read_text() for path in second.folder.glob("runs/*/*/1_*/metrics.jsonl")
        ):
            time.sleep(0.001)
        started[0].kill()

    monkeypatch.setattr(children, "_start", start)
    runs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        runs.append(Job(tmp_path / name, monkeypatch, data))
    first, second = runs
    words = ["--over", "learning-rate=0.001,0.01", "--epochs", "6"]
    monkeypatch.chdir(first.folder)
    first.script = second.script = ROOT / "jobs" / "part1.py"
    assert first.part1(*words) == 0

    monkeypatch.chdir(second.folder)
    started.clear()
    killer = threading.Thread(target=kill_first)
    killer.start()
    assert second.part1(*words, "--jobs", "2") == 2
    killer.join()
    assert second("--resume", str(second.run), "--jobs", "2") == 0
    output = next(second.run.glob("1_*/output.txt")).read_text()
    assert "training: resumes after step" in output

    for own in sorted(first.run.glob("*/model.safetensors")):
        weights = load_file(own)
        others = load_file(second.run / own.parent.name / own.name)
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    results = [json.loads((one.run / "result.json").read_text()) for one in runs]
    rows = [
        [
            outcome["accuracy"]
            for one in result["ranking"]["settings"]
            for outcome in one["outcomes"]
        ]
        for result in results
    ]
    assert rows[0] == rows[1]
    assert not (second.run / "latest").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name: got none, expected a job or a dataset as the first word"),
        (["--epochs", "1", "part1"], "name: got none, expected a job or a dataset"),
        (["part2"], "part2: got a job of several trainings"),
        (["nothing-here"], "data/nothing-here.beton is not there; make it: ./launch.sh prep"),
        (["part1", "--seeds", "0"], "seeds: got 0, expected at least 1"),
        (["part1", "--jobs", "999"], "jobs: got 999, expected 1 to"),
        (["part1", "--over", "rate=1"], "over: got 'rate', expected an option of the job"),
        (["part1", "--over", "learning-rate=1e-3,high"], "learning-rate: got high, expected"),
        (["part1", "--over", "learning-rate=find"], "learning-rate: got find, expected numbers"),
        (["part1", "--over", "epochs=1,-1"], "epochs -1: epochs: got -1"),
        (["part1", "--over", "optimizer=AdamW,Magic"], "optimizer Magic: optimizer: got 'Magic'"),
        (["part1", "--over", "network=auto,compact"], "network compact: is the same training as"),
        (["part1", "--published"], "published: expected ./launch.sh sweep emnist --published"),
        (["emnist", "--published"], "size: the published trainings have their own; with --pub"),
        (["part1", "--list", "nowhere.json"], "nowhere.json"),
        (["--resume", "runs"], "not a run directory: there is no such folder"),
        (["--resume", "runs", "--over", "epochs=1"], "resume: got other options too"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    words: list[str], message: str, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[:1] in (["part1"], ["emnist"]):
        words = [*words, "--data", str(job.data), "--size", "16", "--batch-size", "8"]
    assert job(*words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("sweep: ")
    assert err.count("\n") == 1
    assert list(job.folder.iterdir()) == []


def test_trainings_that_are_resumed_get_the_present_dataset(job: Job) -> None:
    assert job.part1("--over", "learning-rate=0.5") == 2  # the pretended training fails
    moved = job.data.rename(job.folder / "moved.beton")
    try:
        assert job("--resume", str(job.run), "--data", "moved.beton") == 2
    finally:
        moved.rename(job.data)
    (started,) = job.run.glob("*/started")
    first, second = started.read_text().splitlines()
    assert ("--data" in first, "'--data=moved.beton'" in second) == (False, True)


def test_a_resumed_sweep_has_its_own_options(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.part1("--over", "learning-rate=0.01") == 0
    assert job("--resume", str(job.run), "--size", "9") == 2
    assert "size: a resumed sweep has its own options" in capsys.readouterr().err
    training = next(job.run.glob("1_*"))
    assert job("--resume", str(training)) == 2
    assert "got a run directory of part1, expected sweep" in capsys.readouterr().err
