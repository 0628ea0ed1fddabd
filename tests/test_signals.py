"""Real signals: the first is recorded, later ones are ignored, but for a Ctrl-C after a second."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runtime import signals as module
from pipeline.runtime.signals import (
    REQUESTS,
    STOP_SIGNALS,
    Stopped,
    StopSignals,
    Terminated,
    raising_signals,
)

ROOT = Path(__file__).resolve().parents[1]
each = pytest.mark.parametrize("number", STOP_SIGNALS)
each_request = pytest.mark.parametrize("number", REQUESTS)


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
def test_the_first_is_recorded_and_others_at_once_are_ignored(
    number: int, received: list[int]
) -> None:
    with StopSignals() as signals:
        assert signals.received == 0
        for one in (number, *STOP_SIGNALS, number):
            send(one)
        assert (signals.received, received) == (number, [])


@each
def test_only_a_later_interrupt_ends_the_process(
    number: int, received: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPEAT", -1.0)  # a second has passed
    with StopSignals() as signals:
        send(number)
        for one in REQUESTS:
            send(one)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert (signals.received, received) == (number, [])


@each
def test_requests_stay_ignored_after_a_signal(
    number: int, received: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StopSignals():
        send(number)
    for one in STOP_SIGNALS:
        send(one)
    assert received == []
    monkeypatch.setattr(module, "REPEAT", -1.0)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


@each
def test_signals_outside_the_context_are_not_recorded(number: int, received: list[int]) -> None:
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


def test_nohup_is_respected(received: list[int]) -> None:
    for context in (StopSignals, raising_signals):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with context():
            send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert received == []


def test_other_threads_do_not_record_signals(received: list[int]) -> None:
    found = []

    def work() -> None:
        with StopSignals() as signals, raising_signals():
            send(signal.SIGTERM)
            found.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
    assert received == [signal.SIGTERM]


@each_request
def test_outside_a_training_a_request_cleans_up(number: int, received: list[int]) -> None:
    for one in REQUESTS:
        signal.signal(one, signal.SIG_DFL)
    cleaned = []

    def work() -> None:
        try:
            send(number)
        finally:
            send(signal.SIGTERM)  # ignored: it must not interrupt the cleaning
            cleaned.append(number)

    with pytest.raises(Terminated) as caught, raising_signals():
        work()
    assert (cleaned, caught.value.signal, received) == ([number], number, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_error_that_c_code_drops_is_raised_later(
    number: int, received: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    """As when numba compiles: the callback's error is dropped, and the code after it fails."""
    signal.signal(number, signal.SIG_DFL)

    def work() -> None:
        ctypes.CFUNCTYPE(None)(lambda: send(number))()
        raise RuntimeError("no compiled object yet")

    with pytest.raises((KeyboardInterrupt, Terminated)), raising_signals():
        work()
    assert received == []
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("received")
def test_a_second_interrupt_within_the_first_one_is_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal and a launcher both send it: the second arrives while the first is handled."""
    start = threading.Timer.start

    def interrupted(timer: threading.Timer) -> None:
        start(timer)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(threading.Timer, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), raising_signals():
        signal.raise_signal(signal.SIGINT)


def test_without_a_signal_all_is_as_before(received: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with raising_signals(), StopSignals():
        pass
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    assert received == []


HANGS = """
import os, signal, time
from pipeline.runtime import signals
signals.CLEANING = 0.2
with signals.raising_signals():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        time.sleep(60)
"""


def test_cleaning_has_an_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (143, "stopped by SIGTERM\n")


STARTS = """
import os, signal, sys
from pipeline.runtime import signals
signals.exit_on_interrupt(sys.argv[1])
print("imports", flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("not reached")
"""


@pytest.mark.parametrize(("name", "line"), [("__main__", "interrupted\n"), ("__mp_main__", "")])
def test_an_interrupt_of_imports_ends_the_process_in_a_line(name: str, line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS, name], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "imports\n", line)


def test_the_message_names_signal_and_step() -> None:
    stop = Stopped(signal.SIGINT, "step 7")
    assert (str(stop), stop.signal, stop.run) == ("stopped by SIGINT after step 7", 2, None)
    assert Stopped(0, "step 7").signal == signal.SIGTERM  # another process received it
    assert str(Terminated(signal.SIGHUP)) == "stopped by SIGHUP"
