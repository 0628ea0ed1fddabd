"""SIGTERM and Ctrl-C, really sent: the first is noted, the second acts."""

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
def heard() -> Iterator[list[int]]:
    """What arrives at handlers that were there before."""
    arrived: list[int] = []
    before = {n: signal.signal(n, lambda number, _: arrived.append(number)) for n in STOP_SIGNALS}
    yield arrived
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@each
def test_the_first_is_noted_and_the_second_acts_as_before(number: int, heard: list[int]) -> None:
    with StopSignals() as signals:
        assert signals.received == 0
        send(number)
        assert (signals.received, heard) == (number, [])
        send(number)
        assert heard == [number]
    assert signals.received == number


@each
def test_after_one_kind_the_other_acts_too(number: int, heard: list[int]) -> None:
    (other,) = set(STOP_SIGNALS) - {number}
    with StopSignals() as signals:
        send(number)
        send(other)
    assert (signals.received, heard) == (number, [other])


@each
def test_outside_nothing_is_noted(number: int, heard: list[int]) -> None:
    signals = StopSignals()
    with signals:
        pass
    send(number)
    assert (signals.received, heard) == (0, [number])


def test_entered_again_it_begins_anew(heard: list[int]) -> None:
    signals = StopSignals()
    for _ in range(2):
        with signals:
            assert signals.received == 0
            send(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
    assert heard == []


@each
def test_an_exception_leaves_the_handlers_as_they_were(number: int, heard: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    send(number)
    assert heard == [number]


def test_in_another_thread_it_does_nothing(heard: list[int]) -> None:
    found = []

    def work() -> None:
        with StopSignals() as signals:
            send(signal.SIGTERM)
            found.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
    assert heard == [signal.SIGTERM]


SCRIPT = """
import os, signal, sys
from pipeline.runtime.signals import StopSignals
number = int(sys.argv[1])
with StopSignals() as signals:
    os.kill(os.getpid(), number)
    print("noted", signals.received, flush=True)
    os.kill(os.getpid(), number)
    print("not reached")
"""


@each
def test_the_second_ends_a_process_as_if_nobody_had_listened(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(int(number))],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"noted {int(number)}\n"
    assert done.returncode == -number
    assert ("KeyboardInterrupt" in done.stderr) == (number == signal.SIGINT)


def test_what_stopped_it_in_words() -> None:
    stop = Stopped(signal.SIGINT, 7)
    assert (str(stop), stop.signal, stop.run) == ("stopped by SIGINT after step 7", 2, None)
    assert Stopped(0, 7).signal == signal.SIGTERM  # another process got it
