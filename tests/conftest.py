"""Let the tests import their helpers (`reference`, …) from this folder; no test is a timing."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.runtime.signals import STOP_SIGNALS

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, each on a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("inkrun", deadline=None)
settings.load_profile("inkrun")


def pytest_collection_finish() -> None:
    """Exclude what is imported from garbage collections: accelerate starts them, of 0.3 s each."""
    gc.freeze()


@pytest.fixture(autouse=True)
def restored_signals() -> Iterator[None]:
    """Restore the handlers of signals, some of which stay ignored after a test's stop signal."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
