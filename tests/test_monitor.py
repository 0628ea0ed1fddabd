"""The checks of losses, checkpoint requests and stop signals, with made-up processes and times."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from pipeline.runtime.signals import StopSignals
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import Processes
from pipeline.training.monitor import MAX_INTERVAL, SECONDS, StepMonitor


def alone(tensor: Tensor) -> Tensor:
    return tensor


def monitor(
    count: int = 2,
    mean: Callable[[Tensor], Tensor] = alone,
    checkpoints: Checkpoints | None = None,
    received: int = 0,
) -> StepMonitor:
    processes = SimpleNamespace(count=count, is_main=True, device=torch.device("cpu"), mean=mean)
    signals = StopSignals()
    signals.received = received
    made = StepMonitor(cast(Processes, processes), checkpoints, signals)
    made.start_epoch()
    return made


def checked_steps(made: StepMonitor, steps: int, seconds: float) -> list[int]:
    """Return the steps, each of which takes these seconds, after which there is a check."""
    now, found, losses = 0.0, [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: now)
        made.start_epoch()
        for step in range(1, steps + 1):
            now += seconds
            if report := made.add(torch.tensor(float(step)), step, step == steps):
                found.append(step)
                losses += report.losses
    assert losses == list(range(1, steps + 1))  # each is reported once
    return found


@pytest.mark.parametrize(
    ("seconds", "interval"), [(1e-3, MAX_INTERVAL), (SECONDS / 4, 4), (SECONDS, 1), (100, 1)]
)
def test_the_interval_depends_on_the_time_per_step(seconds: float, interval: int) -> None:
    steps = checked_steps(monitor(), 40, seconds)
    assert steps == sorted({1, *range(1, 41, interval), 40})


def test_one_process_on_a_cpu_checks_every_step() -> None:
    assert checked_steps(monitor(count=1), 9, 1e-3) == [*range(1, 10)]


def test_scheduled_checkpoints_are_checked_and_requested(tmp_path: Path) -> None:
    made = monitor(checkpoints=Checkpoints(tmp_path, every_steps=3, every_minutes=0))
    reports = {step: made.add(torch.ones(()), step, step == 6) for step in range(1, 7)}
    requested = {step: report.save_requested for step, report in reports.items() if report}
    assert requested == {1: False, 3: True, 6: False}  # the end of an epoch saves anyway


def test_a_late_checkpoint_is_requested_at_the_next_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = monitor(checkpoints=Checkpoints(tmp_path))
    assert made.add(torch.ones(()), 1, False)
    monkeypatch.setattr(Checkpoints, "late", lambda _: True)
    assert made.add(torch.ones(()), 2, False) is None
    monkeypatch.setattr(Checkpoints, "late", lambda _: False)
    reports = [made.add(torch.ones(()), step, False) for step in range(3, 40)]
    assert [report.save_requested for report in reports if report] == [True, False]


@pytest.mark.parametrize("received", [0, 15])
def test_a_signal_requests_a_checkpoint_and_a_stop(received: int) -> None:
    report = monitor(received=received).add(torch.ones(()), 1, False)
    assert report is not None
    assert (report.save_requested, report.stop_requested) == (received > 0, received > 0)


def test_a_signal_to_another_process_counts() -> None:
    def mean(values: Tensor) -> Tensor:
        other = values.clone()
        other[-3] = 15
        return (values + other) / 2

    report = monitor(mean=mean).add(torch.ones(()), 1, False)
    assert report is not None
    assert report == ([1.0], True, True)
