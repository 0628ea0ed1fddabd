"""Signals as requests to stop after a checkpoint: from a scheduler, a launcher or a terminal."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType, TracebackType
from typing import Any, Self

REQUESTS = (
    signal.SIGTERM,  # from systemd, SLURM and launchers
    signal.SIGHUP,  # from a closed terminal
    *(signal.SIGUSR1, signal.SIGUSR2),  # from SLURM before the time limit
    signal.SIGXCPU,  # at the soft limit of CPU time
)
STOP_SIGNALS = (*REQUESTS, signal.SIGINT)
REPEAT = 1.0  # seconds
CLEANING = 15.0  # seconds
INTERRUPTED = "interrupted\n"
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


@contextmanager
def resumable(command: str, run: Path) -> Iterator[None]:
    """Add to the exceptions of stop signals how `command` resumes a run directory, as a note."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        stop.add_note(f"resume: ./launch.sh {command} --resume {run}")
        raise


def with_notes(line: str, stop: BaseException) -> str:
    """Return a line with the notes of an exception."""
    return "; ".join([line, *getattr(stop, "__notes__", ())])


class StopSignals:
    """A context that records the first of `STOP_SIGNALS` in `received`, which is 0 before.

    From then on, the `REQUESTS` are ignored until the process ends, also after the context: a
    scheduler and a launcher both signal the processes of a job, while one of them saves. A Ctrl-C
    acts as usual, but only `REPEAT` seconds after the first signal: a terminal and a launcher
    repeat it. In one of several processes it is ignored too: one that came at once is handled only
    after a collective call, however late. Without a signal, the handlers from before are restored.

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
        if number == signal.SIGHUP:
            _leave_closed_terminal()
        if not self.received:
            self.received, self._since = number, now
        elif number == signal.SIGINT and now - self._since > REPEAT and not _launched():
            signal.default_int_handler(number, frame)


def _launched() -> bool:
    """Return whether this is one of several processes of a launcher."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _leave_closed_terminal() -> None:
    """Drop what is printed from now on to a terminal that was closed: each write would fail."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            drop_output(descriptor)


def drop_output(descriptor: int) -> None:
    """Drop what is written to an open descriptor from now on."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def exit_on_interrupt(module: str) -> None:
    """Let Ctrl-C end this process at once, with a line by the command's own module `module`.

    It is for the seconds in which a command imports its libraries. KeyboardInterrupt would print a
    traceback, or abort the process where C++ code calls Python. In a worker of the command, it also
    leaves out the traceback of a start that fails because the command has ended.
    """
    if module == MAIN[0] and os.environ.get("RANK", "0") == "0":
        signal.signal(signal.SIGINT, _interrupt)
    else:
        signal.signal(signal.SIGINT, _interrupt_silently)
    if module != MAIN[0]:
        sys.excepthook = _report_unless_orphan


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    _exit(number, INTERRUPTED)


def _interrupt_silently(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    _exit(number)


def _exit(number: int, line: str = "") -> None:
    """End the process at once, as after a signal."""
    os.write(2, line.encode())
    os._exit(128 + number)


def _report_unless_orphan(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not isinstance(error, EOFError | OSError | UnpicklingError):  # the command's pipes are gone
        sys.__excepthook__(kind, error, trace)


@contextmanager
def raising_signals() -> Iterator[None]:
    """Let stop signals raise KeyboardInterrupt or Terminated for the time of the context.

    What a command has begun is then cleaned up, in at most `CLEANING` seconds: a pool of processes
    that was interrupted while it started may wait for ever. C code that calls Python may drop such
    an error and fail with another one later: the context then raises the first one. SIGHUP stays
    ignored under nohup. Outside the main thread, the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised: list[BaseException] = []

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if number == signal.SIGHUP:
            _leave_closed_terminal()
        for one in REQUESTS:  # a second one must not interrupt the cleaning
            signal.signal(one, signal.SIG_IGN)
        error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
        raised.append(error)
        if len(raised) == 1:  # a second Ctrl-C may interrupt this call
            limit.args = (number, f"{error}\n" if str(error) else INTERRUPTED)
            limit.start()
        raise error

    def report(dropped: "sys.UnraisableHookArgs") -> None:
        if dropped.exc_value not in raised:
            hook(dropped)

    limit = threading.Timer(CLEANING, _exit)
    limit.daemon = True
    usual = (signal.SIG_DFL, signal.default_int_handler, _interrupt, _interrupt_silently)
    handlers = {n: h for n in STOP_SIGNALS if (h := signal.getsignal(n)) in usual}
    for number in handlers:
        signal.signal(number, stop)
    hook, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    except Exception as error:
        if raised:
            raise raised[0] from error
        raise
    finally:
        limit.cancel()
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            if signal.getsignal(number) is stop:  # not ignored after a signal
                signal.signal(number, handler)
