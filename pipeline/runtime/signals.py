"""SIGTERM and Ctrl-C as a wish to stop at the next good moment."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Training was told to stop by a `signal`, and has, after a checkpoint.

    `run` is the folder to go on with, once somebody knows.
    """

    def __init__(self, number: int, step: int, run: Path | None = None) -> None:
        self.signal = number or int(signal.SIGTERM)  # which another process got
        self.run = run
        name = signal.Signals(self.signal).name
        super().__init__(f"stopped by {name} after step {step}")


class StopSignals:
    """While entered, in a main thread, SIGTERM and SIGINT are noted in `received`, 0 until then.

    The second one acts as it would have without this.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self.received = 0
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
