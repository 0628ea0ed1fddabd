"""Commands as child processes, side by side, each on cores of its own.

A signal to this process stops all children: they run in sessions of their own, so that a terminal's
Ctrl-C reaches them once, through this process. Where it is killed, Linux stops its children.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.runtime.signals import STOP_SIGNALS, StopSignals

POLL = 0.05  # seconds between two checks of the children
KILLED = 128  # + the signal: the status of a shell for a killed process

# Runs a command on some cores; it gets SIGTERM when the process that started it ends.
WRAPPER = """
import ctypes, os, sys
parent, cores, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
os.sched_setaffinity(0, map(int, cores.split(",")))
ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() != parent:
    sys.exit(143)
os.execv(command[0], command)
"""


@dataclass(frozen=True)
class Child:
    """A command to run: a Python script with its arguments. `log` gets all that it prints."""

    name: str
    command: Sequence[str]
    log: Path

    def last_line(self) -> str:
        """Return the last line that the command printed, empty if there is none."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def reason(self, status: int) -> str:
        """Return why it ended with an exit status that is not 0."""
        if status - KILLED in STOP_SIGNALS:
            return "stopped"
        if status > KILLED:
            return f"killed by {signal.Signals(status - KILLED).name}"
        return f"failed: {self.last_line() or f'status {status}'}"


def divide_cores(count: int) -> list[list[int]]:
    """Divide the usable cores into `count` groups of equal size; remaining cores stay unused.

    Raises UserError for more groups than cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(cores):
        raise UserError(f"jobs: got {count}, expected 1 to {len(cores)}, the number of cores")
    size = len(cores) // count
    return [cores[size * number : size * (number + 1)] for number in range(count)]


def run_children(
    children: Sequence[Child],
    at_once: int,
    started: Callable[[Child], None],
    ended: Callable[[Child, int], None],
    keep_open: Sequence[int] = (),
    environment: Callable[[int], Mapping[str, str]] = lambda _: {},
) -> int:
    """Run all commands, `at_once` side by side. Return the signal that stopped them, or 0.

    `started` and `ended` are called for each child, the latter with its exit status, 128 + number
    if a signal killed it. A failed child does not stop the others. Children inherit the file
    descriptors `keep_open`; `environment` returns what the environment of the child in a place has
    in addition, from place 0 to `at_once` - 1. Raises UserError as `divide_cores` does.
    """
    groups = divide_cores(at_once)
    waiting, running = deque(children), dict[int, tuple[Child, subprocess.Popen[bytes]]]()
    stopping = False
    with StopSignals() as stop:
        try:
            while waiting or running:
                if stop.received and not stopping:
                    stopping = True
                    waiting.clear()
                    for _, process in running.values():
                        process.terminate()
                for number, cores in enumerate(groups):
                    if waiting and number not in running:
                        child = waiting.popleft()
                        started(child)
                        added = environment(number)
                        running[number] = child, _start(child, cores, keep_open, added)
                time.sleep(POLL)
                for number, (child, process) in list(running.items()):
                    if (status := process.poll()) is not None:
                        del running[number]
                        ended(child, status if status >= 0 else KILLED - status)
        finally:
            for _, process in running.values():
                process.kill()
                process.wait()
        return stop.received


def _start(
    child: Child, cores: Sequence[int], keep_open: Sequence[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    wrapper = [sys.executable, "-S", "-c", WRAPPER, str(os.getpid()), ",".join(map(str, cores))]
    # Relative paths of children start at this process's folder, not at the user's.
    inherited = {name: value for name, value in os.environ.items() if name != "INKRUN_CALLER"}
    with child.log.open("ab") as log:
        return subprocess.Popen(
            [*wrapper, sys.executable, *child.command],
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep_open,
        )
