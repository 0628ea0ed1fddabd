"""The memory that a real training step uses, measured in a child process."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from pipeline.inspection.summary import Subject
from pipeline.runtime.launch import use_cores
from pipeline.training import optim

STEPS = 2  # the optimizer's state is there from the second one on


def measure_step(subject: Subject) -> int | None:
    """Return the peak memory of a training step in bytes, None if the system killed the process.

    On a CPU, it is the process's peak resident memory above that before the network was built, so
    it includes what the libraries allocate for themselves. On a GPU, it is what torch allocated.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_take_steps, subject).result()
        except BrokenProcessPool:
            return None


def _take_steps(subject: Subject) -> int:
    use_cores()
    # Libraries load what they need when it is first used.
    stage = replace(subject.stage, frozen=0)
    _train(replace(subject, network="conv3-8p1", rows=2, stage=stage), steps=1)
    before = _reset_peak(subject.device)
    _train(subject, STEPS)
    return _peak(subject.device) - before


def _train(subject: Subject, steps: int) -> None:
    network = subject.build().to(subject.device).train()
    network.to(memory_format=torch.channels_last)
    optimizer = optim.build(network, subject.stage)
    batch = torch.rand(subject.rows, *subject.shape, device=subject.device)
    batch = batch.to(memory_format=torch.channels_last)
    for _ in range(steps):
        with subject.autocast():
            output = network(batch)
        if output.requires_grad:
            output.backward(torch.ones_like(output))
        optimizer.step()
        optimizer.zero_grad()


def _reset_peak(device: str) -> int:
    """Start to measure the peak; return the memory in use now, in bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    """Return a figure of this process's memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
