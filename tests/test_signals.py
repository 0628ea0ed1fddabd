"""Real SIGTERM and SIGINT: the first is noted, the second has its usual effect."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runtime import signals as module
from pipeline.runtime.signals import STOP_SIGNALS, Stopped, StopSignals

ROOT = Path(__file__).resolve().parents[1]
each = pytest.mark.parametrize("number", STOP_SIGNALS)


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that reach the handlers from before."""
    arrived: list[int] = []
    before = {n: signal.signal(n, lambda number, _: arrived.append(number)) for n in STOP_SIGNALS}
    yield arrived
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@each
def test_the_first_is_noted_and_the_second_has_its_usual_effect(
    number: int, received: list[int]
) -> None:
    with StopSignals() as signals:
        assert signals.received == 0
        send(number)
        assert (signals.received, received) == (number, [])
        send(number)
        assert received == [number]
    assert signals.received == number


@each
def test_a_signal_that_a_launcher_repeats_at_once_is_ignored(
    number: int, received: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StopSignals(launched=True) as signals:
        for repeat in (number, *STOP_SIGNALS):
            send(repeat)
        assert (signals.received, received) == (number, [])
        monkeypatch.setattr(module, "REPEAT", -1.0)
        send(number)
    assert received == [number]


@each
def test_a_second_signal_of_the_other_kind_has_its_usual_effect(
    number: int, received: list[int]
) -> None:
    (other,) = set(STOP_SIGNALS) - {number}
    with StopSignals() as signals:
        send(number)
        send(other)
    assert (signals.received, received) == (number, [other])


@each
def test_signals_outside_the_context_are_not_noted(number: int, received: list[int]) -> None:
    signals = StopSignals()
    with signals:
        pass
    send(number)
    assert (signals.received, received) == (0, [number])


def test_entering_again_forgets_the_signal(received: list[int]) -> None:
    signals = StopSignals()
    for _ in range(2):
        with signals:
            assert signals.received == 0
            send(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
    assert received == []


@each
def test_an_exception_restores_the_handlers(number: int, received: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    send(number)
    assert received == [number]


def test_other_threads_do_not_note_signals(received: list[int]) -> None:
    found = []

    def work() -> None:
        with StopSignals() as signals:
            send(signal.SIGTERM)
            found.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
    assert received == [signal.SIGTERM]


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
def test_the_second_kills_the_process(number: int) -> None:
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


def test_the_message_names_signal_and_step() -> None:
    stop = Stopped(signal.SIGINT, "step 7")
    assert (str(stop), stop.signal, stop.run) == ("stopped by SIGINT after step 7", 2, None)
    assert Stopped(0, "step 7").signal == signal.SIGTERM  # another process received it
