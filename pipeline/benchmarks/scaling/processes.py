"""Training on one and two processes with the same cores, through accelerate's launcher."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median

from pipeline.benchmarks.harness import take_turns
from pipeline.benchmarks.scaling.process_worker import SIZES, Outcome, Steps, Task
from pipeline.benchmarks.scaling.results import StepFigures
from pipeline.errors import UserError
from pipeline.runtime.files import read_as

MODULE = "pipeline.benchmarks.scaling.process_worker"
ROOT = Path(__file__).resolve().parents[3]
LAUNCHER = ROOT / "jobs" / "accelerate.yaml"
COUNTS = (1, 2)
ERROR = re.compile(r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w+Error: .+)$", re.MULTILINE)
LIMIT = 600  # seconds for the trainings of one turn


@dataclass(frozen=True)
class Plan:
    """Steps at each of several numbers of `rows` a process, on `cores` cores in all."""

    data: Path
    rows: tuple[int, ...]
    steps: int
    rounds: int
    cores: int


@dataclass(frozen=True)
class Measured:
    """Steps of one and two processes, and all-reduces: bytes, and median seconds of each."""

    figures: tuple[StepFigures, ...]
    reduced: tuple[tuple[int, float], ...]
    gradient_bytes: int


def command(count: int, task: Task) -> list[str]:
    """Return the command that starts `count` processes."""
    module = ["-m", MODULE, json.dumps(asdict(task))]
    if count == 1:
        return [sys.executable, *module]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCHER)]
    return [*launch, "--num_processes", str(count), "--main_process_port", "0", *module]


def environment() -> dict[str, str]:
    """Return an environment without GPUs, in which processes divide the cores themselves."""
    others = {n: value for n, value in os.environ.items() if n != "OMP_NUM_THREADS"}
    path = os.pathsep.join([str(ROOT), *filter(None, [others.get("PYTHONPATH")])])
    return {**others, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}


def launch(count: int, plan: Plan, folder: Path) -> Outcome:
    """Train on `count` processes. Raises UserError with the last line of their output."""
    out = folder / f"{count}.json"
    task = Task(str(plan.data), plan.rows, plan.steps, str(out))
    cores = sorted(os.sched_getaffinity(0))[: plan.cores]
    try:
        done = subprocess.run(
            command(count, task),
            env=environment(),
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"scaling: {count} processes took more than {LIMIT} s") from error
    if done.returncode:
        raise UserError(f"scaling: {count} processes failed: {reason_of(done.stderr)}")
    outcome = read_as(out, Outcome)
    out.unlink()
    return outcome


def reason_of(printed: str) -> str:
    """Return the first error that a process printed, else the last line."""
    errors = [match.group(1) for match in ERROR.finditer(printed)]
    return (errors or [printed.strip().rpartition("\n")[2] or "no reason given"])[0]


def measure(plan: Plan, folder: Path, report: Callable[[str], None]) -> Measured:
    """Train on one and on two processes in turns."""

    def turn(count: int) -> Outcome:
        report(f"training on {count} process{'es' * (count > 1)}")
        return launch(count, plan, folder)

    return combine(take_turns({count: partial(turn, count) for count in COUNTS}, plan.rounds))


def combine(turns: Mapping[int, Sequence[Outcome]]) -> Measured:
    """Return the figures of all rounds, by number of processes."""
    figures = []
    for count, outcomes in turns.items():
        for own in _by_rows(outcomes).values():
            rows, alone = own[0].rows, _by_rows(turns[1])
            figures.append(
                StepFigures(
                    count,
                    rows,
                    tuple(one.rate for one in own),
                    tuple(one.rate for one in alone.get(count * rows, ())),
                    tuple(one.rate for one in alone.get(rows, ())),
                    *(
                        mean(getattr(one, part) for one in own)
                        for part in ("compute", "all_reduce", "loader", "stalls")
                    ),
                )
            )
    two = turns[2]
    reduced = tuple(
        (size, median(dict(outcome.reduced)[size] for outcome in two)) for size in SIZES
    )
    return Measured(tuple(figures), reduced, two[0].gradient_bytes)


def _by_rows(outcomes: Sequence[Outcome]) -> dict[int, list[Steps]]:
    """Return the steps of all rounds by their number of rows."""
    found: dict[int, list[Steps]] = {}
    for outcome in outcomes:
        for steps in outcome.steps:
            found.setdefault(steps.rows, []).append(steps)
    return found
