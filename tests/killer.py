"""Kills trainings and resumes them until they end; compares them with one that was not disturbed.

    python tests/killer.py --kills 100 --processes 1 2

Each training gets signals at random moments: SIGKILL, SIGTERM, SIGHUP, SIGUSR1 and SIGINT, to all
its processes, or SIGKILL to one of them. Half of the moments lie inside a write: just before an
operation on a file of the run directory. Weights, predictions, losses and metrics must be equal to
the last bit, each ending must have the signal's status, and no output may have a traceback.
Exit status: 0 if all are equal, 1 if one differs; its folder then stays.
"""

import argparse
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forked
import torch
from tiny import write_set

from pipeline.runtime import signals

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "jobs" / "part1.py"
OPTIONS = ("--size", "16", "--batch-size", "8", "--checkpoint-steps", "2", "--precision", "no")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)
COMPARED = ("model.safetensors", "answers.safetensors", "losses.json", "scores.json")
WRITES = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod"),
    "shutil.rmtree",
}
KILL_AT = "INKRUN_TEST_KILL_AT"  # number of a write, and the signal before it
PATIENCE = 120.0  # seconds until a signalled training has ended


@dataclass(frozen=True)
class Kill:
    """A signal to all processes, or to the one in a place; before a write, or after `seconds`."""

    number: signal.Signals
    write: int | None
    seconds: float
    process: int | None = None

    def __str__(self) -> str:
        moment = f"{self.seconds:.1f} s" if self.write is None else f"write {self.write}"
        target = "" if self.process is None else f" to process {self.process}"
        return f"{self.number.name}{target} at {moment}"


@dataclass
class Ended:
    """How a training ended: the status of a shell, and what it printed."""

    status: int
    output: str


@dataclass
class Report:
    """Kills by signal, and what was wrong with the trainings that they hit."""

    kills: Counter[str] = field(default_factory=Counter)
    trainings: int = 0
    wrong: list[str] = field(default_factory=list)


def train(words: Sequence[str], folder: Path, processes: int, kill: Kill | None) -> Ended:
    """Run the job in a folder, and send it a signal."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if kill is not None and kill.write is not None:
        environment[KILL_AT] = f"{kill.write},{int(kill.number)}"
    output = folder / "output.txt"
    with output.open("w") as file:
        if processes > 1:
            launched = subprocess.Popen(
                [*launcher(processes), *words],
                cwd=folder,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            pid, wait = launched.pid, launched.wait
        else:
            forked_one = forked.CONTEXT.Process(target=job, args=(words, folder, environment))
            forked_one.start()
            assert forked_one.pid is not None
            pid = forked_one.pid

            def wait(timeout: float | None = None) -> int:
                forked_one.join(timeout)
                if forked_one.exitcode is None:
                    raise TimeoutError
                return forked_one.exitcode

        if kill is not None and kill.write is None:
            with suppress(subprocess.TimeoutExpired, TimeoutError):
                wait(timeout=kill.seconds)
            send(pid, kill)
        try:
            status = wait(timeout=PATIENCE)
        except (subprocess.TimeoutExpired, TimeoutError):
            send(pid, Kill(signal.SIGKILL, None, 0))
            wait()
            return Ended(-1, f"hangs after {kill}: {output.read_text()}")
    return Ended(status if status >= 0 else 128 - status, output.read_text())


def send(pid: int, kill: Kill) -> None:
    """Send the signal to a process and its children, or to one of the children."""
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        children = [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    chosen = [pid, *children] if kill.process is None else children[kill.process :][:1]
    for one in chosen:
        with suppress(ProcessLookupError):
            os.kill(one, kill.number)
    if kill.number == signal.SIGKILL:  # a launcher's children are not ours to wait for
        while any(alive(one) for one in chosen if one != pid):
            time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def launcher(processes: int) -> list[str]:
    """Return the command by which launch.sh starts several processes of this file's job."""
    found = re.search(r"\nlauncher='\n(.*?)\n'\n", (ROOT / "launch.sh").read_text(), re.DOTALL)
    assert found is not None
    options = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [sys.executable, "-c", found[1], *options, str(Path(__file__).resolve()), "job"]


