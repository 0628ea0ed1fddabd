"""SIGTERM and Ctrl-C as requests to stop after a checkpoint."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEAT = 1.0


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
    """A context that records SIGTERM or SIGINT in `received`, which is 0 before.

    A second signal acts as usual. `launched` by a launcher, it does so only after `REPEAT` seconds:
    a terminal signals all processes, and the launcher passes the same signal on to them. Outside
    the main thread, the context does nothing.
    """

    def __init__(self, launched: bool = False) -> None:
        self.received, self._launched = 0, launched
        self._since = 0.0  # when the first signal came
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self.received = 0
        if threading.current_thread() is threading.main_thread():
            self._handlers = {n: signal.signal(n, self._receive) for n in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if not self.received:
            self.received, self._since = number, now
            if not self._launched:
                self._restore()
        elif now - self._since > REPEAT:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
