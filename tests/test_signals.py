"""SIGTERM and Ctrl-C, sent to a process: the first is recorded, the second acts."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runtime.signals import STOP_SIGNALS, Stopped, StopSignals

ROOT = Path(__file__).resolve().parents[1]
each = pytest.mark.parametrize("number", STOP_SIGNALS)


@pytest.fixture
def arrived() -> Iterator[list[int]]:
    """Signals that arrive at the previous handlers."""
    numbers: list[int] = []
    before = {n: signal.signal(n, lambda number, _: numbers.append(number)) for n in STOP_SIGNALS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@each
def test_the_first_is_recorded_and_the_second_acts_as_before(
    number: int, arrived: list[int]
) -> None:
    with StopSignals() as signals:
        assert signals.received == 0
        send(number)
        assert (signals.received, arrived) == (number, [])
        send(number)
        assert arrived == [number]
    assert signals.received == number


@each
def test_after_one_kind_the_other_acts_too(number: int, arrived: list[int]) -> None:
    (other,) = set(STOP_SIGNALS) - {number}
    with StopSignals() as signals:
        send(number)
        send(other)
    assert (signals.received, arrived) == (number, [other])


@each
def test_outside_nothing_is_recorded(number: int, arrived: list[int]) -> None:
    signals = StopSignals()
    with signals:
        pass
    send(number)
    assert (signals.received, arrived) == (0, [number])


def test_entering_again_starts_anew(arrived: list[int]) -> None:
    signals = StopSignals()
    for _ in range(2):
        with signals:
            assert signals.received == 0
            send(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
    assert arrived == []


@each
def test_an_exception_leaves_the_handlers_as_they_were(number: int, arrived: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    send(number)
    assert arrived == [number]


def test_in_another_thread_it_does_nothing(arrived: list[int]) -> None:
    found = []

    def work() -> None:
        with StopSignals() as signals:
            send(signal.SIGTERM)
            found.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
    assert arrived == [signal.SIGTERM]


SCRIPT = """
import os, signal, sys
from pipeline.runtime.signals import StopSignals
number = int(sys.argv[1])
with StopSignals() as signals:
    os.kill(os.getpid(), number)
    print("recorded", signals.received, flush=True)
    os.kill(os.getpid(), number)
    print("not reached")
"""


@each
def test_the_second_ends_a_process_as_without_the_context(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(int(number))],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"recorded {int(number)}\n"
    assert done.returncode == -number
    assert ("KeyboardInterrupt" in done.stderr) == (number == signal.SIGINT)


def test_the_message_names_signal_and_step() -> None:
    stop = Stopped(signal.SIGINT, 7)
    assert (str(stop), stop.signal, stop.run) == ("stopped by SIGINT after step 7", 2, None)
    assert Stopped(0, 7).signal == signal.SIGTERM  # another process received it
