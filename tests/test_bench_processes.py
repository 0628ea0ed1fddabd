"""Worker processes as the benchmark sees them, and its tables of aims and notes."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pipeline.benchmarks.harness import busy_line
from pipeline.benchmarks.page import answer
from pipeline.benchmarks.results import Figures, Skipped, Throughput, WorkloadResult
from pipeline.benchmarks.tables import bar_rows, label, skipped_lines
from pipeline.benchmarks.throughput.processes import WorkerProcess
from pipeline.benchmarks.throughput.request import Request
from pipeline.errors import UserError


def start(folder: Path, module: str) -> WorkerProcess:
    request = Request(module, "none", "pages", str(folder), str(folder), 8, 4, 1)
    return WorkerProcess(Path(sys.executable), request, folder / "log", None)


def test_a_worker_that_fails_is_one_line(tmp_path: Path) -> None:
    with (
        start(tmp_path, "base") as worker,
        pytest.raises(UserError, match=r"^failed: AttributeError: .*no attribute 'METHODS'$"),
    ):
        worker.ask("start")
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_worker_that_is_killed_is_one_line(tmp_path: Path) -> None:
    with start(tmp_path, "base") as worker:
        (child,) = [pid for pid, _ in worker._session()]
        os.kill(child, signal.SIGKILL)
        with pytest.raises(UserError, match="killed by SIGKILL"):
            worker.ask("start")


def test_a_worker_ends_with_its_context_even_while_it_works(tmp_path: Path) -> None:
    worker = start(tmp_path, "base")
    (child,) = [pid for pid, _ in worker._session()]
    os.kill(child, signal.SIGSTOP)  # as if it were in the middle of an epoch
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt), worker:
        raise KeyboardInterrupt
    assert time.monotonic() - before < 5
    assert worker._session() == []


def figures(method: str, rate: float, peer: str = "ffcv", whole: bool = True) -> Figures:
    return Figures(peer, method, whole, (rate,), (1000.0,), 1, None, 1e-3, 1, 1, 0, 0.5, 0.1, 0.5)


def throughput(*found: Figures, load: float = 0) -> Throughput:
    workload = WorkloadResult("pages-224", "Pages", 10, found)
    return Throughput(1, 2, (load, 9), (workload,), (Skipped("spdl", "failed"),))


def test_aims_take_the_fastest_method_of_a_peer() -> None:
    result = throughput(
        figures("ink", 1000, "inkrun"),
        figures("FFCV, jpg", 2),
        figures("FFCV, raw", 4),
        figures("FFCV, raw, shrunk to 256", 500, whole=False),
    )
    assert list(bar_rows(result)) == [
        ["pages-224: × FFCV, raw", "150", "250", "met"],
        ["pages-224: × FFCV, raw, shrunk to 256", "6", "2.00", "not met"],
    ]
    assert answer(result) == "pages-224: 500 times as fast as FFCV, jpg"
    assert list(skipped_lines(result)) == ["spdl: skipped: failed"]


def test_notes_say_what_a_figure_is_not() -> None:
    assert label(figures("a", 1)) == "a (not cold: 50% stayed in the page cache)"
    assert "resized before" in label(figures("a", 1, whole=False))
    assert label(figures("a", 1, "inkrun")).startswith("inkrun, a")


def test_a_busy_machine_is_named() -> None:
    assert busy_line(0.9, 2) == ""
    assert "a load of 1.5 on 2 cores" in busy_line(1.5, 2)
