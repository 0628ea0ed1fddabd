"""Signals as requests to stop after a checkpoint: from a scheduler, a launcher or a terminal."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

# From systemd, SLURM and launchers; from a closed terminal; from SLURM before the time limit.
REQUESTS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOP_SIGNALS = (*REQUESTS, signal.SIGINT)
REPEAT = 1.0  # seconds
MAIN = ("__main__", "__mp_main__")  # names of a command's module; the latter in its workers


class Terminated(BaseException):
    """One of `REQUESTS` outside a training, which ends the command after it has cleaned up."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


class Stopped(Exception):  # noqa: N818 - a requested stop is not an error
    """A training that stopped after a checkpoint, because of a `signal`.

    `after` is what was finished before, such as "step 7". `run` is the run directory to resume,
    once it is known.
    """

    def __init__(self, number: int, after: str, run: Path | None = None) -> None:
        self.signal = number or int(signal.SIGTERM)  # 0: another process received it
        self.run = run
        name = signal.Signals(self.signal).name
        super().__init__(f"stopped by {name} after {after}")


class StopSignals:
    """A context that records the first of `STOP_SIGNALS` in `received`, which is 0 before.

    From then on, the `REQUESTS` are ignored until the process ends, also after the context: a
    scheduler and a launcher both signal the processes of a job, while one of them saves. A Ctrl-C
    acts as usual, but only `REPEAT` seconds after the first signal: a terminal and a launcher
    repeat it. Without a signal, the handlers from before are restored.

    SIGHUP stays ignored under nohup. Outside the main thread, the context does nothing.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since = 0.0  # when the first signal came
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self.received = 0
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._receive)
                for number in STOP_SIGNALS
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
            }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            if not self.received:
                signal.signal(number, handler)
            elif number in REQUESTS:  # a handler in Python would end before the process does
                signal.signal(number, signal.SIG_IGN)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._since = number, now
        elif number == signal.SIGINT and now - self._since > REPEAT:
            signal.default_int_handler(number, frame)


def exit_on_interrupt(module: str) -> None:
    """Let Ctrl-C end this process at once, with a line by the command's own module `module`.

    It is for the seconds in which a command imports its libraries. KeyboardInterrupt would print a
    traceback, or abort the process where C++ code calls Python.
    """
    global _prints
    _prints = module == MAIN[0] and os.environ.get("RANK", "0") == "0"
    signal.signal(signal.SIGINT, _exit)


_prints = False


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    if _prints:
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


@contextmanager
def raising_signals() -> Iterator[None]:
    """Let stop signals raise KeyboardInterrupt or Terminated for the time of the context.

    What a command has begun is then cleaned up. SIGHUP stays ignored under nohup. Outside the main
    thread, the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    requests = [n for n in REQUESTS if signal.getsignal(n) is signal.SIG_DFL]
    for number in requests:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in requests:
            if signal.getsignal(number) is _terminate:  # not ignored after a signal
                signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    for one in REQUESTS:  # a second one must not interrupt the cleaning
        signal.signal(one, signal.SIG_IGN)
    raise Terminated(number)