def job(words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    """Run the job in this forked process."""
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signals.exit_on_interrupt("__main__")
    run_job(words)


def run_job(words: Sequence[str]) -> None:
    """Become the job; get a signal before the write that the environment names."""
    torch.set_num_threads(1)
    if (place := os.environ.get(KILL_AT)) and os.environ.get("RANK", "0") == "0":
        number, name = map(int, place.split(","))
        count = 0

        def before(event: str, arguments: Any) -> None:
            nonlocal count
            if event in WRITES and "/runs/" in f"/{arguments[0]}":
                count += 1
                if count == number:
                    os.kill(os.getpid(), name)

        sys.addaudithook(before)
    sys.argv = [str(JOB), *words]
    sys.path.insert(0, str(JOB.parent))
    runpy.run_path(str(JOB), run_name="__main__")


def run_of(folder: Path) -> Path | None:
    """Return the run directory of a training that has begun."""
    runs = [path for path in (folder / "runs" / "part1").glob("2*") if path.is_dir()]
    begun = [path for path in runs if (path / "config.json").exists()]
    return max(begun, default=None)


def results(folder: Path) -> dict[str, Any]:
    """Return what must be equal of a finished training."""
    run = run_of(folder)
    assert run is not None
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: v for name, v in line.items() if name != "seconds"} for line in lines]
    return {"metrics": metrics, **{name: (run / name).read_bytes() for name in COMPARED}}


def kill_one(
    data: Path, folder: Path, processes: int, epochs: int, most: int, chance: random.Random
) -> tuple[list[Kill], str]:
    """Train to the end with at most `most` kills; return these, and what was wrong."""
    kills: list[Kill] = []
    while True:
        run = run_of(folder)
        words = ["--data", str(data), "--epochs", str(epochs), *OPTIONS]
        if run is not None:
            words = ["--resume", str(run.relative_to(folder)), "--precision", "no"]
        kill = choose(processes, epochs, chance) if len(kills) < most else None
        ended = train(words, folder, processes, kill)
        if "Traceback" in ended.output or ended.status == -1:
            return kills, f"after {kill}: {ended.output}"
        if kill is not None and ended.status:  # it was not finished before
            kills.append(kill)
        allowed = {0} if kill is None else {0, 128 + kill.number}
        if kill is not None and (kill.process is not None or kill.write is not None):
            allowed |= {2, 128 + signal.SIGTERM} if processes > 1 else set()  # the others'
        if ended.status not in allowed:
            return kills, f"status {ended.status} after {kill}: {ended.output}"
        if ended.status == 0:
            return kills, ""


def choose(processes: int, epochs: int, chance: random.Random) -> Kill:
    """Choose a signal and its moment, about within the time of a training."""
    number = chance.choice(SIGNALS)
    write = chance.randrange(1, 20 * epochs) if chance.random() < 0.5 else None
    # The first moments are those of Python itself, which prints a traceback of its own.
    seconds = chance.uniform(0.3, (1 if processes == 1 else 10) + epochs / 5)
    one = processes > 1 and number == signal.SIGKILL and chance.random() < 0.5
    return Kill(number, write, seconds, chance.randrange(processes) if one else None)


def kill_many(
    folder: Path, kills: int, processes: Sequence[int], seed: int = 0, epochs: int = 20
) -> Report:
    """Kill trainings until there were at least `kills` kills with each number of processes."""
    data, report = write_set(folder / "tiny.beton", train=9, validation=5), Report()
    for count in processes:
        chance, done = random.Random(f"{seed} {count}"), 0
        place = folder / f"{count}-whole"
        place.mkdir()
        _, wrong = kill_one(data, place, count, epochs, 0, chance)
        assert not wrong, wrong
        whole = results(place)
        while done < kills:
            place = folder / f"{count}-{report.trainings}"
            place.mkdir()
            most = min(kills - done, chance.randrange(1, 5))
            made, wrong = kill_one(data, place, count, epochs, most, chance)
            done += len(made)
            report.trainings += 1
            report.kills.update(kill.number.name for kill in made)
            if not wrong:
                found = results(place)
                wrong = ", ".join(name for name in whole if whole[name] != found[name])
            killed = ", ".join(map(str, made))
            print(f"{count} processes: {killed}: {wrong or 'equal'}", flush=True)
            if wrong:
                report.wrong.append(f"{place}: {killed}: {wrong}")
            else:
                shutil.rmtree(place)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="with each number of processes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="killer-"))
    report = kill_many(folder, options.kills, options.processes, options.seed, options.epochs)
    names = ", ".join(f"{name} {count}" for name, count in sorted(report.kills.items()))
    print(f"{report.kills.total()} kills ({names}) of {report.trainings} trainings:", end=" ")
    print(f"{len(report.wrong)} differ" + (f"; see {folder}" if report.wrong else ""))
    if not report.wrong:
        shutil.rmtree(folder)
    return int(bool(report.wrong))


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        run_job(sys.argv[2:])
    else:
        sys.exit(main())
