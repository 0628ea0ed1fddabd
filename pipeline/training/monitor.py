"""Checks on which all processes agree: losses, requests for a checkpoint, stop signals.

A check is one collective call, and makes the CPU wait for the GPU. Several steps therefore share a
check. Launchers kill processes about half a minute after a signal, which limits the time between
checks.
"""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.runtime.signals import StopSignals
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import Processes

MAX_INTERVAL = 16  # steps between two checks, at most
SECONDS = 4.0  # between two checks, about


class StepReport(NamedTuple):
    """What all processes know after a check.

    `losses` are those of the steps since the last check, each a mean over the processes.
    `save_requested` is also true if any process received a stop signal.
    """

    losses: list[float]
    save_requested: bool
    stop_requested: bool


class StepMonitor:
    """Losses and requests since the last check, and the decision after which step to check."""

    def __init__(
        self, processes: Processes, checkpoints: Checkpoints | None, signals: StopSignals
    ) -> None:
        self._processes, self._checkpoints, self._signals = processes, checkpoints, signals
        self._unchecked: list[Tensor] = []  # losses, on the device
        self._save_requested = False
        self._interval = 1  # steps until the next check

    def start_epoch(self) -> None:
        """Start to measure time per step, without the validation before."""
        self._last_check = time.perf_counter()

    def add(self, loss: Tensor, step: int, epoch_done: bool) -> StepReport | None:
        """Add the loss of a step; check if it is time. `step` counts the steps so far."""
        self._unchecked.append(loss)
        if not self._check_due(step, epoch_done):
            return None
        now = time.perf_counter()
        seconds_per_step = (now - self._last_check) / len(self._unchecked)
        flags = [self._signals.received, self._save_requested, seconds_per_step]
        values = torch.cat([torch.stack(self._unchecked), loss.new_tensor(flags)])
        *losses, stop, save, seconds_per_step = self._processes.mean(values).tolist()
        self._interval = max(1, min(MAX_INTERVAL, int(SECONDS / max(seconds_per_step, 1e-9))))
        self._last_check = now
        self._unchecked.clear()
        self._save_requested = False
        return StepReport(losses, bool(save or stop), bool(stop))

    def _check_due(self, step: int, epoch_done: bool) -> bool:
        """Return whether to check now: in all processes alike, because a check is collective."""
        scheduled = overdue = False
        if self._checkpoints is not None:
            scheduled = self._checkpoints.due(step)
            overdue = self._processes.is_main and self._checkpoints.late()
        # The end of an epoch saves anyway, with a score.
        self._save_requested = not epoch_done and (self._save_requested or scheduled or overdue)
        # A single process can check at any time; on a CPU, a check costs nothing.
        alone = self._processes.count == 1
        at_once = alone and (self._save_requested or self._processes.device.type == "cpu")
        return len(self._unchecked) >= self._interval or epoch_done or scheduled or at_once
