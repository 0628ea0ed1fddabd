import io
import re

import pytest
from rich.console import Console

from pipeline.runtime import progress


def shown(terminal: bool, steps: list[int]) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    with progress.progress(console, "part1", sum(steps)) as advance:
        for step in steps:
            advance(step)
    return file.getvalue()


def test_a_log_gets_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(False, [1, 2]) == ""  # done before the first line is due
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1e-9)
    lines = shown(False, [1000, 500]).splitlines()
    assert re.fullmatch(r"part1: 1,000 of 1,500, [\d,]+/s, 0 s left", lines[0])
    assert lines[1].startswith("part1: 1,500 of 1,500")


def test_a_terminal_gets_a_bar() -> None:
    bar = shown(True, [10, 20])
    assert "\x1b[" in bar
    assert "part1" in bar
    assert "30/30" in bar
