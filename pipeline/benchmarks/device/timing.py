"""Time and memory on a device, which computes while the host does other work."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Event(Protocol):
    """A point in the work of a device, such as `torch.cuda.Event`."""

    def record(self) -> None:
        """Put the event behind all work that was given to the device so far."""

    def synchronize(self) -> None:
        """Wait until the device has reached the event."""

    def elapsed_time(self, end: Any, /) -> float:
        """Return the milliseconds from this event to `end`."""


def cuda_event() -> Event:
    """Return an event of a GPU that measures time."""
    event: Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


class Timer:
    """Measures work on a device: by events on a GPU, by the host's clock on a CPU."""

    def __init__(self, device: torch.device, event: Callable[[], Event] = cuda_event) -> None:
        self._device, self._event = device, event

    def seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Return the mean time of `work`, after a warm-up, in seconds."""
        work()
        if self._device.type != "cuda":
            before = time.perf_counter()
            for _ in range(repeats):
                work()
            return (time.perf_counter() - before) / repeats
        start, end = self._event(), self._event()
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / repeats


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done its work; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Start to measure the peak memory of a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes of a GPU that tensors have used since the last reset; None of a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
