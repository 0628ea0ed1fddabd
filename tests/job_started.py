"""Jobs in processes of their own: how to start them, and what they leave; part 1 by default."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forked
import pytest

from jobs import part1

JOB = str(Path(__file__).resolve().parents[1] / "jobs" / "part1.py")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
TWO = [*LAUNCH, "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
QUICK = ["--epochs", "6", "--size", "16", "--batch-size", "8"]

UNTOLD = {k: v for k, v in os.environ.items() if k not in ("RANK", "OMP_NUM_THREADS")}
ENVIRONMENT = {**UNTOLD, "OMP_NUM_THREADS": "1"}  # so that tests can share the cores with others


def start(
    command: list[str], folder: Path, environment: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


def run_job(options: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the job to its end in a forked process, which need not import torch."""
    return forked.run([JOB, *options], folder, ENVIRONMENT)


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Return what a run's folder says of every epoch."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def folder_of_the_run(folder: Path) -> Path:
    """Return the folder of the only run that was begun here."""
    (run,) = (path for path in (folder / "runs" / "part1").iterdir() if path.name != "latest")
    return run


def refusal(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return the line with which the job, in this process, refuses options."""
    monkeypatch.setattr(sys, "argv", [JOB, *options])
    assert part1.main() == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err
